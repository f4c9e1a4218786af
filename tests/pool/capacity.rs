//! How many sessions and streams there are, and which session takes a request (P1, P2, P5–P8).

use std::time::Duration;

use h2pool::{Balance, ConnectionInfo, H2Pool};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};

use crate::support::peer::code;
use crate::support::server::Server;
use crate::util::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_runs_what_its_sessions_allow_and_queues_the_rest() {
    // P2, P3, P5, P11
    let server = Server::builder().h2_max_streams(3).start().await;
    let pool = tls().max_sessions(2).build().unwrap();
    // The first learns the limit, so that nobody is refused for having come before SETTINGS.
    assert_eq!(join(fetch(&pool, get(server.uri("/")))).await.unwrap().body, "ok");
    let requests = fetch_many(&pool, &server.uri("/gate"), 20);
    server.gate("").until_waiting(6).await;
    eventually("14 callers wait", || pool.stats().waiters == 14).await;
    assert_eq!(pool.stats().streams, 6);
    for _ in 0..20 {
        server.gate("").release(1);
    }
    for read in join_all(requests).await {
        assert_eq!(read.unwrap().body, "ok");
    }
    let counts = server.counts();
    assert_eq!((counts.connections.len(), counts.max_active), (2, 6));
    assert_eq!(counts.max_streams(), 3);
    assert_eq!(pool.stats().streams, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_after_the_other_needs_one_connection() {
    // P5, P7
    let server = Server::start().await;
    let pool = tls().build().unwrap();
    for _ in 0..50 {
        let answer = join(fetch(&pool, get(server.uri("/")))).await.unwrap();
        assert_eq!(answer.body, "ok");
    }
    assert_eq!(server.counts().accepted, 1);
    assert_eq!(pool.stats().sessions_opened, 1);
}

#[tokio::test]
async fn a_slot_is_taken_until_the_response_has_been_read_or_dropped() {
    // P2
    let server = Server::start().await;
    let pool = tls().max_sessions(1).streams_per_session(1).build().unwrap();
    for dropped in [false, true] {
        let response = pool.request(get(server.uri("/sse/2?gate=sse"))).await.unwrap();
        let next = fetch(&pool, get(server.uri("/")));
        eventually("the next one waits", || pool.stats().waiters == 1).await;
        assert_eq!(pool.stats().streams, 1, "its headers are here, its body is not");
        if dropped {
            drop(response);
        } else {
            server.gate("sse").release(2);
            assert_eq!(read(response).await.unwrap().body, "data: 0\n\ndata: 1\n\n");
        }
        assert_eq!(join(next).await.unwrap().body, "ok");
    }
    assert_eq!(server.counts().accepted, 1);
}

#[tokio::test]
async fn a_response_without_a_body_frees_its_slot_with_its_headers() {
    // P2, P31
    let server = Server::start().await;
    let pool = tls().max_sessions(1).streams_per_session(1).build().unwrap();
    let head = Request::builder()
        .method(Method::HEAD)
        .uri(server.uri("/status/200"));
    let mut held = vec![
        pool.request(head.body(Empty::<bytes::Bytes>::new()).unwrap())
            .await
            .unwrap(),
    ];
    for path in ["/status/204", "/status/304", "/status/200"] {
        held.push(
            crate::support::within(path, pool.request(get(server.uri(path))))
                .await
                .unwrap(),
        );
    }
    assert_eq!(pool.stats().streams, 0, "all four are held, none has a slot");
    for response in held {
        assert!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_lease_opens_one_stream_or_gives_its_slot_back() {
    // P1, P2, P45
    let server = Server::start().await;
    let pool = tls().max_sessions(1).streams_per_session(1).build().unwrap();
    let key = origin(&format!("https://{}", server.addr()));
    let unused = pool.acquire(&key).await.unwrap();
    assert_eq!(pool.stats().streams, 1);
    let waiting = fetch(&pool, get(server.uri("/")));
    eventually("a request waits", || pool.stats().waiters == 1).await;
    drop(unused);
    assert_eq!(join(waiting).await.unwrap().body, "ok");

    let lease = pool.acquire(&key).await.unwrap();
    let relative = Request::get("/bytes/7")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    assert_eq!(
        read(lease.send(relative).await.unwrap())
            .await
            .unwrap()
            .body
            .len(),
        7
    );
    assert_eq!((pool.stats().streams, server.counts().requests), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn the_policy_spreads_or_packs() {
    // P6
    for (balance, expected) in [(Balance::LeastLoaded, [3, 3]), (Balance::Pack, [6, 0])] {
        let builder = H2Pool::builder().max_sessions(2).balance(balance);
        let (pool, server) = with_server(builder, Server::builder());
        pool.warm(&origin("https://a"), 2).unwrap();
        settle().await;
        let requests = fetch_many(&pool, &uri("https://a/gate"), 6);
        server.gate("").until_waiting(6).await;
        let mut streams: Vec<_> = pool.sessions().iter().map(|session| session.streams).collect();
        streams.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(streams, expected, "{balance:?}");
        server.gate("").open();
        for read in join_all(requests).await {
            read.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slots_are_granted_synchronously() {
    // P1: two callers polled once, one after the other, never both see an empty session.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(2));
    pool.warm(&origin("https://a"), 2).unwrap();
    let (mut one, mut two) = (net.ready_peer(1).await, net.ready_peer(1).await);
    settle().await;
    let mut first = tokio_test::task::spawn(pool.request(get(uri("https://a/1"))));
    let mut second = tokio_test::task::spawn(pool.request(get(uri("https://a/2"))));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    assert_eq!((pool.stats().streams, pool.stats().waiters), (2, 0));
    let (a, b) = (one.next_headers().await, two.next_headers().await);
    assert_ne!(a.path(), b.path());
    one.respond(a.stream, 200, b"x").await;
    two.respond(b.stream, 200, b"x").await;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    let session = |response: &http::Response<h2pool::Body>| {
        response.extensions().get::<ConnectionInfo>().unwrap().session()
    };
    assert_ne!(session(&first), session(&second));
}

#[tokio::test(start_paused = true)]
async fn the_first_dial_goes_alone_and_the_next_ones_by_what_it_taught() {
    // P5, P7: 1,000 callers at an unknown origin.
    for (limit, more) in [(100, 3), (400, 2), (1000, 0)] {
        let (pool, mut net) = net(H2Pool::builder().streams_per_session(10_000));
        let requests = fetch_many(&pool, &uri("https://a/"), 1000);
        let mut first = net.peer().await;
        assert_eq!(
            net.dials().await.len(),
            0,
            "one until it is known what the origin speaks"
        );
        first.handshake(&streams(limit)).await;
        let dials = net.dials().await;
        assert_eq!(dials.len(), more, "{limit} streams per session");
        assert_eq!(pool.stats().sessions_dialing, more);
        for dial in dials {
            let mut peer = crate::support::peer::Peer::new(dial.accept(http::Version::HTTP_2));
            tokio::spawn(async move {
                peer.handshake(&streams(limit)).await;
                peer.serve(b"ok").await
            });
        }
        tokio::spawn(async move { first.serve(b"ok").await });
        for read in join_all(requests).await {
            assert_eq!(read.unwrap().body, "ok");
        }
        assert_eq!(pool.stats().sessions_opened, 1 + more as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn dials_follow_the_demand_that_is_left() {
    // P7: what the callers who left no longer need is not dialed for.
    let (pool, mut net) = net(H2Pool::builder());
    let requests = fetch_many(&pool, &uri("https://a/"), 1000);
    let mut first = net.peer().await;
    settle().await;
    for request in &requests[150..] {
        request.abort();
    }
    settle().await;
    first.handshake(&streams(100)).await;
    assert_eq!(net.dials().await.len(), 1, "50 callers are left without a slot");
}

#[tokio::test(start_paused = true)]
async fn a_dial_outlives_its_caller() {
    // P8
    let (pool, mut net) = net(H2Pool::builder());
    let request = fetch(&pool, get(uri("https://a/first")));
    let dial = net.dial().await;
    request.abort();
    assert!(join_aborted(request).await);
    assert!(!dial.is_abandoned(), "it belongs to the pool");
    let mut peer = crate::support::peer::Peer::new(dial.accept(http::Version::HTTP_2));
    peer.handshake(&streams(10)).await;
    let next = fetch(&pool, get(uri("https://a/second")));
    assert_eq!(peer.answer_one(b"ok").await.unwrap(), "/second");
    assert_eq!(join(next).await.unwrap().body, "ok");
    assert_eq!(net.dials().await.len(), 0);
}

async fn join_aborted<T>(task: tokio::task::JoinHandle<T>) -> bool {
    task.await.is_err_and(|error| error.is_cancelled())
}

#[tokio::test(start_paused = true)]
async fn what_drains_without_a_limit_makes_room_after_a_while() {
    // P5, P14, P18: after the 2 s that `drain_timeout` tells of.
    let builder = H2Pool::builder().max_sessions(1).drain_timeout(Duration::ZERO);
    let (pool, mut net) = net(builder);
    let mut draining = Vec::new();
    for _ in 0..2 {
        let request = fetch(&pool, get(uri("https://a/long")));
        let mut peer = net.ready_peer(10).await;
        let stream = peer.next_headers().await.stream;
        peer.send_headers(stream, 200, false).await;
        settle().await;
        peer.send_goaway(stream, code::NO_ERROR, b"").await;
        settle().await;
        draining.push((request, peer));
    }
    let _next = fetch(&pool, get(uri("https://a/next")));
    let (oldest, _peer) = draining.remove(0);
    let (ended, took) = timed(join(oldest)).await;
    assert!(ended.is_err());
    assert_eq!(took.as_millis().div_ceil(100), 20, "{took:?}");
}
