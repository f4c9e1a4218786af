//! Frames as RFC 9113 allows them, at odd times and in odd pieces (P21, P22, P30, P31).

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame as BodyFrame;
use http_body_util::BodyExt;

use crate::bench::{Answer, Bench, broken, response, settle, text, uri};
use crate::support::client::upload;
use crate::support::peer::{Frame, Peer, code, flag, frame, hpack, kind, setting};
use crate::support::server::body::full;
use crate::support::within;

fn head(stream: u32, fields: &[(&str, &str)], end: bool) -> Bytes {
    frame::headers(stream, &hpack::literals(fields.iter().copied()), end)
}

/// A session that has served a request.
async fn session(bench: &mut Bench) -> Peer {
    let first = bench.get("/first");
    let mut peer = bench.peer(&[]).await;
    serve(&mut peer, first).await;
    peer
}

async fn serve(peer: &mut Peer, answer: Answer) {
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"served").await;
    assert_eq!(text(response(answer).await.into_body()).await, "served");
}

/// The session lives, and nothing is left on it.
async fn lives_on(bench: &Bench, peer: &mut Peer) {
    let next = bench.get("/next");
    serve(peer, next).await;
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
}

/// Sizes of the DATA that comes now and, once that was read, then.
async fn sizes(peer: &mut Peer) -> Vec<usize> {
    let mut frames = peer.ping_round_trip().await;
    settle().await;
    frames.extend(peer.ping_round_trip().await);
    let size = |frame: Frame| match frame {
        Frame::Data(data) => Some(data.data.len()),
        _ => None,
    };
    frames.into_iter().filter_map(size).collect()
}

// P30, RFC 9113 §6.9.2: windows shrink and grow within an upload: never a byte beyond them, never a frame without one.
#[tokio::test(start_paused = true)]
async fn windows_that_change_within_an_upload() {
    let mut bench = Bench::new(|builder| builder);
    let mut peer = session(&mut bench).await;
    let window = |size| frame::settings(&[(setting::INITIAL_WINDOW_SIZE, size)]);
    peer.send_raw(&window(1000)).await;
    settle().await;
    let put = bench.send(Request::put(uri("/")).body(full(vec![7; 300_000])).unwrap());
    let stream = peer.next_headers().await.stream;
    assert_eq!(sizes(&mut peer).await, [1000]);
    let more = |bytes| frame::window_update(stream, bytes);
    for (change, sent) in [
        (window(0), vec![]),
        (more(1000), vec![]),
        (more(10), vec![10]),
        (window(20), vec![20]),
        ([window(30), window(5)].concat().into(), vec![]),
        (window(40), vec![20]),
        ([more(7), window(33)].concat().into(), vec![]),
        (window(43), vec![10]),
    ] {
        peer.send_raw(&change).await;
        assert_eq!(sizes(&mut peer).await, sent, "{change:?}");
    }
    // Then the connection's is the narrower one.
    peer.send_raw(&window(1 << 20)).await;
    assert_eq!(sizes(&mut peer).await.iter().sum::<usize>(), 65_535 - 1060);
    peer.send_window_update(0, 1 << 20).await;
    let mut rest = 0;
    while rest < 300_000 - 65_535 {
        rest += sizes(&mut peer).await.iter().sum::<usize>();
    }
    peer.respond(stream, 200, b"").await;
    response(put).await;
    lives_on(&bench, &mut peer).await;
}

// P21, P31: a body with trailers is sent again whole, also where it was refused in its midst.
#[tokio::test(start_paused = true)]
async fn trailers_are_sent_again() {
    for midst in [true, false] {
        let mut bench = Bench::new(|builder| builder);
        let mut peer = session(&mut bench).await;
        let (sender, body) = upload(4);
        let post = bench.send(Request::post(uri("/")).body(body).unwrap());
        sender.send(Ok(BodyFrame::data("one".into()))).await.unwrap();
        let stream = peer.next_headers().await.stream;
        peer.ping_round_trip().await;
        if midst {
            peer.send_rst(stream, code::REFUSED_STREAM).await;
            settle().await;
        }
        sender.send(Ok(BodyFrame::data("two".into()))).await.unwrap();
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "\"7\"".parse().unwrap())]);
        sender.send(Ok(BodyFrame::trailers(trailers))).await.unwrap();
        drop(sender);
        settle().await;
        if !midst {
            peer.ping_round_trip().await;
            peer.send_rst(stream, code::REFUSED_STREAM).await;
        }
        let again = peer.next_request().await;
        assert_eq!(again.body, "onetwo", "{midst}");
        assert_eq!(again.trailers.unwrap().get("etag"), Some("\"7\""), "{midst}");
        peer.respond(again.head.stream, 200, b"").await;
        response(post).await;
        lives_on(&bench, &mut peer).await;
    }
}

// P22: after the head nothing is unprocessed, whatever the code, whether the request has ended or not.
#[tokio::test(start_paused = true)]
async fn after_the_head_nothing_is_unprocessed() {
    let codes = [
        code::REFUSED_STREAM,
        code::HTTP_1_1_REQUIRED,
        code::NO_ERROR,
        code::ENHANCE_YOUR_CALM,
    ];
    for (code, uploads) in codes.into_iter().flat_map(|code| [(code, false), (code, true)]) {
        for goaway in [false, true] {
            let mut bench = Bench::new(|builder| builder);
            let mut peer = session(&mut bench).await;
            let (_sender, body) = upload(1);
            let answer = match uploads {
                true => bench.send(Request::post(uri("/")).body(body).unwrap()),
                false => bench.get("/"),
            };
            let stream = peer.next_headers().await.stream;
            peer.send_raw(&head(stream, &[(":status", "200")], false)).await;
            if goaway {
                peer.send_goaway(0, code, b"").await;
            } else {
                peer.send_rst(stream, code).await;
            }
            let error = broken(&mut response(answer).await.into_body()).await;
            assert!(error.is_body() && !error.is_unprocessed(), "{code}: {error:?}");
            assert_eq!(
                (error.is_goaway(), error.is_reset()),
                (goaway, !goaway),
                "{code}: {error:?}"
            );
            if !goaway {
                lives_on(&bench, &mut peer).await;
            }
        }
    }
}

// P31: padding, priorities, and header blocks in pieces.
#[tokio::test(start_paused = true)]
async fn padded_and_in_pieces() {
    let mut bench = Bench::new(|builder| builder);
    let mut peer = session(&mut bench).await;
    let block = hpack::literals([(":status", "200"), ("content-length", "5")]);
    let trailers = hpack::literals([("x-t", "1"), ("x-u", "2")]);
    let padded = |before: &[u8], bytes: &[u8]| [before, bytes, &[0; 7]].concat();
    let whole = |stream| frame::data(stream, b"whole", true);
    for at in 0..5 {
        let answer = bench.get("/");
        let stream = peer.next_headers().await.stream;
        let more = |flags, bytes: &[u8]| frame::encode(kind::CONTINUATION, flags, stream, bytes);
        let headers = |flags, bytes: &[u8]| frame::encode(kind::HEADERS, flags, stream, bytes);
        let data = |flags, bytes: &[u8]| frame::encode(kind::DATA, flags, stream, bytes);
        let frames = match at {
            0 => vec![
                headers(flag::END_HEADERS | flag::PADDED, &padded(&[7], &block)),
                whole(stream),
            ],
            1 => {
                let flags = flag::END_HEADERS | flag::PADDED | flag::PRIORITY;
                vec![
                    headers(flags, &padded(&[7, 0, 0, 0, 0, 9], &block)),
                    whole(stream),
                ]
            }
            2 => vec![
                headers(flag::PADDED, &[3, 0, 0, 0]),
                more(0, &block[..1]),
                more(0, &[]),
                more(flag::END_HEADERS, &block[1..]),
                whole(stream),
            ],
            3 => vec![
                headers(flag::END_HEADERS, &block),
                data(flag::PADDED, &padded(&[7], b"who")),
                data(flag::PADDED, &[0, b'l', b'e']),
                data(flag::PADDED | flag::END_STREAM, &[3, 0, 0, 0]),
            ],
            _ => vec![
                headers(flag::END_HEADERS, &block),
                data(0, b"whole"),
                headers(flag::END_STREAM | flag::PADDED, &[2, trailers[0], 0, 0]),
                more(flag::END_HEADERS, &trailers[1..]),
            ],
        };
        peer.send_raw(&frames.concat()).await;
        let read = within("the body", response(answer).await.into_body().collect())
            .await
            .unwrap();
        assert_eq!(
            read.trailers().map_or(0, HeaderMap::len),
            if at == 4 { 2 } else { 0 }
        );
        assert_eq!(read.to_bytes(), "whole", "{at}");
        lives_on(&bench, &mut peer).await;
    }
}

/// What may still come for a stream that was cancelled.
fn late(stream: u32) -> Vec<Bytes> {
    let head = |end| head(stream, &[(":status", "200")], end);
    let data = |end| frame::data(stream, b"late", end);
    vec![
        head(false),
        head(true),
        data(false),
        data(true),
        frame::reset(stream, code::CANCEL),
        frame::reset(stream, code::REFUSED_STREAM),
        frame::window_update(stream, 5),
        frame::encode(kind::PRIORITY, 0, stream, &[0, 0, 0, 0, 1]),
        frame::encode(0x77, 0xff, stream, b"unknown"),
        [head(false), data(true), frame::reset(stream, code::NO_ERROR)]
            .concat()
            .into(),
    ]
}

// P31: frames that come late for a cancelled stream are nobody's, and harm nobody.
#[tokio::test(start_paused = true)]
async fn late_frames_for_a_cancelled_stream() {
    let mut bench = Bench::new(|builder| builder);
    let mut peer = session(&mut bench).await;
    for (at, answered) in (0..late(1).len()).flat_map(|at| [(at, false), (at, true)]) {
        let request = bench.get("/cancelled");
        let stream = peer.next_headers().await.stream;
        if answered {
            peer.send_raw(&head(stream, &[(":status", "200")], false)).await;
            drop(response(request).await);
        } else {
            request.abort();
        }
        assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
        peer.send_raw(&late(stream)[at]).await;
        lives_on(&bench, &mut peer).await;
    }
    assert_eq!(bench.pool.stats().sessions_opened, 1);
}
