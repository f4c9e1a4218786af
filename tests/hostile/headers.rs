//! Header blocks as weapons: too long, exploding, never ending, wrong.

use bytes::Bytes;

use crate::arena::{Arena, PIPE, chain, ends, fails, names};
use crate::support::peer::{Peer, code, flag, frame, hpack, kind};

/// P32, P44: more than 64 KiB of response header; the error names the limit.
#[tokio::test(start_paused = true)]
async fn a_head_over_the_limit_fails_its_request_alone() {
    let mut arena = Arena::new();
    let fits = arena.get("/fits");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let big = "v".repeat(60_000);
    peer.send_fields(1, &[(":status", "200"), ("x-big", &big)], true)
        .await;
    assert_eq!(fits.await.unwrap().unwrap().status, 200);

    let fetch = arena.get("/too-big");
    peer.next_headers().await;
    let block = hpack::literals([(":status", "200"), ("x-big", &"v".repeat(70_000))]);
    peer.send_raw(&frame::headers(3, &block, true)).await;
    let error = fails(fetch).await;
    assert!(names(&error, "header"), "{}", chain(&error));
    assert!(!error.is_unprocessed(), "{}", chain(&error));

    let next = arena.get("/next");
    assert_eq!(peer.answer_one(b"still here").await.as_deref(), Some("/next"));
    assert_eq!(
        (next.await.unwrap().unwrap().body.as_ref(), arena.dials()),
        (&b"still here"[..], 1)
    );
    arena.end().await;
}

/// Trailers of more than 64 KiB, in several ways.
fn big_trailers() -> Vec<(&'static str, Vec<u8>)> {
    // 78,400 times the letter a, of five bits each: 49,000 bytes.
    let compressed = [
        &[0x00, 0x01, b'x', 0xff, 0xe9, 0xfd, 0x02][..],
        &[0x18, 0xc6, 0x31, 0x8c, 0x63].repeat(9_800),
    ];
    vec![
        ("one field", hpack::literals([("x-big", &"v".repeat(70_000))])),
        (
            "many fields",
            hpack::literals((0..3_000).map(|n| (format!("x-{n}"), "v".repeat(10)))),
        ),
        (
            "one too many",
            hpack::literals([("x-big", "v".repeat(60_000)), ("x-more", "v".repeat(6_000))]),
        ),
        ("compressed", compressed.concat()),
        // 4,000 bytes, once, and then by its index.
        ("expanding", hpack::bomb("x-bomb", &[b'x'; 4_000], 20)),
    ]
}

/// P44: the same in trailers, which h2 would cut without a word.
#[tokio::test(start_paused = true)]
async fn trailers_over_the_limit_fail_the_body() {
    let mut arena = Arena::new();
    for (name, block) in big_trailers() {
        let fetch = arena.get("/trailers");
        let mut peer = arena.greeted(&[]).await;
        peer.next_headers().await;
        peer.send_fields(1, &[(":status", "200"), ("content-length", "4")], false)
            .await;
        peer.send_data(1, b"body", false).await;
        peer.send_raw(&frame::headers(1, &block, true)).await;
        let error = fails(fetch).await;
        assert!(
            error.is_body() && !error.is_unprocessed() && names(&error, "max_header_list_size"),
            "{name}: {}",
            chain(&error)
        );
        let next = arena.get("/next");
        assert_eq!(
            peer.answer_one(b"still here").await.as_deref(),
            Some("/next"),
            "{name}"
        );
        assert_eq!(next.await.unwrap().unwrap().body, "still here", "{name}");
        leave(peer, 3).await;
    }
    assert_eq!(arena.dials(), big_trailers().len());
    arena.end().await;
}

/// P31: trailers within the limit come whole.
#[tokio::test(start_paused = true)]
async fn large_trailers_within_the_limit_are_all_there() {
    let mut arena = Arena::new();
    let fetch = arena.get("/trailers");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    peer.send_headers(1, 200, false).await;
    let block = hpack::literals((0..1_000).map(|n| (format!("x-{n}"), "v".repeat(20))));
    peer.send_raw(&frame::headers(1, &block, true)).await;
    let answer = ends(fetch).await.unwrap();
    assert_eq!(answer.trailers.unwrap().len(), 1_000);
    arena.end().await;
}

/// P44: a few kilobytes on the wire that decode to a gigabyte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hpack_bomb_does_not_go_off() {
    let mut arena = Arena::real_time();
    for bombs in [1, 16] {
        let fetch = arena.get("/bomb");
        let mut peer = arena.greeted(&[]).await;
        let head = peer.next_headers().await;
        // 4,000 bytes, 16,000 times: 64 MB a block.
        let mut wire =
            frame::headers(head.stream, &hpack::bomb("x-bomb", &[b'x'; 4_000], 16_000), false).to_vec();
        for _ in 1..bombs {
            wire.extend_from_slice(&frame::headers(head.stream, &vec![0x80 | 62; 16_000], true));
        }
        // The client may end it before all is sent.
        drop(peer.try_send_raw(&wire).await);
        let error = fails(fetch).await;
        assert!(
            !error.is_unprocessed() && names(&error, "max_header_list_size"),
            "{}",
            chain(&error)
        );
        drop(peer);
    }
    arena.recovers().await;
    arena.end().await;
}

/// P44: HEADERS that CONTINUATION never completes, by large frames and by empty ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_header_block_ends_the_session() {
    let mut arena = Arena::real_time();
    let field = hpack::literals([("x-more", &"m".repeat(1_000))]);
    for payload in [&field[..], b""] {
        let fetch = arena.get("/endless");
        let mut peer = arena.greeted(&[]).await;
        peer.next_headers().await;
        peer.send_frame(
            kind::HEADERS,
            flag::NONE,
            1,
            &hpack::literals([(":status", "200")]),
        )
        .await;
        let flood = peer
            .flood(
                &frame::encode(kind::CONTINUATION, flag::NONE, 1, payload),
                256 << 20,
            )
            .await;
        assert!(
            flood.ended && flood.written < 32 * PIPE,
            "{} bytes each: {flood:?}",
            payload.len()
        );
        let error = fails(fetch).await;
        assert!(
            !error.is_unprocessed() && !error.is_timeout() && names(&error, "max_header_list_size"),
            "{}",
            chain(&error)
        );
    }
    arena.recovers().await;
    arena.end().await;
}

/// Ends a session that the client may have ended before.
async fn leave(mut peer: Peer, last: u32) {
    drop(peer.try_send_raw(&frame::goaway(last, code::NO_ERROR, b"")).await);
    peer.until_closed().await;
}

/// RFC 9113 §8.3.2, §8.2: responses that are malformed are errors of their stream, not of the others.
#[tokio::test(start_paused = true)]
async fn malformed_heads_fail_their_request() {
    let mut arena = Arena::new();
    let heads: &[&[(&str, &str)]] = &[
        &[("x-status", "missing")],
        &[(":status", "abc")],
        &[(":status", "")],
        &[(":status", "200"), (":status", "200")],
        &[("x-before", "pseudo"), (":status", "200")],
        &[(":status", "200"), ("X-Upper", "case")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("content-length", "ten")],
        &[(":status", "101")],
        // Interim, and the end of the stream.
        &[(":status", "100")],
        &[(":status", "103")],
    ];
    for head in heads {
        let fetch = arena.get("/malformed");
        let mut peer = arena.greeted(&[]).await;
        let stream = peer.next_headers().await.stream;
        let block = hpack::literals(head.iter().copied());
        // Whole, so that what is no answer can not wait for its end either.
        peer.send_raw(&frame::headers(stream, &block, true)).await;
        match ends(fetch).await {
            Ok(answer) => panic!("{head:?} is no answer: {answer:?}"),
            Err(error) => assert!(
                !error.is_unprocessed() && !error.is_timeout(),
                "{head:?}: {}",
                chain(&error)
            ),
        }
        leave(peer, stream).await;
    }
    arena.recovers().await;
    assert_eq!(arena.dials(), heads.len() + 1);
    arena.end().await;
}

/// RFC 9113 §8.1.1: a body that is not as long as it was said to be.
#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_promised_is_an_error() {
    let mut arena = Arena::new();
    for body in [&b"short"[..], b"much longer than ten bytes"] {
        let fetch = arena.get("/length");
        let mut peer = arena.greeted(&[]).await;
        let stream = peer.next_headers().await.stream;
        peer.send_fields(stream, &[(":status", "200"), ("content-length", "10")], false)
            .await;
        peer.send_data(stream, body, true).await;
        let error = fails(fetch).await;
        assert!(!error.is_unprocessed(), "{}", chain(&error));
        leave(peer, stream).await;
    }
    arena.recovers().await;
    arena.end().await;
}

/// RFC 7541 §4.2, §6.3: the decoder's table grows no further than we allowed, however often its size is set.
#[tokio::test(start_paused = true)]
async fn sizes_of_the_header_table_are_bounded() {
    // 2^30, the size that we allow; again and again; in the midst of the fields.
    let huge = [0x3f, 0xe1, 0xff, 0xff, 0xff, 0x03];
    let mut arena = Arena::new();
    for (name, block, fine) in [
        ("huge", [&huge[..], &[0x88]].concat(), false),
        ("nothing", vec![0x20, 0x88], true),
        ("often", [&[0x20; 16_000][..], &[0x88]].concat(), true),
        ("late", vec![0x88, 0x20], false),
    ] {
        let fetch = arena.get("/table");
        let mut peer = arena.greeted(&[]).await;
        let stream = peer.next_headers().await.stream;
        peer.send_raw(&frame::headers(stream, &block, true)).await;
        match ends(fetch).await {
            Ok(answer) => assert!(fine && answer.status == 200, "{name}: {answer:?}"),
            Err(error) => assert!(
                (!fine || name == "often") && !error.is_unprocessed() && !error.is_timeout(),
                "{name}: {}",
                chain(&error)
            ),
        }
        leave(peer, stream).await;
    }
    arena.recovers().await;
    arena.end().await;
}

/// RFC 9113 §8.1, §5.1: HEADERS where none may come: each fails its request, and a flood of them ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_after_the_head_end_their_request() {
    let mut arena = Arena::real_time();
    let head = |end| frame::headers(1, &hpack::literals([(":status", "200")]), end);
    let trailers = |end| frame::headers(1, &hpack::literals([("x-trailer", "1")]), end);
    for (name, first, flood) in [
        ("heads", head(false), head(false)),
        (
            "heads after DATA",
            [head(false), frame::data(1, b"x", false)].concat().into(),
            head(false),
        ),
        ("trailers without an end", head(false), trailers(false)),
        ("trailers before a head", trailers(true), trailers(true)),
        (
            "trailers after trailers",
            [head(false), trailers(true)].concat().into(),
            trailers(true),
        ),
    ] {
        let fetch = arena.get("/heads");
        let mut peer = arena.greeted(&[]).await;
        peer.next_headers().await;
        peer.send_raw(&first).await;
        let flood = peer.flood(&flood, 64 << 20).await;
        assert!(flood.ended && flood.written < 32 * PIPE, "{name}: {flood:?}");
        match ends(fetch).await {
            Ok(answer) => assert!(name == "trailers after trailers", "{name}: {answer:?}"),
            Err(error) => assert!(
                !error.is_unprocessed() && !error.is_timeout(),
                "{name}: {}",
                chain(&error)
            ),
        }
        drop(peer);
        arena.recovers().await;
    }
    arena.end().await;
}

/// P44: the same bombs in trailers: they never end, they expand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_in_trailers_do_not_go_off() {
    let mut arena = Arena::real_time();
    let bomb = frame::headers(1, &hpack::bomb("x-bomb", &[b'x'; 4_000], 16_000), true);
    let begun = frame::encode(kind::HEADERS, flag::END_STREAM, 1, &hpack::literals([("x", "y")]));
    let endless = frame::encode(
        kind::CONTINUATION,
        flag::NONE,
        1,
        &hpack::literals([("x-more", "m".repeat(1_000))]),
    );
    for (name, first, flood) in [
        ("expanding", Bytes::new(), bomb),
        ("endless", begun.clone(), endless),
        (
            "endless and empty",
            begun,
            frame::encode(kind::CONTINUATION, flag::NONE, 1, b""),
        ),
    ] {
        let fetch = arena.get("/bombs");
        let mut peer = arena.greeted(&[]).await;
        peer.next_headers().await;
        peer.send_headers(1, 200, false).await;
        peer.send_data(1, b"body", false).await;
        peer.send_raw(&first).await;
        let flood = peer.flood(&flood, 256 << 20).await;
        assert!(flood.ended && flood.written < 32 * PIPE, "{name}: {flood:?}");
        let error = fails(fetch).await;
        assert!(
            !error.is_unprocessed() && !error.is_timeout() && names(&error, "max_header_list_size"),
            "{name}: {}",
            chain(&error)
        );
        drop(peer);
        arena.recovers().await;
    }
    arena.end().await;
}
