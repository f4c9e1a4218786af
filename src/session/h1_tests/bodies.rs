//! Bodies: early responses, bodies dropped or cut, and the time they may take.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

use super::fake::{Fake, data, failure, piecewise, response};
use crate::session::Outgoing;
use crate::session::link::Failure;

const EARLY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test(start_paused = true)]
async fn a_response_that_comes_early_is_delivered_while_the_upload_goes_on() {
    // P2, P30
    let (fake, mut server) = Fake::new(4096).await;
    let (frames, body) = piecewise();
    let attempt = fake.start(Request::post("http://a/"), body);
    frames.send(data("one")).unwrap();
    server.read_until("3\r\none\r\n").await;
    server.write(EARLY).await;
    let mut body = response(attempt).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
    assert!(body.is_end_stream() && body.frame().await.is_none());
    frames.send(data("two")).unwrap();
    server.read_until("3\r\ntwo\r\n").await;
    assert_eq!(fake.events.seen(), "a", "the connection is busy with the upload");
    drop(frames);
    server.read_until("0\r\n\r\n").await;
    fake.events.until("ar").await;
    drop(body);
    let attempt = fake.get("http://a/");
    server.answer(EARLY).await;
    assert_eq!(
        response(attempt)
            .await
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes(),
        "ok"
    );
    fake.events.until("arr").await;
}

#[tokio::test(start_paused = true)]
async fn a_response_dropped_before_the_upload_ended_ends_it() {
    // P30
    for read in [true, false] {
        let (fake, mut server) = Fake::new(4096).await;
        let (frames, body) = piecewise();
        let attempt = fake.start(Request::post("http://a/"), body);
        server.head().await;
        server.write(EARLY).await;
        let body = response(attempt).await.into_body();
        if read {
            assert_eq!(body.collect().await.unwrap().to_bytes(), "ok");
        } else {
            drop(body);
        }
        server.closed().await;
        fake.events.until("acr").await;
        assert!(frames.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_dropped_before_its_end_closes_the_connection_before_the_slot_is_free() {
    // P24, P30
    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.get("http://a/");
    server
        .answer("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\nsome")
        .await;
    let mut body = response(attempt).await.into_body();
    assert_eq!(body.size_hint().exact(), Some(9999));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "some");
    assert_eq!(body.size_hint().exact(), Some(9995));
    drop(body);
    server.closed().await;
    fake.events.until("acr").await;
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_that_has_come_is_drained_and_the_connection_stays() {
    // P24
    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.get("http://a/");
    server.answer(EARLY).await;
    drop(response(attempt).await);
    fake.events.until("ar").await;
    let attempt = fake.get("http://a/");
    server.answer(EARLY).await;
    drop(response(attempt).await);
    fake.events.until("arr").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_or_malformed_is_an_error_of_the_body() {
    // P22, P41
    for (answer, says) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome",
            "the connection ended",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n",
            "the connection ended",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\nx\r\n",
            "not valid HTTP/1.1",
        ),
    ] {
        let (fake, mut server) = Fake::new(4096).await;
        let attempt = fake.get("http://a/");
        server.answer(answer).await;
        drop(server);
        let error = response(attempt).await.into_body().collect().await.unwrap_err();
        assert!(error.is_body() && !error.is_unprocessed(), "{error:?}");
        assert!(error.to_string().contains(says), "{error:?}");
        fake.events.until("acr").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_without_a_length_ends_with_the_connection() {
    // P31
    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.get("http://a/");
    server.answer("HTTP/1.1 200 OK\r\n\r\nall of it").await;
    drop(server);
    assert_eq!(
        response(attempt)
            .await
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes(),
        "all of it"
    );
    fake.events.until("acr").await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_frame_of_the_body_is_bounded() {
    // P44
    let (fake, mut server) = Fake::impatient(4096, Duration::from_secs(5)).await;
    let attempt = fake.get("http://a/");
    server
        .answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")
        .await;
    let mut body = response(attempt).await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(error.is_timeout() && error.is_body(), "{error:?}");
    assert!(body.frame().await.is_none());
    server.closed().await;
    fake.events.until("acr").await;
}

#[tokio::test(start_paused = true)]
async fn a_held_body_that_nobody_reads_gives_its_slot_back() {
    // P24, P30, P44
    for encoding in [
        "content-length: 9\r\n\r\n",
        "\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\n",
    ] {
        let (fake, mut server) = Fake::impatient(4096, Duration::from_secs(5)).await;
        let attempt = fake.get("http://a/");
        server.answer(&format!("HTTP/1.1 200 OK\r\n{encoding}some")).await;
        let mut body = response(attempt).await.into_body();
        let start = crate::clock::now();
        server.closed().await;
        assert_eq!((crate::clock::now() - start).as_secs(), 5, "{encoding:?}");
        fake.events.until("acr").await;
        assert!(fake.events.cause().is_timeout());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "some");
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(
            error.is_timeout() && error.is_body() && !error.is_unprocessed(),
            "{error:?}"
        );
        drop(body);
        assert_eq!(fake.events.seen(), "acr");
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_read_in_time_are_left_alone() {
    // P24, P44: each frame, and each body, has the whole time.
    let (fake, mut server) = Fake::impatient(4096, Duration::from_secs(5)).await;
    for _ in 0..3 {
        let attempt = fake.get("http://a/");
        server
            .answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
            .await;
        let mut body = response(attempt).await.into_body();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            server.write("x").await;
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.is_none());
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(fake.events.seen(), "arrr");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_headers_is_bounded_once_the_upload_has_ended() {
    // P44
    let (mut fake, mut server) = Fake::new(4096).await;
    fake.patience.header = Some(Duration::from_secs(5));
    let (frames, body) = piecewise();
    let attempt = fake.start(Request::post("http://a/"), body);
    server.head().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!attempt.is_finished(), "the upload is not over");
    let ended = crate::clock::now();
    drop(frames);
    let error = failure(attempt).await;
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!((crate::clock::now() - ended).as_secs(), 5);
    server.closed().await;
    fake.events.until("gcr").await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_headers_begins_once_the_request_is_written() {
    // P44: hyper has all of it at once, and writes it as slowly as the server reads.
    let (mut fake, mut server) = Fake::new(1024).await;
    fake.patience.header = Some(Duration::from_secs(5));
    let body = Outgoing::new(Full::new(Bytes::from(vec![b'x'; 20 * 1024])), 0);
    let attempt = fake.start(Request::post("http://a/"), body);
    server.head().await;
    for _ in 0..19 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        server.read_until(&"x".repeat(1024)).await;
    }
    // The pipe has the rest.
    let written = crate::clock::now();
    assert!(failure(attempt).await.is_timeout());
    assert_eq!((crate::clock::now() - written).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_write_must_make_progress() {
    // P44
    let (mut fake, mut server) = Fake::new(64).await;
    fake.patience.write = Some(Duration::from_secs(5));
    let body = Outgoing::new(Full::new(Bytes::from(vec![b'x'; 100_000])), 0);
    let attempt = fake.start(Request::post("http://a/"), body);
    server.head().await;
    let error = failure(attempt).await;
    assert!(
        error.is_timeout() && error.to_string().contains("write_timeout"),
        "{error:?}"
    );
    fake.events.until("cr").await;
    assert!(fake.events.cause().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn the_callers_body_fails_the_request_with_its_own_error() {
    // P41
    let failing =
        futures_util::stream::iter([Ok(data("half")), Err(std::io::Error::other("the disk is gone"))]);
    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.start(
        Request::post("http://a/"),
        Outgoing::new(StreamBody::new(failing), 1024),
    );
    let error = failure(attempt).await;
    assert!(error.is_body(), "{error:?}");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "the disk is gone"
    );
    server.closed().await;
    fake.events.until("gcr").await;

    // After the response's headers, it is the response's body that fails.
    let (fake, mut server) = Fake::new(4096).await;
    let (frames, body) = piecewise();
    let attempt = fake.start(Request::post("http://a/").header("content-length", "9"), body);
    server.head().await;
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
    let body = response(attempt).await.into_body();
    drop(frames);
    assert!(body.collect().await.unwrap_err().is_body());
    fake.events.until("agcr").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_longer_than_it_promised_is_not_cut_to_fit() {
    // P31: hyper would send the first four bytes as if they were all, and ask for no more.
    for parts in [&["longer"][..], &["four", "more"], &["four", "", "", "more"]] {
        let (fake, mut server) = Fake::new(4096).await;
        let (frames, body) = piecewise();
        for part in parts {
            frames.send(data(part)).unwrap();
        }
        let attempt = fake.start(Request::post("http://a/").header("content-length", "4"), body);
        let error = failure(attempt).await;
        assert!(
            error.is_body() && error.to_string().contains("longer than its `content-length`"),
            "{error:?}"
        );
        server.closed().await;
        fake.events.until("gcr").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_fails_its_request() {
    // P24, P41: in the session's task, which ends.
    let (fake, mut server) = Fake::new(4096).await;
    let body = Full::new(Bytes::from_static(b"x")).map_frame(|_| -> http_body::Frame<Bytes> {
        panic!("a bug in the body, on purpose");
    });
    let attempt = fake.start(Request::post("http://a/"), Outgoing::new(body, 0));
    let error = failure(attempt).await;
    assert!(
        error.is_body() && !error.is_unprocessed() && error.to_string().contains("panicked"),
        "{error:?}"
    );
    server.closed().await;
    fake.events.until("gcr").await;
    let cause = fake.events.cause().to_string();
    assert!(cause.contains("panicked"), "{cause}");
}

/// It panics when it is asked for its end once a frame was taken.
struct Endless {
    taken: Cell<bool>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.taken.set(true);
        Poll::Ready(Some(Ok(data("x"))))
    }

    fn is_end_stream(&self) -> bool {
        assert!(!self.taken.get(), "a bug in the body, on purpose");
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_when_it_is_asked_for_its_end_is_one_that_panics() {
    // P24, P41
    let (fake, _server) = Fake::new(4096).await;
    let taken = Cell::new(false);
    let attempt = fake.start(Request::post("http://a/"), Outgoing::new(Endless { taken }, 0));
    let error = failure(attempt).await;
    assert!(
        error.is_body() && error.to_string().contains("panicked"),
        "{error:?}"
    );
    fake.events.until("gcr").await;
}

/// A transport that panics with what it reads.
struct Mined<T>(T);

impl<T: AsyncRead + Unpin> AsyncRead for Mined<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.0).poll_read(cx, buf);
        let mined = buf.filled().ends_with(b"mine\r\n");
        assert!(!mined, "a bug in the transport, on purpose");
        step
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_within_which_the_transport_panics_is_not_whole() {
    // P31: hyper would let go of it as of one that has ended.
    let chunked = ("transfer-encoding: chunked", "4\r\nhalf\r\n", "4\r\nmine\r\n");
    for (framing, half, rest) in [chunked, ("content-length: 10", "half", "mine\r\n")] {
        let (fake, mut server) = Fake::over(4096, |io| {
            let (read, write) = tokio::io::split(io);
            tokio::io::join(Mined(read), write)
        })
        .await;
        let attempt = fake.get("http://a/");
        server
            .answer(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{half}"))
            .await;
        let mut body = response(attempt).await.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        server.write(rest).await;
        let error = body.frame().await.expect("it is not whole").unwrap_err();
        assert!(error.is_body() && !error.is_unprocessed(), "{error:?}");
        fake.events.until("acr").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_nothing_without_end_starves_nobody() {
    // P30: frames without bytes, as many as are wanted.
    let (fake, mut server) = Fake::new(4096).await;
    let nothing = futures_util::stream::repeat_with(|| {
        Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::new()))
    });
    let body = Outgoing::new(StreamBody::new(nothing), 0);
    let attempt = fake.start(Request::post("http://a/"), body);
    server.answer(EARLY).await;
    drop(response(attempt).await);
    server.closed().await;
    fake.events.until("acr").await;
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_length_is_not_for_a_connection_of_http10() {
    // P31: hyper would send the head without a word of the body, and drop that.
    let old = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n";
    let (fake, mut server) = Fake::new(4096).await;
    let first = fake.get("http://a/");
    server.answer(old).await;
    response(first).await;
    fake.events.until("ar").await;

    // One whose length is known can be sent there.
    let body = Outgoing::new(Full::new(Bytes::from_static(b"four")), 0);
    let known = fake.start(Request::post("http://a/"), body);
    assert!(server.read_until("four").await.starts_with("POST / HTTP/1.0\r\n"));
    server.write(old).await;
    response(known).await;
    fake.events.until("arr").await;

    let (frames, body) = piecewise();
    frames.send(data("kept")).unwrap();
    let unknown = timeout(
        Duration::from_secs(9),
        fake.start(Request::post("http://a/"), body),
    );
    let (result, body) = unknown.await.expect("nothing is waited for").unwrap();
    let Err(Failure::NotSent(error)) = result else {
        panic!("it was sent");
    };
    assert!(error.is_unprocessed() && error.is_transient(), "{error:?}");
    fake.events.until("arrfcr").await;
    server.closed().await;
    drop(frames);
    let mut body = body.unwrap();
    let frame = poll_fn(|cx| body.poll_frame(cx)).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "kept");
}

#[tokio::test(start_paused = true)]
async fn nor_is_it_for_one_whose_last_answer_nobody_saw() {
    // P12, P31: it may have been one of HTTP/1.0.
    let (fake, mut server) = Fake::new(4096).await;
    let mut unseen = tokio_test::task::spawn(fake.attempt(Request::get("http://a/"), None));
    assert!(unseen.poll().is_pending());
    server
        .answer("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n")
        .await;
    while !unseen.is_woken() {
        tokio::task::yield_now().await;
    }
    drop(unseen);
    fake.events.until("r").await;

    let (_frames, body) = piecewise();
    let unknown = timeout(
        Duration::from_secs(9),
        fake.start(Request::post("http://a/"), body),
    );
    let (result, _) = unknown.await.expect("nothing is waited for").unwrap();
    assert!(matches!(result, Err(Failure::NotSent(_))));
    server.closed().await;
}
