//! `RetryPolicy` as a layer, and the service it makes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, ServiceExt};
use tower_layer::Layer;
use tower_service::Service;

use super::body::ReplayBody;
use super::future::RetryFuture;
use super::job::Job;
use super::policy::RetryPolicy;

/// A service that sends requests again as its [`RetryPolicy`] says.
///
/// It takes `Request<B>` for any body, and hands `Request<ReplayBody<B>>` to the service below, which has to be `Clone`
/// (every attempt polls its own instance ready; tower's `buffer` makes a service of any other kind `Clone`). Its error is
/// [`BoxError`]: from `call`, a [`RetryError`](super::RetryError) around the last attempt's; from `poll_ready`, where there
/// is no request yet, the error of the service below as it is.
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

    /// Sends one request: [`oneshot`](tower::ServiceExt::oneshot) on a clone, as a boxed future that does not name the
    /// body's type.
    ///
    /// For async blocks that are spawned with a body whose error is a `Box<dyn Error + Send + Sync>`. Where the block holds
    /// a future that names such a body, as `oneshot` of any tower service does, the compiler cannot see that the block is
    /// `Send` ("implementation of `From` is not general enough").
    ///
    /// # Errors
    /// A [`RetryError`](super::RetryError) around the last attempt's; or, where the service below is no longer usable before
    /// the first attempt (its `poll_ready` fails), that error as it is.
    ///
    /// # Cancel safety
    /// Dropped at any point, it ends the attempt in flight and sends nothing more.
    ///
    /// ```no_run
    /// use bytes::Bytes;
    /// use h2pool::retry::{Retry, RetryPolicy};
    /// use http_body_util::combinators::BoxBody;
    /// use tower::BoxError;
    ///
    /// # fn send(request: http::Request<BoxBody<Bytes, BoxError>>) -> Result<(), BoxError> {
    /// let client = Retry::new(RetryPolicy::default(), h2pool::H2Pool::new()?);
    /// tokio::spawn(async move {
    ///     let response = client.request(request).await?;
    ///     println!("{}", response.status());
    ///     Ok::<_, BoxError>(())
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn request<B, R>(
        &self,
        request: Request<B>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<R>, BoxError>> + Send>>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body + Send + 'static,
        R: Body + Send + 'static,
    {
        Box::pin(self.clone().oneshot(request))
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
