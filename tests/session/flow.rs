//! Windows that fill, small frames, a transport that takes nothing, floods.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2pool::Body;
use http::Request;
use http_body_util::Full;
use tokio::io::AsyncWriteExt;

use crate::bench::{Answer, Bench, broken, data, failure, now, response, settle, text, uri};
use crate::support::peer::{Frame, Peer, code, flag, frame, hpack, kind, setting};

/// A response head and `frames` DATA frames of `size` bytes; more will follow.
async fn begin(peer: &mut Peer, frames: usize, size: usize) -> u32 {
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    peer.send_raw(&frame::data(stream, &vec![7; size], false).repeat(frames))
        .await;
    stream
}

/// Three unread bodies that hold a session's window, and a request that waits for it.
async fn stalled() -> (Bench, Peer, Vec<Body>, Answer) {
    let mut bench = Bench::new(|builder| {
        let builder = builder.adaptive_window(false);
        builder.stream_window(32_767).connection_window(65_535)
    });
    let held: Vec<_> = (0..3).map(|_| bench.get("/held")).collect();
    let mut peer = bench.peer(&[]).await;
    for _ in 0..3 {
        begin(&mut peer, 12, 1024).await;
    }
    let mut bodies = Vec::new();
    for answer in held {
        bodies.push(response(answer).await.into_body());
    }
    peer.ping_round_trip().await;
    let waiting = bench.get("/next");
    (bench, peer, bodies, waiting)
}

// P30: several unread bodies keep their session from new work until enough of them is read, though nothing else
// happens on the connection then and h2 has nothing to send.
#[tokio::test(start_paused = true)]
async fn a_stalled_session_works_again_as_soon_as_enough_is_read() {
    let (mut bench, mut peer, mut bodies, waiting) = stalled().await;
    let frames = peer.ping_round_trip().await;
    assert!(
        !frames.iter().any(|frame| matches!(frame, Frame::Headers(_))),
        "36 KiB are unread, and 32 are left for one body: {frames:?}"
    );
    for _ in 0..5 {
        assert_eq!(data(&mut bodies[0]).await.len(), 1024);
    }
    settle().await;
    let request = peer.next_headers().await;
    assert_eq!(request.path(), "/next");
    peer.respond(request.stream, 200, b"done").await;
    assert_eq!(text(response(waiting).await.into_body()).await, "done");
    assert!(!bench.dials());
}

// P30: the same when the bodies are dropped, and when their requests are.
#[tokio::test(start_paused = true)]
async fn a_stalled_session_works_again_when_bodies_are_dropped() {
    let (_bench, mut peer, bodies, waiting) = stalled().await;
    settle().await;
    drop(bodies);
    let request = peer.next_headers().await;
    assert_eq!(request.path(), "/next");
    peer.respond(request.stream, 200, b"done").await;
    assert_eq!(text(response(waiting).await.into_body()).await, "done");
}

// P30: one body that is held and full to its window leaves the others half of the connection's.
#[tokio::test(start_paused = true)]
async fn one_held_body_stalls_nobody() {
    one_held_body(32_767, 31).await;
}

// P30: the same where a stream may have as much as the session.
#[tokio::test(start_paused = true)]
async fn one_held_body_stalls_nobody_where_the_windows_are_equal() {
    one_held_body(65_535, 63).await;
}

/// A body of `frames` KiB is held; others are read, more of them than the session's window has room for.
async fn one_held_body(stream_window: u32, frames: usize) {
    let mut bench = Bench::new(|builder| {
        let builder = builder.adaptive_window(false);
        builder.stream_window(stream_window).connection_window(65_535)
    });
    let held = bench.get("/held");
    let mut peer = bench.peer(&[]).await;
    let mut credit = 65_535;
    let stream = next_request(&mut peer, &mut credit).await;
    credit -= frames * 1024;
    peer.send_headers(stream, 200, false).await;
    peer.send_data(stream, &vec![7; frames * 1024], false).await;
    let held = response(held).await;
    for round in 0..10 {
        let other = bench.get("/other");
        let stream = next_request(&mut peer, &mut credit).await;
        let size = credit.min(30_000);
        assert!(size > 0, "round {round}: the session's window is full");
        credit -= size;
        peer.respond(stream, 200, &vec![round; size]).await;
        assert_eq!(text(response(other).await.into_body()).await, vec![round; size]);
    }
    drop(held);
}

/// The stream of the next request. What the session may be sent on top comes to `credit`.
async fn next_request(peer: &mut Peer, credit: &mut usize) -> u32 {
    loop {
        match peer.next().await {
            Frame::WindowUpdate { stream: 0, increment } => *credit += increment as usize,
            Frame::Headers(head) => return head.stream,
            _ => {}
        }
    }
}

// P30, P44: flow control does not see what small frames cost. The body that nobody reads is ended with an error that
// says why; its neighbours and the session live.
#[tokio::test(start_paused = true)]
async fn small_unread_frames_end_their_stream_and_no_other() {
    let mut bench = Bench::new(|builder| builder);
    let (held, neighbour) = (bench.get("/events"), bench.get("/neighbour"));
    let mut peer = bench.peer(&[]).await;
    let events = begin(&mut peer, 1, 1).await;
    let other = begin(&mut peer, 10, 10).await;
    let mut held = response(held).await.into_body();
    let small = frame::data(events, b"x", false).repeat(1000);
    let reset = loop {
        peer.send_raw(&small).await;
        let frames = peer.ping_round_trip().await;
        let reset = frames.into_iter().find_map(|frame| match frame {
            Frame::Reset { stream, code } => Some((stream, code)),
            _ => None,
        });
        if let Some(reset) = reset {
            break reset;
        }
    };
    assert_eq!(reset, (events, code::CANCEL));
    let error = broken(&mut held).await;
    assert!(error.is_reset() && error.is_body(), "{error:?}");
    assert!(
        error.to_string().contains("unread DATA frames under 256 bytes"),
        "{error}"
    );
    peer.send_data(other, b"end", true).await;
    let neighbour = text(response(neighbour).await.into_body()).await;
    assert_eq!((neighbour.len(), &neighbour[100..]), (103, &b"end"[..]));
    let next = bench.get("/next");
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"same session").await;
    assert_eq!(text(response(next).await.into_body()).await, "same session");
}

#[tokio::test(start_paused = true)]
async fn small_unread_frames_of_many_streams_end_as_many_as_it_takes() {
    // P44: where many share the small frames, ending one of them for each read would not keep up with what comes.
    let mut bench = Bench::new(|builder| builder.max_sessions(1));
    let requests: Vec<_> = (0..250).map(|_| bench.get("/events")).collect();
    let mut peer = bench.peer(&[(setting::MAX_CONCURRENT_STREAMS, 256)]).await;
    let mut open = Vec::new();
    for _ in 0..250 {
        open.push(begin(&mut peer, 1, 1).await);
    }
    let mut bodies = Vec::new();
    for request in requests {
        bodies.push(response(request).await.into_body());
    }
    for _ in 0..25 {
        let frames = |stream: &u32| frame::data(*stream, b"x", false).repeat(10);
        peer.send_raw(&open.iter().flat_map(frames).collect::<Vec<_>>())
            .await;
        for frame in peer.ping_round_trip().await {
            if let Frame::Reset { stream, .. } = frame {
                open.retain(|other| *other != stream);
            }
        }
    }
    assert!((100..240).contains(&open.len()), "{} are left", open.len());
    let next = bench.get("/next");
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"same session").await;
    assert_eq!(text(response(next).await.into_body()).await, "same session");
}

// P30: a reader who keeps up may have as many small frames as there are.
#[tokio::test(start_paused = true)]
async fn small_frames_that_are_read_cost_nothing() {
    let mut bench = Bench::new(|builder| builder);
    let events = bench.get("/events");
    let mut peer = bench.peer(&[]).await;
    let stream = begin(&mut peer, 1, 1).await;
    let mut body = response(events).await.into_body();
    data(&mut body).await;
    for _ in 0..60 {
        peer.send_raw(&frame::data(stream, b"x", false).repeat(1000))
            .await;
        for _ in 0..1000 {
            assert_eq!(data(&mut body).await, "x");
        }
    }
    peer.send_data(stream, b"end", true).await;
    assert_eq!(text(body).await, "end");
}

// P17: h2 never returns what small frames took that came for a cancelled stream: the session is replaced before that
// ends it.
#[tokio::test(start_paused = true)]
async fn late_small_frames_wear_a_session() {
    let mut bench = Bench::new(|builder| builder.max_sessions(2));
    let cancelled = bench.get("/events");
    let mut peer = bench.peer(&[]).await;
    let stream = begin(&mut peer, 1, 1).await;
    drop(response(cancelled).await);
    assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
    for _ in 0..9 {
        peer.send_raw(&frame::data(stream, b"x", false).repeat(1000))
            .await;
    }
    // The replacement is opened before anybody asks: there was work a moment ago.
    let mut fresh = bench.peer(&[]).await;
    settle().await;
    let next = bench.get("/next");
    let request = fresh.next_headers().await;
    fresh.respond(request.stream, 200, b"fresh").await;
    assert_eq!(text(response(next).await.into_body()).await, "fresh");
    peer.until_closed().await;
}

// P44: a transport that takes no bytes ends the session after `write_timeout`, with an error that names it.
#[tokio::test(start_paused = true)]
async fn a_transport_that_takes_nothing() {
    let mut bench = Bench::new(|builder| builder.write_timeout(Duration::from_secs(5)));
    let waiting = bench.get("/waiting");
    let mut peer = bench.peer(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]).await;
    peer.send_window_update(0, 1 << 20).await;
    peer.next_headers().await;
    peer.ping_round_trip().await;
    let start = now();
    // More than the transport holds, less than h2 may buffer: the upload itself has nothing to complain of.
    let upload = bench.send(
        Request::put(uri("/"))
            .body(Full::new(Bytes::from(vec![7; 200_000])))
            .unwrap(),
    );
    for answer in [upload, waiting] {
        let error = failure(answer).await;
        assert!(error.is_timeout(), "{error:?}");
        assert!(error.to_string().contains("`write_timeout`"), "{error}");
        assert_eq!(start.elapsed().as_secs(), 5);
    }
    drop(peer);
}

// P44: as long as bytes are taken, however few, nothing ends.
#[tokio::test(start_paused = true)]
async fn a_slow_transport_is_no_stalled_one() {
    let mut bench = Bench::new(|builder| builder.write_timeout(Duration::from_secs(5)));
    let upload = Request::put(uri("/"))
        .body(Full::new(Bytes::from(vec![7; 200_000])))
        .unwrap();
    let upload = bench.send(upload);
    let mut peer = bench.peer(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]).await;
    peer.send_window_update(0, 1 << 20).await;
    let stream = peer.next_headers().await.stream;
    let mut received = BytesMut::new();
    while received.len() < 200_000 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        if let Frame::Data(data) = peer.next_stream_frame().await {
            received.extend_from_slice(&data.data);
        }
    }
    peer.respond(stream, 200, b"thanks").await;
    assert_eq!(text(response(upload).await.into_body()).await, "thanks");
}

// P41, P44: the error names the bound, and the field that sets it.
#[tokio::test(start_paused = true)]
async fn the_error_names_the_bound() {
    let mut bench = Bench::new(|builder| builder.control_frames_per_second(50));
    let (first, second) = (bench.get("/"), bench.get("/"));
    let mut peer = bench.peer(&[]).await;
    let stream = begin(&mut peer, 1, 10).await;
    let mut body = response(first).await.into_body();
    let flood = frame::encode(kind::PRIORITY, 0, stream, &[0; 5]);
    assert!(peer.flood(&flood, 1 << 20).await.ended);
    for error in [broken(&mut body).await, failure(second).await] {
        let text = error.to_string();
        assert!(text.contains("more than 50 SETTINGS, PING, PRIORITY"), "{text}");
        assert!(text.contains("`control_frames_per_second`"), "{text}");
        assert!(!error.is_unprocessed());
    }
}

// P42: with the least that is allowed a server can be used: handshake, probe and a measurement of the window.
#[tokio::test(start_paused = true)]
async fn the_least_bound_on_control_frames_is_enough() {
    let mut bench = Bench::new(|builder| builder.control_frames_per_second(10));
    let cancelled = bench.get("/cancelled");
    let mut peer = bench.peer(&[]).await;
    peer.next_headers().await;
    peer.send_settings(&[(setting::MAX_CONCURRENT_STREAMS, 5)]).await;
    cancelled.abort();
    settle().await;
    let request = bench.get("/");
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, &vec![7; 1 << 20]).await;
    assert_eq!(text(response(request).await.into_body()).await.len(), 1 << 20);
    let few = h2pool::PoolConfig::default().control_frames_per_second(9);
    let error = few.validate().unwrap_err().to_string();
    assert!(error.ends_with("expected an integer in 10..=1000000"), "{error}");
}

// P32, P44: header blocks over the limit end their stream alone; the error names the limit.
#[tokio::test(start_paused = true)]
async fn headers_over_the_limit() {
    let mut bench = Bench::new(|builder| builder.max_header_list_size(2048));
    let first = bench.get("/");
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    let long = "x".repeat(4000);
    peer.send_fields(stream, &[(":status", "200"), ("x-long", &long)], true)
        .await;
    let error = failure(first).await;
    assert!(error.is_reset(), "{error:?}");
    assert!(error.to_string().contains("`max_header_list_size`"), "{error}");
    let second = bench.get("/");
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"alive").await;
    assert_eq!(text(response(second).await.into_body()).await, "alive");
}

// P32: a limit that was raised is reached by headers in frames of the usual size.
#[tokio::test(start_paused = true)]
async fn headers_up_to_a_raised_limit() {
    for limit in [64, 100, 128, 140, 300, 1024] {
        let mut bench = Bench::new(|builder| builder.max_header_list_size(limit * 1024));
        let request = bench.get("/large");
        let mut peer = bench.peer(&[]).await;
        let stream = peer.next_headers().await.stream;
        // Each field counts for 32 bytes more than its name and value.
        let fields = (1..limit).map(|_| ("x-large".to_owned(), "v".repeat(1024 - 39)));
        let block = hpack::literals(
            [(":status".to_owned(), "200".to_owned())]
                .into_iter()
                .chain(fields),
        );
        let mut pieces = block.chunks(frame::FRAME_SIZE).peekable();
        let (mut kind, mut flags) = (kind::HEADERS, flag::END_STREAM);
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            peer.send_frame(kind, flags, stream, piece).await;
            (kind, flags) = (kind::CONTINUATION, flag::NONE);
        }
        let response = response(request).await;
        assert_eq!(response.headers().len(), limit as usize - 1);
    }
}

// P32, P42: where more than 64 KiB of headers are allowed, frames are no larger than their usual size.
#[tokio::test(start_paused = true)]
async fn the_frame_size_that_is_announced() {
    for (list, announced) in [(65_536, 65_536), (65_537, 16_384)] {
        let mut bench = Bench::new(|builder| builder.max_header_list_size(list));
        let _request = bench.get("/");
        let peer = bench.peer(&[]).await;
        assert_eq!(peer.client_setting(setting::MAX_FRAME_SIZE), Some(announced));
    }
}

// P41: what is no HTTP/2 at all is named too.
#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_http_1() {
    let mut bench = Bench::new(|builder| builder);
    let request = bench.get("/");
    let mut io = bench.raw().await;
    // Such a server answers what it read of the preface.
    settle().await;
    io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = failure(request).await;
    assert!(
        error.to_string().contains("the peer answered in HTTP/1.x"),
        "{error}"
    );
}
