//! Connectors of others below the pool: hyper-util's, hyper-rustls, and an HTTP CONNECT proxy.

use bytes::Bytes;
use h2pool::connect::{HyperConnector, TlsConnector};
use h2pool::{ConnectionInfo, H2Pool, RequestBody};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioExecutor;
use tower::ServiceBuilder;

use crate::support::endpoint::{Answer, Endpoint};
use crate::support::proxy::Proxy;
use crate::support::{certs, text, within};

async fn echo(request: Request<Incoming>) -> Answer {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Response::new(Full::from(body).boxed_unsync())
}

/// What came back, of all of twenty requests at once: the HTTP version.
async fn version(pool: &H2Pool, uri: &str) -> Version {
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let request = Request::put(uri)
                .body(Full::<Bytes>::from(format!("hello {n}")))
                .unwrap();
            tokio::spawn(pool.request(request))
        })
        .collect();
    let mut versions = Vec::new();
    for (n, call) in calls.into_iter().enumerate() {
        let response = within("an answer", call).await.unwrap().unwrap();
        let info = response.extensions().get::<ConnectionInfo>().unwrap();
        assert_eq!(info.version(), response.version());
        versions.push(response.version());
        assert_eq!(text(response).await, format!("hello {n}"));
    }
    assert!(
        versions.iter().all(|version| version == &versions[0]),
        "{versions:?}"
    );
    versions[0]
}

fn plain_connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector
}

#[tokio::test]
async fn hyper_utils_connector() {
    // P28, P45
    let endpoint = Endpoint::plain(echo).await;
    let connector = HyperConnector::new(HttpConnector::new());
    let h1 = H2Pool::builder().connector(connector.clone()).build().unwrap();
    assert_eq!(version(&h1, &endpoint.uri()).await, Version::HTTP_11);
    let connector = connector.http2_prior_knowledge(true);
    let h2 = H2Pool::builder()
        .connector(connector)
        .max_sessions(1)
        .build()
        .unwrap();
    let before = endpoint.connections();
    assert_eq!(version(&h2, &endpoint.uri()).await, Version::HTTP_2);
    assert_eq!(endpoint.connections() - before, 1);
}

#[tokio::test]
async fn hyper_rustls_with_a_second_connector_for_http1() {
    // P24, P25
    let https = || {
        HttpsConnectorBuilder::new()
            .with_tls_config(certs::client())
            .https_only()
    };
    let both = https().enable_all_versions().build();
    let old = https().enable_http1().build();
    let connector = HyperConnector::new(both).h1(old);
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let modern = Endpoint::tls(&["h2", "http/1.1"], echo).await;
    assert_eq!(version(&pool, &modern.uri()).await, Version::HTTP_2);
    let old = Endpoint::tls(&["http/1.1"], echo).await;
    assert_eq!(version(&pool, &old.uri()).await, Version::HTTP_11);
    let key = old.uri().parse().unwrap();
    assert!(pool.is_h1_only(&key), "what a verified server said is remembered");
    // While it is remembered, the second one dials: it offers nothing else to a modern server either.
    let later = Endpoint::tls(&["h2", "http/1.1"], echo).await;
    pool.mark_h1_only(&later.uri().parse().unwrap());
    assert_eq!(version(&pool, &later.uri()).await, Version::HTTP_11);
}

#[tokio::test]
async fn hyper_utils_client_as_the_fallback() {
    // P27: its bodies are boxed as most clients want them, `Send` and `Sync`.
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(certs::client())
        .https_only();
    let client = Client::builder(TokioExecutor::new()).build(https.enable_http1().build());
    let fallback = ServiceBuilder::new()
        .map_request(|request: Request<RequestBody>| request.map(BodyExt::boxed))
        .service(client);
    let pool = H2Pool::builder()
        .tls_config(certs::client())
        .fallback(fallback)
        .build()
        .unwrap();
    let old = Endpoint::tls(&["http/1.1"], echo).await;
    for _ in 0..2 {
        let request = Request::put(old.uri())
            .body(Full::<Bytes>::from("hello"))
            .unwrap();
        let response = within("an answer", pool.request(request)).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_11);
        assert_eq!(text(response).await, "hello");
    }
    assert_eq!(pool.stats().sessions_opened, 0);
    let modern = Endpoint::tls(&["h2"], echo).await;
    assert_eq!(version(&pool, &modern.uri()).await, Version::HTTP_2);
}

#[tokio::test]
async fn a_connect_proxy_under_hyper_rustls() {
    // P45
    let endpoint = Endpoint::tls(&["h2", "http/1.1"], echo).await;
    let mut proxy = Proxy::start().await;
    let tunnel = Tunnel::new(proxy.uri(), plain_connector());
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(certs::client())
        .https_only()
        .enable_all_versions()
        .wrap_connector(tunnel);
    let pool = H2Pool::builder()
        .connector(HyperConnector::new(https))
        .max_sessions(1)
        .build()
        .unwrap();
    assert_eq!(version(&pool, &endpoint.uri()).await, Version::HTTP_2);
    let asked = within("it was asked", proxy.asked.recv()).await.unwrap();
    assert_eq!(format!("https://{asked}"), endpoint.uri());
    assert!(proxy.asked.try_recv().is_err(), "one session, one tunnel");
}

#[tokio::test]
async fn a_connect_proxy_under_the_pools_own_tls() {
    // P25, P45
    let mut proxy = Proxy::start().await;
    let tunnel = HyperConnector::new(Tunnel::new(proxy.uri(), plain_connector()));
    let connector = TlsConnector::new(certs::client()).over(tunnel);
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let modern = Endpoint::tls(&["h2", "http/1.1"], echo).await;
    assert_eq!(version(&pool, &modern.uri()).await, Version::HTTP_2);
    assert_eq!(
        format!("https://{}", proxy.asked.recv().await.unwrap()),
        modern.uri()
    );
    let old = Endpoint::tls(&["http/1.1"], echo).await;
    assert_eq!(version(&pool, &old.uri()).await, Version::HTTP_11);
    assert_eq!(
        format!("https://{}", proxy.asked.recv().await.unwrap()),
        old.uri()
    );
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_a_failed_connection() {
    // P22, P41
    let proxy = Proxy::start().await.uri();
    let tunnel = Tunnel::new(proxy, plain_connector());
    let pool = H2Pool::builder()
        .connector(HyperConnector::new(tunnel))
        .build()
        .unwrap();
    let request = Request::post("http://example.com/")
        .body(Full::<Bytes>::from("once"))
        .unwrap();
    let error = within("the error", pool.request(request)).await.unwrap_err();
    assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
    assert!(std::error::Error::source(&error).is_some());
}
