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
