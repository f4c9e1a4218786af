//! Sessions and pools from their first moment to their last (P10, P16, P18–P20, P44).

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2pool::{H2Pool, SessionState};
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use tokio::io::AsyncReadExt;
use tower::ServiceExt;

use crate::support::peer::{Frame, Peer, code};
use crate::support::server::Server;
use crate::support::within;
use crate::util::*;

#[test]
fn building_starts_nothing() {
    // P20: no runtime is there, so that a task or a timer would be a panic.
    let pool = tls().build().unwrap();
    assert_eq!(pool.stats(), h2pool::Stats::default());
    let error = pool
        .request(get(uri("https://127.0.0.1:1/")))
        .now_or_never()
        .unwrap()
        .unwrap_err();
    assert!(error.is_config(), "outside a runtime: {error:?}");
    let made_before = pool.request(get(uri("https://127.0.0.1:1/")));
    pool.close();
    pool.closed().now_or_never().unwrap();
    assert!(made_before.now_or_never().unwrap().unwrap_err().is_closed());
    let ready = ServiceExt::<Request<Empty<Bytes>>>::ready_oneshot(pool).now_or_never();
    assert!(ready.unwrap().unwrap_err().is_closed());
    assert_eq!(H2Pool::new().unwrap().stats(), h2pool::Stats::default());
}

#[tokio::test(start_paused = true)]
async fn a_session_is_kept_for_the_idle_timeout() {
    // P16: 90 s from the end of the last stream.
    let (pool, server) = with_server(H2Pool::builder(), Server::builder());
    for _ in 0..3 {
        join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
        pass(89.0).await;
        assert_eq!((pool.sessions().len(), server.counts().open()), (1, 1));
    }
    let body = pool.request(get(uri("https://a/sse/1?gate=sse"))).await.unwrap();
    pass(500.0).await;
    assert_eq!(server.counts().open(), 1, "a session with a stream is not idle");
    server.gate("sse").open();
    read(body).await.unwrap();
    pass(89.0).await;
    assert_eq!(server.counts().open(), 1);
    pass(2.0).await;
    assert_eq!((pool.sessions().len(), server.counts().open()), (0, 0));
    assert_eq!(pool.stats().sessions_closed.idle, 1);
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
    assert_eq!(server.counts().accepted, 2);
}

#[tokio::test(start_paused = true)]
async fn a_session_takes_its_leave() {
    // P16, P20, RFC 9113 §9.1: GOAWAY before closing.
    let (pool, mut net) = net(H2Pool::builder().idle_timeout(Duration::from_secs(3)));
    let request = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(1).await;
    peer.answer_one(b"ok").await.unwrap();
    join(request).await.unwrap();
    let (frames, took) = timed(peer.until_closed()).await;
    assert!(
        frames.iter().any(|frame| matches!(
            frame,
            Frame::Goaway {
                code: code::NO_ERROR,
                ..
            }
        )),
        "{frames:?}"
    );
    assert_eq!(took.as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_an_idle_timeout_a_session_stays() {
    // P16
    let (pool, server) = with_server(H2Pool::builder().idle_timeout(Duration::ZERO), Server::builder());
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
    pass(7.0 * 86_400.0).await;
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
    assert_eq!(server.counts().accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_that_closes_races_no_request() {
    // P14, P16: requests come just before, at and just after the deadline, from both sides of the timer.
    let builder = H2Pool::builder()
        .max_sessions(1)
        .idle_timeout(Duration::from_secs(1));
    let (pool, server) = with_server(builder, Server::builder());
    for millis in 990..1010 {
        join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
        let late = {
            let pool = pool.clone();
            tokio::spawn(async move {
                pass(f64::from(millis) / 1000.0).await;
                join_all(fetch_many(&pool, &uri("https://a/"), 3)).await
            })
        };
        for read in join(late).await {
            assert_eq!(read.unwrap().body, "ok");
        }
    }
    assert!(server.counts().accepted > 1);
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn warm_opens_sessions_once() {
    // P10
    let (pool, server) = with_server(H2Pool::builder(), Server::builder());
    pool.warm(&origin("https://a"), 3).unwrap();
    settle().await;
    assert_eq!((pool.stats().sessions_active, server.counts().open()), (3, 3));
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
    assert_eq!(server.counts().accepted, 3);
    pass(300.0).await;
    assert_eq!(
        (server.counts().accepted, server.counts().open()),
        (3, 0),
        "they idle out, and that is it"
    );
    pool.warm(&origin("https://a"), 100).unwrap();
    settle().await;
    assert_eq!(server.counts().open(), 4, "within the bound");
}

#[tokio::test(start_paused = true)]
async fn close_refuses_fails_and_lets_finish() {
    // P18, P20, P22
    let builder = H2Pool::builder().max_sessions(1).streams_per_session(2);
    let (pool, server) = with_server(builder, Server::builder());
    let running = fetch(&pool, get(uri("https://a/gate")));
    server.gate("").until_waiting(1).await;
    let body = pool.request(get(uri("https://a/sse/1?gate=sse"))).await.unwrap();
    let waiting = fetch_many(&pool, &uri("https://a/"), 3);
    let (clone, leased) = (pool.clone(), pool.acquire(&origin("https://b")).await.unwrap());
    settle().await;
    assert_eq!(pool.stats().waiters, 3);

    pool.close();
    pool.close();
    assert!(pool.is_closed() && clone.is_closed());
    for read in join_all(waiting).await {
        let error = read.unwrap_err();
        assert!(
            error.is_closed() && error.is_unprocessed() && !error.is_transient(),
            "{error:?}"
        );
        assert_eq!(error.origin(), Some("https://a:443"));
    }
    for refused in [
        clone.request(get(uri("https://a/"))).await.unwrap_err(),
        clone.request(get(uri("https://new/"))).await.unwrap_err(),
        clone.acquire(&origin("https://a")).await.unwrap_err(),
        leased.send(get(uri("https://b/"))).await.unwrap_err(),
        clone.warm(&origin("https://a"), 1).unwrap_err(),
    ] {
        assert!(refused.is_closed() && refused.is_unprocessed(), "{refused:?}");
    }
    let closed = tokio::spawn(async move { clone.closed().await });
    pass(5.0).await;
    assert!(!closed.is_finished());
    server.gate("").release(1);
    assert_eq!(join(running).await.unwrap().body, "ok");
    server.gate("sse").open();
    assert_eq!(read(body).await.unwrap().body, "data: 0\n\n");
    join(closed).await;
    assert_eq!(server.counts().open(), 0);
    pool.close();
    within("it stays closed", pool.closed()).await;
    assert_eq!(pool.stats().sessions_closed.closed, 2);
}

#[tokio::test(start_paused = true)]
async fn closing_has_a_deadline() {
    // P18, P20
    let builder = H2Pool::builder().drain_timeout(Duration::from_secs(4));
    let (pool, server) = with_server(builder, Server::builder());
    let running = fetch(&pool, get(uri("https://a/hang")));
    let body = pool.request(get(uri("https://a/sse/1?gate=sse"))).await.unwrap();
    settle().await;
    pool.close();
    let (_, took) = timed(pool.closed()).await;
    assert_eq!(took.as_secs(), 4);
    let error = join(running).await.unwrap_err();
    assert!(error.is_closed() && !error.is_unprocessed(), "{error:?}");
    let error = body.into_body().collect().await.unwrap_err();
    assert!(error.is_closed() && error.is_body(), "{error:?}");
    settle().await;
    assert_eq!(server.counts().open(), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_dials() {
    // P8, P20
    let (pool, mut net) = net(H2Pool::builder());
    let waiting = fetch(&pool, get(uri("https://a/")));
    let dial = net.dial().await;
    pool.close();
    assert!(join(waiting).await.unwrap_err().is_closed());
    // Not after the `connect_timeout`: nobody wants the connection any more.
    let ((), took) = timed(pool.closed()).await;
    assert!(took.is_zero() && dial.is_abandoned(), "{took:?}");
    assert_eq!(pool.stats().dials_failed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_ends_as_the_pool_closes_is_no_session() {
    // P8, P20, P40
    let (pool, mut net) = net(H2Pool::builder());
    let waiting = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.dial().await.accept(Version::HTTP_2);
    pool.close();
    assert!(join(waiting).await.unwrap_err().is_closed());
    let ((), took) = timed(pool.closed()).await;
    let said = within("the end", peer.read_to_end(&mut Vec::new())).await;
    assert!(took.is_zero() && said.is_ok(), "{took:?} {said:?}");
    let stats = pool.stats();
    assert_eq!((stats.sessions_opened, stats.sessions_closed.closed), (1, 1));
    assert!(pool.sessions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_dials() {
    // P8, P20: a connector that never returns is no task that stays.
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let (pool, mut net) = net(H2Pool::builder());
    pool.warm(&origin("https://a"), 1).unwrap();
    let dial = net.dial().await;
    drop(pool);
    settle().await;
    assert!(dial.is_abandoned());
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_it_all() {
    // P20: idle sessions at once, the others with their last stream, and no task is left.
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let (pool, mut net) = net(H2Pool::builder());
    let (idle, busy) = (
        fetch(&pool, get(uri("https://idle/"))),
        pool.request(get(uri("https://busy/"))),
    );
    let mut idle_peer = net.ready_peer(1).await;
    idle_peer.answer_one(b"ok").await.unwrap();
    join(idle).await.unwrap();
    let busy = tokio::spawn(busy);
    let mut busy_peer = net.ready_peer(1).await;
    let stream = busy_peer.next_headers().await.stream;
    busy_peer.send_headers(stream, 200, false).await;
    let body = join(busy).await.unwrap().into_body();
    let service = pool.origin(origin("https://busy"));
    let clone = pool.clone();
    drop((pool, clone));
    settle().await;
    assert!(
        idle_peer.try_send_raw(b"").await.is_ok(),
        "a service of an origin is a handle too"
    );
    drop(service);
    idle_peer.until_closed().await;
    pass(3600.0).await;
    busy_peer.send_data(stream, b"late", true).await;
    assert_eq!(body.collect().await.unwrap().to_bytes(), "late");
    busy_peer.until_closed().await;
    settle().await;
    assert_eq!(tasks(), before);
    drop(net);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_abandons_no_request() {
    // P20
    let (pool, mut net) = net(H2Pool::builder());
    let request = pool.request(get(uri("https://a/")));
    drop(pool);
    let request = tokio::spawn(async move { read(request.await?).await });
    let mut peer = net.ready_peer(1).await;
    peer.answer_one(b"ok").await.unwrap();
    assert_eq!(join(request).await.unwrap().body, "ok");
    peer.until_closed().await;
}

/// Requests that were sent and are cancelled before anything was heard.
async fn cancel(pool: &H2Pool, peer: &mut Peer, n: usize) -> Vec<u32> {
    let requests: Vec<_> = (0..n)
        .map(|_| tokio::spawn(pool.request(get(uri("https://a/cancelled")))))
        .collect();
    let mut streams = Vec::new();
    for _ in 0..n {
        streams.push(peer.next_headers().await.stream);
    }
    for request in requests {
        request.abort();
    }
    settle().await;
    streams
}

/// The PINGs and the reset streams among what the peer has received.
async fn pings_and_resets(peer: &mut Peer) -> (Vec<[u8; 8]>, Vec<u32>) {
    let (mut pings, mut resets) = (Vec::new(), Vec::new());
    while let Ok(frame) = tokio::time::timeout(Duration::from_millis(1), peer.recv()).await {
        match frame.unwrap() {
            Some(Frame::Ping { ack: false, payload }) => pings.push(payload),
            Some(Frame::Reset { stream, .. }) => resets.push(stream),
            Some(_) => {}
            None => break,
        }
    }
    (pings, resets)
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_slot_is_parked_until_a_sign_of_life() {
    // P19, P44: cancels never look like a rapid reset.
    let builder = H2Pool::builder()
        .max_sessions(1)
        .probe_timeout(Duration::from_secs(60));
    let (pool, mut net) = net(builder);
    pool.warm(&origin("https://a"), 1).unwrap();
    let mut peer = net.ready_peer(2).await;
    settle().await;
    peer.silent();
    let streams = cancel(&pool, &mut peer, 2).await;
    let (pings, resets) = pings_and_resets(&mut peer).await;
    assert_eq!((pings.len(), resets), (1, streams), "one probe for both");
    assert_eq!((pool.stats().streams, pool.stats().probes), (2, 1));
    let next = fetch(&pool, get(uri("https://a/next")));
    settle().await;
    assert_eq!(pool.stats().waiters, 1, "both slots are taken");
    peer.send_pong(pings[0]).await;
    peer.talking();
    assert_eq!(peer.answer_one(b"ok").await.unwrap(), "/next");
    join(next).await.unwrap();
    assert_eq!(pool.stats().streams, 0);
}

#[tokio::test(start_paused = true)]
async fn one_probe_is_enough_until_something_real_arrives() {
    // P44: some servers take PINGs without HEADERS or DATA for a flood.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    pool.warm(&origin("https://a"), 1).unwrap();
    let mut peer = net.ready_peer(2).await;
    settle().await;
    let mut pings = 0;
    for _ in 0..10 {
        cancel(&pool, &mut peer, 1).await;
        pings += pings_and_resets(&mut peer).await.0.len();
        assert_eq!(pool.stats().streams, 0, "answered, or not parked");
    }
    assert_eq!(pings, 1);
    let served = fetch(&pool, get(uri("https://a/served")));
    peer.answer_one(b"ok").await.unwrap();
    join(served).await.unwrap();
    cancel(&pool, &mut peer, 1).await;
    assert_eq!(pings_and_resets(&mut peer).await.0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_after_something_was_heard_frees_its_slot_at_once() {
    // P44
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let other = fetch(&pool, get(uri("https://a/other")));
    let mut peer = net.ready_peer(5).await;
    let stream = peer.next_headers().await.stream;
    let cancelled = tokio::spawn(pool.request(get(uri("https://a/cancelled"))));
    peer.next_headers().await;
    peer.send_headers(stream, 200, false).await;
    settle().await;
    cancelled.abort();
    settle().await;
    assert_eq!(pool.stats().streams, 1);
    assert!(pings_and_resets(&mut peer).await.0.is_empty());
    peer.send_data(stream, b"ok", true).await;
    join(other).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_answer_its_probe_is_replaced() {
    // P19: no new work after `probe_timeout`; its streams are left alone.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(2));
    let running = fetch(&pool, get(uri("https://a/running")));
    let mut dead = net.ready_peer(10).await;
    let stream = dead.next_headers().await.stream;
    settle().await;
    dead.silent();
    cancel(&pool, &mut dead, 1).await;
    // Last choice, but the only one.
    let meanwhile = fetch(&pool, get(uri("https://a/meanwhile")));
    let meanwhile_stream = dead.next_headers().await.stream;
    pass(1.1).await;
    let mut replacement = net.ready_peer(10).await;
    assert_eq!(pool.stats().sessions_draining, 1);
    for _ in 0..5 {
        let next = fetch(&pool, get(uri("https://a/next")));
        assert_eq!(replacement.answer_one(b"ok").await.unwrap(), "/next");
        join(next).await.unwrap();
    }
    dead.respond(stream, 200, b"after all").await;
    dead.respond(meanwhile_stream, 200, b"after all").await;
    assert_eq!(join(running).await.unwrap().body, "after all");
    assert_eq!(join(meanwhile).await.unwrap().body, "after all");
    dead.until_closed().await;
    settle().await;
    let states: Vec<_> = pool.sessions().iter().map(|session| session.state).collect();
    assert_eq!(states, [SessionState::Active]);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_session_gets_work_only_if_no_other_has_room() {
    // P19
    let builder = H2Pool::builder()
        .max_sessions(2)
        .probe_timeout(Duration::from_secs(60));
    let (pool, mut net) = net(builder);
    pool.warm(&origin("https://a"), 2).unwrap();
    let (mut one, mut two) = (net.ready_peer(2).await, net.ready_peer(2).await);
    settle().await;
    let request = tokio::spawn(pool.request(get(uri("https://a/cancelled"))));
    let (suspect, good) = tokio::select! {
        _ = one.next_headers() => (&mut one, &mut two),
        _ = two.next_headers() => (&mut two, &mut one),
    };
    suspect.silent();
    request.abort();
    settle().await;
    let requests = fetch_many(&pool, &uri("https://a/"), 3);
    let first = [good.next_headers().await.stream, good.next_headers().await.stream];
    let last = suspect.next_headers().await.stream;
    suspect.respond(last, 200, b"ok").await;
    for stream in first {
        good.respond(stream, 200, b"ok").await;
    }
    for read in join_all(requests).await {
        read.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_rotate_by_age_and_by_use() {
    // P17: a replacement takes over before the old one stops.
    let by_age = H2Pool::builder().max_age(Duration::from_secs(100));
    let by_use = H2Pool::builder().max_streams_per_session(10);
    for (builder, reason) in [(by_age, "age"), (by_use, "use")] {
        let (pool, server) = with_server(builder, Server::builder());
        for _ in 0..50 {
            let held = pool.request(get(uri("https://a/sse/1?gate=sse"))).await.unwrap();
            let (read_one, took) = timed(join(fetch(&pool, get(uri("https://a/"))))).await;
            read_one.unwrap();
            assert!(took < Duration::from_millis(5), "nobody waits for it: {took:?}");
            pass(10.0).await;
            server.gate("sse").release(1);
            read(held).await.unwrap();
        }
        settle().await;
        let (stats, counts) = (pool.stats(), server.counts());
        let rotated = if reason == "age" {
            stats.sessions_closed.age
        } else {
            stats.sessions_closed.streams_served
        };
        assert!((4..=10).contains(&rotated), "{reason}: {stats:?}");
        assert_eq!(stats.sessions_closed.total(), rotated);
        assert!(counts.open() <= 2, "{counts:?}");
    }
}
