//! What the pool shows of itself, read from memory (P40, P43).

use std::time::Duration;

use futures_util::FutureExt;
use h2pool::{H2Pool, SessionProtocol, SessionState, Stats};
use tower::Service;

use crate::support::peer::code;
use crate::support::server::Server;
use crate::util::*;

#[tokio::test(start_paused = true)]
async fn reading_never_dials_and_never_waits() {
    // P40
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    assert_eq!((pool.stats(), pool.sessions().len()), (Stats::default(), 0));
    let service = pool.origin(origin("https://a"));
    assert_eq!(
        (
            tower::load::Load::load(&service),
            pool.is_h1_only(&origin("https://a"))
        ),
        (0, false)
    );
    assert_eq!(net.dials().await.len(), 0);
    assert_eq!(pool.stats().origins, 0, "a look is no use");

    let requests = fetch_many(&pool, &uri("https://a/"), 3);
    let dial = net.dial().await;
    let stats = pool.stats();
    assert_eq!(
        (
            stats.origins,
            stats.sessions_dialing,
            stats.waiters,
            stats.sessions_opened
        ),
        (1, 1, 3, 0)
    );
    let sessions = pool.sessions();
    assert_eq!((sessions.len(), sessions[0].state), (1, SessionState::Dialing));
    let mut peer = crate::support::peer::Peer::new(dial.accept(http::Version::HTTP_2));
    peer.handshake(&streams(2)).await;
    settle().await;
    let stats = pool.stats();
    assert_eq!(
        (
            stats.sessions_active,
            stats.sessions_opened,
            stats.sessions_dialing
        ),
        (1, 1, 0)
    );
    let stream = peer.next_headers().await.stream;
    peer.send_goaway(stream, code::NO_ERROR, b"").await;
    let mut next = net.ready_peer(10).await;
    let session = &pool.sessions()[0];
    assert_eq!((session.state, session.streams), (SessionState::Draining, 1));
    assert_eq!(session.protocol, Some(SessionProtocol::H2));
    assert_eq!((session.origin.as_str(), session.limit), ("https://a:443", 2));
    tokio::spawn(async move { next.serve(b"ok").await });
    peer.respond(stream, 200, b"ok").await;
    for read in join_all(requests).await {
        read.unwrap();
    }
    pool.mark_h1_only(&origin("https://b"));
    assert_eq!(pool.stats().origins_h1_only, 1);
    assert!(pool.clear_h1_only(&origin("https://b")));
    assert_eq!(pool.stats().origins_h1_only, 0);
}

#[tokio::test(start_paused = true)]
async fn what_happened_is_counted() {
    // P43
    let builder = H2Pool::builder()
        .max_sessions(1)
        .streams_per_session(1)
        .max_waiters(2);
    let (pool, server) = with_server(builder, Server::builder());
    let running = fetch(&pool, get(uri("https://a/gate")));
    server.gate("").until_waiting(1).await;
    let waiting = fetch_many(&pool, &uri("https://a/"), 2);
    settle().await;
    assert!(
        pool.request(get(uri("https://a/")))
            .await
            .unwrap_err()
            .is_saturated()
    );
    waiting[1].abort();
    pass(2.0).await;
    server.gate("").open();
    join(running).await.unwrap();
    for task in waiting {
        drop(task.await);
    }
    let stats = pool.stats();
    assert_eq!((stats.streams_started, stats.sessions_opened), (2, 1));
    assert_eq!(
        (stats.saturated, stats.waiters_cancelled, stats.acquire_timeouts),
        (1, 1, 0)
    );
    assert!(stats.wait_time.as_secs() >= 2, "{:?}", stats.wait_time);
    assert_eq!((stats.waiters, stats.streams), (0, 0));
    let session = &pool.sessions()[0];
    assert_eq!((session.streams_served, session.streams), (2, 0));
    pass(10.0).await;
    let session = &pool.sessions()[0];
    assert_eq!((session.idle.unwrap().as_secs(), session.age.as_secs()), (10, 12));
}

#[tokio::test(start_paused = true)]
async fn waits_by_readiness_are_counted_as_others_are() {
    // P29, P40, P43
    let builder = H2Pool::builder()
        .max_sessions(1)
        .streams_per_session(1)
        .acquire_timeout(Duration::from_secs(1));
    let (pool, server) = with_server(builder, Server::builder());
    let running = fetch(&pool, get(uri("https://a/gate")));
    server.gate("").until_waiting(1).await;
    let before = pool.stats();
    let mut service = pool.origin(origin("https://a"));
    service.ready().await.unwrap();
    let late = service.call(get(uri("https://a/"))).await.unwrap_err();
    assert!(late.is_timeout(), "{late:?}");
    let mut dropped = service.clone();
    assert!(dropped.ready().now_or_never().is_none());
    assert!(service.ready().now_or_never().is_none());
    assert_eq!(pool.stats().waiters, 2);
    drop(dropped);
    server.gate("").open();
    service.ready().await.unwrap();
    join(running).await.unwrap();
    let after = pool.stats();
    assert_eq!(
        (
            after.waits - before.waits,
            after.acquire_timeouts - before.acquire_timeouts,
            after.waiters_cancelled - before.waiters_cancelled
        ),
        (3, 1, 1)
    );
    assert_eq!((after.wait_time - before.wait_time).as_secs(), 1);
    assert_eq!(after.waiters, 0);
}
