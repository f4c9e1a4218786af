//! Sessions that fall silent without a word.

use std::time::Duration;

use h2pool::H2Pool;

use crate::util::*;

#[tokio::test(start_paused = true)]
async fn a_session_that_dies_after_its_probe_was_answered_is_replaced() {
    // P14, P19, P44: it may not be probed again before HEADERS or DATA come, and nothing comes any more.
    let (pool, mut net) = net(H2Pool::builder());
    let served = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(100).await;
    peer.answer_one(b"ok").await.unwrap();
    join(served).await.unwrap();
    let poll = tokio::spawn(pool.request(get(uri("https://a/poll"))));
    peer.next_headers().await;
    poll.abort();
    settle().await;
    peer.ping_round_trip().await;
    settle().await;
    assert_eq!((pool.stats().streams, pool.stats().probes), (0, 1));
    // Now the network swallows everything.
    let mut tried = 0;
    while net.dials().await.is_empty() {
        let request = pool.request(get(uri("https://a/next")));
        let answer = tokio::time::timeout(Duration::from_secs(10), request).await;
        assert!(answer.is_err(), "nobody answers");
        tried += 1;
        assert!(tried < 5, "{tried} requests went to a session that is dead");
    }
    assert_eq!(pool.stats().probes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_only_slow_finishes_what_runs_on_its_session() {
    // P18, P19: requests beside a long poll are given up in silence, and it may not be probed again.
    let (pool, mut net) = net(H2Pool::builder());
    let served = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(100).await;
    peer.answer_one(b"ok").await.unwrap();
    join(served).await.unwrap();
    let poll = fetch(&pool, get(uri("https://a/poll")));
    let stream = peer.next_headers().await.stream;
    let server = tokio::spawn(async move {
        let until = now() + Duration::from_secs(60);
        while let Ok(frame) = tokio::time::timeout_at(until, peer.recv()).await {
            assert!(matches!(frame, Ok(Some(_))), "it ends: {frame:?}");
        }
        peer.respond(stream, 200, b"after all").await;
        peer.until_closed().await;
    });
    for _ in 0..5 {
        let slow = pool.request(get(uri("https://a/slow")));
        let answer = tokio::time::timeout(Duration::from_secs(3), slow).await;
        assert!(answer.is_err());
    }
    pass(30.0).await;
    let poll = tokio::time::timeout(Duration::from_secs(60), poll).await;
    assert_eq!(poll.unwrap().unwrap().unwrap().body, "after all");
    drop(pool);
    join(server).await;
}
