//! The pool over HTTP/1.1, in memory and on a paused clock, against hyper's server.
#![cfg(feature = "http1")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2pool::connect::memory::{self, MemoryListener};
use h2pool::{ConnectionInfo, H2Pool, Origin};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// Answers 100 ms late with what was sent. Each connection serves `requests`, then the server closes it.
async fn echo(mut listener: MemoryListener<Origin>, requests: usize, connections: Arc<AtomicUsize>) {
    while let Some(dial) = listener.accept().await {
        connections.fetch_add(1, Ordering::Relaxed);
        let io = TokioIo::new(dial.accept(Version::HTTP_11));
        let served = AtomicUsize::new(0);
        let service = service_fn(move |request: Request<Incoming>| {
            let last = served.fetch_add(1, Ordering::Relaxed) + 1 == requests;
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let misdirected = body.starts_with(b"misdirected");
                let mut response = Response::new(Full::new(body));
                if misdirected {
                    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
                }
                if last {
                    response
                        .headers_mut()
                        .insert("connection", "close".parse().unwrap());
                }
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
    }
}

async fn post(pool: &H2Pool, text: String) -> Response<Bytes> {
    let request = Request::post("http://example.com/")
        .body(Full::new(Bytes::from(text)))
        .unwrap();
    let (parts, body) = pool.request(request).await.unwrap().into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

fn start(requests: usize) -> (H2Pool, Arc<AtomicUsize>) {
    let (connector, listener) = memory::pair::<Origin>();
    let connections = Arc::<AtomicUsize>::default();
    tokio::spawn(echo(listener, requests, connections.clone()));
    let pool = H2Pool::builder()
        .connector(connector)
        .max_h1_connections(4)
        .build()
        .unwrap();
    (pool, connections)
}

#[tokio::test(start_paused = true)]
async fn connections_are_bounded_shared_and_kept() {
    // P11, P24, P28
    let (pool, connections) = start(usize::MAX);
    for round in 0..2 {
        let all = join_all((0..40).map(|n| post(&pool, format!("{round} {n}")))).await;
        for (n, response) in all.into_iter().enumerate() {
            assert_eq!(
                (response.status(), response.version()),
                (StatusCode::OK, Version::HTTP_11)
            );
            assert_eq!(response.body(), format!("{round} {n}").as_bytes());
            let info = response.extensions().get::<ConnectionInfo>().unwrap();
            assert_eq!(info.version(), Version::HTTP_11);
        }
    }
    assert_eq!(connections.load(Ordering::Relaxed), 4);
    pool.close();
    pool.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_after_every_response_is_dialed_anew_and_never_taken_for_dead() {
    // P3, P14, P24
    let (pool, connections) = start(1);
    #[expect(clippy::disallowed_methods, reason = "the clock of the test")]
    let started = tokio::time::Instant::now();
    let all = join_all((0..40).map(|n| post(&pool, n.to_string()))).await;
    for (n, response) in all.into_iter().enumerate() {
        assert_eq!(response.body(), n.to_string().as_bytes());
    }
    assert_eq!(connections.load(Ordering::Relaxed), 40);
    // Four at a time, 100 ms each, no back-off between them; an unknown origin's first dial goes alone.
    assert!(
        started.elapsed() < Duration::from_millis(1_200),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_misdirected_request_whose_body_is_gone_is_not_sent_again() {
    // P23
    let (pool, connections) = start(usize::MAX);
    let response = post(&pool, "misdirected".to_owned()).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(response.body(), "misdirected");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}
