//! What the server provably did not process is sent again, once (P4, P18, P21–P23).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2pool::H2Pool;
use http_body::Frame as BodyFrame;
use parking_lot::Mutex;

use crate::support::client::upload;
use crate::support::listener::PeerListener;
use crate::support::peer::{Frame, code, frame, setting};
use crate::support::scripted::{Answer, Scripted};
use crate::support::server::ID;
use crate::util::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_requests_are_sent_again_and_processed_once() {
    // P21
    let refused = Mutex::new(HashSet::new());
    let server = Scripted::start(move |seen| {
        let id = seen.request.headers.get(ID).cloned();
        let odd = id
            .as_ref()
            .is_some_and(|id| id.as_bytes().last().is_some_and(|digit| digit % 2 == 1));
        if odd && refused.lock().insert(id) {
            Answer::refuse()
        } else {
            Answer::ok("done")
        }
    })
    .await;
    let pool = tls().build().unwrap();
    join(fetch(&pool, get(server.uri("/")))).await.unwrap();
    let mut tasks = Vec::new();
    for id in 0..100 {
        tasks.push(match id % 3 {
            0 => fetch(&pool, named(get(server.uri("/")), id)),
            _ => fetch(&pool, named(post(server.uri("/"), "a body that is kept"), id)),
        });
    }
    for read in join_all(tasks).await {
        assert_eq!(read.unwrap().body, "done");
    }
    let counts = server.counts();
    assert_eq!(
        (counts.by_id.len(), counts.duplicates().len()),
        (100, 0),
        "{counts:?}"
    );
    let stats = pool.stats();
    assert!(stats.streams_refused <= 50 && stats.replays <= 50, "{stats:?}");
    assert_eq!(pool.stats().streams, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_goaway_excludes_are_sent_again_and_processed_once() {
    // P14, P18, P21: the server drains each connection after every tenth request.
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(4);
    let server = Scripted::with_settings(settings, |seen| match seen.nth % 10 {
        9 => Answer::Goaway(Box::new(Answer::ok("last"))),
        _ => Answer::ok("done"),
    })
    .await;
    let pool = tls().max_sessions(2).build().unwrap();
    let mut tasks = Vec::new();
    for id in 0..200 {
        tasks.push(fetch(
            &pool,
            named(post(server.uri("/"), "a body that is kept"), id),
        ));
        tokio::task::yield_now().await;
    }
    for read in join_all(tasks).await {
        assert!(
            ["done", "last"]
                .iter()
                .any(|body| read.as_ref().unwrap().body == body)
        );
    }
    let counts = server.counts();
    assert_eq!(
        (counts.by_id.len(), counts.duplicates().len()),
        (200, 0),
        "{counts:?}"
    );
    assert!(counts.connections.len() > 10, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn goaway_spares_what_it_covers_and_frees_the_rest_whatever_its_reason() {
    // P18, P21, P22
    for reason in [code::NO_ERROR, code::ENHANCE_YOUR_CALM, code::INTERNAL_ERROR] {
        let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
        let covered = fetch(&pool, post(uri("https://a/covered"), "one"));
        let mut peer = net.ready_peer(10).await;
        let first = peer.next_request().await.head.stream;
        let excluded = fetch(&pool, post(uri("https://a/excluded"), "two"));
        assert_eq!(peer.next_request().await.body, "two");
        peer.send_goaway(first, reason, b"").await;
        let mut next = net.ready_peer(10).await;
        let again = next.next_request().await;
        assert_eq!((again.head.path(), &again.body[..]), ("/excluded", &b"two"[..]));
        next.respond(again.head.stream, 200, b"again").await;
        assert_eq!(join(excluded).await.unwrap().body, "again");
        assert_eq!((pool.stats().sessions_draining, pool.stats().replays), (1, 1));
        assert!(!covered.is_finished());
        peer.respond(first, 200, b"covered").await;
        assert_eq!(join(covered).await.unwrap().body, "covered");
        peer.until_closed().await;
        settle().await;
        assert_eq!(
            (
                pool.stats().sessions_draining,
                pool.stats().sessions_closed.goaway
            ),
            (0, 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_warning_comes_first_and_the_last_stream_later() {
    // P18, RFC 9113 §6.8: 2³¹−1, then the real one, which may be lower.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let one = fetch(&pool, get(uri("https://a/one")));
    let mut peer = net.ready_peer(10).await;
    let first = peer.next_headers().await.stream;
    let two = fetch(&pool, get(uri("https://a/two")));
    peer.next_headers().await;
    peer.send_goaway(0x7fff_ffff, code::NO_ERROR, b"").await;
    let three = fetch(&pool, get(uri("https://a/three")));
    let mut next = net.ready_peer(10).await;
    assert_eq!(next.answer_one(b"next").await.unwrap(), "/three");
    assert_eq!(join(three).await.unwrap().body, "next");
    assert!(!two.is_finished());
    peer.send_goaway(first, code::NO_ERROR, b"").await;
    assert_eq!(next.answer_one(b"next").await.unwrap(), "/two");
    assert_eq!(join(two).await.unwrap().body, "next");
    peer.respond(first, 200, b"first").await;
    assert_eq!(join(one).await.unwrap().body, "first");
}

#[tokio::test(start_paused = true)]
async fn a_draining_session_has_so_long_and_no_longer() {
    // P18
    let (pool, mut net) = net(H2Pool::builder().drain_timeout(Duration::from_secs(7)));
    let request = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(10).await;
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    peer.send_goaway(stream, code::NO_ERROR, b"").await;
    let (read, took) = timed(join(request)).await;
    let error = read.unwrap_err();
    assert!(
        error.is_body() && error.is_goaway() && !error.is_unprocessed(),
        "{error:?}"
    );
    assert_eq!(took.as_secs(), 7);
    peer.until_closed().await;
}

/// A body of frames that are all there; the pool cannot know its size.
fn chunks(frames: &[&'static [u8]]) -> crate::support::server::body::Boxed {
    let (sender, body) = upload(frames.len());
    for frame in frames {
        sender
            .try_send(Ok(BodyFrame::data(Bytes::from_static(frame))))
            .unwrap();
    }
    body
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_not_kept_is_not_sent_again() {
    // P21, P22
    for (buffer, replayed) in [(64 * 1024, true), (10, true), (9, false), (0, false)] {
        let (pool, mut net) = net(H2Pool::builder().replay_buffer(buffer));
        let body = chunks(&[b"12345", b"67890"]);
        let request = fetch(&pool, http::Request::post("https://a/").body(body).unwrap());
        let mut peer = net.ready_peer(10).await;
        let sent = peer.next_request().await;
        assert_eq!(sent.body, "1234567890");
        peer.send_rst(sent.head.stream, code::REFUSED_STREAM).await;
        if replayed {
            let again = peer.next_request().await;
            assert_eq!(again.body, "1234567890", "{buffer}");
            peer.respond(again.head.stream, 200, b"ok").await;
            assert_eq!(join(request).await.unwrap().body, "ok");
        } else {
            let error = join(request).await.unwrap_err();
            assert!(
                error.is_unprocessed() && error.is_reset() && error.is_transient(),
                "{error:?}"
            );
            assert_eq!((error.origin(), pool.stats().replays), (Some("https://a:443"), 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_slowly_is_kept_as_far_as_it_came() {
    // P21: refused in the middle of the upload, it goes on where the caller is.
    let (pool, mut net) = net(H2Pool::builder());
    let (sender, body) = upload(8);
    let request = fetch(&pool, http::Request::post("https://a/").body(body).unwrap());
    let mut peer = net.ready_peer(10).await;
    let stream = peer.next_headers().await.stream;
    sender
        .send(Ok(BodyFrame::data(Bytes::from_static(b"first, "))))
        .await
        .unwrap();
    assert!(matches!(peer.next_stream_frame().await, Frame::Data(data) if data.data == "first, "));
    peer.send_rst(stream, code::REFUSED_STREAM).await;
    let again = peer.next_headers().await.stream;
    sender
        .send(Ok(BodyFrame::data(Bytes::from_static(b"second"))))
        .await
        .unwrap();
    drop(sender);
    let mut received = Vec::new();
    loop {
        if let Frame::Data(data) = peer.next_stream_frame().await {
            received.extend_from_slice(&data.data);
            if data.end {
                break;
            }
        }
    }
    assert_eq!(received, b"first, second");
    peer.respond(again, 200, b"ok").await;
    assert_eq!(join(request).await.unwrap().body, "ok");
}

#[tokio::test(start_paused = true)]
async fn replays_are_bounded() {
    // P21, P22
    for max in [3, 1, 0] {
        let (pool, mut net) = net(H2Pool::builder().max_replays(max));
        let request = fetch(&pool, post(uri("https://a/"), "body"));
        let mut peer = net.ready_peer(10).await;
        let refusing = tokio::spawn(async move {
            let mut refused = 0;
            while let Some((stream, _)) = peer.next_complete().await {
                refused += 1;
                peer.send_rst(stream, code::REFUSED_STREAM).await;
            }
            refused
        });
        let error = join(request).await.unwrap_err();
        assert!(
            error.is_unprocessed() && error.is_reset() && error.is_transient(),
            "{error:?}"
        );
        assert_eq!(pool.stats().replays, max as u64);
        drop((pool, net));
        assert_eq!(join(refusing).await, 1 + max);
    }
}

#[tokio::test(start_paused = true)]
async fn the_bound_on_replays_travels_with_the_request() {
    // P21: every session refuses it for the first time.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1).max_replays(2));
    let useful = fetch(&pool, get(uri("https://a/useful")));
    let mut peer = net.ready_peer(10).await;
    peer.answer_one(b"ok").await.unwrap();
    join(useful).await.unwrap();
    let request = fetch(&pool, get(uri("https://a/")));
    for attempt in 0..3 {
        if attempt > 0 {
            peer = net.ready_peer(10).await;
        }
        let stream = peer.next_headers().await.stream;
        let mut frames = frame::reset(stream, code::REFUSED_STREAM).to_vec();
        frames.extend_from_slice(&frame::goaway(stream, code::NO_ERROR, b""));
        peer.send_raw(&frames).await;
    }
    let error = join(request).await.unwrap_err();
    assert!(error.is_unprocessed() && error.is_reset(), "{error:?}");
    assert_eq!(net.dials().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_refuses_twice_gets_no_work_for_a_while() {
    // P21
    let (pool, mut net) = net(H2Pool::builder().max_sessions(2));
    pool.warm(&origin("https://a"), 2).unwrap();
    let (mut bad, mut good) = (net.ready_peer(10).await, net.ready_peer(10).await);
    let refusing = tokio::spawn(async move {
        let mut refused = 0;
        while let Ok(Some(frame)) = bad.recv().await {
            if let Frame::Headers(head) = frame {
                refused += 1;
                bad.send_rst(head.stream, code::REFUSED_STREAM).await;
            }
        }
        refused
    });
    let serving = tokio::spawn(async move { good.serve(b"ok").await });
    let mut refused = Vec::new();
    for round in 0..22 {
        // Two at a time, so that both sessions get one while both take work.
        for read in join_all(fetch_many(&pool, &uri("https://a/"), 2)).await {
            assert_eq!(read.unwrap().body, "ok");
        }
        if round == 10 {
            pass(1.1).await;
        }
        refused.push(pool.stats().streams_refused);
    }
    assert_eq!(refused[1..=10], [2; 10], "no work after the second");
    assert_eq!(refused[12..], [4; 10], "tried again after a while");
    drop((pool, net));
    assert_eq!(join(refusing).await, 4);
    assert_eq!(join(serving).await.len(), 44);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_processed_is_never_sent_again() {
    // P22
    for reason in [
        Reason::CANCEL,
        Reason::INTERNAL_ERROR,
        Reason::PROTOCOL_ERROR,
        Reason::ENHANCE_YOUR_CALM,
    ] {
        let server = Scripted::start(move |_| Answer::Reset(reason)).await;
        let pool = tls().build().unwrap();
        let error = join(fetch(&pool, get(server.uri("/")))).await.unwrap_err();
        assert!(
            error.is_reset() && !error.is_unprocessed() && error.is_transient(),
            "{error:?}"
        );
        assert_eq!(server.counts().requests, 1);
        assert!(std::error::Error::source(&error).is_some());
    }
    let server = Scripted::start(|_| Answer::Drop).await;
    let pool = tls().build().unwrap();
    let error = join(fetch(&pool, get(server.uri("/")))).await.unwrap_err();
    assert!(
        !error.is_unprocessed() && !error.is_connect() && error.is_transient(),
        "{error:?}"
    );
    assert_eq!(server.counts().accepted, 1);
    // Once the head is here, a refusal is a broken body and nothing else.
    let server = Scripted::start(|_| Answer::ResetInBody(Reason::REFUSED_STREAM)).await;
    let pool = tls().build().unwrap();
    let error = join(fetch(&pool, get(server.uri("/")))).await.unwrap_err();
    assert!(
        error.is_body() && error.is_reset() && !error.is_unprocessed(),
        "{error:?}"
    );
    assert_eq!(server.counts().requests, 1);
}

#[tokio::test]
async fn a_goaway_that_covers_the_request_and_then_the_end_is_ambiguous() {
    // P22
    let mut listener = PeerListener::tls().await;
    let pool = tls().build().unwrap();
    let request = fetch(&pool, get(listener.uri("/")));
    let mut peer = listener.accept().await;
    peer.handshake(&streams(10)).await;
    let stream = peer.next_headers().await.stream;
    peer.send_goaway(stream, code::NO_ERROR, b"").await;
    drop(peer);
    let error = join(request).await.unwrap_err();
    assert!(!error.is_unprocessed(), "{error:?}");
    assert!(listener.try_accept().is_none(), "nobody is left to dial for");
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_session_is_lost_is_exchanged_unseen() {
    // P4
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let key = origin("https://a");
    pool.warm(&key, 1).unwrap();
    let mut peer = net.ready_peer(2).await;
    settle().await;
    let (lost, other) = (
        pool.acquire(&key).await.unwrap(),
        pool.acquire(&key).await.unwrap(),
    );
    let waiting = fetch(&pool, get(uri("https://a/waiting")));
    settle().await;
    peer.send_goaway(0, code::NO_ERROR, b"").await;
    settle().await;
    let exchanged = tokio::spawn(async move { lost.send(get(uri("https://a/leased"))).await });
    settle().await;
    let mut next = net.ready_peer(1).await;
    assert_eq!(
        next.answer_one(b"ok").await.unwrap(),
        "/leased",
        "ahead of those who never had a turn"
    );
    read(join(exchanged).await.unwrap()).await.unwrap();
    assert_eq!(next.answer_one(b"ok").await.unwrap(), "/waiting");
    join(waiting).await.unwrap();
    drop(other);
    peer.until_closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_in_its_own_end_never_spins() {
    // P4, P14: the peer breaks the protocol and reads nothing, so that our GOAWAY cannot leave and the connection
    // hangs between its error and its end. Callers must neither loop nor be stuck to it.
    let (pool, mut net) = net(H2Pool::builder()
        .max_sessions(1)
        .connect_timeout(Duration::from_secs(3)));
    let (sender, body) = upload(64);
    let stuck = fetch(&pool, http::Request::post("https://a/").body(body).unwrap());
    let mut peer = net.peer().await;
    peer.handshake(&[streams(10)[0], (setting::INITIAL_WINDOW_SIZE, 1 << 20)])
        .await;
    peer.next_headers().await;
    peer.send_window_update(0, 1 << 20).await;
    // More than the pipe holds.
    for _ in 0..20 {
        sender
            .send(Ok(BodyFrame::data(Bytes::from(vec![0; 16 * 1024]))))
            .await
            .unwrap();
    }
    settle().await;
    peer.send_frame(0, 0, 0, b"DATA on no stream").await;
    settle().await;
    let next = fetch(&pool, get(uri("https://a/next")));
    let mut replacement = net.ready_peer(10).await;
    assert_eq!(replacement.answer_one(b"ok").await.unwrap(), "/next");
    assert_eq!(join(next).await.unwrap().body, "ok");
    drop(peer);
    assert!(!join(stuck).await.unwrap_err().is_unprocessed());
    drop(Arc::new(sender));
}
