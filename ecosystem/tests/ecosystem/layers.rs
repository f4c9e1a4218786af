//! tower-http's layers over the pool, together, in the order that their documentation gives.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use h2pool::retry::RetryPolicy;
use h2pool::{ConnectionInfo, H2Pool};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, LOCATION, SET_COOKIE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::decompression::DecompressionLayer;
use tower_http::follow_redirect::{FollowRedirectLayer, RequestUri};
use tower_http::sensitive_headers::{SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer};
use tower_http::trace::TraceLayer;

use crate::support::endpoint::{Answer, Endpoint};
use crate::support::{certs, within};

/// Compresses well.
fn poem() -> Vec<u8> {
    b"the pool is deep and the water is clear, ".repeat(5_000)
}

async fn site(request: Request<Incoming>) -> Answer {
    let headers = request.headers();
    let authorized = headers
        .get(AUTHORIZATION)
        .is_some_and(|value| value == "Bearer secret");
    let gzip = headers
        .get(ACCEPT_ENCODING)
        .is_some_and(|value| value.to_str().unwrap().contains("gzip"));
    let answer = Response::builder();
    let (answer, body) = match request.uri().path() {
        "/moved" => (
            answer.status(StatusCode::FOUND).header(LOCATION, "/poem"),
            Vec::new(),
        ),
        "/loop" => (
            answer.status(StatusCode::FOUND).header(LOCATION, "/loop"),
            Vec::new(),
        ),
        "/poem" if authorized && gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&poem()).unwrap();
            let answer = answer
                .header(CONTENT_ENCODING, "gzip")
                .header(SET_COOKIE, "session=secret");
            (answer, encoder.finish().unwrap())
        }
        _ => (answer.status(StatusCode::BAD_REQUEST), Vec::new()),
    };
    answer.body(Full::from(body).boxed_unsync()).unwrap()
}

#[tokio::test]
async fn trace_redirects_decompression_and_sensitive_headers() {
    // P28, P29, P32
    let server = Endpoint::tls(&["h2"], site).await;
    let pool = H2Pool::builder().tls_config(certs::client()).build().unwrap();
    let (attempts, ends) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (attempt, end) = (attempts.clone(), ends.clone());
    let trace = TraceLayer::new_for_http()
        .on_response(move |response: &Response<h2pool::Body>, _, _: &tracing::Span| {
            let cookies = response.headers().get_all(SET_COOKIE);
            assert!(cookies.iter().all(http::HeaderValue::is_sensitive));
            attempt.fetch_add(1, Ordering::SeqCst);
        })
        .on_eos(move |_: Option<&http::HeaderMap>, _, _: &tracing::Span| {
            end.fetch_add(1, Ordering::SeqCst);
        });
    let service = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
        .layer(DecompressionLayer::new())
        .layer(FollowRedirectLayer::new())
        .layer(RetryPolicy::default())
        .layer(trace)
        .layer(SetSensitiveResponseHeadersLayer::new([SET_COOKIE]))
        .service(pool.clone());

    let request = |path: &str| {
        Request::get(format!("{}{path}", server.uri()))
            .header(AUTHORIZATION, "Bearer secret")
            .body(Full::<Bytes>::default())
            .unwrap()
    };
    let response = within("the poem", service.clone().oneshot(request("/moved")))
        .await
        .unwrap();
    assert_eq!(
        (response.status(), response.version()),
        (StatusCode::OK, Version::HTTP_2)
    );
    assert!(
        response.headers().get(CONTENT_ENCODING).is_none(),
        "it was decoded"
    );
    let RequestUri(uri) = response.extensions().get().unwrap();
    assert_eq!(uri.path(), "/poem");
    assert!(response.extensions().get::<ConnectionInfo>().unwrap().is_reused());
    let body = within("all of it", response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    assert!(body == poem());
    assert_eq!(
        attempts.load(Ordering::SeqCst),
        2,
        "the redirect, and where it led"
    );
    // Without the layers, what came is what the server said.
    let plain = within("the redirect", pool.request(request("/moved")))
        .await
        .unwrap();
    assert_eq!(plain.status(), StatusCode::FOUND);
    assert_eq!(plain.headers()[LOCATION], "/poem");
    // A loop ends, with the last redirect.
    let looped = within("the last one", service.oneshot(request("/loop")))
        .await
        .unwrap();
    assert_eq!(looped.status(), StatusCode::FOUND);
    assert_eq!((server.connections(), pool.stats().streams), (1, 0));
}
