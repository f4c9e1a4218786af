//! Small request bodies, which go to h2 with their head, ahead of any window (P2, P21, P23, P30).

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2pool::{Body, ResponseFuture};
use http::Request;
use http_body::{Body as _, Frame as BodyFrame};
use http_body_util::{BodyExt, StreamBody};
use tokio_test::task::Spawn;

use crate::bench::{Answer, Bench, data, failure, now, response, settle, text, uri};
use crate::support::peer::{Frame, Peer, code, frame, hpack, setting};
use crate::support::server::body::{BoxError, Boxed, full};

fn put(path: &str, body: Boxed) -> Request<Boxed> {
    Request::put(uri(path)).body(body).unwrap()
}

/// No body goes out before the server opens its stream's window; one stream at a time.
const SHUT: &[(u16, u32)] = &[
    (setting::INITIAL_WINDOW_SIZE, 0),
    (setting::MAX_CONCURRENT_STREAMS, 1),
];

/// A small upload that waits for its window, answered to the end; and the request behind it, which waits for its slot.
async fn answered_early(bench: &mut Bench) -> (Peer, u32, Body, Answer) {
    let early = bench.send(put("/early", full("small")));
    let mut peer = bench.peer(SHUT).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"enough").await;
    let mut early = response(early).await.into_body();
    assert_eq!(data(&mut early).await, "enough");
    assert!(early.is_end_stream());
    let next = bench.get("/next");
    assert!(peer.ping_round_trip().await.is_empty(), "the slot is taken");
    assert_eq!((bench.pool.stats().streams, bench.pool.stats().waiters), (1, 1));
    (peer, stream, early, next)
}

/// The slot came back, and the request behind goes out.
async fn goes_on(peer: &mut Peer, next: Answer) {
    let head = peer.next_headers().await;
    assert_eq!(head.path(), "/next");
    peer.respond(head.stream, 200, b"").await;
    response(next).await;
}

// P2, P30: a small body goes to h2 with its head; its half is over once it was written, not before.
#[tokio::test(start_paused = true)]
async fn a_small_body_that_waits_for_its_window_keeps_the_slot() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, stream, mut early, next) = answered_early(&mut bench).await;
    peer.send_window_update(stream, 5).await;
    match peer.next_stream_frame().await {
        Frame::Data(data) => assert_eq!((&data.data[..], data.end), (&b"small"[..], true)),
        other => panic!("DATA comes next, not {other:?}"),
    }
    goes_on(&mut peer, next).await;
    assert!(early.frame().await.is_none());
}

// P2, RFC 9113 §8.1: nor does the rest of it keep the slot where the server wants none, ..
#[tokio::test(start_paused = true)]
async fn a_small_body_that_is_not_wanted_gives_the_slot_back() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, stream, mut early, next) = answered_early(&mut bench).await;
    peer.send_rst(stream, code::NO_ERROR).await;
    goes_on(&mut peer, next).await;
    assert!(early.frame().await.is_none());
}

// P30: .. or the caller wants no more.
#[tokio::test(start_paused = true)]
async fn a_small_body_is_cut_off_with_its_response() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, stream, early, next) = answered_early(&mut bench).await;
    drop(early);
    assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
    goes_on(&mut peer, next).await;
}

// P14, P30: nor does it outlive its session.
#[tokio::test(start_paused = true)]
async fn a_small_body_ends_with_its_session() {
    let mut bench = Bench::new(|builder| builder);
    let (peer, _, mut early, next) = answered_early(&mut bench).await;
    let tasks = tokio::runtime::Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    drop(peer);
    let mut peer = bench.peer(&[]).await;
    goes_on(&mut peer, next).await;
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
    assert!(early.frame().await.is_none());
    // The upload's is gone, and the request's that has been answered; one session has followed the other.
    assert_eq!(tasks.num_alive_tasks(), before - 2);
}

// P21: what went to h2 ahead of its window is sent again like any other body.
#[tokio::test(start_paused = true)]
async fn a_small_body_that_waits_is_sent_again() {
    let mut bench = Bench::new(|builder| builder);
    let answer = bench.send(put("/", full("small")));
    let mut peer = bench.peer(SHUT).await;
    let stream = peer.next_headers().await.stream;
    peer.send_rst(stream, code::REFUSED_STREAM).await;
    let stream = peer.next_headers().await.stream;
    peer.send_window_update(stream, 5).await;
    match peer.next_stream_frame().await {
        Frame::Data(data) => assert_eq!(
            (data.stream, &data.data[..], data.end),
            (stream, &b"small"[..], true)
        ),
        other => panic!("DATA comes next, not {other:?}"),
    }
    peer.respond(stream, 200, b"").await;
    response(answer).await;
    assert_eq!(bench.pool.stats().replays, 1);
}

// P44: the time to response headers counts from the end of the request, wherever it waits.
#[tokio::test(start_paused = true)]
async fn a_small_body_that_waits_is_not_late() {
    let mut bench = Bench::new(|builder| builder.header_timeout(Duration::from_secs(5)));
    let answer = bench.send(put("/", full("small")));
    let mut peer = bench.peer(SHUT).await;
    let stream = peer.next_headers().await.stream;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let start = now();
    peer.send_window_update(stream, 5).await;
    let error = failure(answer).await;
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 5);
}

// P30, P31: what is at hand goes out in its order, whether the last frame says that it is the last or not.
#[tokio::test(start_paused = true)]
async fn frames_at_hand_go_out_in_their_order() {
    let mut bench = Bench::new(|builder| builder);
    let frames =
        ["first ", "", "second ", "third"].map(|data| Ok::<_, BoxError>(BodyFrame::data(Bytes::from(data))));
    let streamed = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let answer = bench.send(put("/", streamed));
    let mut peer = bench.peer(&[]).await;
    let request = peer.next_request().await;
    assert_eq!(request.body, "first second third");
    peer.respond(request.head.stream, 200, b"").await;
    response(answer).await;
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
}

/// A small upload that waits for its window, in a future that the test polls, and a session that knows its SETTINGS.
async fn polled_by_hand(bench: &mut Bench) -> (Peer, u32, Spawn<ResponseFuture>) {
    let first = bench.get("/");
    let mut peer = bench.peer(SHUT).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"").await;
    response(first).await;
    let mut request = tokio_test::task::spawn(bench.pool.request(put("/early", full("small"))));
    assert!(request.poll().is_pending());
    let stream = peer.next_headers().await.stream;
    (peer, stream, request)
}

/// How a body goes on.
type End = Option<Result<BodyFrame<Bytes>, BoxError>>;

/// What comes now and, once that was read, then.
async fn all(peer: &mut Peer) -> Vec<Frame> {
    let mut frames = peer.ping_round_trip().await;
    settle().await;
    frames.extend(peer.ping_round_trip().await);
    frames
}

/// The stream is reset before the next request goes out.
async fn makes_room(bench: &Bench, mut peer: Peer, stream: u32) {
    let next = bench.get("/next");
    assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
    goes_on(&mut peer, next).await;
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
}

// P2, P30: h2 takes the stream for over, and would keep it until its window opens: it is reset all the same where the
// caller gave up before it saw the answer, ..
#[tokio::test(start_paused = true)]
async fn a_small_body_is_cut_off_where_nobody_saw_the_answer() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, stream, request) = polled_by_hand(&mut bench).await;
    peer.respond(stream, 200, b"").await;
    settle().await;
    drop(request);
    makes_room(&bench, peer, stream).await;
}

// P2, P30: .. looked at no more than its head, so that the task of the upload never ran, ..
#[tokio::test(start_paused = true)]
async fn a_small_body_is_cut_off_with_an_answer_that_is_dropped_at_once() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, stream, mut request) = polled_by_hand(&mut bench).await;
    peer.respond(stream, 200, b"").await;
    settle().await;
    assert!(matches!(request.poll(), Poll::Ready(Ok(_))));
    makes_room(&bench, peer, stream).await;
}

// P2, P36: .. or took it outside of any runtime, where nothing can go on.
#[tokio::test(start_paused = true)]
async fn a_small_body_is_cut_off_outside_of_any_runtime() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, stream, mut request) = polled_by_hand(&mut bench).await;
    peer.respond(stream, 200, b"").await;
    settle().await;
    let polled = std::thread::scope(|scope| scope.spawn(|| request.poll()).join().unwrap());
    match polled {
        Poll::Ready(Err(error)) => assert!(error.is_config() && !error.is_unprocessed(), "{error:?}"),
        other => panic!("no runtime is there, but {other:?}"),
    }
    makes_room(&bench, peer, stream).await;
}

// P2, P30: what was given up before anything was answered is cancelled as any request is, interim answers or not.
#[tokio::test(start_paused = true)]
async fn a_small_body_is_cut_off_with_its_request() {
    for answer in [None, Some("103"), Some("200")] {
        let mut bench = Bench::new(|builder| builder);
        let (mut peer, stream, request) = polled_by_hand(&mut bench).await;
        if let Some(status) = answer {
            let head = frame::headers(stream, &hpack::literals([(":status", status)]), false);
            peer.send_raw(&head).await;
            settle().await;
        }
        drop(request);
        assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
        // Parked where nothing was heard (P44).
        peer.ping_round_trip().await;
        let next = bench.get("/next");
        goes_on(&mut peer, next).await;
        settle().await;
        assert_eq!(bench.pool.stats().streams, 0, "{answer:?}");
    }
}

// P23: all of it is with h2, so the body is the caller's still.
#[tokio::test(start_paused = true)]
async fn a_small_body_that_waits_is_misdirected() {
    let mut bench = Bench::new(|builder| builder.max_sessions(2));
    let answer = bench.send(put("/", full("small")));
    let mut shared = bench.peer(SHUT).await;
    let stream = shared.next_headers().await.stream;
    shared.respond(stream, 421, b"").await;
    let mut own = bench.peer(&[]).await;
    let request = own.next_request().await;
    assert_eq!(request.body, "small");
    assert_eq!(shared.next_reset().await, (stream, code::CANCEL));
    own.respond(request.head.stream, 200, b"ok").await;
    assert_eq!(text(response(answer).await.into_body()).await, "ok");
    assert_eq!(bench.pool.stats().replays, 1);
}

// P22, P30: a body that fails behind what went ahead, or keeps another length than it promised, is never whole.
#[tokio::test(start_paused = true)]
async fn a_small_body_that_fails_is_cut_off() {
    let first = || Ok(BodyFrame::data(Bytes::from("first")));
    let ends: [fn() -> End; 4] = [
        || Some(Err("it fails".into())),
        || Some(Ok(BodyFrame::data(Bytes::from("more than ten")))),
        || None,
        || panic!("it panics"),
    ];
    for (at, end) in ends.into_iter().enumerate() {
        let mut bench = Bench::new(|builder| builder);
        let warm = bench.get("/");
        let mut peer = bench.peer(&[]).await;
        let stream = peer.next_headers().await.stream;
        peer.respond(stream, 200, b"").await;
        response(warm).await;
        let mut frames = std::iter::once_with(first).chain(std::iter::from_fn(end).take(1));
        let body = StreamBody::new(futures_util::stream::poll_fn(move |_| Poll::Ready(frames.next())));
        let request = Request::put(uri("/")).header("content-length", "10");
        let answer = bench.send(request.body(body.boxed_unsync()).unwrap());
        let stream = peer.next_headers().await.stream;
        assert_eq!(peer.next_reset().await, (stream, code::CANCEL), "{at}");
        match answer.await {
            Ok(answer) => assert!(answer.unwrap_err().is_body(), "{at}"),
            Err(panic) => assert!(panic.is_panic() && at == 3, "{at}"),
        }
        peer.ping_round_trip().await;
        settle().await;
        assert_eq!(bench.pool.stats().streams, 0, "{at}");
    }
}

// P30, RFC 9113 §6.9.2: many of them share the connection's window in their order, and one that is given up returns what
// it was assigned.
#[tokio::test(start_paused = true)]
async fn small_bodies_take_turns() {
    const EACH: usize = 30_000;
    let mut bench = Bench::new(|builder| builder);
    let mut answers: Vec<_> = (0..6)
        .map(|_| bench.send(put("/", full(vec![7; EACH]))))
        .collect();
    let mut peer = bench.peer(&[]).await;
    let (mut sums, mut ended) = (std::collections::BTreeMap::new(), Vec::new());
    let mut take = |frames: Vec<Frame>| {
        for frame in frames {
            if let Frame::Data(data) = frame {
                *sums.entry(data.stream).or_insert(0) += data.data.len();
                ended.extend(data.end.then_some(data.stream));
            }
        }
        (sums.values().sum::<usize>(), ended.clone())
    };
    // 65,535 bytes are there for a start: two go out, and a part of the third, which is given up.
    assert_eq!(take(all(&mut peer).await), (65_535, vec![1, 3]));
    answers.remove(2).abort();
    settle().await;
    peer.send_window_update(0, EACH as u32).await;
    let (sum, ended) = take(all(&mut peer).await);
    assert_eq!((sum, ended), (65_535 + EACH, vec![1, 3, 7]));
    peer.send_window_update(0, 2 * EACH as u32).await;
    assert_eq!(
        take(all(&mut peer).await),
        (65_535 + 3 * EACH, vec![1, 3, 7, 9, 11])
    );
    for stream in [1, 3, 7, 9, 11] {
        peer.respond(stream, 200, b"").await;
    }
    for answer in answers {
        response(answer).await;
    }
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
}

// P2, RFC 9113 §6.9.2: a window that opens and shuts again, or goes below nothing, before its bytes were written.
#[tokio::test(start_paused = true)]
async fn a_small_body_follows_a_window_that_shrinks() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, stream, request) = polled_by_hand(&mut bench).await;
    let answer = tokio::spawn(request.into_inner());
    let window = |size| frame::settings(&[(setting::INITIAL_WINDOW_SIZE, size)]);
    peer.send_raw(&[window(3), window(0)].concat()).await;
    peer.send_raw(&[window(2), window(0), frame::window_update(stream, 1)].concat())
        .await;
    let mut body = Vec::new();
    for size in [0, 1, 3, 5] {
        peer.send_raw(&window(size)).await;
        for frame in all(&mut peer).await {
            if let Frame::Data(data) = frame {
                body.extend_from_slice(&data.data);
                assert_eq!(data.end, body.len() == 5);
            }
        }
        assert_eq!(body, b"small"[..5.min(size as usize + 1)]);
    }
    peer.respond(stream, 200, b"").await;
    response(answer).await;
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
}
