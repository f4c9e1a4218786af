//! Servers for the tests, and waiting without sleeping.

pub(crate) mod certs;
pub(crate) mod endpoint;
pub(crate) mod proxy;
pub(crate) mod sums;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use h2pool::{Body, Origin};
use http::Response;
use http_body_util::BodyExt;

/// Awaits what must happen, and fails the test by name when it does not.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen in time: {what}"),
    }
}

/// Waits until something that no event tells is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    within(what, async {
        while !so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) fn origin(text: &str) -> Origin {
    text.parse().unwrap()
}

/// The whole of a response's body, boxed on the way as most servers and clients want bodies: `Send` and `Sync`.
pub(crate) async fn text(response: Response<Body>) -> Bytes {
    within("the body", response.into_body().boxed().collect())
        .await
        .unwrap()
        .to_bytes()
}
