//! Requests and responses, and when the connection is free again.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full};

use super::fake::{Fake, data, failure, piecewise, response};
use crate::ConnectionInfo;
use crate::session::Outgoing;

#[tokio::test(start_paused = true)]
async fn a_connection_is_reused_and_its_slot_free_when_the_body_was_read() {
    // P2, P24, P45
    let (fake, mut server) = Fake::new(4096).await;
    let body = Outgoing::new(Full::new(Bytes::from_static(b"ping")), 0);
    let first = fake.start(Request::post("http://example.com:80/a?b").header("x", "1"), body);
    let head = server.read_until("ping").await;
    assert!(
        head.starts_with("POST /a?b HTTP/1.1\r\nhost: example.com\r\n"),
        "{head}"
    );
    assert!(
        head.contains("content-length: 4\r\n") && head.contains("x: 1\r\n"),
        "{head}"
    );
    server
        .write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npong")
        .await;
    let first = response(first).await;
    assert!(!first.extensions().get::<ConnectionInfo>().unwrap().is_reused());
    tokio::task::yield_now().await;
    assert_eq!(fake.events.seen(), "a", "the body is unread");
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "pong");
    fake.events.until("ar").await;

    let second = fake.get("http://example.com/");
    server
        .answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await;
    let second = response(second).await;
    let info = second.extensions().get::<ConnectionInfo>().unwrap();
    assert!(info.is_reused());
    assert_eq!((info.version(), info.session()), (Version::HTTP_11, 11));
    // Without a body, at the headers.
    fake.events.until("arr").await;
}

#[tokio::test(start_paused = true)]
async fn responses_without_a_body_end_at_their_headers() {
    // P31
    let (fake, mut server) = Fake::new(4096).await;
    let mut expected = "a".to_owned();
    for (method, answer, status) in [
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", 204),
        (
            Method::GET,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
            304,
        ),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", 200),
    ] {
        let attempt = fake.start(Request::builder().method(method).uri("http://a/"), None);
        server.answer(answer).await;
        let response = response(attempt).await;
        assert_eq!(response.status().as_u16(), status);
        assert!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
        expected.push('r');
        fake.events.until(&expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_hyper_would_leave_out_is_sent_in_chunks() {
    // P31: the body of a GET whose length is unknown, and trailers after a body of known length.
    let (fake, mut server) = Fake::new(4096).await;
    let (frames, body) = piecewise();
    let attempt = fake.start(Request::get("http://a/"), body);
    frames.send(data("one")).unwrap();
    drop(frames);
    server.read_until("3\r\none\r\n0\r\n\r\n").await;
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    response(attempt).await;

    let mut trailers = HeaderMap::new();
    trailers.insert("sum", "4".parse().unwrap());
    let body = Full::new(Bytes::from_static(b"ping")).with_trailers(async { Some(Ok(trailers)) });
    let attempt = fake.start(
        Request::post("http://a/").header("trailer", "sum"),
        Outgoing::new(body, 0),
    );
    server.read_until("4\r\nping\r\n0\r\nsum: 4\r\n\r\n").await;
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    response(attempt).await;
}

#[tokio::test(start_paused = true)]
async fn trailers_go_both_ways() {
    // P31
    let (fake, mut server) = Fake::new(4096).await;
    let (frames, body) = piecewise();
    let attempt = fake.start(Request::post("http://a/").header("trailer", "sum"), body);
    frames.send(data("abc")).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("sum", "3".parse().unwrap());
    frames.send(Frame::trailers(trailers)).unwrap();
    assert!(server.head().await.contains("transfer-encoding: chunked"));
    assert_eq!(server.head().await, "3\r\nabc\r\n0\r\nsum: 3\r\n\r\n");
    server
        .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\nsum: 2\r\n\r\n")
        .await;
    let read = response(attempt).await.into_body().collect().await.unwrap();
    assert_eq!(read.trailers().unwrap()["sum"], "2");
    assert_eq!(read.to_bytes(), "xy");
    fake.events.until("ar").await;
}

#[tokio::test(start_paused = true)]
async fn interim_responses_are_skipped_and_bounded() {
    // P31, P44
    let (fake, mut server) = Fake::new(64 * 1024).await;
    let attempt = fake.get("http://a/");
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    server.answer(&interim.repeat(32)).await;
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(response(attempt).await.status(), StatusCode::OK);
    fake.events.until("ar").await;

    let attempt = fake.get("http://a/");
    server.answer(&interim.repeat(33)).await;
    let error = failure(attempt).await;
    assert!(error.to_string().contains("interim"), "{error}");
    fake.events.until("arcr").await;

    // The final one comes with them.
    let (fake, mut server) = Fake::new(64 * 1024).await;
    let attempt = fake.get("http://a/");
    server
        .answer(&(interim.repeat(33) + "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
        .await;
    let error = failure(attempt).await;
    assert!(error.to_string().contains("interim"), "{error}");

    let (fake, mut server) = Fake::new(256 * 1024).await;
    let attempt = fake.get("http://a/");
    server
        .answer(&format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "x".repeat(9000)).repeat(8))
        .await;
    assert!(failure(attempt).await.to_string().contains("interim"));
}

#[tokio::test(start_paused = true)]
async fn who_listens_to_interim_responses_hears_them() {
    // P45
    let (fake, mut server) = Fake::new(64 * 1024).await;
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut request = Request::new(());
    hyper::ext::on_informational(&mut request, move |interim| {
        sender.send(interim.status()).unwrap()
    });
    let mut builder = Request::get("http://a/");
    *builder.extensions_mut().unwrap() = request.extensions().clone();
    let attempt = fake.start(builder, None);
    server
        .answer("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
        .await;
    assert_eq!(heard.recv().await.unwrap(), StatusCode::EARLY_HINTS);
    assert_eq!(response(attempt).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_is_its_users() {
    // P45
    for (request, answer) in [
        (
            Request::get("http://a/")
                .header("connection", "upgrade")
                .header("upgrade", "echo"),
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello",
        ),
        (Request::connect("b:443"), "HTTP/1.1 200 OK\r\n\r\nhello"),
    ] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut fake, mut server) = Fake::new(4096).await;
        fake.patience.write = Some(std::time::Duration::from_secs(1));
        let attempt = fake.start(request, None);
        let head = server.head().await;
        assert!(
            head.contains("upgrade: echo") || head.starts_with("CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n")
        );
        server.write(answer).await;
        let response = response(attempt).await;
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        fake.events.until("acr").await;
        // The session is gone, the connection is not.
        drop(fake);
        let mut io = hyper_util::rt::TokioIo::new(upgraded);
        let mut hello = [0; 5];
        io.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        io.write_all(b"world").await.unwrap();
        assert_eq!(server.read_until("world").await, "world");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_cannot_be_sent_leaves_the_connection_as_it_was() {
    // P22
    let (fake, mut server) = Fake::new(4096).await;
    match fake.get("/nowhere").await.unwrap().0 {
        Err(crate::session::link::Failure::Failed(error)) => {
            assert!(error.is_config() && error.is_unprocessed())
        }
        _ => panic!("a request without a host"),
    }
    fake.events.until("r").await;
    let attempt = fake.get("http://a/");
    server.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(response(attempt).await.status(), StatusCode::NO_CONTENT);
}
