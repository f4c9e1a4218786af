//! Limits on streams: the server's, ours, and the one over the whole pool (P3, P4, P15, P39).

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use h2pool::{Error, H2Pool};
use http::Version;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tower::Service;

use crate::support::peer::{Frame, Peer, code};
use crate::support::server::Server;
use crate::util::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lower_of_both_limits_holds() {
    // P3
    for (theirs, ours, expected) in [(2, 256, 2), (1000, 5, 5)] {
        let server = Server::builder().h2_max_streams(theirs).start().await;
        let pool = tls().max_sessions(1).streams_per_session(ours).build().unwrap();
        join(fetch(&pool, get(server.uri("/")))).await.unwrap();
        let requests = fetch_many(&pool, &server.uri("/gate"), 12);
        server.gate("").until_waiting(expected).await;
        eventually("the others wait", || pool.stats().waiters == 12 - expected).await;
        assert_eq!(pool.sessions()[0].limit, expected);
        for _ in 0..12 {
            server.gate("").release(1);
        }
        for read in join_all(requests).await {
            read.unwrap();
        }
        assert_eq!(server.counts().max_streams(), expected);
    }
}

/// The streams of the requests that a peer has received until now.
async fn heads(peer: &mut Peer) -> Vec<u32> {
    let mut streams = Vec::new();
    while let Ok(frame) = tokio::time::timeout(Duration::from_millis(1), peer.recv()).await {
        match frame.unwrap() {
            Some(Frame::Headers(head)) => streams.push(head.stream),
            Some(_) => {}
            None => break,
        }
    }
    streams
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_followed_up_and_down() {
    // P3, P4
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let mut peer = {
        let warm = pool.warm(&origin("https://a"), 1);
        warm.unwrap();
        net.ready_peer(2).await
    };
    let requests = fetch_many(&pool, &uri("https://a/"), 20);
    let mut open = heads(&mut peer).await;
    assert_eq!(open.len(), 2);

    peer.send_settings(&streams(5)).await;
    let more = heads(&mut peer).await;
    assert_eq!(more.len(), 3, "raised: waiters are served at once");
    open.extend(more);

    peer.send_settings(&streams(2)).await;
    assert!(heads(&mut peer).await.is_empty());
    for left in [4, 3, 2] {
        peer.respond(open.remove(0), 200, b"ok").await;
        assert!(heads(&mut peer).await.is_empty(), "{left} in use of 2");
        assert_eq!((pool.stats().streams, pool.sessions()[0].limit), (left, 2));
    }
    peer.respond(open.remove(0), 200, b"ok").await;
    open.extend(heads(&mut peer).await);
    assert_eq!(open.len(), 2, "one came free under the limit, one was served");

    peer.send_settings(&streams(0)).await;
    settle().await;
    for stream in open.drain(..) {
        peer.respond(stream, 200, b"ok").await;
    }
    assert!(heads(&mut peer).await.is_empty(), "zero holds all back");
    peer.send_settings(&streams(100)).await;
    let rest = heads(&mut peer).await;
    assert_eq!(rest.len(), 20 - 6);
    for stream in rest {
        peer.respond(stream, 200, b"ok").await;
    }
    for read in join_all(requests).await {
        assert_eq!(read.unwrap().body, "ok");
    }
}

#[tokio::test(start_paused = true)]
async fn no_stream_goes_beyond_the_limit_whatever_happens() {
    // P4, P12: limits change and callers leave at random; the peer acknowledges what it then counts on.
    for seed in 0..8 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (pool, mut net) = net(H2Pool::builder().max_sessions(1).max_waiters(0));
        pool.warm(&origin("https://a"), 1).unwrap();
        let mut limit = 3;
        let mut peer = net.ready_peer(limit).await;
        settle().await;
        let (mut open, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            match random.random_range(0..6) {
                0 => {
                    limit = random.random_range(0..8);
                    peer.send_settings(&streams(limit)).await;
                }
                1 | 2 => tasks.push(fetch(&pool, get(uri("https://a/")))),
                3 if !tasks.is_empty() => {
                    let one = random.random_range(0..tasks.len());
                    tasks.swap_remove(one).abort();
                }
                _ if !open.is_empty() => {
                    let one = random.random_range(0..open.len());
                    peer.respond(open.swap_remove(one), 200, b"ok").await;
                }
                _ => {}
            }
            // What comes before the acknowledgement of the latest SETTINGS was sent under the older ones.
            let before = open.len();
            while let Ok(frame) = tokio::time::timeout(Duration::from_millis(1), peer.recv()).await {
                match frame.unwrap().unwrap() {
                    Frame::Headers(head) => open.push(head.stream),
                    Frame::Reset { stream, .. } => open.retain(|open| *open != stream),
                    _ => {}
                }
                assert!(
                    open.len() <= before.max(limit as usize),
                    "{} open of {limit}",
                    open.len()
                );
            }
        }
        peer.send_settings(&streams(50)).await;
        let serving = tokio::spawn(async move {
            for stream in open {
                peer.respond(stream, 200, b"ok").await;
            }
            peer.serve(b"ok").await
        });
        for task in join_all(tasks).await {
            assert_eq!(task.unwrap().body, "ok");
        }
        assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
        drop((pool, net));
        join(serving).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_starts_with_what_the_last_one_taught() {
    // P3: before SETTINGS, and only requests without a body.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let first = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(3).await;
    peer.answer_one(b"ok").await.unwrap();
    join(first).await.unwrap();
    peer.send_goaway(1, code::NO_ERROR, b"").await;
    settle().await;
    let mut requests = vec![
        fetch(&pool, get(uri("https://a/1"))),
        fetch(&pool, get(uri("https://a/2"))),
    ];
    let upload = fetch(&pool, post(uri("https://a/3"), "body"));
    settle().await;
    requests.extend(fetch_many(&pool, &uri("https://a/late"), 5));
    let mut next = net.peer().await;
    next.silent();
    next.expect_preface().await;
    assert_eq!(
        heads(&mut next).await.len(),
        2,
        "three may, but the third has a body"
    );
    next.send_settings(&streams(100)).await;
    let third = next.next_headers().await;
    assert_eq!(third.path(), "/3", "in the order of asking");
    let serving = tokio::spawn(async move {
        for stream in [1, 3, third.stream] {
            next.respond(stream, 200, b"ok").await;
        }
        next.serve(b"ok").await
    });
    requests.push(upload);
    for read in join_all(requests).await {
        assert_eq!(read.unwrap().body, "ok");
    }
    drop((pool, net));
    assert_eq!(join(serving).await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_request_with_a_body_waits_for_settings() {
    // P3
    let (pool, mut net) = net(H2Pool::builder());
    let upload = fetch(&pool, post(uri("https://a/upload"), "body"));
    let mut peer = net.peer().await;
    peer.silent();
    peer.expect_preface().await;
    assert!(heads(&mut peer).await.is_empty());
    assert_eq!(pool.stats().waiters, 1);
    peer.send_settings(&streams(1)).await;
    let request = peer.next_request().await;
    assert_eq!(
        (request.head.path(), &request.body[..]),
        ("/upload", &b"body"[..])
    );
    peer.respond(1, 200, b"ok").await;
    assert_eq!(join(upload).await.unwrap().body, "ok");
}

#[tokio::test(start_paused = true)]
async fn limit_concurrency_holds_over_all_origins() {
    // P15
    let builder = H2Pool::builder().limit_concurrency(3);
    let (pool, server) = with_server(builder, Server::builder());
    let mut requests = Vec::new();
    for n in 0..12 {
        let name = ["a", "b", "c"][n % 3];
        requests.push(fetch(&pool, named(get(uri(&format!("https://{name}/gate"))), n)));
        settle().await;
    }
    server.gate("").until_waiting(3).await;
    settle().await;
    assert_eq!((server.counts().active, pool.stats().waiters), (3, 9));
    for served in 1..=12 {
        server.gate("").release(1);
        settle().await;
        // First come, first served, over all origins.
        let counts = server.counts();
        assert_eq!(counts.requests, (served + 3).min(12));
        assert!(
            (0..counts.requests).all(|n| counts.processed(&n.to_string()) == 1),
            "{counts:?}"
        );
    }
    for read in join_all(requests).await {
        read.unwrap();
    }
    assert_eq!(server.counts().max_active, 3);
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dead_origin_hoards_no_permits() {
    // P9, P15
    let (pool, mut net) = net(H2Pool::builder().limit_concurrency(2));
    let dead = fetch_many(&pool, &uri("https://dead/"), 50);
    let hanging = net.dial().await;
    assert_eq!(hanging.key().host(), "dead");
    let alive = fetch_many(&pool, &uri("https://alive/"), 10);
    let mut peer = net.ready_peer(100).await;
    let serving = tokio::spawn(async move { peer.serve(b"ok").await });
    let (reads, took) = timed(join_all(alive)).await;
    assert!(reads.into_iter().all(|read| read.unwrap().body == "ok"));
    assert!(took < Duration::from_secs(1), "{took:?}");
    hanging.refuse(Error::connect("dead"));
    for read in join_all(dead).await {
        assert!(read.unwrap_err().is_connect());
    }
    drop((pool, net));
    assert_eq!(join(serving).await.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_permit_is_waiting() {
    // P13, P15
    let builder = H2Pool::builder().limit_concurrency(1).max_waiters(2);
    let (pool, server) = with_server(builder, Server::builder());
    let held = pool.request(get(uri("https://a/sse/1?gate=sse"))).await.unwrap();
    let start = now();
    let timed_out = fetch(&pool, get(uri("https://a/")));
    pass(10.0).await;
    let cancelled = fetch(&pool, get(uri("https://a/")));
    settle().await;
    assert_eq!((pool.stats().waiters, pool.stats().streams), (2, 3));
    let refused = pool.request(get(uri("https://a/"))).await.unwrap_err();
    assert!(refused.is_saturated() && refused.is_unprocessed());
    let error = join(timed_out).await.unwrap_err();
    assert!(error.is_timeout() && error.is_unprocessed(), "{error:?}");
    assert!(error.to_string().contains("limit_concurrency"), "{error}");
    assert_eq!((now() - start).as_secs(), 30);
    cancelled.abort();
    settle().await;
    assert_eq!((pool.stats().waiters, pool.stats().streams), (0, 1));
    let last = fetch(&pool, get(uri("https://a/")));
    settle().await;
    assert!(!last.is_finished());
    server.gate("sse").open();
    read(held).await.unwrap();
    assert_eq!(join(last).await.unwrap().body, "ok");
}

#[tokio::test(start_paused = true)]
async fn whoever_was_let_in_is_not_turned_away_for_want_of_a_permit() {
    // P13, P15: its place in the queue was taken by another while it went from one wait to the next.
    let builder = H2Pool::builder()
        .max_sessions(1)
        .limit_concurrency(1)
        .max_waiters(1);
    let (pool, mut net) = net(builder);
    let requests = ["held", "newcomer"].map(|path| pool.request(get(uri(&format!("https://a/{path}")))));
    let both = tokio::spawn(async move {
        // The second as soon as the slot of the first is free, before the one that it was given to has run.
        for request in requests {
            read(request.await.unwrap()).await.unwrap();
        }
    });
    let mut a = net.ready_peer(1).await;
    let stream = a.next_headers().await.stream;
    let let_in = fetch(&pool, get(uri("https://a/let-in")));
    settle().await;
    let elsewhere = fetch(&pool, get(uri("https://b/")));
    let mut b = net.ready_peer(1).await;
    settle().await;
    assert_eq!(pool.stats().waiters, 2, "one at each origin");
    a.send_headers(stream, 200, false).await;
    a.send_data(stream, b"ok", true).await;
    // The permit goes to the one who has waited longest for it.
    assert_eq!(b.answer_one(b"ok").await.unwrap(), "/");
    join(elsewhere).await.unwrap();
    assert_eq!(a.answer_one(b"ok").await.unwrap(), "/let-in");
    join(let_in).await.unwrap();
    assert_eq!(a.answer_one(b"ok").await.unwrap(), "/newcomer");
    join(both).await;
}

#[tokio::test(start_paused = true)]
async fn a_misdirected_answer_lets_go_of_its_permit() {
    // P15, P23: it may be the only one.
    let (pool, mut net) = net(H2Pool::builder().limit_concurrency(1));
    let request = fetch(&pool, get(uri("https://a/")));
    let mut shared = net.ready_peer(10).await;
    let stream = shared.next_headers().await.stream;
    shared.respond(stream, 421, b"not here").await;
    let mut own = net.ready_peer(10).await;
    let (answered, took) = timed(own.answer_one(b"ok")).await;
    answered.unwrap();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(join(request).await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn both_waits_share_one_acquire_timeout() {
    // P13, P15
    let builder = H2Pool::builder()
        .limit_concurrency(1)
        .acquire_timeout(Duration::from_secs(8));
    let (pool, mut net) = net(builder);
    let holder = fetch(&pool, get(uri("https://a/")));
    let mut a = net.ready_peer(1).await;
    let stream = a.next_headers().await.stream;
    let start = now();
    let waits_twice = fetch(&pool, get(uri("https://b/")));
    let dial = net.dial().await;
    pass(5.0).await;
    let mut b = Peer::new(dial.accept(Version::HTTP_2));
    b.handshake(&streams(1)).await;
    let error = join(waits_twice).await.unwrap_err();
    assert!(
        error.is_timeout() && error.to_string().contains("limit_concurrency"),
        "{error:?}"
    );
    assert_eq!((now() - start).as_secs(), 8);
    a.respond(stream, 200, b"ok").await;
    join(holder).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn origins_are_bounded_and_idle_ones_leave() {
    // P39
    let (pool, server) = with_server(H2Pool::builder().max_origins(2), Server::builder());
    let busy = fetch(&pool, get(uri("https://busy/gate")));
    server.gate("").until_waiting(1).await;
    for n in 0..20 {
        let target = uri(&format!("https://host{n}/"));
        assert_eq!(join(fetch(&pool, get(target))).await.unwrap().body, "ok");
        assert_eq!(pool.stats().origins, 2);
    }
    assert_eq!(pool.stats().sessions_closed.evicted, 19);
    settle().await;
    assert_eq!(
        server.counts().open(),
        2,
        "sessions of origins that left are closed"
    );
    // When all have work, one more is refused.
    let second = fetch(&pool, get(uri("https://second/gate")));
    server.gate("").until_waiting(2).await;
    let error = pool.request(get(uri("https://third/"))).await.unwrap_err();
    assert!(error.is_saturated(), "{error:?}");
    server.gate("").open();
    join(busy).await.unwrap();
    join(second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_leaves_takes_no_request_along() {
    // P39: found in the map and gone before it was asked for a slot, it is made anew.
    let server = Server::builder().start_on_own_thread();
    let pool = Arc::new(tls().max_origins(1).build().unwrap());
    let hosts = [server.uri("/"), server.localhost_uri("/")];
    let tasks = (0..2).map(|worker| {
        let (pool, hosts) = (pool.clone(), hosts.clone());
        tokio::spawn(async move {
            for n in 0..60 {
                match pool.request(get(hosts[(worker + n) % 2].clone())).await {
                    Ok(response) => assert_eq!(read(response).await.unwrap().body, "ok"),
                    Err(error) => assert!(error.is_saturated(), "{error:?}"),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        join(task).await;
    }
}

#[test]
fn a_permit_that_is_waited_for_outside_of_a_runtime_is_an_error() {
    // P36, P41: not a panic.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (pool, mut net) = net(H2Pool::builder().limit_concurrency(1));
    let (call, _running) = runtime.block_on(async {
        let running = fetch(&pool, get(uri("https://a/")));
        let mut peer = net.ready_peer(10).await;
        peer.next_headers().await;
        let mut service = pool.origin(origin("https://a"));
        service.ready().await.unwrap();
        (service.call(get(uri("https://a/"))), (running, peer))
    });
    let error = call.now_or_never().unwrap().unwrap_err();
    assert!(error.is_config() && error.is_unprocessed(), "{error:?}");
}
