//! Answers that come before the request was sent, to a client that may not get rid of the rest of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::watch;

use super::fake::{Fake, data, failure, piecewise, response};
use crate::clock::now;
use crate::session::Outgoing;

/// More than the transport holds.
const LARGE: usize = 300_000;

fn large() -> Option<Outgoing> {
    Outgoing::new(Full::new(Bytes::from(vec![7; LARGE])), 0)
}

/// Lets everything happen that can without time passing.
async fn settle() {
    tokio::time::sleep(Duration::from_nanos(1)).await;
}

const FIVE: &str = "content-length: 5\r\n\r\nwhole";

// P30, P31: a server that answers, reads no more and closes: writes fail while its answer lies unread.
#[tokio::test(start_paused = true)]
async fn an_early_answer_is_read_where_the_server_closes() {
    for (close, rest) in [
        ("close", FIVE),
        (
            "close",
            "transfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n",
        ),
        ("close", "\r\nwhole"),
        ("keep-alive", FIVE),
    ] {
        let start = now();
        let (fake, mut server) = Fake::new(4096).await;
        let attempt = fake.start(Request::post("http://a/"), large());
        server.head().await;
        server
            .write(&format!(
                "HTTP/1.1 413 Too Large\r\nconnection: {close}\r\n{rest}"
            ))
            .await;
        drop(server);
        let response = response(attempt).await;
        assert_eq!(response.status(), 413);
        settle().await;
        let read = response.into_body().collect().await;
        assert_eq!(read.unwrap().to_bytes(), "whole", "{close}, {rest:?}");
        fake.events.until("acr").await;
        let waited = now().duration_since(start).as_millis();
        assert!(waited < 100, "nothing more was to be read: {waited} ms");
    }
}

// P30: the same where more is fed to the upload all the time.
#[tokio::test(start_paused = true)]
async fn an_early_answer_is_read_while_the_body_goes_on() {
    let (fake, mut server) = Fake::new(4096).await;
    let (frames, body) = piecewise();
    let attempt = fake.start(Request::post("http://a/"), body);
    frames.send(data("one")).unwrap();
    server.read_until("3\r\none\r\n").await;
    server
        .write(&format!("HTTP/1.1 413 Too Large\r\nconnection: close\r\n{FIVE}"))
        .await;
    drop(server);
    frames.send(data("two")).unwrap();
    let body = response(attempt).await.into_body();
    settle().await;
    let _ = frames.send(data("three"));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "whole");
    fake.events.until("acr").await;
}

// P2, P30: whoever has all of an answer, or wants no more of it, does not wait for a server that reads no more.
#[tokio::test(start_paused = true)]
async fn a_server_that_reads_no_more_of_a_request_is_left() {
    for (answer, read) in [(FIVE, true), (FIVE, false), ("content-length: 0\r\n\r\n", true)] {
        let (fake, mut server) = Fake::new(4096).await;
        let attempt = fake.start(Request::post("http://a/"), large());
        server.head().await;
        server.write(&format!("HTTP/1.1 413 Too Large\r\n{answer}")).await;
        let body = response(attempt).await.into_body();
        if read {
            body.collect().await.unwrap();
        } else {
            drop(body);
        }
        fake.events.until("acr").await;
    }
}

// P2, P12: nor does a request that is given up when its answer had come, unseen.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_leaves_a_server_that_reads_no_more() {
    for answer in [FIVE, "content-length: 0\r\n\r\n"] {
        let (fake, mut server) = Fake::new(4096).await;
        let mut attempt = tokio_test::task::spawn(fake.attempt(Request::post("http://a/"), large()));
        assert!(attempt.poll().is_pending());
        server.head().await;
        server.write(&format!("HTTP/1.1 413 Too Large\r\n{answer}")).await;
        settle().await;
        drop(attempt);
        fake.events.until("gcr").await;
    }
}

// P2, P30: all of the request is in a buffer of hyper's, the answer was read: the slot comes back once the server has
// read the rest, and the connection is used again.
#[tokio::test(start_paused = true)]
async fn an_early_answer_gives_the_slot_back_when_the_request_was_written() {
    for (answer, held) in [(FIVE, true), ("content-length: 0\r\n\r\n", true), (FIVE, false)] {
        let (fake, mut server) = Fake::new(4096).await;
        let attempt = fake.start(Request::post("http://a/"), large());
        server.head().await;
        server.write(&format!("HTTP/1.1 200 OK\r\n{answer}")).await;
        let mut body = response(attempt).await.into_body();
        while let Some(frame) = body.frame().await {
            frame.unwrap();
        }
        settle().await;
        assert_eq!(fake.events.seen(), "a", "the rest is not written");
        server.skip(LARGE).await;
        if held {
            fake.events.until("ar").await;
            drop(body);
        } else {
            settle().await;
            drop(body);
            fake.events.until("ar").await;
        }
        let attempt = fake.get("http://a/");
        server.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
        response(attempt).await;
    }
}

/// The client's end of a connection whose writes fail from some moment on.
struct Brittle {
    io: DuplexStream,
    broken: watch::Receiver<bool>,
}

impl AsyncRead for Brittle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Brittle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if *self.broken.borrow() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

// P30, P44: after a write has failed, each word of the server's may take 100 ms, and no more.
#[tokio::test(start_paused = true)]
async fn last_words_are_waited_for_and_not_for_ever() {
    let (broken, watched) = watch::channel(false);
    let (fake, mut server) = Fake::over(4096, |io| Brittle { io, broken: watched }).await;
    let (frames, body) = piecewise();
    let attempt = fake.start(Request::post("http://a/"), body);
    frames.send(data("one")).unwrap();
    server.read_until("3\r\none\r\n").await;
    broken.send_replace(true);
    frames.send(data("two")).unwrap();
    let pause = || tokio::time::sleep(Duration::from_millis(90));
    for words in ["HTTP/1.1 413 Too", " Large\r\ncontent-length: 5\r\n\r\n", "who"] {
        pause().await;
        server.write(words).await;
    }
    let mut body = response(attempt).await.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "who");
    let start = now();
    assert!(body.frame().await.unwrap().is_err());
    let waited = now().duration_since(start).as_millis();
    assert!((100..110).contains(&waited), "{waited} ms");
    fake.events.until("acr").await;
}

// P30, P44: a server that has said nothing is waited for as long.
#[tokio::test(start_paused = true)]
async fn a_silent_server_ends_with_a_broken_write() {
    let (broken, watched) = watch::channel(true);
    let (fake, _server) = Fake::over(4096, |io| Brittle { io, broken: watched }).await;
    let start = now();
    let error = failure(fake.get("http://a/")).await;
    let waited = now().duration_since(start).as_millis();
    assert!((100..110).contains(&waited), "{waited} ms: {error:?}");
    drop(broken);
    fake.events.until("cr").await;
}
