//! The service of one origin: readiness that means something, under tower's own layers (P29).

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2pool::{Body, Error, H2Pool, OriginPool};
use http::{Request, Response};
use http_body_util::Full;
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::limit::ConcurrencyLimit;
use tower::load::Load;
use tower::load_shed::{LoadShed, error::Overloaded};
use tower::{Service, ServiceExt};

use crate::support::server::Server;
use crate::support::within;
use crate::util::*;

type Outgoing = Request<Full<Bytes>>;

fn to(path: &str) -> Outgoing {
    Request::get(path).body(Full::default()).unwrap()
}

/// Waits until the service is ready, and calls it.
async fn call<S>(service: &mut S, request: Outgoing) -> Result<Response<Body>, S::Error>
where
    S: Service<Outgoing, Response = Response<Body>>,
    S::Error: std::fmt::Debug,
{
    let ready = within("readiness", service.ready()).await?;
    within("the response", ready.call(request)).await
}

/// Polls for readiness once, as a task of its own would.
fn readiness(service: &mut OriginPool) -> Poll<Result<(), Error>> {
    let mut polling = tokio_test::task::spawn(std::future::poll_fn(|cx| {
        Service::<Outgoing>::poll_ready(service, cx)
    }));
    polling.poll()
}

async fn body_of(response: Result<Response<Body>, impl std::fmt::Debug>) -> Bytes {
    read(response.unwrap()).await.unwrap().body
}

#[tokio::test]
async fn an_origin_forgotten_while_its_service_was_ready_is_made_anew() {
    // P29, P39: readiness does not keep it, and the call does not fail for it.
    let (server, other) = (Server::start().await, Server::start().await);
    let pool = tls().max_origins(1).build().unwrap();
    let mut service = pool.origin(origin(&format!("https://{}", server.addr())));
    let ready = within("readiness", service.ready()).await.unwrap();
    let response = within("the response", pool.request(get(other.uri("/bytes/1")))).await;
    assert_eq!(body_of(response).await.len(), 1);
    assert_eq!(pool.stats().sessions_closed.evicted, 1);
    let response = within("the response", ready.call(to("/bytes/3"))).await;
    assert_eq!(body_of(response).await.len(), 3);
    assert_eq!(server.counts().accepted, 2);
}

#[tokio::test]
async fn requests_go_to_its_origin() {
    // P29
    let server = Server::start().await;
    let pool = tls().build().unwrap();
    let key = origin(&format!("https://{}", server.addr()));
    let mut service = pool.origin(key.clone());
    assert_eq!(service.key(), &key);
    assert_eq!(body_of(call(&mut service, to("/bytes/3")).await).await.len(), 3);
    assert_eq!(
        body_of(call(&mut service, post(server.uri("/echo"), "x")).await).await,
        "x"
    );
    // Called without having been polled ready, it acquires in its future.
    assert_eq!(body_of(service.call(to("/")).await).await, "ok");
    assert_eq!(server.counts().accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn readiness_holds_a_slot() {
    // P29
    let builder = H2Pool::builder().max_sessions(1).streams_per_session(2);
    let (pool, server) = with_server(builder, Server::builder());
    let mut one = pool.origin(origin("https://a"));
    let mut two = one.clone();
    let mut three = one.clone();
    within("ready", one.ready()).await.unwrap();
    assert_eq!(
        (pool.stats().streams, one.load()),
        (1, 0),
        "held, and yet no load"
    );
    assert!(readiness(&mut two).is_ready());
    assert_eq!(pool.stats().streams, 2);
    let calls = [one.call(to("/gate")), two.call(to("/gate"))];
    let running = calls.map(|call| tokio::spawn(async { body_of(call.await).await }));
    server.gate("").until_waiting(2).await;
    assert!(readiness(&mut three).is_pending());
    assert_eq!(
        (one.load(), pool.stats().streams),
        (3, 2),
        "two streams and one who waits"
    );
    server.gate("").release(1);
    within("ready", ServiceExt::<Outgoing>::ready(&mut three))
        .await
        .unwrap();
    assert_eq!(pool.stats().streams, 2, "one of them is held");
    server.gate("").open();
    assert_eq!(body_of(three.call(to("/")).await).await, "ok");
    assert_eq!(join_all(running).await, ["ok", "ok"]);
    assert_eq!((pool.stats().streams, one.load()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_no_slot_and_a_service_that_goes_gives_its_own_back() {
    // P29
    let builder = H2Pool::builder().max_sessions(1).streams_per_session(1);
    let (pool, server) = with_server(builder, Server::builder());
    let mut holder = pool.origin(origin("https://a"));
    within("ready", ServiceExt::<Outgoing>::ready(&mut holder))
        .await
        .unwrap();
    let mut clone = holder.clone();
    assert_eq!((pool.stats().streams, pool.stats().waiters), (1, 0));
    // A slot that is held for nothing stands in nobody's way: who wants it gets it, and there is still only one.
    assert!(readiness(&mut clone).is_ready());
    assert_eq!((pool.stats().streams, pool.stats().waiters), (1, 0));
    drop(holder);
    assert_eq!(pool.stats().streams, 1);
    drop(clone);
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
    let running = fetch(&pool, get(uri("https://a/gate")));
    server.gate("").until_waiting(1).await;
    let mut waiting = pool.origin(origin("https://a"));
    assert!(readiness(&mut waiting).is_pending());
    assert_eq!(pool.stats().waiters, 1);
    drop(waiting);
    assert_eq!(pool.stats().waiters, 0);
    server.gate("").open();
    join(running).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slot_held_by_readiness_is_soft() {
    // P11, P29: who needs it now takes it; the holder acquires again in its call, ahead of newer callers.
    let builder = H2Pool::builder().max_sessions(1).streams_per_session(1);
    let (pool, server) = with_server(builder, Server::builder());
    let mut holder = pool.origin(origin("https://a"));
    within("ready", ServiceExt::<Outgoing>::ready(&mut holder))
        .await
        .unwrap();
    let now = tokio::spawn(pool.request(named(get(uri("https://a/gate")), 1)));
    server.gate("").until_waiting(1).await;
    let newer = fetch(&pool, named(get(uri("https://a/")), 2));
    settle().await;
    assert!(readiness(&mut holder).is_ready(), "what was promised stays so");
    let mut request = to("/");
    request.headers_mut().insert("x-id", 3.into());
    let again = tokio::spawn(holder.call(request));
    settle().await;
    assert_eq!((pool.stats().waiters, server.counts().requests), (2, 1));
    // A gate for both, so that the order shows.
    server.gate("").release(1);
    let first = join(now).await;
    drop(first);
    assert_eq!(body_of(join(again).await).await, "ok");
    join(newer).await.unwrap();
    assert_eq!(server.counts().requests, 3);
}

#[tokio::test(start_paused = true)]
async fn the_holder_whose_slot_was_taken_goes_ahead_of_newer_callers() {
    // P11, P29
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    pool.warm(&origin("https://a"), 1).unwrap();
    let mut peer = net.ready_peer(1).await;
    settle().await;
    let mut holder = pool.origin(origin("https://a"));
    within("ready", ServiceExt::<Outgoing>::ready(&mut holder))
        .await
        .unwrap();
    let first = fetch(&pool, get(uri("https://a/first")));
    settle().await;
    let newer = fetch(&pool, get(uri("https://a/newer")));
    settle().await;
    let again = tokio::spawn(holder.call(to("/again")));
    settle().await;
    let mut paths = Vec::new();
    for _ in 0..2 {
        paths.push(peer.answer_one(b"ok").await.unwrap());
    }
    assert_eq!(paths, ["/first", "/again"]);
    drop(join(again).await.unwrap());
    peer.answer_one(b"ok").await.unwrap();
    join(first).await.unwrap();
    join(newer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_the_slot_of_readiness_at_once() {
    // P1, P29: before its future is polled for the first time.
    let builder = H2Pool::builder().max_sessions(1).streams_per_session(1);
    let (pool, _server) = with_server(builder, Server::builder());
    let mut one = pool.origin(origin("https://a"));
    let mut two = one.clone();
    within("ready", ServiceExt::<Outgoing>::ready(&mut one))
        .await
        .unwrap();
    let call = one.call(to("/"));
    assert!(readiness(&mut two).is_pending());
    assert_eq!(body_of(call.await).await, "ok");
    assert!(readiness(&mut two).is_ready());
    let call = two.call(to("/"));
    assert!(readiness(&mut one).is_pending());
    drop(call);
    assert!(readiness(&mut one).is_ready());
}

#[tokio::test(start_paused = true)]
async fn readiness_does_not_keep_a_session_from_idling_out() {
    // P16, P29
    let (pool, server) = with_server(H2Pool::builder(), Server::builder());
    let mut holder = pool.origin(origin("https://a"));
    within("ready", ServiceExt::<Outgoing>::ready(&mut holder))
        .await
        .unwrap();
    pass(95.0).await;
    assert_eq!(
        (server.counts().open(), pool.stats().sessions_closed.idle),
        (0, 1)
    );
    assert!(readiness(&mut holder).is_ready());
    assert_eq!(body_of(call(&mut holder, to("/")).await).await, "ok");
    assert_eq!(server.counts().accepted, 2);
}

#[tokio::test(start_paused = true)]
async fn only_a_closed_handle_fails_readiness() {
    // P29: a failed dial, a timeout and a full queue are the call's to tell.
    let builder = H2Pool::builder()
        .max_sessions(1)
        .max_waiters(1)
        .acquire_timeout(Duration::from_secs(5));
    let (pool, mut net) = net(builder);
    let mut service = pool.origin(origin("https://a"));
    assert!(readiness(&mut service).is_pending());
    net.dial().await.refuse(Error::connect("nobody there"));
    settle().await;
    assert!(readiness(&mut service).is_ready());
    assert!(service.call(to("/")).await.unwrap_err().is_connect());

    let (ready, took) = timed(ServiceExt::<Outgoing>::ready(&mut service)).await;
    assert!(
        ready.is_ok() && took.as_secs() == 5,
        "the dial hangs, so does the wait: {took:?}"
    );
    assert!(service.call(to("/")).await.unwrap_err().is_timeout());

    let waiting = fetch(&pool, get(uri("https://a/")));
    settle().await;
    assert!(
        pool.request(get(uri("https://a/")))
            .await
            .unwrap_err()
            .is_saturated()
    );
    assert!(
        readiness(&mut service).is_pending(),
        "a full queue is a reason to wait"
    );
    waiting.abort();

    pool.close();
    let error = match readiness(&mut service) {
        Poll::Ready(Err(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(error.is_closed());
    assert!(service.call(to("/")).await.unwrap_err().is_closed());
}

#[tokio::test(start_paused = true)]
async fn load_shed_sheds_what_a_full_origin_cannot_take() {
    // P29
    let builder = H2Pool::builder().max_sessions(1).streams_per_session(2);
    let (pool, server) = with_server(builder, Server::builder());
    let mut service = pool.origin(origin("https://a"));
    body_of(call(&mut service, to("/")).await).await;
    let mut shedding = LoadShed::new(service);
    let mut running = Vec::new();
    for _ in 0..2 {
        let ready = ServiceExt::<Outgoing>::ready(&mut shedding).await.unwrap();
        running.push(tokio::spawn(ready.call(to("/gate"))));
        settle().await;
    }
    server.gate("").until_waiting(2).await;
    for _ in 0..5 {
        let error = call(&mut shedding, to("/")).await.unwrap_err();
        assert!(error.is::<Overloaded>(), "{error}");
    }
    server.gate("").open();
    for response in running {
        body_of(join(response).await).await;
    }
    assert_eq!(body_of(call(&mut shedding, to("/")).await).await, "ok");
    assert_eq!(server.counts().requests, 4);
}

#[tokio::test(start_paused = true)]
async fn a_buffer_outlives_failed_dials() {
    // P29
    let (pool, mut net) = net(H2Pool::builder());
    let mut buffer = Buffer::new(pool.origin(origin("https://a")), 16);
    for _ in 0..3 {
        let mut sender = buffer.clone();
        let request = tokio::spawn(async move { call(&mut sender, to("/")).await });
        net.dial().await.refuse(Error::connect("nobody there"));
        let error = join(request).await.unwrap_err();
        let ours = error
            .downcast_ref::<Error>()
            .expect("the pool's own error, not that of a dead buffer");
        assert!(ours.is_connect());
    }
    let request = tokio::spawn(async move { call(&mut buffer, to("/")).await });
    let mut peer = net.ready_peer(10).await;
    peer.answer_one(b"ok").await.unwrap();
    assert_eq!(body_of(join(request).await).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_is_kept() {
    // P29
    let (pool, server) = with_server(H2Pool::builder(), Server::builder());
    let service = ConcurrencyLimit::new(pool.origin(origin("https://a")), 3);
    let requests: Vec<_> = (0..9)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move { body_of(call(&mut service, to("/delay/10")).await).await })
        })
        .collect();
    for body in join_all(requests).await {
        assert_eq!(body, "ok");
    }
    // The layer's permit ends with the head.
    assert!(server.counts().max_active <= 3, "{:?}", server.counts());
}

#[tokio::test(start_paused = true)]
async fn balance_chooses_by_load_and_keeps_endpoints_that_fail() {
    // P29
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let server = Arc::new(Server::builder().h2_only().start_in_memory());
    let serving = server.clone();
    let dead = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let switch = dead.clone();
    tokio::spawn(async move {
        while let Some(dial) = net.next_dial().await {
            if dial.key().host() == "b" && switch.load(std::sync::atomic::Ordering::SeqCst) {
                dial.refuse(Error::connect("down for now"));
            } else {
                serving.attach(dial.accept(http::Version::HTTP_2));
            }
        }
    });
    let endpoints = ["https://a", "https://b"].map(|key| pool.origin(origin(key)));
    let mut balance = Balance::<_, Outgoing>::new(ServiceList::new::<Outgoing>(endpoints));
    let mut failures = 0;
    for _ in 0..20 {
        match call(&mut balance, to("/")).await {
            Ok(response) => drop(read(response).await.unwrap()),
            Err(error) => {
                failures += 1;
                assert!(
                    error.downcast_ref::<Error>().is_some_and(Error::is_connect),
                    "{error}"
                );
            }
        }
    }
    assert!(failures > 0, "one of them was down, and was asked");
    dead.store(false, std::sync::atomic::Ordering::SeqCst);
    pass(5.0).await;
    let mut running = Vec::new();
    let mut tries = 0;
    while server.gate("").waiting() < 10 {
        tries += 1;
        assert!(tries < 100);
        let ready = within("readiness", balance.ready()).await.unwrap();
        running.push(tokio::spawn(ready.call(to("/gate"))));
        settle().await;
    }
    let streams: Vec<_> = pool.sessions().iter().map(|session| session.streams).collect();
    assert_eq!(streams.len(), 2, "the endpoint that failed is back");
    assert!(
        streams.iter().all(|streams| *streams >= 3),
        "by load: {streams:?}"
    );
    server.gate("").open();
    for response in running {
        drop(join(response).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_held_slot_waits_for_its_permit() {
    // P13, P15, P29: readiness takes no permit, which others may need meanwhile; whoever was ready is let in.
    let builder = H2Pool::builder().limit_concurrency(1).max_waiters(1);
    let (pool, server) = with_server(builder, Server::builder());
    let mut holder = pool.origin(origin("https://a"));
    within("ready", holder.ready()).await.unwrap();
    let running = fetch(&pool, get(uri("https://a/gate")));
    server.gate("").until_waiting(1).await;
    let waiting = fetch(&pool, get(uri("https://a/")));
    settle().await;
    let full = pool.request(get(uri("https://a/"))).await.unwrap_err();
    assert!(full.is_saturated(), "{full:?}");
    let call = tokio::spawn(holder.call(to("/")));
    settle().await;
    assert_eq!((pool.stats().waiters, server.counts().requests), (2, 1));
    server.gate("").open();
    join(running).await.unwrap();
    join(waiting).await.unwrap();
    assert_eq!(body_of(join(call).await).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn what_no_slot_can_be_had_for_is_the_calls_to_tell() {
    // P29, P39: no origin more fits into the pool.
    let (pool, server) = with_server(H2Pool::builder().max_origins(1), Server::builder());
    let running = fetch(&pool, get(uri("https://a/gate")));
    server.gate("").until_waiting(1).await;
    let mut service = pool.origin(origin("https://b"));
    assert!(matches!(readiness(&mut service), Poll::Ready(Ok(()))));
    assert!(service.call(to("/")).await.unwrap_err().is_saturated());
    server.gate("").open();
    join(running).await.unwrap();
    assert_eq!(body_of(call(&mut service, to("/")).await).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_nobody_polled_for_long_is_no_timeout() {
    // P13, P29: its limit passed twice while nobody waited. It runs anew, and the place in the queue stays.
    let builder = H2Pool::builder().max_sessions(1).streams_per_session(1);
    let (pool, server) = with_server(builder, Server::builder());
    let running = fetch(&pool, get(uri("https://a/gate")));
    server.gate("").until_waiting(1).await;
    let mut service = pool.origin(origin("https://a"));
    for _ in 0..2 {
        assert!(readiness(&mut service).is_pending());
        pass(70.0).await;
    }
    let (_, took) = timed(ServiceExt::<Outgoing>::ready(&mut service)).await;
    assert_eq!(took.as_secs(), 30);
    assert!(service.call(to("/")).await.unwrap_err().is_timeout());

    assert!(readiness(&mut service).is_pending());
    pass(59.0).await;
    assert!(readiness(&mut service).is_ready(), "soon enough to be told");
    assert!(service.call(to("/")).await.unwrap_err().is_timeout());

    assert!(readiness(&mut service).is_pending());
    pass(70.0).await;
    let newer = fetch(&pool, get(uri("https://a/")));
    settle().await;
    assert!(readiness(&mut service).is_pending());
    server.gate("").open();
    join(running).await.unwrap();
    assert_eq!(body_of(call(&mut service, to("/")).await).await, "ok");
    join(newer).await.unwrap();
}
