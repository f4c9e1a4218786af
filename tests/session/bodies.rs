//! Response bodies that nobody reads: `body_idle_timeout`.

use std::time::Duration;

use h2pool::SessionState;
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::bench::{Bench, broken, data, now, response, settle, text, uri};
use crate::support::client::upload;
use crate::support::peer::{Frame, Peer, code};
use crate::support::within;

const IDLE: Duration = Duration::from_secs(40);

fn bench() -> Bench {
    Bench::new(|builder| {
        let builder = builder
            .body_idle_timeout(IDLE)
            .acquire_timeout(Duration::ZERO)
            .adaptive_window(false);
        builder.stream_window(32_767).connection_window(65_535)
    })
}

async fn head(peer: &mut Peer) -> u32 {
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    stream
}

// P30, P44, P2: held, not polled: after the time the stream is reset, its window and its slot come back, and whoever
// polls later gets the error.
#[tokio::test(start_paused = true)]
async fn held_and_not_polled() {
    let mut bench = bench();
    let held = bench.get("/held");
    let mut peer = bench.peer(&[]).await;
    let stream = head(&mut peer).await;
    let mut held = response(held).await.into_body();
    let start = now();
    for byte in [1, 2] {
        peer.send_data(stream, &[byte; 16_000], false).await;
    }
    peer.ping_round_trip().await;
    tokio::time::sleep(IDLE - Duration::from_millis(1)).await;
    assert_eq!(bench.pool.stats().streams, 1);
    let (mut reset, mut window) = (None, 0);
    while reset.is_none() || window < 32_000 {
        match peer.next().await {
            Frame::Reset { stream, code } => reset = Some((stream, code)),
            Frame::WindowUpdate { stream: 0, increment } => window += increment,
            _ => {}
        }
    }
    assert_eq!((reset, window), (Some((stream, code::CANCEL)), 32_000));
    assert_eq!(start.elapsed().as_secs(), 40);
    assert_eq!(bench.pool.stats().streams, 0);
    tokio::time::sleep(IDLE).await;
    assert!(!held.is_end_stream());
    let error = held.frame().await.unwrap().unwrap_err();
    assert!(error.is_timeout() && error.is_body(), "{error:?}");
    assert!(error.to_string().contains("`body_idle_timeout`"), "{error}");
    assert!(held.frame().await.is_none());
    let next = bench.get("/next");
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"alive").await;
    assert_eq!(text(response(next).await.into_body()).await, "alive");
}

// P30, P14: bodies that hold all of the window are ended in time, and what waits for the session is served.
#[tokio::test(start_paused = true)]
async fn held_bodies_do_not_stall_a_session_for_ever() {
    let mut bench = bench();
    let held: Vec<_> = (0..3).map(|_| bench.get("/held")).collect();
    let mut peer = bench.peer(&[]).await;
    for _ in 0..3 {
        let stream = head(&mut peer).await;
        peer.send_data(stream, &[7; 14_000], false).await;
    }
    let mut bodies = Vec::new();
    for answer in held {
        bodies.push(response(answer).await.into_body());
    }
    peer.ping_round_trip().await;
    let start = now();
    let waiting = bench.get("/waiting");
    let serving = tokio::spawn(async move {
        let stream = loop {
            // Longer than the patience of the peer's own methods.
            match peer.recv().await.unwrap() {
                Some(Frame::Headers(head)) => break head.stream,
                Some(_) => {}
                None => panic!("the session has ended"),
            }
        };
        peer.respond(stream, 200, b"served").await;
        peer
    });
    let _peer = serving.await.unwrap();
    assert_eq!(text(response(waiting).await.into_body()).await, "served");
    assert_eq!(start.elapsed().as_secs(), 40);
    for body in &mut bodies {
        assert!(broken(body).await.is_timeout());
    }
}

// P44: a body that is polled and to which nothing comes.
#[tokio::test(start_paused = true)]
async fn polled_in_vain() {
    let mut bench = bench();
    let request = bench.get("/");
    let mut peer = bench.peer(&[]).await;
    let stream = head(&mut peer).await;
    let mut body = response(request).await.into_body();
    peer.send_data(stream, b"first", false).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(data(&mut body).await, "first");
    let start = now();
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(error.is_timeout() && error.is_body(), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 40, "from the last frame that was read");
    assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
}

// P44: the time begins with the head, whether or not anything follows.
#[tokio::test(start_paused = true)]
async fn nothing_but_a_head() {
    for polled in [true, false] {
        let mut bench = bench();
        let request = bench.get("/");
        let mut peer = bench.peer(&[]).await;
        let stream = head(&mut peer).await;
        let mut body = response(request).await.into_body();
        let start = now();
        if polled {
            let frame = tokio::time::timeout(2 * IDLE, body.frame()).await.unwrap();
            assert!(frame.unwrap().unwrap_err().is_timeout());
        } else {
            tokio::time::sleep(IDLE + Duration::from_millis(1)).await;
        }
        assert_eq!(start.elapsed().as_secs(), 40);
        assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
        assert_eq!(start.elapsed().as_secs(), 40);
    }
}

// P44: each frame read counts, and so a slow body lives as long as it likes.
#[tokio::test(start_paused = true)]
async fn slow_but_not_idle() {
    let mut bench = bench();
    let (slow, other) = (bench.get("/slow"), bench.get("/other"));
    let mut peer = bench.peer(&[]).await;
    let streams = [head(&mut peer).await, head(&mut peer).await];
    let mut body = response(slow).await.into_body();
    let other = response(other).await.into_body();
    for _ in 0..20 {
        tokio::time::sleep(IDLE - Duration::from_millis(1)).await;
        peer.send_data(streams[0], b"tick", false).await;
        assert_eq!(data(&mut body).await, "tick");
    }
    peer.send_data(streams[0], b"end", true).await;
    assert_eq!(text(body).await, "end");
    drop(other);
    settle().await;
    let sessions = bench.pool.sessions();
    assert_eq!(sessions[0].state, SessionState::Active);
    assert_eq!(bench.pool.stats().streams, 0);
}

// P30: without the option a body may be held as long as anybody likes.
#[tokio::test(start_paused = true)]
async fn off_by_default() {
    let mut bench = Bench::new(|builder| builder);
    let request = bench.get("/");
    let mut peer = bench.peer(&[]).await;
    let stream = head(&mut peer).await;
    let mut body = response(request).await.into_body();
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    peer.send_data(stream, b"patient", true).await;
    assert_eq!(data(&mut body).await, "patient");
    assert!(body.is_end_stream());
}

// P31: a server that says NO_ERROR where the end should stand (Node does, where its program did not read the request) has
// ended a body whose length nobody told; never one that is known to be short, nor one that did not begin, nor with another
// code, nor of a request without a body.
#[tokio::test(start_paused = true)]
async fn a_body_that_ends_with_no_error() {
    let length = |n| vec![(":status", "200"), ("content-length", n)];
    let unknown = || vec![(":status", "200")];
    let cases = [
        (unknown(), "some", code::NO_ERROR, true, true),
        (unknown(), "some", code::NO_ERROR, false, false),
        (length("4"), "some", code::NO_ERROR, false, true),
        (length("5"), "some", code::NO_ERROR, true, false),
        (unknown(), "", code::NO_ERROR, true, false),
        (unknown(), "some", code::CANCEL, true, false),
    ];
    let mut bench = Bench::new(|builder| builder);
    let mut kept: Option<Peer> = None;
    for (head, data, reason, uploads, whole) in cases {
        let (sender, body) = upload(1);
        let answer = if uploads {
            bench.send(http::Request::post(uri("/")).body(body).unwrap())
        } else {
            bench.get("/")
        };
        let mut peer = match kept.take() {
            Some(peer) => peer,
            None => bench.peer(&[]).await,
        };
        let stream = peer.next_headers().await.stream;
        peer.send_fields(stream, &head, false).await;
        if !data.is_empty() {
            peer.send_data(stream, data.as_bytes(), false).await;
        }
        let body = response(answer).await.into_body();
        peer.send_rst(stream, reason).await;
        match within("the body", body.collect()).await {
            Ok(read) => assert!(whole && read.to_bytes() == data, "{head:?} {reason}"),
            Err(error) => assert!(
                !whole && error.is_reset() && error.is_body(),
                "{head:?} {error:?}"
            ),
        }
        drop(sender);
        kept = Some(peer);
    }
    assert_eq!(bench.pool.stats().sessions_opened, 1);
}

// P31, P45: more than was promised is a broken response, and looks like one.
#[tokio::test(start_paused = true)]
async fn more_than_its_length() {
    let mut bench = Bench::new(|builder| builder);
    let first = bench.get("/");
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    peer.send_fields(stream, &[(":status", "200"), ("content-length", "5")], false)
        .await;
    peer.send_data(stream, b"hello", false).await;
    peer.send_data(stream, b"!", true).await;
    let mut body = response(first).await.into_body();
    assert_eq!(data(&mut body).await, "hello");
    assert!(broken(&mut body).await.is_body());

    let (_sender, body) = upload(1);
    let tunnel = bench.send(http::Request::connect("https://server:443").body(body).unwrap());
    let stream = peer.next_headers().await.stream;
    peer.send_fields(stream, &[(":status", "200"), ("content-length", "0")], false)
        .await;
    peer.send_data(stream, b"bytes of the tunnel", false).await;
    let mut body = response(tunnel).await.into_body();
    assert!(broken(&mut body).await.is_body(), "h2 takes no more of it");
}

// P31: a 304 has no body, however its stream ends and whatever its length would have been.
#[tokio::test(start_paused = true)]
async fn a_304_has_no_body() {
    let mut bench = Bench::new(|builder| builder);
    let mut request = bench.get("/");
    let mut peer = bench.peer(&[]).await;
    for end in 0..3 {
        let stream = peer.next_headers().await.stream;
        let head = [(":status", "304"), ("content-length", "500")];
        peer.send_fields(stream, &head, end == 0).await;
        let body = response(request).await.into_body();
        match end {
            0 => assert!(body.is_end_stream()),
            1 => peer.send_data(stream, b"", true).await,
            _ => peer.send_rst(stream, code::INTERNAL_ERROR).await,
        }
        assert_eq!(text(body).await, "");
        request = bench.get("/");
    }
}
