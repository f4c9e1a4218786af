//! HTTP/1.1 as somebody else's business (P26, P27).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2pool::retry::{ReplayBody, Retry, RetryPolicy};
use h2pool::{Error, H2Pool, RequestBody};
use http::{Request, Response, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceExt, service_fn};

use crate::support::peer::code;
use crate::support::server::Server;
use crate::support::within;
use crate::util::*;

/// A pool whose fallback echoes the method, the URI and the body, and counts its calls.
fn with_fallback(builder: h2pool::Builder) -> (h2pool::Builder, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    let counting = calls.clone();
    let service = service_fn(move |request: Request<RequestBody>| {
        counting.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.version(), Version::HTTP_11);
        async move {
            let (head, body) = (
                format!("{} {} ", request.method(), request.uri()),
                request.into_body(),
            );
            let mut answer = head.into_bytes();
            answer.extend_from_slice(&body.collect().await.unwrap().to_bytes());
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
        }
    });
    (builder.fallback(service), calls)
}

#[tokio::test]
async fn an_origin_without_h2_goes_to_the_fallback() {
    // P27
    let server = Server::builder().h1_only().start().await;
    let (builder, calls) = with_fallback(tls());
    let pool = builder.build().unwrap();
    for nth in 1..=5 {
        let mut request = post(server.uri("/a?b"), "a body");
        *request.version_mut() = Version::HTTP_2;
        let read = join(fetch(&pool, request)).await.unwrap();
        assert_eq!(read.body, format!("POST {} a body", server.uri("/a?b")));
        assert_eq!(calls.load(Ordering::SeqCst), nth);
    }
    let counts = server.counts();
    assert_eq!(
        (counts.accepted, counts.requests),
        (1, 0),
        "one look, and then straight away"
    );
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
    assert!(pool.is_h1_only(&origin(&format!("https://{}", server.addr()))));
}

#[tokio::test]
async fn leases_and_warming_dial_for_nothing_once() {
    // P10, P25, P27: a lease is the pool's own, and the pool has nothing to send there.
    let server = Server::builder().h1_only().start().await;
    let (builder, calls) = with_fallback(tls());
    let pool = builder.build().unwrap();
    let key = origin(&format!("https://{}", server.addr()));
    for _ in 0..3 {
        let error = pool.acquire(&key).await.unwrap_err();
        assert!(error.is_h1_only() && error.is_unprocessed(), "{error:?}");
        pool.warm(&key, 2).unwrap();
    }
    assert_eq!((server.counts().accepted, calls.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(pool.stats().sessions_dialing, 0);
}

#[tokio::test]
async fn an_origin_with_h2_does_not() {
    // P27
    let server = Server::start().await;
    let (builder, calls) = with_fallback(tls());
    let pool = builder.build().unwrap();
    assert_eq!(join(fetch(&pool, get(server.uri("/")))).await.unwrap().body, "ok");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_the_first_look_are_served_by_it() {
    // P27
    let (builder, calls) = with_fallback(H2Pool::builder());
    let (pool, mut net) = net(builder);
    let requests = fetch_many(&pool, &uri("https://a/"), 50);
    let server = Server::builder().h1_only().start_in_memory();
    server.attach(net.dial().await.accept(Version::HTTP_11));
    for read in join_all(requests).await {
        assert_eq!(read.unwrap().body, "GET https://a/ ");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 50);
    assert_eq!(net.dials().await.len(), 0);
    assert_eq!(pool.stats().dials_failed, 0, "an answer is no failure");
    // A service of the origin, and a lease, go the same way or say so.
    let mut service = pool.origin(origin("https://a"));
    let ready = tower::ServiceExt::<Request<Full<Bytes>>>::ready(&mut service)
        .await
        .unwrap();
    let response = tower::Service::call(ready, post(uri("/relative"), "x"))
        .await
        .unwrap();
    assert_eq!(read(response).await.unwrap().body, "POST https://a/relative x");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_http1_is_no_failure_to_be_waited_for() {
    // P9, P27: each request looks anew where the answer is not remembered, as it is not authenticated, or may not be.
    for remembered in [false, true] {
        let ttl = Duration::from_secs(if remembered { 60 } else { 0 });
        let (builder, _) = with_fallback(H2Pool::builder().h1_only_ttl(ttl));
        let (pool, mut net) = net(builder);
        let network = tokio::spawn(async move {
            while let Some(dial) = net.next_dial().await {
                drop(dial.authenticated(remembered).accept(Version::HTTP_11));
            }
        });
        let six = async {
            for _ in 0..6 {
                join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
            }
        };
        let ((), took) = timed(six).await;
        assert!(took < Duration::from_millis(50), "{took:?}");
        assert_eq!(pool.stats().dials_failed, 0);
        network.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn http1_required_goes_to_the_fallback_with_its_body() {
    // P26, P27
    let (builder, calls) = with_fallback(H2Pool::builder());
    let (pool, mut net) = net(builder);
    let request = fetch(&pool, post(uri("https://a/"), "a body"));
    let mut peer = net.ready_peer(10).await;
    let stream = peer.next_request().await.head.stream;
    peer.send_rst(stream, code::HTTP_1_1_REQUIRED).await;
    assert_eq!(join(request).await.unwrap().body, "POST https://a/ a body");
    assert_eq!((calls.load(Ordering::SeqCst), net.dials().await.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn plain_text_goes_there_unseen() {
    // P27, P28
    let (builder, calls) = with_fallback(H2Pool::builder());
    let (pool, mut net) = net(builder);
    for _ in 0..3 {
        let read = join(fetch(&pool, get(uri("http://a/")))).await.unwrap();
        assert_eq!(read.body, "GET http://a/ ");
    }
    assert_eq!((calls.load(Ordering::SeqCst), net.dials().await.len()), (3, 0));
}

#[tokio::test]
async fn plain_text_over_a_connector_of_http2_does_not() {
    // P27, P28
    let server = Server::builder().plain().h2_only().start().await;
    let tcp = h2pool::connect::TcpConnector::new().http2_prior_knowledge(true);
    let (builder, calls) = with_fallback(H2Pool::builder().connector(tcp));
    let pool = builder.build().unwrap();
    let read = join(fetch(&pool, get(server.uri("/")))).await.unwrap();
    assert_eq!(read.info.unwrap().version(), Version::HTTP_2);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_refused_where_the_fallback_serves() {
    // P27, P41
    let (builder, _) = with_fallback(H2Pool::builder());
    let (pool, _net) = net(builder);
    let error = pool.acquire(&origin("http://a")).await.err().unwrap();
    assert!(error.is_h1_only() && error.is_unprocessed());
    assert!(error.to_string().contains("the `fallback` serves"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_when_http1_is_asked_for_go_there_too() {
    // P26, P27
    let (builder, calls) = with_fallback(H2Pool::builder().max_sessions(1));
    let (pool, mut net) = net(builder);
    let running = fetch(&pool, get(uri("https://a/running")));
    let mut peer = net.ready_peer(2).await;
    let first = peer.next_headers().await.stream;
    settle().await;
    let asked = fetch(&pool, get(uri("https://a/asked")));
    let second = peer.next_headers().await.stream;
    let waiting = fetch_many(&pool, &uri("https://a/waiting"), 5);
    settle().await;
    assert_eq!(pool.stats().waiters, 5);
    peer.send_rst(second, code::HTTP_1_1_REQUIRED).await;
    assert_eq!(join(asked).await.unwrap().body, "GET https://a/asked ");
    for read in join_all(waiting).await {
        assert_eq!(read.unwrap().body, "GET https://a/waiting ");
    }
    peer.respond(first, 200, b"h2 after all").await;
    assert_eq!(join(running).await.unwrap().body, "h2 after all");
    assert_eq!((calls.load(Ordering::SeqCst), net.dials().await.len()), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_fallback_says_is_what_the_caller_gets() {
    // P27, P41
    let failing = service_fn(|_: Request<RequestBody>| async {
        Err::<Response<Full<Bytes>>, _>(std::io::Error::other("the fallback's own trouble"))
    });
    let (pool, mut net) = net(H2Pool::builder().fallback(failing));
    pool.mark_h1_only(&origin("https://a"));
    let error = pool.request(get(uri("https://a/"))).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "the fallback's own trouble");
    assert_eq!(
        (error.origin(), error.is_unprocessed()),
        (Some("https://a:443"), false)
    );
    assert_eq!(net.dials().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn readiness_turns_to_the_fallback_when_the_first_look_says_so() {
    // P27, P29
    let (builder, calls) = with_fallback(H2Pool::builder());
    let (pool, mut net) = net(builder);
    let mut service = pool.origin(origin("https://a"));
    let look = async { drop(net.dial().await.accept(Version::HTTP_11)) };
    let (ready, ()) = tokio::join!(within("ready", service.ready()), look);
    let response = ready.unwrap().call(post(uri("/relative"), "x")).await.unwrap();
    assert_eq!(read(response).await.unwrap().body, "POST https://a/relative x");
    assert_eq!((calls.load(Ordering::SeqCst), net.dials().await.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_and_its_caller_are_told_how_much_will_come() {
    // P27: a client of HTTP/1.1 has to know it before it sends `content-length`.
    let telling = service_fn(|request: Request<RequestBody>| async {
        let mut body = request.into_body();
        let told = (body.size_hint().exact(), body.is_end_stream());
        while body.frame().await.is_some() {}
        assert!(body.is_end_stream());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{told:?}")))))
    });
    let (pool, _net) = net(H2Pool::builder().fallback(telling));
    pool.mark_h1_only(&origin("https://a"));
    for (body, told) in [("", "(Some(0), true)"), ("a body", "(Some(6), false)")] {
        let response = pool.request(post(uri("https://a/"), body)).await.unwrap();
        let size = response.body().size_hint().exact();
        assert_eq!(
            (size, response.body().is_end_stream()),
            (Some(told.len() as u64), false)
        );
        assert_eq!(read(response).await.unwrap().body, told);
    }
}

#[tokio::test(start_paused = true)]
async fn another_pool_as_the_fallback_keeps_its_errors() {
    // P27, P41
    let other = service_fn(|_: Request<RequestBody>| async {
        Err::<Response<Full<Bytes>>, _>(Error::connect("nobody there"))
    });
    let (pool, _net) = net(H2Pool::builder().fallback(other));
    pool.mark_h1_only(&origin("https://a"));
    let error = pool.request(get(uri("https://a/"))).await.unwrap_err();
    assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
    assert_eq!(error.origin(), Some("https://a:443"));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_the_fallback_that_breaks_off_is_an_error_with_its_cause() {
    // P27, P41
    let breaking = service_fn(|_: Request<RequestBody>| async {
        let frames = [
            Ok(Frame::data(Bytes::from("half"))),
            Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Ok::<_, Infallible>(Response::new(body))
    });
    let (pool, _net) = net(H2Pool::builder().fallback(breaking));
    pool.mark_h1_only(&origin("https://a"));
    let response = pool.request(get(uri("https://a/"))).await.unwrap();
    let error = read(response).await.unwrap_err();
    assert!(error.is_body() && !error.is_unprocessed(), "{error:?}");
    assert_eq!(error.origin(), Some("https://a:443"));
    let cause = std::error::Error::source(&error).unwrap();
    let cause = cause.downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(cause.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_without_a_connection_did_nothing() {
    // P22, P27: as hyper-util's client tells it, whatever stands around that client.
    let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    for certificate in [false, true] {
        let unknown = unknown.clone();
        let connector = service_fn(move |_: Uri| {
            let failed = if certificate {
                io::Error::other(unknown.clone())
            } else {
                io::ErrorKind::ConnectionRefused.into()
            };
            std::future::ready(Err::<TokioIo<TcpStream>, _>(failed))
        });
        let client = Client::builder(TokioExecutor::new()).build::<_, RequestBody>(connector);
        let around = client.map_err(|error| anyhow::Error::from(error).context("a layer"));
        let (pool, _net) = net(H2Pool::builder().fallback(around));
        pool.mark_h1_only(&origin("https://a"));
        let error = pool.request(post(uri("https://a/"), "x")).await.unwrap_err();
        assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
        assert_eq!(
            (error.is_certificate(), error.is_transient()),
            (certificate, !certificate)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_tried_more_than_once_may_have_done_something() {
    // P22, P27: the last attempt of the layer within had no connection; the first one may have been acted upon.
    for (reset_first, unprocessed) in [(true, false), (false, true)] {
        let connector = service_fn(|_: Uri| {
            std::future::ready(Err::<TokioIo<TcpStream>, _>(io::Error::from(
                io::ErrorKind::ConnectionRefused,
            )))
        });
        let client = Client::builder(TokioExecutor::new()).build::<_, ReplayBody<RequestBody>>(connector);
        let calls = Arc::new(AtomicUsize::new(0));
        let flaky = service_fn(move |request| {
            let reset = calls.fetch_add(1, Ordering::SeqCst) == 0 && reset_first;
            let answer = client.request(request);
            async move {
                match reset {
                    true => Err(BoxError::from(io::Error::from(io::ErrorKind::ConnectionReset))),
                    false => answer.await.map_err(BoxError::from),
                }
            }
        });
        let policy = RetryPolicy::default().max_attempts(2);
        let (pool, _net) = net(H2Pool::builder().fallback(Retry::new(policy, flaky)));
        pool.mark_h1_only(&origin("https://a"));
        let error = pool.request(get(uri("https://a/"))).await.unwrap_err();
        assert_eq!((error.is_connect(), error.is_unprocessed()), (true, unprocessed));
    }
}
