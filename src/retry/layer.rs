//! `RetryPolicy` as a layer, and the service it makes.

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::body::ReplayBody;
use super::future::RetryFuture;
use super::job::Job;
use super::policy::RetryPolicy;

/// A service that sends requests again as its [`RetryPolicy`] says.
///
/// It takes `Request<B>` for any body, and hands `Request<ReplayBody<B>>` to the service below, which has to be `Clone`
/// (every attempt polls its own instance ready). Its error is [`BoxError`]: a [`RetryError`](super::RetryError) around the
/// last attempt's.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    policy: RetryPolicy,
}

impl<S> Retry<S> {
    /// What [`RetryPolicy`] does as a layer.
    pub fn new(policy: RetryPolicy, inner: S) -> Self {
        Self { inner, policy }
    }

    /// The service below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service below.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service below.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S> Layer<S> for RetryPolicy {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry::new(self.clone(), inner)
    }
}

impl<S, B, R> Service<Request<B>> for Retry<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body,
    R: Body,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = RetryFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> RetryFuture<S, B, R> {
        let mut job = Job::new(self.policy.clone(), request);
        // The instance that was polled ready is the one that is called; the clone takes its place.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let response = ready.call(job.request());
        RetryFuture::new(job, ready, response)
    }
}
