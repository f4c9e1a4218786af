//! 421: the server does not speak for the origin on this session (P23).

use std::time::Duration;

use h2pool::{Builder, Error, H2Pool};
use tokio::task::JoinHandle;

use crate::support::client::upload;
use crate::support::peer::{Peer, code};
use crate::util::*;

#[tokio::test(start_paused = true)]
async fn a_misdirected_request_goes_to_a_session_of_its_own_once() {
    // P23
    for answers in [[421, 200], [421, 421]] {
        let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
        let request = fetch(&pool, post(uri("https://a/"), "body"));
        let mut shared = net.ready_peer(10).await;
        let first = shared.next_request().await;
        shared.respond(first.head.stream, answers[0], b"not here").await;
        let mut own = net.ready_peer(10).await;
        // Meanwhile the shared session serves the others.
        let other = fetch(&pool, get(uri("https://a/other")));
        assert_eq!(shared.answer_one(b"ok").await.unwrap(), "/other");
        join(other).await.unwrap();
        let again = own.next_request().await;
        assert_eq!(again.body, "body");
        own.respond(again.head.stream, answers[1], b"final").await;
        let read = join(request).await.unwrap();
        assert_eq!(
            (read.status.as_u16(), &read.body[..]),
            (answers[1], &b"final"[..])
        );
        own.until_closed().await;
        assert_eq!(net.dials().await.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_misdirected_body_waits_for_the_settings_of_the_session_of_its_own() {
    // P3, P23
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let request = fetch(&pool, post(uri("https://a/"), "body"));
    let mut shared = net.ready_peer(10).await;
    let first = shared.next_request().await;
    shared.respond(first.head.stream, 421, b"not here").await;
    let mut own = net.peer().await;
    settle().await;
    own.handshake(&streams(10)).await;
    let again = own.next_request().await;
    assert_eq!(again.body, "body");
    own.respond(again.head.stream, 200, b"here").await;
    assert_eq!(join(request).await.unwrap().body, "here");
    assert_eq!((net.dials().await.len(), pool.stats().replays), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_misdirected_request_that_cannot_be_sent_again_is_answered_as_it_is() {
    // P23
    let (pool, mut net) = net(H2Pool::builder().replay_buffer(0));
    let request = fetch(&pool, post(uri("https://a/"), "body"));
    let mut peer = net.ready_peer(10).await;
    let first = peer.next_request().await;
    peer.respond(first.head.stream, 421, b"not here").await;
    let read = join(request).await.unwrap();
    assert_eq!((read.status.as_u16(), &read.body[..]), (421, &b"not here"[..]));
    assert_eq!(net.dials().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_misdirected_request_whose_upload_goes_on_is_answered_as_it_is() {
    // P23, P30: its body went with the response, and is not to be left out of another attempt.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(2));
    let warm = fetch(&pool, get(uri("https://a/warm")));
    let mut peer = net.ready_peer(10).await;
    assert_eq!(peer.answer_one(b"ok").await.unwrap(), "/warm");
    join(warm).await.unwrap();
    let (sender, body) = upload(64);
    let request = fetch(&pool, http::Request::post("https://a/").body(body).unwrap());
    let head = peer.next_headers().await;
    peer.respond(head.stream, 421, b"not here").await;
    settle().await;
    drop(sender);
    let read = join(request).await.unwrap();
    assert_eq!((read.status.as_u16(), &read.body[..]), (421, &b"not here"[..]));
    assert_eq!(net.dials().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_that_are_misdirected_at_once_each_get_a_session_of_their_own() {
    // P5, P23: one after the other, as there may be no more.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let requests = [(); 3].map(|()| fetch(&pool, get(uri("https://a/"))));
    let mut shared = net.ready_peer(10).await;
    for _ in 0..3 {
        let stream = shared.next_headers().await.stream;
        shared.respond(stream, 421, b"not here").await;
    }
    for _ in 0..3 {
        let mut own = net.ready_peer(10).await;
        assert!(net.dials().await.is_empty());
        let again = own.next_request().await;
        own.respond(again.head.stream, 200, b"here").await;
        own.until_closed().await;
    }
    for request in requests {
        assert_eq!(join(request).await.unwrap().body, "here");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_of_its_own_that_refuses_is_followed_by_another() {
    // P21, P23: the shared one would answer 421 again.
    for max_sessions in [1, 2] {
        let (pool, mut net) = net(H2Pool::builder().max_sessions(max_sessions));
        let request = fetch(&pool, post(uri("https://a/"), "body"));
        let mut shared = net.ready_peer(10).await;
        let first = shared.next_request().await;
        shared.respond(first.head.stream, 421, b"not here").await;
        let mut own = net.ready_peer(10).await;
        let refused = own.next_request().await.head.stream;
        own.send_rst(refused, code::REFUSED_STREAM).await;
        let mut another = net.ready_peer(10).await;
        let again = another.next_request().await;
        assert_eq!(again.body, "body");
        another.respond(again.head.stream, 200, b"here").await;
        assert_eq!(join(request).await.unwrap().body, "here");
        another.until_closed().await;
        assert_eq!((pool.stats().streams, pool.stats().sessions_active), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_of_its_own_that_refuse_are_bounded() {
    // P21, P23
    let (pool, mut net) = net(H2Pool::builder().max_replays(2));
    let request = fetch(&pool, get(uri("https://a/")));
    let mut shared = net.ready_peer(10).await;
    let stream = shared.next_headers().await.stream;
    shared.respond(stream, 421, b"not here").await;
    for _ in 0..3 {
        let mut own = net.ready_peer(10).await;
        let stream = own.next_headers().await.stream;
        own.ping_round_trip().await;
        own.send_rst(stream, code::REFUSED_STREAM).await;
    }
    let error = join(request).await.unwrap_err();
    assert!(error.is_reset() && error.is_unprocessed(), "{error:?}");
    assert_eq!(net.dials().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_of_its_own_that_is_lost_before_use_is_followed_by_another() {
    // P4, P23: whether it ends before the request hears of it, or is only about to.
    for ended in [true, false] {
        let (pool, mut net) = net(H2Pool::builder());
        let mut request = tokio_test::task::spawn(pool.request(get(uri("https://a/"))));
        assert!(request.poll().is_pending());
        let mut shared = net.ready_peer(10).await;
        settle().await;
        assert!(request.poll().is_pending());
        let stream = shared.next_headers().await.stream;
        shared.respond(stream, 421, b"not here").await;
        settle().await;
        assert!(request.poll().is_pending());
        let mut own = net.ready_peer(10).await;
        assert!(request.is_woken());
        own.send_goaway(0, code::NO_ERROR, b"").await;
        if ended {
            drop(own);
        }
        settle().await;
        assert!(request.poll().is_pending());
        let request = tokio::spawn(request.into_inner());
        let mut another = net.ready_peer(10).await;
        let stream = another.next_headers().await.stream;
        another.respond(stream, 200, b"here").await;
        assert_eq!(read(join(request).await.unwrap()).await.unwrap().body, "here");
    }
}

/// Sends so many to a server that answers each by 421, and returns once it has.
async fn all_misdirected(
    pool: &H2Pool,
    peer: &mut Peer,
    count: usize,
) -> Vec<JoinHandle<Result<Read, Error>>> {
    let requests = fetch_many(pool, &uri("https://a/"), count);
    for _ in 0..count {
        let stream = peer.next_headers().await.stream;
        peer.respond(stream, 421, b"not here").await;
    }
    settle().await;
    requests
}

/// A pool with a session to this server, which has served something.
async fn serving(builder: Builder, limit: u32) -> (H2Pool, Net, Peer) {
    let (pool, mut net) = net(builder);
    let served = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(limit).await;
    peer.answer_one(b"ok").await.unwrap();
    join(served).await.unwrap();
    (pool, net, peer)
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_sessions_of_their_own_hold_neither_slots_nor_permits() {
    // P15, P23: the dial for the first hangs, and the others wait for room.
    let builder = H2Pool::builder().max_sessions(1).limit_concurrency(4);
    let (pool, mut net, mut shared) = serving(builder, 4).await;
    let _waiting = all_misdirected(&pool, &mut shared, 4).await;
    let _hanging = net.dial().await;
    let good = fetch(&pool, get(uri("https://a/good")));
    let (path, took) = timed(shared.answer_one(b"ok")).await;
    assert_eq!(path.unwrap(), "/good");
    join(good).await.unwrap();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_too_long_to_be_read_before_hold_no_permits_from_each_other() {
    // P15, P23: whoever has its session goes on with the permit of its answer.
    for length in [11, 100_000] {
        let builder = H2Pool::builder().max_sessions(1).limit_concurrency(2);
        let (pool, mut net, mut shared) = serving(builder, 10).await;
        let requests = fetch_many(&pool, &uri("https://a/"), 6);
        let server = tokio::spawn(async move {
            while let Some((stream, _)) = shared.next_complete().await {
                shared.respond(stream, 421, &vec![b'a'; length]).await;
            }
        });
        let owns = tokio::spawn(async move {
            loop {
                let mut own = net.ready_peer(10).await;
                own.answer_one(b"here").await.unwrap();
                own.until_closed().await;
            }
        });
        let (reads, took) = timed(join_all(requests)).await;
        for read in reads {
            assert_eq!(read.unwrap().body, "here");
        }
        assert!(took < Duration::from_secs(2), "{took:?} for {length} bytes");
        server.abort();
        owns.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_421_is_kept_however_long_where_it_is_the_answer() {
    // P23, P31: a part of it was read before.
    let (pool, mut net, mut shared) = serving(H2Pool::builder().max_sessions(1), 4).await;
    for (sizes, pause) in [
        (vec![3], 0.0),
        (vec![10_000, 10_000, 10_000], 0.0),
        (vec![5, 5, 5], 1.0),
    ] {
        let request = fetch(&pool, get(uri("https://a/")));
        let stream = shared.next_headers().await.stream;
        shared.send_headers(stream, 421, false).await;
        for (at, size) in sizes.iter().enumerate() {
            shared
                .send_data(stream, &vec![b'a'; *size], at + 1 == sizes.len())
                .await;
            pass(pause).await;
        }
        drop(net.dial().await);
        let read = join(request).await.unwrap();
        assert_eq!((read.status.as_u16(), read.body.len()), (421, sizes.iter().sum()));
    }
}

#[tokio::test(start_paused = true)]
async fn many_that_are_misdirected_make_no_storm_of_failing_dials() {
    // P9, P23
    let (pool, mut net, mut shared) = serving(H2Pool::builder().max_sessions(1), 100).await;
    let requests = all_misdirected(&pool, &mut shared, 50).await;
    let mut dials = 0;
    while let more @ 1.. = net.dials().await.len() {
        dials += more;
    }
    for request in join_all(requests).await {
        assert_eq!(request.unwrap().status.as_u16(), 421);
    }
    assert!(dials <= 4, "{dials} dials were refused");
}

#[tokio::test(start_paused = true)]
async fn many_that_are_misdirected_one_after_the_other_wait_for_the_back_off() {
    // P9, P23: each dial for a session of its own fails.
    let (pool, mut net, mut shared) = serving(H2Pool::builder(), 10).await;
    let server = tokio::spawn(async move {
        while let Some((stream, _)) = shared.next_complete().await {
            shared.respond(stream, 421, b"").await;
        }
    });
    let network = tokio::spawn(async move { while net.next_dial().await.is_some() {} });
    let hundred = async {
        for _ in 0..100 {
            let answer = join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
            assert_eq!(answer.status, 421);
        }
    };
    let ((), took) = timed(hundred).await;
    assert_eq!(pool.stats().dials_failed, 100);
    assert!(took > Duration::from_secs(90), "{took:?}");
    server.abort();
    network.abort();
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_for_sessions_of_their_own_than_may_wait() {
    // P13, P23, P40
    let builder = H2Pool::builder().max_sessions(1).max_waiters(2);
    let (pool, mut net, mut shared) = serving(builder, 100).await;
    let requests = all_misdirected(&pool, &mut shared, 50).await;
    let _hanging = net.dial().await;
    pass(1.0).await;
    let waiting = requests.iter().filter(|request| !request.is_finished()).count();
    assert_eq!((waiting, pool.stats().waiters), (3, 2), "one has its dial");
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_forgotten_between_two_sessions_of_ones_own_is_made_anew() {
    // P23, P39
    let (pool, mut net) = net(H2Pool::builder().max_origins(1));
    let request = fetch(&pool, get(uri("https://a/")));
    let mut shared = net.ready_peer(10).await;
    let stream = shared.next_headers().await.stream;
    shared.respond(stream, 421, b"not here").await;
    for _ in 0..2 {
        let mut own = net.ready_peer(10).await;
        let stream = own.next_headers().await.stream;
        own.ping_round_trip().await;
        own.send_rst(stream, code::REFUSED_STREAM).await;
        own.until_closed().await;
    }
    // It pauses before its second replay, and another origin needs the place.
    settle().await;
    let other = fetch(&pool, get(uri("https://b/")));
    net.ready_peer(10).await.answer_one(b"ok").await.unwrap();
    join(other).await.unwrap();
    let mut own = net.ready_peer(10).await;
    own.answer_one(b"here").await.unwrap();
    assert_eq!(join(request).await.unwrap().body, "here");
}
