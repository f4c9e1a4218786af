//! Bodies and trailers, byte by byte, over HTTP/2 and HTTP/1.1 alike (P28, P30, P31).

use bytes::Bytes;
use h2pool::{ConnectionInfo, H2Pool};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Empty};

use crate::support::client::upload;

use crate::support::scripted::{Answer, Scripted};
use crate::support::server::body::{pattern, pattern_body, with_trailers};
use crate::support::server::{Server, is_pattern};
use crate::support::within;
use crate::util::*;

/// A pool and a server for each protocol.
async fn both() -> [(H2Pool, Server, Version); 2] {
    let h2 = (tls().build().unwrap(), Server::start().await, Version::HTTP_2);
    let h1 = Server::builder().h1_only().start().await;
    [h2, (tls().build().unwrap(), h1, Version::HTTP_11)]
}

const TEN_MEGABYTES: u64 = 10 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_down() {
    // P31, P33
    for (pool, server, version) in both().await {
        let response = pool
            .request(get(server.uri(&format!("/bytes/{TEN_MEGABYTES}"))))
            .await
            .unwrap();
        assert_eq!(
            response.extensions().get::<ConnectionInfo>().unwrap().version(),
            version
        );
        assert_eq!(response.body().size_hint().exact(), Some(TEN_MEGABYTES));
        let (mut body, mut length) = (response.into_body(), 0);
        while let Some(frame) = within("a frame", body.frame()).await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(is_pattern(length, &data));
            length += data.len() as u64;
        }
        assert_eq!(length, TEN_MEGABYTES);
        assert!(body.is_end_stream());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_up() {
    // P30, P31
    for (pool, server, _) in both().await {
        let request = Request::post(server.uri("/upload-count")).body(pattern_body(TEN_MEGABYTES));
        let read = join(fetch(&pool, request.unwrap())).await.unwrap();
        assert_eq!(read.body, TEN_MEGABYTES.to_string());
        assert_eq!(read.headers["pattern"], "true");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_both_ways_at_once() {
    // P30, P31: the response begins long before the upload ends, and neither waits for the other.
    for (pool, server, _) in both().await {
        let request = Request::post(server.uri("/echo"))
            .body(pattern_body(TEN_MEGABYTES))
            .unwrap();
        let mut body = within("the head", pool.request(request))
            .await
            .unwrap()
            .into_body();
        let mut length = 0;
        while let Some(frame) = within("a frame", body.frame()).await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(is_pattern(length, &data));
            length += data.len() as u64;
        }
        assert_eq!(length, TEN_MEGABYTES);
        drop(body);
        eventually("the slot is free", || pool.stats().streams == 0).await;
    }
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    // P31: server-sent events
    for (pool, server, _) in both().await {
        let response = pool.request(get(server.uri("/sse/3?gate=sse"))).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        for event in 0..3 {
            server.gate("sse").until_waiting(1).await;
            server.gate("sse").release(1);
            let data = within("an event", body.frame())
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap();
            assert_eq!(data, format!("data: {event}\n\n"));
        }
        assert!(within("the end", body.frame()).await.is_none());
    }
}

#[tokio::test]
async fn multipart_is_untouched() {
    // P31
    let mut form = b"--edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\xc3\xa4.bin\"\r\n\
        content-type: application/octet-stream\r\n\r\n"
        .to_vec();
    form.extend_from_slice(&pattern(7, 70_000));
    form.extend_from_slice(
        b"\r\n--edge\r\ncontent-disposition: form-data; name=\"x\"\r\n\r\n\0\r\n--edge--\r\n",
    );
    for (pool, server, _) in both().await {
        let kind = "multipart/form-data; boundary=edge";
        let mut request = post(server.uri("/echo"), form.clone());
        request
            .headers_mut()
            .insert("content-type", HeaderValue::from_static(kind));
        let read = join(fetch(&pool, request)).await.unwrap();
        assert_eq!(read.headers["content-type"], kind);
        assert_eq!(read.headers["echo-content-length"], form.len().to_string());
        assert!(read.body == form);
    }
}

#[tokio::test]
async fn trailers_both_ways() {
    // P31
    for (pool, server, version) in both().await {
        let mut request = get(server.uri("/trailers"));
        request
            .headers_mut()
            .insert("te", HeaderValue::from_static("trailers"));
        let read = join(fetch(&pool, request)).await.unwrap();
        assert_eq!(read.body, "body");
        let trailers = read.trailers.unwrap();
        assert!(
            trailers["x-first"] == "1" && trailers["x-last"] == "end",
            "{version:?}"
        );

        let upload = |length: Option<&str>| {
            let mut sent = HeaderMap::new();
            sent.insert("x-checksum", HeaderValue::from_static("abc"));
            let request = Request::post(server.uri("/upload-count")).header("trailer", "x-checksum");
            let request = match length {
                Some(length) => request.header("content-length", length),
                None => request,
            };
            fetch(&pool, request.body(with_trailers("data", sent)).unwrap())
        };
        for length in [None, Some("4")] {
            let read = join(upload(length)).await.unwrap();
            assert_eq!(read.body, "4");
            assert_eq!(
                read.headers["trailer-x-checksum"], "abc",
                "{version:?} {length:?}"
            );
        }
        for wrong in ["3", "5"] {
            let error = join(upload(Some(wrong))).await.unwrap_err();
            assert!(error.is_body(), "{version:?} {wrong} {error:?}");
        }
    }
}

#[tokio::test]
async fn responses_without_a_body_end_with_their_head() {
    // P31
    for (pool, server, version) in both().await {
        for path in ["/status/204", "/status/304", "/status/200"] {
            let response = within(path, pool.request(get(server.uri(path)))).await.unwrap();
            assert!(response.body().is_end_stream(), "{path} over {version:?}");
            assert!(read(response).await.unwrap().body.is_empty());
        }
        let head = Request::builder()
            .method(Method::HEAD)
            .uri(server.uri("/status/200?x-a=b"));
        let read = join(fetch(&pool, head.body(Empty::<Bytes>::new()).unwrap()))
            .await
            .unwrap();
        assert!(read.status.as_u16() == 200 && read.headers["x-a"] == "b");
        assert!(read.body.is_empty());
        let post = join(fetch(&pool, post(server.uri("/echo"), ""))).await.unwrap();
        assert!(
            post.headers["echo-content-length"] == "0" && post.body.is_empty(),
            "{version:?}"
        );
    }
}

#[tokio::test]
async fn redirects_come_back_as_they_are() {
    // P28
    let mut seen = Vec::new();
    for (pool, server, _) in both().await {
        let mut answers = Vec::new();
        for status in [301, 302, 303, 307, 308] {
            let read = join(fetch(&pool, get(server.uri(&format!("/redirect/{status}")))))
                .await
                .unwrap();
            assert_eq!(read.status.as_u16(), status);
            answers.push((read.status, read.headers["location"].clone(), read.body));
        }
        assert_eq!(server.counts().requests, 5, "nobody followed them");
        seen.push(answers);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_response_comes_while_the_upload_goes_on() {
    // P30
    for (pool, server, version) in both().await {
        let (sender, body) = upload(1);
        let request = Request::post(server.uri("/early")).body(body).unwrap();
        sender
            .send(Ok(Frame::data(Bytes::from_static(b"12345"))))
            .await
            .unwrap();
        let response = within("the head", pool.request(request)).await.unwrap();
        let mut body = response.into_body();
        let early = within("the first part", body.frame()).await.unwrap().unwrap();
        assert_eq!(early.into_data().unwrap(), "early", "{version:?}");
        assert_eq!(pool.stats().streams, 1);
        for _ in 0..100 {
            sender
                .send(Ok(Frame::data(Bytes::from_static(&[0; 1000]))))
                .await
                .unwrap();
        }
        drop(sender);
        let rest = within("the rest", body.collect()).await.unwrap().to_bytes();
        assert_eq!(rest, " 100005");
        eventually("the slot is free", || pool.stats().streams == 0).await;
    }
}

#[tokio::test]
async fn an_upload_ends_with_the_response_that_is_dropped() {
    // P2, P30
    for (pool, server, _) in both().await {
        let (sender, body) = upload(1);
        sender
            .send(Ok(Frame::data(Bytes::from_static(b"12345"))))
            .await
            .unwrap();
        let request = Request::post(server.uri("/early")).body(body).unwrap();
        let response = within("the head", pool.request(request)).await.unwrap();
        drop(response);
        within("the body is dropped", sender.closed()).await;
        eventually("the slot is free", || pool.stats().streams == 0).await;
        server
            .until("the server hears of it", |counts| counts.active == 0)
            .await;
        assert_eq!(join(fetch(&pool, get(server.uri("/")))).await.unwrap().body, "ok");
    }
}

#[tokio::test]
async fn a_whole_response_to_an_unread_upload_is_success() {
    // P31, RFC 9113 §8.1: RST_STREAM(NO_ERROR) follows.
    let server = Scripted::start(|_| Answer::RespondAndReset("enough".into())).await;
    let pool = tls().build().unwrap();
    for _ in 0..10 {
        let (sender, body) = upload(1);
        let sending = tokio::spawn(async move {
            while sender
                .send(Ok(Frame::data(Bytes::from_static(&[1; 16 * 1024]))))
                .await
                .is_ok()
            {}
        });
        let request = Request::post(server.uri("/")).body(body).unwrap();
        let read = join(fetch(&pool, request)).await.unwrap();
        assert_eq!((read.status.as_u16(), &read.body[..]), (200, &b"enough"[..]));
        join(sending).await;
    }
    assert_eq!(server.counts().accepted, 1);
    eventually("the slots are free", || pool.stats().streams == 0).await;
}

#[tokio::test]
async fn interim_responses_are_skipped() {
    // P31
    let server = Scripted::start(|_| Answer::Respond {
        informational: vec![100, 102, 103],
        status: 201,
        body: "final".into(),
        trailers: None,
    })
    .await;
    let pool = tls().build().unwrap();
    let read = join(fetch(&pool, post(server.uri("/"), "x"))).await.unwrap();
    assert_eq!((read.status.as_u16(), &read.body[..]), (201, &b"final"[..]));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error() {
    // P22, P31, P41
    for (pool, server, version) in both().await {
        let response = pool.request(get(server.uri("/break"))).await.unwrap();
        let error = within("the end", response.into_body().collect())
            .await
            .unwrap_err();
        assert!(
            error.is_body() && !error.is_unprocessed(),
            "{version:?}: {error:?}"
        );
        assert!(
            std::error::Error::source(&error).is_some(),
            "{version:?}: {error:?}"
        );
        eventually("the slot is free", || pool.stats().streams == 0).await;
    }
}

#[tokio::test]
async fn an_upload_that_fails_is_the_callers_own_error() {
    // P22, P30, P41
    for (pool, server, version) in both().await {
        let (sender, body) = upload(2);
        let request = Request::post(server.uri("/upload-count")).body(body).unwrap();
        sender
            .send(Ok(Frame::data(Bytes::from_static(b"some"))))
            .await
            .unwrap();
        sender.send(Err("the caller's disk broke".into())).await.unwrap();
        let error = join(fetch(&pool, request)).await.unwrap_err();
        assert!(
            error.is_body() && !error.is_unprocessed(),
            "{version:?}: {error:?}"
        );
        let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        assert!(
            causes.iter().any(|cause| cause == "the caller's disk broke"),
            "{version:?}: {causes:?}"
        );
        assert_eq!(join(fetch(&pool, get(server.uri("/")))).await.unwrap().body, "ok");
    }
}
