//! DATA that nobody asked for, or that no window allows: it is thrown away, and not without end.

use bytes::Bytes;
use http_body_util::BodyExt;

use crate::arena::{Arena, Fetch, chain, fails, get, names, resident_bytes};
use crate::support::peer::{Peer, code, flag, frame, kind};

/// What a stream's window may grow to, and the slack beside it: a flood that ends was ended long before this.
const FAR_TOO_MUCH: usize = 256 << 20;
const WINDOW: usize = 16 << 20;

/// 16 KiB.
fn piece(stream: u32) -> Bytes {
    frame::data(stream, &[0; 16_384], false)
}

/// P33, P44: DATA beyond the windows of a body that nobody reads: the body ends with an error, nothing is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_beyond_the_window_ends_the_body_and_is_not_kept() {
    let mut arena = Arena::real_time();
    let pool = arena.pool.clone();
    let unread = tokio::spawn(async move { pool.request(get(0, "/unread")).await });
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    peer.send_headers(1, 200, false).await;
    let unread = unread.await.unwrap().unwrap();
    let before = resident_bytes();
    peer.flood(&frame::data(1, &[0; 16_000], false), 256 << 20).await;
    let grown = resident_bytes()
        .zip(before)
        .map_or(0, |(now, before)| now.saturating_sub(before));
    assert!(grown < 128 << 20, "grown by {} MiB", grown >> 20);
    let error = unread.into_body().collect().await.unwrap_err();
    assert!(
        !error.is_unprocessed() && !error.is_timeout(),
        "{}",
        chain(&error)
    );
    drop(peer);
    arena.recovers().await;
    arena.end().await;
}

/// P44: bytes that carry nothing: one byte of DATA behind 255 of padding, unread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn padding_costs_the_window_too() {
    let mut arena = Arena::real_time();
    let pool = arena.pool.clone();
    let unread = tokio::spawn(async move { pool.request(get(0, "/padded")).await });
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    peer.send_headers(1, 200, false).await;
    let unread = unread.await.unwrap().unwrap();
    let mut padded = vec![0; 257];
    padded[0] = 255;
    let flood = peer
        .flood(&frame::encode(kind::DATA, flag::PADDED, 1, &padded), 512 << 20)
        .await;
    assert!(flood.ended, "{flood:?}");
    assert!(unread.into_body().collect().await.is_err());
    arena.recovers().await;
    arena.end().await;
}

/// A session on which stream 1 is over in one of several ways; stream 3 waits for its answer.
async fn over(arena: &mut Arena, how: &str) -> (Peer, Fetch) {
    let first = arena.get("/over");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    match how {
        "cancelled" => {
            first.abort();
            assert_eq!(peer.next_reset().await, (1, code::CANCEL));
        }
        "body dropped" => {
            peer.send_headers(1, 200, false).await;
            peer.send_data(1, b"some", false).await;
            peer.ping_round_trip().await;
            first.abort();
            assert_eq!(peer.next_reset().await, (1, code::CANCEL));
        }
        "answered" => {
            peer.respond(1, 200, b"whole").await;
            assert_eq!(first.await.unwrap().unwrap().body, "whole");
        }
        "reset" => {
            peer.send_rst(1, code::INTERNAL_ERROR).await;
            fails(first).await;
        }
        other => unreachable!("{other}"),
    }
    let waits = arena.get("/waits");
    assert_eq!(peer.next_headers().await.stream, 3);
    (peer, waits)
}

/// P44: h2 gives credit back for DATA of streams that are over; the bound is what their windows explain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_for_a_stream_that_is_over_does_not_come_for_ever() {
    let mut arena = Arena::real_time();
    for how in ["cancelled", "body dropped", "answered", "reset"] {
        let (mut peer, waits) = over(&mut arena, how).await;
        let before = resident_bytes();
        let flood = peer.flood(&piece(1), FAR_TOO_MUCH).await;
        assert!(flood.ended && flood.written < 2 * WINDOW, "{how}: {flood:?}");
        let grown = resident_bytes()
            .zip(before)
            .map_or(0, |(now, before)| now.saturating_sub(before));
        assert!(grown < 128 << 20, "{how}: grown by {} MiB", grown >> 20);
        let error = fails(waits).await;
        assert!(
            !error.is_unprocessed() && !error.is_timeout(),
            "{how}: {}",
            chain(&error)
        );
        drop(peer);
        arena.recovers().await;
    }
    arena.end().await;
}

/// P44: the error says which bound it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_on_late_data_is_named() {
    let mut arena = Arena::real_time();
    let (mut peer, waits) = over(&mut arena, "cancelled").await;
    peer.flood(&piece(1), FAR_TOO_MUCH).await;
    let error = fails(waits).await;
    assert!(names(&error, "stream_window"), "{}", chain(&error));
    arena.end().await;
}

/// P44: DATA of no or little content for a stream that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_data_for_a_stream_that_is_over_does_not_come_for_ever() {
    let mut arena = Arena::real_time();
    for (what, bytes) in [
        ("empty", frame::data(1, b"", false)),
        ("empty, the last", frame::data(1, b"", true)),
        ("a byte", frame::data(1, b"x", false)),
        ("a byte, the last", frame::data(1, b"x", true)),
        (
            "padding",
            frame::encode(kind::DATA, flag::PADDED, 1, &[3, 0, 0, 0]),
        ),
    ] {
        for how in ["cancelled", "answered"] {
            let (mut peer, waits) = over(&mut arena, how).await;
            let flood = peer.flood(&bytes, FAR_TOO_MUCH).await;
            assert!(flood.ended && flood.written < WINDOW, "{what}, {how}: {flood:?}");
            let error = fails(waits).await;
            assert!(!error.is_timeout(), "{what}, {how}: {}", chain(&error));
            drop(peer);
            arena.recovers().await;
        }
    }
    arena.end().await;
}

/// P31: what an honest server has under way when its stream is given up, a window full, does no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_full_of_late_data_is_thrown_away() {
    let mut arena = Arena::real_time();
    for how in ["cancelled", "body dropped"] {
        let (mut peer, waits) = over(&mut arena, how).await;
        // The stream's first window is 2 MiB.
        let flood = peer.flood(&piece(1), (2 << 20) - 65_536).await;
        assert!(!flood.ended, "{how}: {flood:?}");
        peer.respond(3, 200, b"unharmed").await;
        assert_eq!(waits.await.unwrap().unwrap().body, "unharmed", "{how}");
        drop(peer);
        arena.recovers().await;
    }
    arena.end().await;
}
