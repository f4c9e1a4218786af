//! More frames than any honest server sends: the session ends, its callers are told why, and little was taken in.

use bytes::Bytes;

use crate::arena::{Arena, PIPE, chain, fails, names, settle};
use crate::support::peer::{Frame, code, flag, frame, hpack, kind, setting};

/// Far more than a bound of 1,000 small frames lets in, far less than a flood would be.
const TAKEN_IN: usize = 4 * PIPE;

/// What a flood consists of; stream 1 has a request that waits for its answer.
fn control_floods() -> Vec<(&'static str, Bytes)> {
    vec![
        ("empty SETTINGS", frame::settings(&[])),
        (
            "SETTINGS",
            frame::settings(&[
                (setting::MAX_CONCURRENT_STREAMS, 100),
                (setting::INITIAL_WINDOW_SIZE, 65_535),
            ]),
        ),
        ("unknown SETTINGS", frame::settings(&[(0xabcd, 1)])),
        ("PING", frame::ping([1; 8])),
        ("PING answers", frame::encode(kind::PING, flag::ACK, 0, &[2; 8])),
        (
            "PRIORITY",
            frame::encode(kind::PRIORITY, flag::NONE, 1, &[0, 0, 0, 0, 16]),
        ),
        ("unknown frames", frame::encode(0xfa, flag::NONE, 0, b"")),
        (
            "unknown frames on a stream",
            frame::encode(0xfb, 0xff, 1, b"payload"),
        ),
        ("WINDOW_UPDATE", frame::window_update(0, 1)),
        ("WINDOW_UPDATE on a stream", frame::window_update(1, 1)),
        ("GOAWAY", frame::goaway(1, code::NO_ERROR, b"again")),
        ("empty DATA after a head", frame::data(1, b"", false)),
    ]
}

/// P44
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_control_frames_end_the_session() {
    let mut arena = Arena::real_time();
    for (name, bytes) in control_floods() {
        let fetch = arena.get("/flooded");
        let mut peer = arena.greeted(&[]).await;
        assert_eq!(peer.next_headers().await.stream, 1, "{name}");
        if name.starts_with("empty DATA") {
            peer.send_headers(1, 200, false).await;
        }
        let flood = peer.flood(&bytes, 64 * TAKEN_IN).await;
        assert!(flood.ended && flood.written < TAKEN_IN, "{name}: {flood:?}");
        let error = fails(fetch).await;
        assert!(
            !error.is_unprocessed() && !error.is_timeout(),
            "{name}: {}",
            chain(&error)
        );
        arena.recovers().await;
    }
    // One connection a flood, one to recover, and where empty DATA wears a session out, its replacement (P17).
    let floods = control_floods().len();
    assert!(
        arena.dials() <= 2 * floods + 1,
        "{} dials for {floods} floods",
        arena.dials()
    );
    arena.end().await;
}

/// P44: the error names the bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_names_the_bound() {
    let mut arena = Arena::real_time();
    for (word, bytes) in [
        ("PING", frame::ping([1; 8])),
        ("WINDOW_UPDATE", frame::window_update(0, 1)),
        ("GOAWAY", frame::goaway(1, code::NO_ERROR, b"")),
        (
            "(1xx)",
            frame::headers(1, &hpack::literals([(":status", "103")]), false),
        ),
    ] {
        let fetch = arena.get("/flooded");
        let mut peer = arena.greeted(&[]).await;
        peer.next_headers().await;
        peer.flood(&bytes, 64 * TAKEN_IN).await;
        let error = fails(fetch).await;
        assert!(names(&error, word), "{word}: {}", chain(&error));
    }
    arena.end().await;
}

/// P44: also when nobody waits for anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_on_an_idle_session_end_it() {
    let mut arena = Arena::real_time();
    for bytes in [
        frame::ping([1; 8]),
        frame::window_update(0, 1),
        frame::encode(0xfa, flag::NONE, 0, b""),
    ] {
        let fetch = arena.get("/served");
        let mut peer = arena.greeted(&[]).await;
        assert!(peer.answer_one(b"served").await.is_some());
        fetch.await.unwrap().unwrap();
        let flood = peer.flood(&bytes, 64 * TAKEN_IN).await;
        assert!(flood.ended && flood.written < TAKEN_IN, "{flood:?}");
    }
    arena.recovers().await;
    assert_eq!(arena.dials(), 4);
    arena.end().await;
}

/// P44: RST_STREAM again and again for a stream that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_ends_the_stream_first_and_then_the_session() {
    let mut arena = Arena::real_time();
    let fetch = arena.get("/reset");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let flood = peer.flood(&frame::reset(1, code::CANCEL), 64 * TAKEN_IN).await;
    assert!(flood.ended && flood.written < TAKEN_IN, "{flood:?}");
    let error = fails(fetch).await;
    assert!(error.is_reset() && !error.is_unprocessed(), "{}", chain(&error));
    arena.recovers().await;
    arena.end().await;
}

/// P44: 32 interim responses, on that stream alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_interim_responses_end_their_stream_alone() {
    let mut arena = Arena::real_time();
    let hinted = arena.get("/hinted");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    for _ in 0..32 {
        peer.send_fields(1, &[(":status", "103"), ("link", "</style.css>")], false)
            .await;
    }
    peer.respond(1, 200, b"at last").await;
    assert_eq!(hinted.await.unwrap().unwrap().body, "at last", "32 are allowed");

    // One too many: alone, with the final response behind it (with and without a body), and with more of its kind.
    let hint = |stream| frame::headers(stream, &hpack::literals([(":status", "103")]), false);
    let head = |stream, end| frame::headers(stream, &hpack::literals([(":status", "200")]), end);
    for (stream, count, more) in [
        (3, 33, Bytes::new()),
        (5, 33, head(5, true)),
        (
            7,
            33,
            [head(7, false), frame::data(7, b"body", true)].concat().into(),
        ),
        (9, 60, Bytes::new()),
    ] {
        let flooded = arena.get("/flooded");
        peer.next_headers().await;
        peer.send_raw(&[&hint(stream).repeat(count), &more[..]].concat())
            .await;
        let error = fails(flooded).await;
        assert!(
            names(&error, "(1xx)") && !error.is_timeout() && !error.is_unprocessed(),
            "{stream}: {}",
            chain(&error)
        );
    }

    let next = arena.get("/next");
    assert_eq!(peer.answer_one(b"still here").await.as_deref(), Some("/next"));
    assert_eq!(
        (next.await.unwrap().unwrap().body.as_ref(), arena.dials()),
        (&b"still here"[..], 1)
    );
    arena.end().await;
}

/// P44: 64 KiB of interim responses, few and fat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fat_interim_responses_count_by_their_bytes() {
    let mut arena = Arena::real_time();
    let fetch = arena.get("/hinted");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let hint = frame::headers(
        1,
        &hpack::literals([(":status", "103"), ("link", &"l".repeat(15_000))]),
        false,
    );
    // Five of them are too many for the stream; what comes after its end is thrown away.
    peer.flood(&hint, 16 * TAKEN_IN).await;
    let error = fails(fetch).await;
    assert!(names(&error, "(1xx)"), "{}", chain(&error));
    drop(peer);
    arena.recovers().await;
    arena.end().await;
}

/// P44, h2-notes: interim responses pile up in h2 while nobody polls the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_responses_do_not_pile_up_while_the_caller_looks_away() {
    let mut arena = Arena::real_time();
    let pool = arena.pool.clone();
    let mut request = Box::pin(async move { pool.request(crate::arena::get(0, "/unpolled")).await });
    // Polled until its HEADERS are out, and then no more.
    let mut peer = tokio::select! {
        _ = &mut request => panic!("nobody answered"),
        peer = async {
            let mut peer = arena.greeted(&[]).await;
            peer.next_headers().await;
            peer
        } => peer,
    };
    let hint = frame::headers(1, &hpack::literals([(":status", "103"), ("link", "x")]), false);
    let flood = peer.flood(&hint, 256 * TAKEN_IN).await;
    assert!(flood.ended && flood.written < TAKEN_IN, "{flood:?}");
    assert!(request.await.is_err());
    arena.recovers().await;
    arena.end().await;
}

/// P31, P44: late frames of a stream that is over are ignored; a flood of heads for it ends the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_frames_are_ignored_and_a_flood_of_them_is_not() {
    let mut arena = Arena::real_time();
    let cancelled = arena.get("/cancelled");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    cancelled.abort();
    assert_eq!(peer.next_reset().await, (1, code::CANCEL));
    peer.respond(1, 200, b"too late").await;
    let next = arena.get("/next");
    assert_eq!(peer.answer_one(b"in time").await.as_deref(), Some("/next"));
    assert_eq!(next.await.unwrap().unwrap().body, "in time");
    let late = frame::headers(1, &hpack::literals([(":status", "200")]), false);
    let flood = peer.flood(&late, 64 * TAKEN_IN).await;
    assert!(flood.ended && flood.written < TAKEN_IN, "{flood:?}");
    arena.recovers().await;
    assert_eq!(arena.dials(), 2);
    arena.end().await;
}

/// P44: just under the bound for long is no flood.
#[tokio::test(start_paused = true)]
async fn a_busy_honest_server_is_not_punished() {
    let mut arena = Arena::new();
    let fetch = arena.get("/busy");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    for _ in 0..30 {
        for _ in 0..450 {
            peer.send_ping([7; 8]).await;
            peer.send_settings(&[(setting::MAX_CONCURRENT_STREAMS, 100)])
                .await;
            peer.send_window_update(0, 1).await;
        }
        peer.ping_round_trip().await;
        settle().await;
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
    }
    peer.respond(1, 200, b"fine").await;
    assert_eq!(fetch.await.unwrap().unwrap().body, "fine");
    assert!(peer.ping_round_trip().await.iter().all(Frame::is_control));
    assert_eq!(arena.dials(), 1);
    arena.end().await;
}
