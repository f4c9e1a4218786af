//! Request bodies: in turn, beside the response, beyond it, and cut short (P2, P30, P31).

use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame as BodyFrame};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;

use crate::bench::{Answer, Bench, broken, data, failure, now, response, settle, text, uri};
use crate::support::client::upload;
use crate::support::peer::{Frame, Peer, code, frame, setting};
use crate::support::server::body::{BoxError, Boxed, full, with_trailers};
use crate::support::within;

type Sender = mpsc::Sender<Result<BodyFrame<Bytes>, BoxError>>;

/// Stream windows that never matter: the connection's 65,535 bytes do.
const WIDE: &[(u16, u32)] = &[(setting::INITIAL_WINDOW_SIZE, 1 << 24)];

fn put(path: &str, body: Boxed) -> Request<Boxed> {
    Request::put(uri(path)).body(body).unwrap()
}

async fn say(sender: &Sender, words: impl Into<Bytes>) {
    sender.send(Ok(BodyFrame::data(words.into()))).await.unwrap();
}

/// Adds up what comes on each stream, until nothing more does.
async fn collect(peer: &mut Peer, sums: &mut HashMap<u32, usize>) {
    for frame in peer.ping_round_trip().await {
        match frame {
            Frame::Data(data) => *sums.entry(data.stream).or_default() += data.data.len(),
            Frame::Headers(head) => drop(sums.insert(head.stream, 0)),
            _ => {}
        }
    }
}

// P30: uploads that wait for the connection's window take turns, however much each has at hand.
#[tokio::test(start_paused = true)]
async fn uploads_take_turns() {
    let mut bench = Bench::new(|builder| builder);
    let _large: Vec<_> = (0..3)
        .map(|_| bench.send(put("/large", full(vec![7; 4_000_000]))))
        .collect();
    let mut peer = bench.peer(WIDE).await;
    let mut sums = HashMap::new();
    collect(&mut peer, &mut sums).await;
    let small = bench.send(put("/small", full(vec![8; 20_000])));
    settle().await;
    for _ in 0..60 {
        peer.send_window_update(0, 16_384).await;
        collect(&mut peer, &mut sums).await;
    }
    collect(&mut peer, &mut sums).await;
    let total: usize = sums.values().sum();
    assert_eq!(total, 65_535 + 60 * 16_384, "all that was allowed is used");
    assert_eq!(
        sums.remove(&7),
        Some(20_000),
        "the small one did not wait for the large ones"
    );
    let (least, most) = (sums.values().min().unwrap(), sums.values().max().unwrap());
    assert!(most - least <= 2 * 65_536, "{sums:?}");
    peer.respond(7, 200, b"done").await;
    assert_eq!(text(response(small).await.into_body()).await, "done");
}

// P30: nor does an upload hold what a slow socket does not take: the rest is there for others.
#[tokio::test(start_paused = true)]
async fn a_large_upload_leaves_a_share() {
    let mut bench = Bench::new(|builder| builder);
    let first = bench.get("/first");
    let mut peer = bench.peer(WIDE).await;
    peer.send_window_update(0, 1 << 20).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"").await;
    response(first).await;
    // The transport holds 64 KiB, h2 400; the window would take 1 MiB.
    let _large = bench.send(put("/large", full(vec![7; 4_000_000])));
    settle().await;
    let _small = bench.send(put("/small", full(vec![8; 20_000])));
    settle().await;
    let mut sums = HashMap::new();
    for _ in 0..30 {
        collect(&mut peer, &mut sums).await;
    }
    assert_eq!(sums[&5], 20_000, "{sums:?}");
    assert_eq!(
        sums[&3] + sums[&5],
        65_535 + (1 << 20),
        "all that was allowed is used"
    );
}

// P30: an upload with nothing to send holds nothing of the connection's window.
#[tokio::test(start_paused = true)]
async fn an_idle_upload_holds_nothing() {
    let mut bench = Bench::new(|builder| builder);
    let (sender, body) = upload(1);
    let idle = bench.send(put("/idle", body));
    let mut peer = bench.peer(WIDE).await;
    say(&sender, vec![1; 535]).await;
    let mut sums = HashMap::new();
    collect(&mut peer, &mut sums).await;
    let other = bench.send(put("/other", full(vec![2; 100_000])));
    collect(&mut peer, &mut sums).await;
    collect(&mut peer, &mut sums).await;
    assert_eq!(sums, HashMap::from([(1, 535), (3, 65_000)]));
    // Nor does one that gave up half way through a chunk.
    other.abort();
    peer.send_window_update(0, 1000).await;
    say(&sender, vec![1; 1000]).await;
    drop(sender);
    settle().await;
    collect(&mut peer, &mut sums).await;
    assert_eq!(sums[&1], 1535);
    peer.respond(1, 200, b"done").await;
    assert_eq!(text(response(idle).await.into_body()).await, "done");
}

// P30, P2: a response that comes first is delivered, while the upload goes on to its end; the slot is free after both.
#[tokio::test(start_paused = true)]
async fn a_response_before_the_end_of_the_upload() {
    let mut bench = Bench::new(|builder| builder);
    let (sender, body) = upload(1);
    let answer = bench.send(put("/", body));
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    say(&sender, "first").await;
    peer.respond(stream, 200, b"early").await;
    let mut down = response(answer).await.into_body();
    assert_eq!(data(&mut down).await, "early");
    assert!(down.is_end_stream());
    assert_eq!(bench.pool.stats().streams, 1);
    say(&sender, "last").await;
    drop(sender);
    let request = async {
        let mut body = Vec::new();
        loop {
            match peer.next_stream_frame().await {
                Frame::Data(data) => body.extend_from_slice(&data.data),
                other => panic!("DATA comes next, not {other:?}"),
            }
            if body.ends_with(b"last") {
                return body;
            }
        }
    };
    assert_eq!(request.await, b"firstlast");
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
    drop(down);
    assert!(
        matches!(peer.ping_round_trip().await[..], [] | [Frame::Data(_)]),
        "nothing is reset"
    );
}

// P30: who drops the response wants the upload no more.
#[tokio::test(start_paused = true)]
async fn dropping_the_response_ends_the_upload() {
    let mut bench = Bench::new(|builder| builder);
    let (sender, body) = upload(1);
    let answer = bench.send(put("/", body));
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    drop(response(answer).await);
    within("the body is dropped", sender.closed()).await;
    assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
    assert_eq!(bench.pool.stats().streams, 0);
}

// P31, RFC 9113 §8.1: RST_STREAM(NO_ERROR) after a complete response: success, and the upload ends quietly.
#[tokio::test(start_paused = true)]
async fn a_complete_response_and_then_a_reset() {
    let mut bench = Bench::new(|builder| builder);
    let (sender, body) = upload(1);
    // One waits for its owner, one for the window; the responses are read late and at once.
    let answers = [put("/owner", body), put("/window", full(vec![7; 1 << 20]))].map(|put| bench.send(put));
    let mut peer = bench.peer(&[]).await;
    for _ in 0..2 {
        let stream = peer.next_headers().await.stream;
        peer.respond(stream, 200, b"enough").await;
        peer.send_rst(stream, code::NO_ERROR).await;
    }
    peer.ping_round_trip().await;
    for answer in answers {
        let answer = response(answer).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(text(answer.into_body()).await, "enough");
    }
    within("the body is dropped", sender.closed()).await;
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
    assert!(peer.ping_round_trip().await.is_empty(), "nothing is reset");
}

// P31: trailers, after data and alone.
#[tokio::test(start_paused = true)]
async fn trailers_up() {
    let mut bench = Bench::new(|builder| builder);
    let mut kept: Option<Peer> = None;
    for data in ["data", ""] {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "5".parse().unwrap());
        // What HTTP/2 forbids is left out, as it is among headers (P32).
        for (name, value) in [
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("te", "gzip"),
            ("upgrade", "h3"),
        ] {
            trailers.insert(name, value.parse().unwrap());
        }
        let answer = bench.send(put("/", with_trailers(data, trailers)));
        let mut peer = match kept.take() {
            Some(peer) => peer,
            None => bench.peer(&[]).await,
        };
        let request = peer.next_request().await;
        assert_eq!(request.body, data);
        let trailers = request.trailers.unwrap();
        assert_eq!((trailers.get("x-sum"), trailers.fields.len()), (Some("5"), 1));
        peer.respond(request.head.stream, 200, b"").await;
        response(answer).await;
        kept = Some(peer);
    }
}

// P30: a body that keeps another length than it promised: the request never looks complete.
#[tokio::test(start_paused = true)]
async fn a_body_of_the_wrong_length() {
    let mut bench = Bench::new(|builder| builder);
    let wrong = |length: &str| {
        let (sender, body) = upload(1);
        let request = Request::put(uri("/")).header("content-length", length);
        (sender, request.body(body).unwrap())
    };
    let (sender, longer) = wrong("8");
    let answer = bench.send(longer);
    let mut peer = bench.peer(&[]).await;
    for word in ["first", "last"] {
        say(&sender, word).await;
    }
    let error = failure(answer).await;
    assert!(
        error.is_body() && error.to_string().contains("longer than its `content-length`"),
        "{error}"
    );
    cut_short(&mut peer, b"first").await;

    let (sender, shorter) = wrong("8");
    let answer = bench.send(shorter);
    say(&sender, "first").await;
    drop(sender);
    let error = failure(answer).await;
    assert!(
        error.is_body() && error.to_string().contains("shorter than its `content-length`"),
        "{error}"
    );
    cut_short(&mut peer, b"first").await;

    let (sender, right) = wrong("9");
    let answer = bench.send(right);
    for word in ["first", "last"] {
        say(&sender, word).await;
    }
    drop(sender);
    let request = peer.next_request().await;
    assert_eq!(request.body, "firstlast");
    peer.respond(request.head.stream, 200, b"").await;
    response(answer).await;
}

/// The next request is reset after `sent`, and was never complete.
async fn cut_short(peer: &mut Peer, sent: &[u8]) {
    let stream = peer.next_headers().await.stream;
    let mut body = Vec::new();
    loop {
        match peer.next_stream_frame().await {
            Frame::Data(data) => {
                assert!(!data.end);
                body.extend_from_slice(&data.data);
            }
            Frame::Reset { stream: reset, code } => {
                assert_eq!((reset, code), (stream, code::CANCEL));
                // A reset may overtake what was not written yet.
                return assert!(sent.starts_with(&body));
            }
            other => panic!("{other:?}"),
        }
    }
}

// P31: a response of another length than it promised.
#[tokio::test(start_paused = true)]
async fn a_response_of_the_wrong_length() {
    let mut bench = Bench::new(|builder| builder);
    let answers = ["shorter", "longer"].map(|_| bench.get("/"));
    let mut peer = bench.peer(&[]).await;
    for body in [&b"short"[..], b"much longer"] {
        let stream = peer.next_headers().await.stream;
        peer.send_fields(stream, &[(":status", "200"), ("content-length", "8")], false)
            .await;
        peer.send_data(stream, body, true).await;
    }
    for answer in answers {
        let mut body = response(answer).await.into_body();
        let error = broken(&mut body).await;
        assert!(error.is_body() && error.is_reset(), "{error:?}");
        assert_eq!(peer.next_reset().await.1, code::PROTOCOL_ERROR);
    }
    let next = bench.get("/");
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"alive").await;
    assert_eq!(text(response(next).await.into_body()).await, "alive");
}

// P30, P41: the caller's own body fails: before the response, and after it.
#[tokio::test(start_paused = true)]
async fn a_body_that_fails() {
    let mut bench = Bench::new(|builder| builder);
    let ((early, first), (late, second)) = (upload(1), upload(1));
    let answers = [put("/", first), put("/", second)].map(|put| bench.send(put));
    let mut peer = bench.peer(&[]).await;
    let streams = [peer.next_headers().await.stream, peer.next_headers().await.stream];
    peer.send_headers(streams[1], 200, false).await;
    peer.ping_round_trip().await;
    let [first, second] = answers;
    let mut body = response(second).await.into_body();
    for sender in [early, late] {
        sender.send(Err("the disk is on fire".into())).await.unwrap();
    }
    for error in [failure(first).await, broken(&mut body).await] {
        assert!(error.is_body() && !error.is_unprocessed(), "{error:?}");
        assert_eq!(error.to_string(), "the request body failed (https://server:443)");
        assert_eq!(error.source().unwrap().to_string(), "the disk is on fire");
    }
    for _ in 0..2 {
        let (stream, code) = peer.next_reset().await;
        assert!(streams.contains(&stream) && code == code::CANCEL);
    }
}

// P2, P30: a body that panics after the response's head: the server is told, the reader too, and the slot is free.
#[tokio::test(start_paused = true)]
async fn a_body_that_panics() {
    let mut bench = Bench::new(|builder| builder);
    let (sender, body) = upload(1);
    let body = body.map_frame(|frame| match frame.data_ref() {
        Some(data) if data == "boom" => panic!("a bug in the body, on purpose"),
        _ => frame,
    });
    let answer = bench.send(put("/", body.boxed_unsync()));
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    let mut body = response(answer).await.into_body();
    say(&sender, "boom").await;
    let error = broken(&mut body).await;
    assert!(
        error.is_body() && error.to_string().contains("panicked"),
        "{error:?}"
    );
    assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
    assert_eq!(bench.pool.stats().streams, 0);
}

// P30: a body of frames without bytes, as many as are wanted, keeps nobody from the response.
#[tokio::test(start_paused = true)]
async fn a_body_of_nothing_without_end() {
    let mut bench = Bench::new(|builder| builder);
    let nothing = futures_util::stream::repeat_with(|| Ok(BodyFrame::data(Bytes::new())));
    let answer = bench.send(put("/", StreamBody::new(nothing).boxed_unsync()));
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"enough").await;
    drop(response(answer).await);
    assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
}

// P44: a window that stays shut; before the response and after it.
#[tokio::test(start_paused = true)]
async fn a_window_that_stays_shut() {
    let mut bench = Bench::new(|builder| builder.write_timeout(Duration::from_secs(7)));
    let answers = [1, 2].map(|_| bench.send(put("/", full(vec![7; 1 << 20]))));
    let mut peer = bench.peer(&[(setting::INITIAL_WINDOW_SIZE, 1000)]).await;
    let start = now();
    let streams = [peer.next_headers().await.stream, peer.next_headers().await.stream];
    peer.send_headers(streams[1], 200, false).await;
    let [first, second] = answers;
    let mut body = response(second).await.into_body();
    for error in [failure(first).await, broken(&mut body).await] {
        assert!(
            error.is_timeout() && error.to_string().contains("`write_timeout`"),
            "{error:?}"
        );
        assert_eq!(start.elapsed().as_secs(), 7);
    }
    assert_eq!(bench.pool.stats().streams, 0);
}

// P30: an upload ends with its session, though its owner says nothing.
#[tokio::test(start_paused = true)]
async fn an_upload_ends_with_its_session() {
    let mut bench = Bench::new(|builder| builder);
    let (sender, body) = upload(1);
    let answer = bench.send(put("/", body));
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    let mut body = response(answer).await.into_body();
    drop(peer);
    within("the body is dropped", sender.closed()).await;
    assert!(broken(&mut body).await.is_body());
    assert!(body.frame().await.is_none());
    assert_eq!(bench.pool.stats().streams, 0);
}

/// An upload that was handed over whole, and whose window is gone before it was written; a session that knows its SETTINGS.
async fn taken_back(bench: &mut Bench, settings: &[(u16, u32)]) -> (Peer, u32, Answer) {
    let first = bench.get("/first");
    let mut peer = bench.peer(settings).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"").await;
    response(first).await;
    let (sender, body) = upload(1);
    let answer = bench.send(put("/", body));
    let stream = peer.next_headers().await.stream;
    settle().await;
    // The request has its turn before the session, which reads before it writes.
    say(&sender, "late").await;
    peer.send_raw(&frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]))
        .await;
    (peer, stream, answer)
}

// P2, P4, RFC 9113 §6.9.2: SETTINGS can take back the window of an upload that was handed over whole and is not written yet. Until
// it is, the stream is open, and its slot taken: h2 would keep the next request in a queue of its own.
#[tokio::test(start_paused = true)]
async fn an_upload_whose_window_is_taken_back_keeps_its_slot() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, stream, answer) = taken_back(&mut bench, &[(setting::MAX_CONCURRENT_STREAMS, 1)]).await;
    peer.respond(stream, 200, b"").await;
    let mut early = response(answer).await.into_body();
    assert!(early.frame().await.is_none());
    let next = bench.get("/next");
    let frames = peer.ping_round_trip().await;
    assert!(
        frames.iter().all(Frame::is_control),
        "the slot is taken: {frames:?}"
    );
    assert_eq!((bench.pool.stats().streams, bench.pool.stats().waiters), (1, 1));
    peer.send_window_update(stream, 4).await;
    match peer.next_stream_frame().await {
        Frame::Data(data) => assert_eq!(data.data, "late"),
        other => panic!("DATA comes next, not {other:?}"),
    }
    let head = peer.next_headers().await;
    peer.respond(head.stream, 200, b"").await;
    response(next).await;
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
}

// P44: nor does it evade `write_timeout` so.
#[tokio::test(start_paused = true)]
async fn a_window_that_is_taken_back() {
    for early in [false, true] {
        let mut bench = Bench::new(|builder| builder.write_timeout(Duration::from_secs(7)));
        let (mut peer, stream, answer) = taken_back(&mut bench, &[]).await;
        let start = now();
        let error = if early {
            peer.send_headers(stream, 200, false).await;
            broken(&mut response(answer).await.into_body()).await
        } else {
            failure(answer).await
        };
        assert!(error.is_timeout() && !error.is_unprocessed(), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 7);
        assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
        settle().await;
        assert_eq!(bench.pool.stats().streams, 0);
    }
}
