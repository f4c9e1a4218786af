//! Who keeps a permit of `limit_concurrency`, and for how long (P11, P15).

use std::time::Duration;

use h2pool::H2Pool;

use crate::support::peer::code;
use crate::util::*;

#[tokio::test(start_paused = true)]
async fn a_replay_keeps_its_permit() {
    // P11, P15, P21: those who came later wait for one.
    let (pool, mut net) = net(H2Pool::builder().limit_concurrency(1));
    let mut requests = vec![fetch(&pool, get(uri("https://a/first")))];
    let mut peer = net.ready_peer(10).await;
    let stream = peer.next_headers().await.stream;
    requests.extend(fetch_many(&pool, &uri("https://a/later"), 3));
    settle().await;
    assert_eq!(pool.stats().waiters, 3);
    peer.ping_round_trip().await;
    peer.send_rst(stream, code::REFUSED_STREAM).await;
    for path in ["/first", "/later", "/later", "/later"] {
        assert_eq!(peer.answer_one(b"ok").await.unwrap(), path);
    }
    for read in join_all(requests).await {
        read.unwrap();
    }
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slot_lost_while_its_permit_was_waited_for_costs_no_turn() {
    // P4, P11, P15
    let (pool, mut net) = net(H2Pool::builder().limit_concurrency(1));
    let mut requests = vec![fetch(&pool, get(uri("https://a/holder")))];
    let mut old = net.ready_peer(10).await;
    let stream = old.next_headers().await.stream;
    for n in 1..=3 {
        requests.push(fetch(&pool, get(uri(&format!("https://a/{n}")))));
        settle().await;
    }
    old.send_goaway(stream, code::NO_ERROR, b"").await;
    settle().await;
    requests.push(fetch(&pool, get(uri("https://a/late"))));
    let mut new = net.ready_peer(10).await;
    settle().await;
    old.respond(stream, 200, b"ok").await;
    for path in ["/1", "/2", "/3", "/late"] {
        assert_eq!(new.answer_one(b"ok").await.unwrap(), path);
    }
    for read in join_all(requests).await {
        read.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_session_was_lost_keeps_its_permit() {
    // P4, P11, P15: whether the session has ended already or takes no more work.
    for ended in [true, false] {
        let builder = H2Pool::builder().limit_concurrency(1).max_sessions(2);
        let (pool, mut net) = net(builder);
        pool.warm(&origin("https://a"), 2).unwrap();
        let mut peers = vec![net.ready_peer(10).await, net.ready_peer(10).await];
        settle().await;
        let lease = pool.acquire(&origin("https://a")).await.unwrap();
        let mut sessions = pool.sessions();
        sessions.sort_by_key(|session| session.id);
        let leased = sessions.iter().position(|session| session.streams == 1);
        let later = fetch(&pool, get(uri("https://a/later")));
        settle().await;
        let mut lost = peers.remove(leased.unwrap());
        lost.send_goaway(0, code::NO_ERROR, b"").await;
        if ended {
            drop(lost);
        }
        settle().await;
        let sent = tokio::spawn(async { read(lease.send(get(uri("https://a/leased"))).await?).await });
        for path in ["/leased", "/later"] {
            assert_eq!(peers[0].answer_one(b"ok").await.unwrap(), path);
        }
        join(sent).await.unwrap();
        join(later).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_lost_before_use_is_exchanged_within_one_acquire_timeout() {
    // P4, P9, P13, P15: and while no other is there, the permit serves those who have one.
    let builder = H2Pool::builder()
        .limit_concurrency(1)
        .acquire_timeout(Duration::from_secs(8));
    let (pool, mut net) = net(builder);
    let holder = fetch(&pool, get(uri("https://a/")));
    let mut a = net.ready_peer(10).await;
    let stream = a.next_headers().await.stream;
    let start = now();
    let exchanged = fetch(&pool, get(uri("https://a/")));
    settle().await;
    a.send_goaway(stream, code::NO_ERROR, b"").await;
    pass(5.0).await;
    a.respond(stream, 200, b"ok").await;
    join(holder).await.unwrap();
    let _hangs = net.dial().await;
    let elsewhere = fetch(&pool, get(uri("https://b/")));
    let mut b = net.ready_peer(10).await;
    b.answer_one(b"ok").await.unwrap();
    join(elsewhere).await.unwrap();
    let error = join(exchanged).await.unwrap_err();
    assert!(
        error.is_timeout() && error.to_string().contains("for a slot"),
        "{error:?}"
    );
    assert_eq!((now() - start).as_secs(), 8);
}
