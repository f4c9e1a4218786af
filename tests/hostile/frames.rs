//! Frames that no server may send: each ends its stream or its session at once, with an error, and is not waited for.

use bytes::Bytes;

use crate::arena::{Arena, chain, fails, settle};
use crate::support::peer::{code, flag, frame, hpack, kind, setting};

fn ok_head(stream: u32, end: bool) -> Bytes {
    frame::headers(stream, &hpack::literals([(":status", "200")]), end)
}

/// Stream 1 waits for its head when this arrives.
fn wrong_frames() -> Vec<(&'static str, Bytes)> {
    let whole = frame::encode;
    let mut huge = whole(kind::DATA, flag::NONE, 1, b"").to_vec();
    huge[..3].copy_from_slice(&[0xff, 0xff, 0xff]);
    vec![
        (
            "SETTINGS of 5 bytes",
            whole(kind::SETTINGS, flag::NONE, 0, &[0; 5]),
        ),
        (
            "SETTINGS answer with a payload",
            whole(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
        ),
        ("SETTINGS on a stream", whole(kind::SETTINGS, flag::NONE, 1, &[])),
        (
            "a window of 2^31",
            frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]),
        ),
        (
            "frames of 100 bytes",
            frame::settings(&[(setting::MAX_FRAME_SIZE, 100)]),
        ),
        (
            "a server that enables push",
            frame::settings(&[(setting::ENABLE_PUSH, 2)]),
        ),
        ("PING of 7 bytes", whole(kind::PING, flag::NONE, 0, &[0; 7])),
        ("PING on a stream", whole(kind::PING, flag::NONE, 1, &[0; 8])),
        (
            "WINDOW_UPDATE of 3 bytes",
            whole(kind::WINDOW_UPDATE, flag::NONE, 0, &[0; 3]),
        ),
        ("WINDOW_UPDATE of nothing", frame::window_update(0, 0)),
        ("a window beyond 2^31", frame::window_update(0, 0x7fff_ffff)),
        (
            "RST_STREAM of 3 bytes",
            whole(kind::RST_STREAM, flag::NONE, 1, &[0; 3]),
        ),
        ("RST_STREAM on stream 0", frame::reset(0, code::CANCEL)),
        (
            "RST_STREAM on a stream that never was",
            frame::reset(99, code::CANCEL),
        ),
        ("GOAWAY of 4 bytes", whole(kind::GOAWAY, flag::NONE, 0, &[0; 4])),
        ("GOAWAY on a stream", whole(kind::GOAWAY, flag::NONE, 1, &[0; 8])),
        ("DATA on stream 0", frame::data(0, b"data", false)),
        ("DATA before the head", frame::data(1, b"data", false)),
        ("DATA on a stream that never was", frame::data(99, b"data", true)),
        (
            "DATA padded beyond its end",
            whole(kind::DATA, flag::PADDED, 1, &[200, 0, 0]),
        ),
        ("HEADERS on stream 0", ok_head(0, true)),
        ("HEADERS on a stream that never was", ok_head(99, true)),
        ("HEADERS on a stream of the server", ok_head(2, true)),
        (
            "HEADERS of no sense",
            frame::headers(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], true),
        ),
        (
            "HEADERS with an index of nothing",
            frame::headers(1, &[0x80], true),
        ),
        (
            "HEADERS padded beyond their end",
            whole(kind::HEADERS, flag::PADDED | flag::END_HEADERS, 1, &[200, 0]),
        ),
        (
            "CONTINUATION of nothing",
            whole(kind::CONTINUATION, flag::END_HEADERS, 1, &[]),
        ),
        (
            "HEADERS broken by PING",
            [whole(kind::HEADERS, flag::NONE, 1, &[]), frame::ping([0; 8])]
                .concat()
                .into(),
        ),
        (
            "PUSH_PROMISE",
            whole(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &push_promise()),
        ),
        ("a frame of 16 MiB", huge.into()),
        (
            "HTTP/1.1",
            Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ),
        ("TLS", Bytes::from_static(&[0x15, 3, 3, 0, 2, 2, 70])),
        ("noise", (0..255).cycle().take(3_000).collect()),
    ]
}

fn push_promise() -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "bad.test"),
        (":path", "/pushed"),
    ];
    [&2_u32.to_be_bytes()[..], &hpack::literals(fields)].concat()
}

/// RFC 9113 §4.2, §5, §6, §8.4
#[tokio::test(start_paused = true)]
async fn wrong_frames_end_what_they_break() {
    let mut arena = Arena::new();
    for (name, bytes) in wrong_frames() {
        let fetch = arena.get("/wrong");
        let mut peer = arena.greeted(&[]).await;
        assert_eq!(peer.next_headers().await.stream, 1, "{name}");
        let start = arena.elapsed();
        // Open afterwards: nothing here depends on the peer's leaving.
        peer.send_raw(&bytes).await;
        let error = fails(fetch).await;
        assert!(
            !error.is_unprocessed() && !error.is_timeout(),
            "{name}: {}",
            chain(&error)
        );
        assert_eq!(arena.elapsed(), start, "{name}: at once");
        drop(peer);
        settle().await;
        arena.recovers().await;
    }
    assert!(arena.dials() <= 2 * wrong_frames().len());
    arena.end().await;
}

/// RFC 9113 §3.4: the same in place of the first SETTINGS; a failed dial, and none of it a loop.
#[tokio::test(start_paused = true)]
async fn wrong_first_frames_are_failed_dials() {
    let mut arena = Arena::new();
    for (name, bytes) in wrong_frames() {
        let before = arena.dials();
        let mut fetch = arena.get("/first");
        let mut peers = Vec::new();
        let ended = async {
            loop {
                tokio::select! {
                    ended = &mut fetch => return ended.unwrap(),
                    mut peer = arena.accept_any() => {
                        drop(peer.try_send_raw(&bytes).await);
                        peers.push(peer);
                    }
                }
            }
        };
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), ended).await;
        let error = ended
            .unwrap_or_else(|_| panic!("{name}: no end"))
            .expect_err(name);
        assert!(!error.to_string().is_empty(), "{name}: {}", chain(&error));
        assert!(
            arena.dials() - before <= 8,
            "{name}: {} dials",
            arena.dials() - before
        );
    }
    arena.recovers().await;
    arena.end().await;
}

/// RFC 9113 §5.1: frames after END_STREAM do not undo the answer.
#[tokio::test(start_paused = true)]
async fn what_follows_the_end_of_a_stream_does_not_undo_it() {
    let mut arena = Arena::new();
    let late = [
        ("DATA", frame::data(1, b"more", false)),
        ("DATA that ends again", frame::data(1, b"more", true)),
        (
            "trailers",
            frame::headers(1, &hpack::literals([("x-late", "1")]), true),
        ),
        ("RST_STREAM(NO_ERROR)", frame::reset(1, code::NO_ERROR)),
        ("RST_STREAM(CANCEL)", frame::reset(1, code::CANCEL)),
        ("WINDOW_UPDATE", frame::window_update(1, 100)),
        (
            "PRIORITY",
            frame::encode(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 16]),
        ),
    ];
    for (name, bytes) in late {
        let fetch = arena.get("/ended");
        let mut peer = arena.greeted(&[]).await;
        peer.next_headers().await;
        peer.respond(1, 200, b"whole").await;
        let answer = fetch
            .await
            .unwrap()
            .unwrap_or_else(|error| panic!("{name}: {}", chain(&error)));
        assert_eq!(answer.body, "whole", "{name}");
        peer.send_raw(&bytes).await;
        drop(peer);
        settle().await;
        arena.recovers().await;
    }
    arena.end().await;
}

/// RFC 9113 §8.1, P31: the whole answer before the upload ended, then RST_STREAM(NO_ERROR): success.
#[tokio::test(start_paused = true)]
async fn a_reset_after_a_whole_answer_is_success() {
    let mut arena = Arena::new();
    let (feed, body) = crate::support::client::upload(1);
    let fetch = arena.post("/early", body);
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let answer = [
        ok_head(1, false),
        frame::data(1, b"early", true),
        frame::reset(1, code::NO_ERROR),
    ]
    .concat();
    peer.send_raw(&answer).await;
    assert_eq!(fetch.await.unwrap().unwrap().body, "early");
    feed.closed().await;
    let next = arena.get("/next");
    assert_eq!(peer.answer_one(b"next").await.as_deref(), Some("/next"));
    assert_eq!(
        (next.await.unwrap().unwrap().body.as_ref(), arena.dials()),
        (&b"next"[..], 1)
    );
    arena.end().await;
}

/// P41: a stream that is reset says so, whatever the code; the session lives on, and nothing is sent again but what was
/// refused.
#[tokio::test(start_paused = true)]
async fn every_code_of_a_reset_is_told() {
    let mut arena = Arena::new();
    let first = arena.get("/first");
    let mut peer = arena.greeted(&[]).await;
    assert!(peer.answer_one(b"first").await.is_some());
    first.await.unwrap().unwrap();
    let codes = (0..=12).filter(|code| *code != code::REFUSED_STREAM);
    for code in codes.chain([14, 0xdead_beef]) {
        for head in [false, true] {
            let fetch = arena.post("/reset", crate::support::server::body::full("x"));
            let stream = peer.next_request().await.head.stream;
            if head {
                peer.send_headers(stream, 200, false).await;
            }
            peer.send_rst(stream, code).await;
            let error = fails(fetch).await;
            assert!(
                error.is_reset() && !error.is_unprocessed() && error.origin().is_some(),
                "{code:#x}, {head}: {}",
                chain(&error)
            );
            assert_eq!(error.is_body(), head, "{code:#x}: {}", chain(&error));
        }
    }
    let next = arena.get("/next");
    assert_eq!(peer.answer_one(b"next").await.as_deref(), Some("/next"));
    assert_eq!(next.await.unwrap().unwrap().body, "next");
    assert_eq!(arena.dials(), 1);
    arena.end().await;
}
