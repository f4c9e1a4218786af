//! Those who wait for a slot: order, leaving, limits, and sessions that die meanwhile (P11–P14).

use std::time::Duration;

use futures_util::future::join_all as join_futures;
use h2pool::H2Pool;
use http_body_util::BodyExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::listener::PeerListener;
use crate::support::peer::code;
use crate::support::server::Server;
use crate::util::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waiting_leaves_the_queue_at_once() {
    // P12, P13
    let server = Server::builder().h2_max_streams(1).start().await;
    let pool = tls().max_sessions(1).build().unwrap();
    let running = fetch(&pool, get(server.uri("/gate")));
    server.gate("").until_waiting(1).await;
    // Before that a request without a body would go out.
    eventually("SETTINGS", || pool.sessions()[0].limit == 1).await;

    let aborted = fetch(&pool, named(get(server.uri("/")), 1));
    eventually("one waits", || pool.stats().waiters == 1).await;
    let mut dropped = tokio_test::task::spawn(pool.request(named(get(server.uri("/")), 2)));
    assert!(dropped.poll().is_pending());
    let mut timed_out = Box::pin(pool.request(named(get(server.uri("/")), 3)));
    let elapsed = tokio::time::timeout(Duration::ZERO, &mut timed_out).await;
    assert!(elapsed.is_err(), "the pool is full");
    let behind = fetch(&pool, named(get(server.uri("/")), 4));
    eventually("four wait", || pool.stats().waiters == 4).await;

    drop(dropped);
    assert_eq!(pool.stats().waiters, 3);
    drop(timed_out);
    assert_eq!(pool.stats().waiters, 2);
    aborted.abort();
    assert!(aborted.await.unwrap_err().is_cancelled());
    assert_eq!(pool.stats().waiters, 1);

    server.gate("").release(1);
    assert_eq!(join(behind).await.unwrap().body, "ok");
    assert_eq!(join(running).await.unwrap().body, "ok");
    let counts = server.counts();
    assert_eq!((counts.requests, counts.processed("4")), (2, 1), "{counts:?}");
    assert_eq!((pool.stats().waiters, pool.stats().waiters_cancelled), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    // P11
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let first = fetch(&pool, get(uri("https://a/first")));
    let mut peer = net.ready_peer(1).await;
    settle().await;
    let mut tasks = Vec::new();
    for n in 0..30 {
        tasks.push(fetch(&pool, get(uri(&format!("https://a/{n}")))));
        settle().await;
    }
    let mut order = Vec::new();
    for _ in 0..31 {
        order.push(peer.answer_one(b"ok").await.unwrap());
    }
    join(first).await.unwrap();
    for read in join_all(tasks).await {
        read.unwrap();
    }
    let expected = (0..30).map(|n| format!("/{n}"));
    assert_eq!(order[0], "/first");
    assert!(
        order[1..].iter().eq(expected.collect::<Vec<_>>().iter()),
        "{order:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_grant_on_its_way_to_one_who_left_goes_to_the_next() {
    // P11, P12
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let first = fetch(&pool, get(uri("https://a/first")));
    let mut peer = net.ready_peer(1).await;
    let stream = peer.next_headers().await.stream;
    let mut granted = tokio_test::task::spawn(pool.request(get(uri("https://a/granted"))));
    let mut next = tokio_test::task::spawn(pool.request(get(uri("https://a/next"))));
    assert!(granted.poll().is_pending() && next.poll().is_pending());
    peer.respond(stream, 200, b"ok").await;
    join(first).await.unwrap();
    assert!(granted.is_woken() && !next.is_woken());
    let mut late = tokio_test::task::spawn(pool.request(get(uri("https://a/late"))));
    assert!(late.poll().is_pending(), "the slot is not there for newcomers");
    drop(granted);
    assert!(next.is_woken() && !late.is_woken());
    assert!(next.poll().is_pending());
    assert_eq!(peer.answer_one(b"ok").await.unwrap(), "/next");
    let response = next.await.unwrap();
    assert!(!late.is_woken(), "the body is not read yet");
    response.into_body().collect().await.unwrap();
    assert!(late.is_woken() && late.poll().is_pending());
    assert_eq!(peer.answer_one(b"ok").await.unwrap(), "/late");
    late.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_answers_at_once() {
    // P13, P22, P41
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1).max_waiters(3));
    let mut tasks = fetch_many(&pool, &uri("https://a/"), 3);
    let dial = net.dial().await;
    let (refused, took) = timed(pool.request(get(uri("https://a/")))).await;
    let error = refused.unwrap_err();
    assert!(error.is_saturated() && error.is_unprocessed() && !error.is_transient());
    assert_eq!((took, error.origin()), (Duration::ZERO, Some("https://a:443")));
    assert!(
        pool.acquire(&origin("https://a"))
            .await
            .unwrap_err()
            .is_saturated()
    );
    assert_eq!(pool.stats().saturated, 2);
    // Another origin has a queue of its own.
    let other = fetch(&pool, get(uri("https://b/")));
    settle().await;
    assert_eq!(pool.stats().waiters, 4);
    other.abort();
    // One leaves, one comes.
    tasks.pop().unwrap().abort();
    settle().await;
    tasks.push(fetch(&pool, get(uri("https://a/"))));
    let mut peer = crate::support::peer::Peer::new(dial.accept(http::Version::HTTP_2));
    peer.handshake(&streams(9)).await;
    tokio::spawn(async move { peer.serve(b"ok").await });
    for read in join_all(tasks).await {
        read.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_bound_everybody_may_wait() {
    // P13
    let (pool, mut net) = net(H2Pool::builder().max_waiters(0));
    let tasks = fetch_many(&pool, &uri("https://a/"), 5000);
    let dial = net.dial().await;
    settle().await;
    assert_eq!(pool.stats().waiters, 5000);
    dial.refuse(h2pool::Error::connect("nobody there"));
    for read in join_all(tasks).await {
        assert!(read.unwrap_err().is_connect());
    }
    assert_eq!(pool.stats().waiters, 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_time_for_it() {
    // P13, P22, P41
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let held = fetch(&pool, get(uri("https://a/held")));
    let mut peer = net.ready_peer(1).await;
    let stream = peer.next_headers().await.stream;
    let (waited, took) = timed(pool.request(get(uri("https://a/")))).await;
    let error = waited.unwrap_err();
    assert!(
        error.is_timeout() && error.is_unprocessed() && error.is_transient(),
        "{error:?}"
    );
    assert!(!error.is_connect());
    assert_eq!(took.as_secs(), 30);
    assert!(error.to_string().contains("acquire_timeout") && error.to_string().contains("https://a:443"));
    assert_eq!((pool.stats().waiters, pool.stats().acquire_timeouts), (0, 1));
    peer.respond(stream, 200, b"ok").await;
    assert_eq!(join(held).await.unwrap().body, "ok");
}

#[tokio::test(start_paused = true)]
async fn without_a_time_for_it_waiting_has_no_end() {
    // P13
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1).acquire_timeout(Duration::ZERO));
    let held = fetch(&pool, get(uri("https://a/held")));
    let mut peer = net.ready_peer(1).await;
    let stream = peer.next_headers().await.stream;
    let waiting = fetch(&pool, get(uri("https://a/")));
    pass(3600.0).await;
    assert!(!waiting.is_finished());
    peer.respond(stream, 200, b"ok").await;
    assert_eq!(join(held).await.unwrap().body, "ok");
    assert_eq!(peer.answer_one(b"late").await.unwrap(), "/");
    assert_eq!(join(waiting).await.unwrap().body, "late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sessions_die_and_a_replacement_serves_those_who_wait() {
    // P14, P22
    let server = Server::builder().h2_max_streams(2).start().await;
    let pool = tls().max_sessions(2).build().unwrap();
    join(fetch(&pool, get(server.uri("/")))).await.unwrap();
    let running = fetch_many(&pool, &server.uri("/gate"), 4);
    server.gate("").until_waiting(4).await;
    let waiting = fetch_many(&pool, &server.uri("/"), 10);
    eventually("ten wait", || pool.stats().waiters == 10).await;
    server.kill();
    for read in join_all(waiting).await {
        assert_eq!(read.unwrap().body, "ok");
    }
    for read in join_all(running).await {
        let error = read.unwrap_err();
        assert!(!error.is_unprocessed() && error.is_transient(), "{error:?}");
        assert!(std::error::Error::source(&error).is_some() || !error.to_string().is_empty());
    }
    let counts = server.counts();
    assert_eq!(
        counts
            .connections
            .iter()
            .filter(|connection| connection.open)
            .count(),
        counts.open()
    );
    assert!(counts.accepted <= 4, "{counts:?}");
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
}

#[tokio::test]
async fn however_a_session_dies_those_who_wait_are_served() {
    // P14, P18
    for how in ["goaway", "goaway and close", "fin", "rst", "garbage"] {
        let mut listener = PeerListener::plain_resetting().await;
        let pool = H2Pool::builder().http2_prior_knowledge(true).max_sessions(1);
        let pool = pool.build().unwrap();
        let running = fetch(&pool, get(listener.uri("/running")));
        let mut peer = listener.accept().await;
        peer.handshake(&streams(1)).await;
        let stream = peer.next_headers().await.stream;
        peer.ping_round_trip().await;
        let waiting = fetch_many(&pool, &listener.uri("/"), 3);
        eventually("three wait", || pool.stats().waiters == 3).await;
        match how {
            "goaway" => peer.send_goaway(stream, code::NO_ERROR, b"").await,
            "goaway and close" => {
                peer.send_goaway(stream, code::ENHANCE_YOUR_CALM, b"").await;
                peer.shutdown().await;
            }
            "fin" => peer.shutdown().await,
            "rst" => {}
            _ => peer.send_frame(0, 0, 0, b"DATA on no stream").await,
        }
        let left = (how == "goaway").then_some(&mut peer);
        let mut next = match left {
            Some(peer) => {
                let next = listener.accept().await;
                peer.respond(stream, 200, b"covered").await;
                next
            }
            None => {
                if how == "rst" {
                    drop(peer);
                }
                listener.accept().await
            }
        };
        next.handshake(&streams(9)).await;
        let serving = tokio::spawn(async move { next.serve(b"replacement").await });
        for read in join_all(waiting).await {
            assert_eq!(read.unwrap().body, "replacement", "{how}");
        }
        let running = join(running).await;
        match how {
            "goaway" => assert_eq!(running.unwrap().body, "covered"),
            _ => assert!(!running.unwrap_err().is_unprocessed(), "{how}"),
        }
        drop(pool);
        assert_eq!(join(serving).await.len(), 3, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_cancellations_leaks_no_slot() {
    // P12, P44
    let server = Server::builder().h2_max_streams(8).start_on_own_thread();
    let pool = tls().max_sessions(2).build().unwrap();
    let storm = (0..4).map(|seed| {
        let (pool, uri) = (pool.clone(), server.uri("/delay/1"));
        tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(seed);
            for _ in 0..60 {
                let tasks: Vec<_> = (0..6).map(|_| fetch(&pool, get(uri.clone()))).collect();
                for task in tasks {
                    for _ in 0..random.random_range(0..30) {
                        tokio::task::yield_now().await;
                    }
                    if random.random_bool(0.7) {
                        task.abort();
                    }
                    // Served or aborted; a failure would show as an error of the pool.
                    if let Ok(read) = task.await {
                        assert_eq!(read.unwrap().body, "ok");
                    }
                }
            }
        })
    });
    for task in join_futures(storm).await {
        task.unwrap();
    }
    eventually("no slot is taken", || pool.stats().streams == 0).await;
    assert_eq!(pool.stats().waiters, 0);
    // All of the capacity is there.
    let requests = fetch_many(&pool, &server.uri("/gate"), 16);
    server.gate("").until_waiting(16).await;
    server.gate("").open();
    for read in join_all(requests).await {
        read.unwrap();
    }
    assert!(server.counts().max_streams() <= 8);
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
}
