//! Runtimes that come and go, or stand still: what the origin's timer does then (P16, P36). In real time, since a paused clock
//! belongs to one runtime.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::noop_waker;
use h2pool::connect::memory::pair;
use h2pool::connect::{Connection, from_fn};
use h2pool::{Error, H2Pool, Origin};
use http::Version;
use tokio::runtime::Runtime;
use tower::Service;

use crate::support::client::upload;
use crate::support::peer::{Peer, code};
use crate::support::server::Server;
use crate::support::within;
use crate::util::*;

/// A pool with every time limit of a request, and a session on `runtime` that has answered once.
fn warm(runtime: &Runtime) -> (H2Pool, Peer) {
    let (connector, mut listener) = pair::<Origin>();
    let limit = Duration::from_secs(25);
    let builder = H2Pool::builder().connector(connector).header_timeout(limit);
    let pool = builder.write_timeout(limit).build().unwrap();
    let peer = runtime.block_on(async {
        let request = fetch(&pool, get(uri("https://a/")));
        let mut peer = Peer::new(listener.accept().await.unwrap().accept(Version::HTTP_2));
        peer.handshake(&streams(10)).await;
        peer.answer_one(b"ok").await.unwrap();
        join(request).await.unwrap();
        peer
    });
    (pool, peer)
}

/// The origin of a server.
fn origin_of(server: &Server) -> Origin {
    origin(&format!("https://{}", server.addr()))
}

/// Polls it once, by hand.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&noop_waker()))
}

#[test]
fn a_request_goes_on_where_it_is_polled_next() {
    // P36: `header_timeout` runs for the one, `write_timeout` for the other, when the runtime of their timers ends.
    let home = multi();
    let (pool, mut peer) = warm(&home);
    let mut waits = pin!(pool.request(get(uri("https://a/"))));
    let mut uploads = pin!(pool.request(post(uri("https://a/up"), vec![0; 100_000])));
    let first = single();
    first.block_on(async {
        assert!(poll_once(waits.as_mut()).is_pending());
        assert!(poll_once(uploads.as_mut()).is_pending());
    });
    drop(first);
    single().block_on(async {
        assert!(poll_once(waits.as_mut()).is_pending());
        assert!(poll_once(uploads.as_mut()).is_pending());
        for _ in 0..2 {
            let stream = peer.next_headers().await.stream;
            peer.respond(stream, 200, b"ok").await;
        }
        assert_eq!(read(waits.await.unwrap()).await.unwrap().body, "ok");
        assert_eq!(uploads.await.unwrap().status(), 200);
    });
}

#[test]
fn outside_of_a_runtime_a_time_limit_is_an_error() {
    // P41, P45
    let home = multi();
    let (pool, _peer) = warm(&home);
    let Poll::Ready(Err(error)) = poll_once(pin!(pool.request(get(uri("https://a/"))))) else {
        panic!("there is no timer");
    };
    assert!(error.is_config() && !error.is_unprocessed(), "{error:?}");
}

#[test]
fn outside_of_a_runtime_an_early_response_is_an_error() {
    // P30, P41, P45: nobody can go on with the upload.
    let home = multi();
    let (pool, mut peer) = warm(&home);
    let (_sender, body) = upload(1);
    let mut request = pin!(pool.request(http::Request::post(uri("https://a/")).body(body).unwrap()));
    assert!(poll_once(request.as_mut()).is_pending());
    home.block_on(async {
        let stream = peer.next_headers().await.stream;
        peer.respond(stream, 200, b"early").await;
        peer.ping_round_trip().await;
    });
    let Poll::Ready(Err(error)) = poll_once(request.as_mut()) else {
        panic!("the response is there");
    };
    assert!(error.is_config() && !error.is_unprocessed(), "{error:?}");
    home.block_on(async { assert_eq!(peer.next_reset().await.1, code::CANCEL) });
}

#[test]
fn sessions_idle_out_on_the_second_runtime_too() {
    // P16, P36: the timer of the first is gone with it.
    for runtime in [single, multi] {
        let server = Server::builder().start_on_own_thread();
        let pool = tls().idle_timeout(Duration::from_millis(300)).build().unwrap();
        for _ in 0..2 {
            let runtime = runtime();
            runtime.block_on(async {
                let read = join(fetch(&pool, get(server.uri("/")))).await.unwrap();
                assert_eq!(read.body, "ok");
            });
            drop(runtime);
        }
        assert!(pool.sessions().is_empty());
        runtime().block_on(async {
            join(fetch(&pool, get(server.uri("/")))).await.unwrap();
            eventually("it idles out", || pool.sessions().is_empty()).await;
        });
        assert_eq!(pool.stats().sessions_closed.idle, 1);
    }
}

#[test]
fn a_failed_dial_is_made_again_on_the_second_runtime() {
    // P9, P14, P36
    let (connector, mut listener) = pair::<Origin>();
    let connect_timeout = Duration::from_millis(100);
    let pool = H2Pool::builder()
        .connector(connector)
        .connect_timeout(connect_timeout)
        .build()
        .unwrap();
    multi().block_on(async {
        let request = fetch(&pool, get(uri("https://a/")));
        let mut peer = Peer::new(listener.accept().await.unwrap().accept(Version::HTTP_2));
        peer.handshake(&streams(10)).await;
        peer.answer_one(b"ok").await.unwrap();
        join(request).await.unwrap();
    });
    multi().block_on(async {
        // What the first timer was armed for has passed.
        tokio::time::sleep(connect_timeout).await;
        let request = fetch(&pool, get(uri("https://a/")));
        let dial = within("a dial", listener.accept()).await.unwrap();
        dial.refuse(Error::connect("not yet"));
        assert!(join(request).await.unwrap_err().is_connect());
        let _waits = fetch(&pool, get(uri("https://a/")));
        within("it is dialed again", listener.accept()).await.unwrap();
    });
}

#[test]
fn a_runtime_that_stands_still_keeps_no_deadline_of_another() {
    // P3, P36: the other's session has no SETTINGS within `connect_timeout`, and ends with what runs on it.
    let (connector, mut listener) = pair::<Origin>();
    let pool = H2Pool::builder()
        .connector(connector)
        .connect_timeout(Duration::from_millis(500))
        .idle_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let one = std::thread::spawn({
        let pool = pool.clone();
        move || {
            single()
                .block_on(within("it ends", pool.request(get(uri("https://a/")))))
                .map(|_| ())
        }
    });
    let two = single();
    let _silent = two.block_on(async {
        let held = listener.accept().await.unwrap();
        let request = fetch(&pool, get(uri("https://a/")));
        let mut peer = Peer::new(listener.accept().await.unwrap().accept(Version::HTTP_2));
        peer.handshake(&streams(10)).await;
        peer.answer_one(b"ok").await.unwrap();
        join(request).await.unwrap();
        (held.accept(Version::HTTP_2), peer)
    });
    // Nobody blocks on `two` from here on.
    assert!(one.join().unwrap().unwrap_err().is_timeout());
    drop(two);
}

#[test]
fn a_request_that_moves_to_another_runtime_after_its_grant_is_served_there() {
    // P36: the session of the first, which stands still, serves nobody else.
    let server = Server::builder().h2_max_streams(1).start_on_own_thread();
    let pool = tls().max_sessions(1).build().unwrap();
    let (here, there) = (single(), single());
    let lease = here.block_on(pool.acquire(&origin_of(&server))).unwrap();
    here.block_on(eventually("SETTINGS", || pool.sessions()[0].limit == 1));
    let mut request = tokio_test::task::spawn(pool.request(get(server.uri("/bytes/1"))));
    here.block_on(async {
        assert!(request.poll().is_pending());
        drop(lease);
    });
    assert!(request.is_woken());
    let answer = there.block_on(within("an answer", request.into_inner()));
    assert_eq!(answer.unwrap().status(), 200);
}

#[test]
fn a_service_that_was_ready_on_another_runtime_is_served_where_it_is_called() {
    // P29, P36: the slot that it held is one on a session that stands still. Whether it moves before the call or after.
    for moves_first in [true, false] {
        let server = Server::builder().start_on_own_thread();
        let pool = tls().build().unwrap();
        let (here, there) = (single(), single());
        let mut service = pool.origin(origin_of(&server));
        here.block_on(service.ready()).unwrap();
        let request = get(server.uri("/bytes/1"));
        let called = if moves_first { &there } else { &here };
        let answer = {
            let _called = called.enter();
            service.call(request)
        };
        let answer = there.block_on(within("an answer", answer));
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(pool.stats().sessions_active, 2);
    }
}

#[test]
fn who_moves_while_it_waits_for_a_permit_is_served_where_it_is() {
    // P15, P36: it had its slot before, on a session that stands still.
    let server = Server::builder().start_on_own_thread();
    let pool = tls().limit_concurrency(1).build().unwrap();
    let (here, there) = (single(), single());
    let lease = here.block_on(pool.acquire(&origin_of(&server))).unwrap();
    let mut request = tokio_test::task::spawn(pool.request(get(server.uri("/bytes/1"))));
    here.block_on(async { assert!(request.poll().is_pending()) });
    assert_eq!((pool.stats().streams, pool.stats().waiters), (2, 1));
    drop(lease);
    let answer = there.block_on(within("an answer", request.into_inner()));
    assert_eq!(answer.unwrap().status(), 200);
}

#[test]
fn who_moves_while_a_session_of_its_own_waits_for_the_permit_gets_another() {
    // P15, P23, P36
    let server = Server::builder().start_on_own_thread();
    let pool = tls().limit_concurrency(1).build().unwrap();
    let (here, there) = (single(), single());
    let key = origin_of(&server);
    let mut request = tokio_test::task::spawn(pool.request(get(server.uri("/status/421"))));
    let lease = here.block_on(async {
        join(fetch(&pool, get(server.uri("/")))).await.unwrap();
        assert!(request.poll().is_pending());
        let leasing = pool.clone();
        let lease = tokio::spawn(async move { leasing.acquire(&key).await });
        eventually("its session waits for the permit that the lease has", || {
            assert!(request.poll().is_pending());
            let stats = pool.stats();
            lease.is_finished() && (stats.sessions_draining, stats.waiters) == (1, 1)
        })
        .await;
        join(lease).await.unwrap()
    });
    drop(lease);
    let answer = there.block_on(within("an answer", request.into_inner()));
    assert_eq!(answer.unwrap().status(), 421);
    assert_eq!(server.counts().accepted, 3);
}

/// A single-thread runtime with a clock of its own, which jumps to the next timer when nothing else is to be done.
fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

#[test]
fn a_clock_that_ran_ahead_holds_nobody_back_on_the_next_runtime() {
    // P36: two tests in a row that use one static pool. The state's time is ahead, and back-offs take as long as ever.
    let connector =
        from_fn(|_: &Origin, _| std::future::ready(Err::<Connection, _>(Error::connect("refused"))));
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    for (runtime, runs_ahead) in [(paused(), true), (paused(), true), (single(), false)] {
        runtime.block_on(async {
            let before = now();
            for _ in 0..2 {
                let error = join(fetch(&pool, get(uri("https://a/")))).await.unwrap_err();
                assert!(error.is_connect(), "{error:?}");
            }
            let took = now() - before;
            assert!(took < Duration::from_secs(15), "pauses of 5 s at most: {took:?}");
            if runs_ahead {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                join(fetch(&pool, get(uri("https://a/")))).await.unwrap_err();
            }
        });
    }
}

#[test]
fn sessions_idle_out_where_a_clock_ran_ahead_before() {
    // P16, P36
    for runtime in [paused, single] {
        let pool = H2Pool::builder();
        let (connector, mut listener) = pair::<Origin>();
        let pool = pool
            .connector(connector)
            .idle_timeout(Duration::from_millis(200))
            .build()
            .unwrap();
        paused().block_on(async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            pool.warm(&origin("https://a"), 1).unwrap();
            let _dial = within("a dial", listener.accept()).await.unwrap();
        });
        runtime().block_on(async {
            let request = fetch(&pool, get(uri("https://a/")));
            let dial = within("a dial", listener.accept()).await.unwrap();
            let mut peer = Peer::new(dial.accept(Version::HTTP_2));
            peer.handshake(&[]).await;
            peer.answer_one(b"ok").await.unwrap();
            join(request).await.unwrap();
            within("it idles out", peer.until_closed()).await;
            assert_eq!(pool.stats().sessions_closed.idle, 1);
        });
    }
}
