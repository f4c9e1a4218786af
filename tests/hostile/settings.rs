//! SETTINGS and windows as weapons: values at their ends, values that flap, windows that overflow, shrink or come in
//! crumbs.

use std::time::Duration;

use bytes::Bytes;

use crate::arena::{Arena, chain, ends, fails, names, settle};
use crate::support::peer::{Frame, Peer, code, frame, setting};
use crate::support::server::body::full;

const MAX_WINDOW: u32 = 0x7fff_ffff;

/// RFC 9113 §6.5.2: legal values, however odd, change nothing for the requests.
#[tokio::test(start_paused = true)]
async fn values_at_their_ends_do_no_harm() {
    let unknown: Vec<_> = (0..2_700).map(|n| (0x1000 + n, u32::MAX)).collect();
    let odd: Vec<Vec<(u16, u32)>> = vec![
        vec![(setting::HEADER_TABLE_SIZE, 0)],
        vec![(setting::HEADER_TABLE_SIZE, u32::MAX)],
        vec![(setting::ENABLE_PUSH, 0)],
        vec![(setting::MAX_CONCURRENT_STREAMS, u32::MAX)],
        vec![(setting::INITIAL_WINDOW_SIZE, MAX_WINDOW)],
        vec![(setting::MAX_FRAME_SIZE, (1 << 24) - 1)],
        vec![(setting::MAX_HEADER_LIST_SIZE, u32::MAX)],
        vec![(setting::ENABLE_CONNECT_PROTOCOL, 1)],
        // Of the same setting the last one counts.
        vec![
            (setting::MAX_CONCURRENT_STREAMS, 0),
            (setting::MAX_CONCURRENT_STREAMS, 7),
        ],
        unknown,
    ];
    let mut arena = Arena::new();
    for settings in odd {
        let get = arena.get("/odd");
        let mut peer = arena.greeted(&settings).await;
        assert!(peer.answer_one(b"fine").await.is_some());
        assert_eq!(get.await.unwrap().unwrap().body, "fine", "{:?}", settings[0]);
        let post = arena.post("/odd", full(vec![7; 100_000]));
        let exchange = peer.next_request().await;
        assert_eq!(exchange.body.len(), 100_000, "{:?}", settings[0]);
        peer.respond(exchange.head.stream, 200, b"fine, too").await;
        assert_eq!(post.await.unwrap().unwrap().body, "fine, too");
        peer.send_goaway(exchange.head.stream, code::NO_ERROR, b"").await;
        peer.until_closed().await;
    }
    arena.end().await;
}

/// P3, P44: a limit that flaps between nothing and much, for a minute: who asks is served or told in time, and nothing
/// is dialed without end.
#[tokio::test(start_paused = true)]
async fn a_limit_that_flaps_serves_who_asks() {
    let mut arena = Arena::new();
    let fetches: Vec<_> = (0..50).map(|_| arena.get("/flapping")).collect();
    let mut peers = vec![arena.greeted(&[(setting::MAX_CONCURRENT_STREAMS, 1)]).await];
    let mut flaps = tokio::time::interval(Duration::from_millis(10));
    for n in 0..6_000 {
        flaps.tick().await;
        peers.extend(arena.try_accept());
        let limit = if n % 2 == 0 { 0 } else { 100 };
        let mut left = Vec::new();
        for mut peer in peers.drain(..) {
            if flap(&mut peer, limit).await.is_some() {
                left.push(peer);
            }
        }
        peers = left;
        if fetches.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    for fetch in fetches {
        assert_eq!(ends(fetch).await.unwrap().body, "served");
    }
    let dials = arena.dials();
    assert!(dials as u64 <= 10 + arena.elapsed().as_secs(), "{dials} dials");
    arena.end().await;
}

/// Announces a limit and answers what is there; `None` when the client has left.
async fn flap(peer: &mut Peer, limit: u32) -> Option<()> {
    let settings = frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, limit)]);
    peer.try_send_raw(&settings).await.ok()?;
    while let Some(frame) = futures_util::FutureExt::now_or_never(peer.recv()) {
        if let Frame::Headers(head) = frame.ok()?? {
            peer.respond(head.stream, 200, b"served").await;
        }
    }
    Some(())
}

/// RFC 9113 §6.9, §6.9.1: increments of nothing and windows beyond 2^31−1 end their stream, or its session.
#[tokio::test(start_paused = true)]
async fn impossible_windows_end_what_they_break() {
    let overflow = [
        frame::window_update(1, 70_000),
        frame::settings(&[(setting::INITIAL_WINDOW_SIZE, MAX_WINDOW)]),
    ];
    // What was sent before, at most 65,535 bytes, has to be exceeded, too.
    let cases: [(&str, Bytes); 4] = [
        ("nothing, on the stream", frame::window_update(1, 0)),
        (
            "too much, on the stream",
            frame::window_update(1, MAX_WINDOW).repeat(2).into(),
        ),
        ("too much, by SETTINGS", overflow.concat().into()),
        (
            "too much, in parts",
            frame::window_update(1, MAX_WINDOW / 2).repeat(3).into(),
        ),
    ];
    let mut arena = Arena::new();
    for (name, bytes) in cases {
        let fetch = arena.post("/overflown", full(vec![0; 1_000_000]));
        let mut peer = arena.greeted(&[]).await;
        peer.next_headers().await;
        let start = arena.elapsed();
        peer.send_raw(&bytes).await;
        // Acknowledgements need room.
        let reading = tokio::spawn(async move { while let Ok(Some(_)) = peer.recv().await {} });
        let error = fails(fetch).await;
        assert!(
            !error.is_unprocessed() && !error.is_timeout(),
            "{name}: {}",
            chain(&error)
        );
        assert_eq!(arena.elapsed(), start, "{name}: at once");
        reading.abort();
        settle().await;
        arena.recovers().await;
    }
    arena.end().await;
}

/// RFC 9113 §6.9.2: a window that shrinks below nothing in the midst of an upload, and opens by crumbs.
#[tokio::test(start_paused = true)]
async fn a_window_that_shrinks_and_opens_by_crumbs_lets_the_upload_through() {
    let mut arena = Arena::new();
    let sent: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
    let fetch = arena.post("/shrunk", full(sent.clone()));
    let mut peer = arena.greeted(&[(setting::INITIAL_WINDOW_SIZE, 10_000)]).await;
    let stream = peer.next_headers().await.stream;
    let mut got = Vec::new();
    let mut ended = false;
    let mut take = |got: &mut Vec<u8>, frame| {
        if let Frame::Data(data) = frame {
            got.extend_from_slice(&data.data);
            ended |= data.end;
        }
        ended
    };
    while got.len() < 10_000 {
        take(&mut got, peer.next().await);
    }
    peer.send_settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]).await;
    for frame in peer.ping_round_trip().await {
        take(&mut got, frame);
    }
    assert_eq!(got.len(), 10_000, "nothing more may come");
    // Minus 10,000 now: this opens nothing.
    peer.send_window_update(stream, 10_000).await;
    for frame in peer.ping_round_trip().await {
        take(&mut got, frame);
    }
    assert_eq!(got.len(), 10_000, "nothing more may come");
    loop {
        peer.send_window_update(stream, 100).await;
        let frames = peer.ping_round_trip().await;
        if frames.into_iter().fold(false, |_, frame| take(&mut got, frame)) {
            break;
        }
    }
    assert_eq!(got, sent);
    peer.respond(stream, 200, b"whole").await;
    assert_eq!(fetch.await.unwrap().unwrap().body, "whole");
    arena.end().await;
}

/// P44: a WINDOW_UPDATE for each KiB sent, all at once, is what some servers do; many more are a flood, during an upload
/// too.
#[tokio::test(start_paused = true)]
async fn uploads_explain_as_many_window_updates_as_they_have_kib() {
    const KIB: usize = 4 << 10;
    for (times, fine) in [(1, true), (4, false)] {
        let mut arena = Arena::new();
        let fetch = arena.post("/upload", full(vec![0; KIB << 10]));
        let mut peer = arena.greeted(&[(setting::INITIAL_WINDOW_SIZE, 8 << 20)]).await;
        peer.next_headers().await;
        peer.send_window_update(0, 8 << 20).await;
        let mut got = 0;
        while got < KIB << 10 {
            if let Frame::Data(data) = peer.next_stream_frame().await {
                got += data.flow;
            }
        }
        let flood = peer.flood(&frame::window_update(0, 1), times * KIB * 13).await;
        assert_eq!(flood.ended, !fine, "{flood:?}");
        if fine {
            peer.respond(1, 200, b"fine").await;
            assert_eq!(fetch.await.unwrap().unwrap().body, "fine");
        } else {
            let error = fails(fetch).await;
            assert!(names(&error, "WINDOW_UPDATE"), "{}", chain(&error));
        }
        arena.end().await;
    }
}
