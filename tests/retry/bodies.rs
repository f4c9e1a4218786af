//! Request bodies that are sent again, and response bodies that are drained.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2pool::retry::{Attempts, ReplayBody, RetryOptions, RetryPolicy, Stop};
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::mock::{Alive, Body, Server, answer, millis, now, pause, post, read, reset, steady};

type Frames = Vec<Result<Frame<Bytes>, Infallible>>;
type Stream = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

fn stream(frames: Frames) -> Stream {
    StreamBody::new(futures_util::stream::iter(frames))
}

fn data(size: usize) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from(vec![b'x'; size])))
}

/// A PUT that may be repeated.
fn put<B>(body: B) -> Request<B> {
    Request::put("https://a.example/x")
        .extension(RetryOptions::new().any_method())
        .body(body)
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_reset_before_the_body_was_polled_sends_the_bytes_once() {
    // R10
    let server = Server::new(|number, request| async move {
        if number == 1 {
            return Err(reset());
        }
        assert_eq!(read(request).await, "order");
        Ok(answer(200))
    });
    let mut request = post();
    request.extensions_mut().insert(RetryOptions::new().any_method());
    assert!(server.ask(&steady(), request).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_read_halfway_is_sent_whole_with_its_trailers() {
    // R10
    let trailers = HeaderMap::from_iter([(http::header::ETAG, "\"5\"".parse().unwrap())]);
    let seen = Arc::new(Mutex::new(0));
    let service = service_fn(|request: Request<ReplayBody<Stream>>| {
        let seen = seen.clone();
        async move {
            *seen.lock() += 1;
            let mut body = request.into_body();
            if *seen.lock() == 1 {
                body.frame().await.unwrap()?;
                return Err(reset());
            }
            let whole = body.collect().await?;
            assert_eq!(whole.trailers().unwrap()["etag"], "\"5\"");
            assert_eq!(whole.to_bytes().len(), 30);
            Ok(Response::new(Body::default()))
        }
    });
    let frames = vec![data(10), data(20), Ok(Frame::trailers(trailers))];
    assert!(steady().layer(service).oneshot(put(stream(frames))).await.is_ok());
    assert_eq!(*seen.lock(), 2);
}

#[tokio::test(start_paused = true)]
async fn over_the_limit_the_attempt_goes_on_and_no_retry_follows() {
    // R10: 64 KiB, crossed in the middle of the stream.
    for (status, stop) in [(200, Stop::Done), (503, Stop::Body)] {
        let calls = Arc::new(Mutex::new(0));
        let service = service_fn(|request: Request<ReplayBody<Stream>>| {
            let calls = calls.clone();
            async move {
                *calls.lock() += 1;
                assert_eq!(request.into_body().collect().await?.to_bytes().len(), 100_000);
                Ok::<_, BoxError>(answer(status))
            }
        });
        let body = stream((0..10).map(|_| data(10_000)).collect());
        let response = steady().layer(service).oneshot(put(body)).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.extensions().get::<Attempts>().unwrap().stop(), stop);
        assert_eq!(*calls.lock(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_configurable_and_exact() {
    // R10
    let policy = steady().replay_limit(5);
    for (body, calls) in [("12345", 2), ("123456", 1)] {
        let server = Server::new(|number, request| async move {
            read(request).await;
            Ok(answer(if number == 1 { 503 } else { 200 }))
        });
        let request = put(Body::from(body));
        server.ask(&policy, request).await.unwrap();
        assert_eq!(server.count(), calls, "{body}");
    }
    // An answer before the body was read: it can still be sent.
    let server = Server::statuses(&[503]);
    let none = steady().replay_limit(0);
    server.ask(&none, put(Body::from("123456"))).await.unwrap();
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_ends_the_matter() {
    // R10
    let calls = Arc::new(Mutex::new(0));
    let service = service_fn(|request: Request<ReplayBody<_>>| {
        let calls = calls.clone();
        async move {
            *calls.lock() += 1;
            request.into_body().collect().await.map(|_| answer(200))
        }
    });
    let chunks = [
        Ok(Frame::data(Bytes::from_static(b"x"))),
        Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(chunks));
    let error = steady().layer(service).oneshot(put(body)).await.unwrap_err();
    assert_eq!(Attempts::of_error(&*error).unwrap().stop(), Stop::Body);
    assert_eq!(*calls.lock(), 1);
}

/// A response body that gives so many chunks, each after a while, and notes how many were read.
struct Slow {
    left: usize,
    pause: Pin<Box<tokio::time::Sleep>>,
    every: u64,
    read: Arc<Mutex<usize>>,
    _alive: Alive,
}

impl HttpBody for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.pause.as_mut().poll(cx));
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        *self.read.lock() += 1;
        let again = now() + millis(self.every);
        self.pause.as_mut().reset(again);
        Poll::Ready(Some(data(1_024)))
    }
}

/// What became of bodies of 503, each of so many chunks.
struct Drained {
    read: usize,
    /// When the answer came.
    after: Duration,
    /// Failed bodies that were still there after 150 ms.
    held: usize,
}

/// Answers 503 with such bodies so many times, each after a while, then 200.
async fn drained(policy: RetryPolicy, failures: usize, busy: u64, chunks: usize, every: u64) -> Drained {
    let (alive, read, calls) = (Alive::default(), Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let service = service_fn(|_: Request<ReplayBody<Body>>| {
        *calls.lock() += 1;
        let fails = *calls.lock() <= failures;
        let (alive, read) = (alive.guard(), read.clone());
        async move {
            if fails {
                pause(busy).await;
            }
            let body = Slow {
                left: if fails { chunks } else { 0 },
                pause: Box::pin(tokio::time::sleep(millis(every))),
                every,
                read,
                _alive: alive,
            };
            let status = if fails { 503 } else { 200 };
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    let before = now();
    let looks = async {
        pause(150).await;
        alive.count()
    };
    let asks = async {
        let answer = policy.layer(service).oneshot(put(Body::default())).await;
        assert_eq!(answer.unwrap().status(), 200);
        now() - before
    };
    let (after, held) = tokio::join!(asks, looks);
    let read = *read.lock();
    Drained { read, after, held }
}

#[tokio::test(start_paused = true)]
async fn a_failed_response_is_drained_within_bounds_and_dropped_before_the_wait() {
    // R11: draining is part of the delay, not added to it.
    for (chunks, every, expected, why) in [
        (3, 0, 3, "small: read to its end"),
        (3, 20, 3, "a little slow"),
        (100, 0, 65, "64 KiB, and the chunk that crosses it"),
        (1_000, 30, 3, "slow: 100 ms of it, not more"),
    ] {
        let Drained { read, after, held } = drained(steady(), 1, 0, chunks, every).await;
        assert_eq!((read, after, held), (expected, millis(200), 0), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_delay_waits_for_the_drain_unless_the_deadline_comes_first() {
    // R11: the connection stays usable, for the retry too.
    let at_once = steady().random(|| 0.0);
    let Drained { read, after, .. } = drained(at_once.clone(), 1, 0, 3, 20).await;
    assert_eq!((read, after), (3, millis(80)));
    let Drained { after, .. } = drained(at_once.clone(), 1, 0, 1_000, 30).await;
    assert_eq!(after, millis(100), "and no longer than for any other");
    let Drained { after, .. } = drained(at_once.deadline(millis(90)), 1, 0, 1_000, 30).await;
    assert_eq!(
        after,
        millis(0),
        "the deadline leaves time for the retry, not for both"
    );
}

#[tokio::test(start_paused = true)]
async fn what_failed_beside_a_hedge_is_drained_like_any_other() {
    // R11, R15: the first attempt fails while the hedge runs, then the hedge does.
    let Drained { read, after, .. } = drained(steady().hedge(millis(50)), 2, 70, 3, 10).await;
    assert_eq!((read, after), (6, millis(50 + 70 + 400)));
    let Drained { read, after, .. } = drained(steady().hedge(millis(50)), 2, 70, 1_000, 30).await;
    assert_eq!((read, after), (6, millis(50 + 70 + 400)), "100 ms of each");
    // One of them is the answer, and the other is drained beside it no longer than it takes.
    let Drained { after, .. } = drained(steady().hedge(millis(50)), 1, 70, 1_000, 30).await;
    assert_eq!(after, millis(50));
}

#[tokio::test(start_paused = true)]
async fn no_drain_puts_a_retry_off_until_there_is_no_time_for_it() {
    // R8 R11: neither the later one of two, nor one that ends right before the deadline.
    let at_once = steady().random(|| 0.0);
    let two = at_once.clone().hedge(millis(50)).deadline(millis(200));
    let Drained { after, .. } = drained(two, 2, 70, 1_000, 30).await;
    assert_eq!(after, millis(50 + 70));
    tokio::time::advance(Duration::from_micros(500)).await;
    for micros in [100_001, 100_900, 150_000, 199_999] {
        let close = at_once.clone().deadline(Duration::from_micros(micros));
        let Drained { after, .. } = drained(close, 1, 0, 1_000, 30).await;
        assert!(after <= millis(5), "{micros} µs: {after:?}");
    }
    let Drained { after, .. } = drained(at_once.deadline(millis(250)), 1, 0, 1_000, 30).await;
    assert!(after >= millis(100), "time for both: {after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_says_it_is_long_is_not_read_at_all() {
    // R11
    let server = Server::new(|number, _| async move {
        let body = Body::from(vec![0; 10_000_000]);
        let status = if number == 1 { 503 } else { 200 };
        Ok(Response::builder().status(status).body(body).unwrap())
    });
    assert!(server.ask(&steady(), put(Body::default())).await.is_ok());
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_goes_on_while_the_answer_is_drained_is_not_lost_to_the_next_attempt() {
    // R10 R11: an early 503, and a service that sends the body on until its response is dropped.
    let calls = Arc::new(Mutex::new(0));
    let service = service_fn(|request: Request<ReplayBody<Stream>>| {
        *calls.lock() += 1;
        let first = *calls.lock() == 1;
        async move {
            let mut body = request.into_body();
            if !first {
                assert_eq!(body.collect().await?.to_bytes().len(), 100_000);
                return Ok::<_, BoxError>(Response::new(BodyExt::boxed_unsync(Body::default())));
            }
            body.frame().await;
            let answer = StreamBody::new(futures_util::stream::unfold(body, async |mut body| {
                pause(5).await;
                body.frame().await.map(|_| (data(1), body))
            }));
            let response = Response::builder().status(503);
            Ok(response.body(BodyExt::boxed_unsync(answer)).unwrap())
        }
    });
    let body = stream((0..10).map(|_| data(10_000)).collect());
    let response = steady().layer(service).oneshot(put(body)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(*calls.lock(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_upload_that_is_held_does_not_keep_the_body_from_the_next_attempt() {
    // R10 R1: an early 503 of a server that reads no further; the transport keeps the body, and polls it no more.
    let kept = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<ReplayBody<Stream>>| {
        let kept = kept.clone();
        async move {
            let mut body = request.into_body();
            if kept.lock().is_empty() {
                body.frame().await.unwrap()?;
                kept.lock().push(body);
                return Ok::<_, BoxError>(answer(503));
            }
            assert_eq!(body.collect().await?.to_bytes().len(), 30);
            Ok(answer(200))
        }
    });
    let body = stream(vec![data(10), data(10), data(10)]);
    let response = steady().layer(service).oneshot(put(body)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(kept.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_request_may_have_another_limit_on_what_is_recorded() {
    // R10
    for (limit, stop) in [(5, Stop::Done), (4, Stop::Body)] {
        let server = Server::new(|number, request| async move {
            read(request).await;
            Ok(answer(if number == 1 { 503 } else { 200 }))
        });
        let mut request = post();
        let options = RetryOptions::new().any_method().replay_limit(limit);
        request.extensions_mut().insert(options);
        let response = server.ask(&steady().replay_limit(1), request).await.unwrap();
        assert_eq!(response.extensions().get::<Attempts>().unwrap().stop(), stop);
    }
}
