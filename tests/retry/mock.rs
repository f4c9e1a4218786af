//! A service by script that notes when and how it was called, and panics when it is called without being polled ready.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2pool::retry::{ReplayBody, Retry, RetryPolicy};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, Service, ServiceExt};

pub(crate) type Body = Full<Bytes>;
pub(crate) type Answer = Result<Response<Body>, BoxError>;
type Script =
    dyn Fn(u32, Request<ReplayBody<Body>>) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

/// What a call looked like when it came.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Duration,
    pub(crate) headers: HeaderMap,
}

/// Clones share the script and the notes, but not readiness.
pub(crate) struct Server {
    script: Arc<Script>,
    calls: Arc<Mutex<Vec<Call>>>,
    started: Instant,
    ready: bool,
}

impl Server {
    /// `script` gets the number of the call, from 1.
    pub(crate) fn new<F>(script: impl Fn(u32, Request<ReplayBody<Body>>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self {
            script: Arc::new(move |number, request| Box::pin(script(number, request))),
            calls: Arc::default(),
            started: now(),
            ready: false,
        }
    }

    /// Answers with these statuses, one after the other, and with 200 from then on.
    pub(crate) fn statuses(statuses: &[u16]) -> Self {
        let statuses = statuses.to_vec();
        Self::new(move |number, _| {
            let status = statuses.get(number as usize - 1).copied().unwrap_or(200);
            async move { Ok(answer(status)) }
        })
    }

    /// Always this status, with this header.
    pub(crate) fn with_header(status: u16, name: &'static str, value: &str) -> Self {
        let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        Self::new(move |_, _| {
            let mut response = answer(status);
            response.headers_mut().insert(name, value.clone());
            async move { Ok(response) }
        })
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.calls.lock().len()
    }

    /// When the calls came, in milliseconds since the server was made.
    pub(crate) fn times(&self) -> Vec<u128> {
        self.calls.lock().iter().map(|call| call.at.as_millis()).collect()
    }

    pub(crate) async fn ask(&self, policy: &RetryPolicy, request: Request<Body>) -> Answer {
        policy.layer(self.clone()).oneshot(request).await
    }

    pub(crate) fn under(&self, policy: &RetryPolicy) -> Retry<Self> {
        policy.layer(self.clone())
    }
}

impl Clone for Server {
    fn clone(&self) -> Self {
        Self {
            script: self.script.clone(),
            calls: self.calls.clone(),
            started: self.started,
            ready: false,
        }
    }
}

impl Service<Request<ReplayBody<Body>>> for Server {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReplayBody<Body>>) -> Self::Future {
        // R11
        assert!(
            std::mem::take(&mut self.ready),
            "called without fresh readiness on this instance"
        );
        let number = {
            let mut calls = self.calls.lock();
            calls.push(Call {
                at: now() - self.started,
                headers: request.headers().clone(),
            });
            calls.len()
        };
        (self.script)(u32::try_from(number).unwrap(), request)
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests' own clock, paused")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn answer(status: u16) -> Response<Body> {
    Response::builder()
        .status(status)
        .body(Body::from("answer"))
        .unwrap()
}

pub(crate) fn request(method: Method, body: &'static str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri("https://a.example/x")
        .body(Body::from(body))
        .unwrap()
}

pub(crate) fn get() -> Request<Body> {
    request(Method::GET, "")
}

pub(crate) fn post() -> Request<Body> {
    request(Method::POST, "order")
}

/// The whole body of a request.
pub(crate) async fn read(request: Request<ReplayBody<Body>>) -> Bytes {
    request.into_body().collect().await.unwrap().to_bytes()
}

/// Always the longest delay of the back-off, so that times are known.
pub(crate) fn steady() -> RetryPolicy {
    RetryPolicy::default().random(|| 1.0)
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) async fn pause(n: u64) {
    sleep(millis(n)).await;
}

pub(crate) fn reset() -> BoxError {
    std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
}

/// Counts what is alive: a guard to be held by a future.
#[derive(Clone, Default)]
pub(crate) struct Alive(Arc<()>);

impl Alive {
    pub(crate) fn guard(&self) -> Self {
        self.clone()
    }

    pub(crate) fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}
