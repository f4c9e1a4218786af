//! The pool as a `tower::Service` of requests.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{Method, Request, Response, Uri};
use tower_service::Service;

use super::H2Pool;
use super::request::{Exchange, Ticket};
use super::running::Running;
use crate::error::{BoxError, Error};
use crate::origin::{Key, Origin};
use crate::session::{Body, unusable};

/// The response to come. Dropped, the request is cancelled: it leaves the queue, or its stream is reset.
#[must_use = "a future does nothing unless it is awaited"]
pub struct ResponseFuture {
    inner: BoxFuture<'static, Result<Response<Body>, Error>>,
}

impl ResponseFuture {
    pub(super) fn new(future: impl Future<Output = Result<Response<Body>, Error>> + Send + 'static) -> Self {
        Self {
            inner: Box::pin(future),
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<O, B> Service<Request<B>> for H2Pool<O>
where
    O: Key,
    B: http_body::Body + Send + 'static,
    B::Data: Buf + Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    /// Ready unless the pool is closed: which origin a request goes to, only the request tells.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_closed() {
            Poll::Ready(Err(super::core::closed()))
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        self.request(request)
    }
}

impl<O: Key> H2Pool<O> {
    /// Sends a request to the origin of its URI and returns the response once its headers are here.
    ///
    /// The URI is absolute (`https://example.com/path`). 3xx responses, cookies and encodings are returned as they are.
    /// Trailers of the request are sent as they come over HTTP/2; over HTTP/1.1 those that its `trailer` header names
    /// (RFC 9110 §6.6.2).
    ///
    /// Unlike that of `oneshot`, the future does not name the body's type: it can be awaited in a block that is spawned
    /// also where the body's error is a `Box<dyn Error + Send + Sync>`.
    ///
    /// # Errors
    /// See [`Error`]'s predicates. [`is_unprocessed`](Error::is_unprocessed) tells whether it is safe to send again.
    ///
    /// # Cancel safety
    /// Dropped, the request leaves the queue at once, or its stream is reset.
    ///
    /// ```no_run
    /// use http_body_util::{BodyExt, Full};
    ///
    /// # async fn send() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = h2pool::H2Pool::new()?;
    /// let request = http::Request::post("https://example.com/things").body(Full::<bytes::Bytes>::from("a thing"))?;
    /// let response = pool.request(request).await?;
    /// println!("{}: {} bytes", response.status(), response.into_body().collect().await?.to_bytes().len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn request<B>(&self, request: Request<B>) -> ResponseFuture
    where
        B: http_body::Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<BoxError>,
    {
        match self.exchange(request) {
            Ok(exchange) => ResponseFuture::new(Running::new(exchange, Ticket::Nothing)),
            Err(error) => ResponseFuture::new(std::future::ready(Err(error))),
        }
    }

    /// What `tower::ServiceExt::ready` does, without naming the type of the body. Never waits: which origin a request goes to,
    /// only the request tells.
    ///
    /// # Errors
    /// Only once the handle is closed; its `is_closed()` is true.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ready(&mut self) -> Result<&mut Self, Error> {
        if self.is_closed() {
            return Err(super::core::closed());
        }
        Ok(self)
    }

    fn exchange<B>(&self, request: Request<B>) -> Result<Exchange<O>, Error>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let key = O::from_parts(&parts)?;
        let entry = self.lifeline.entry(&key)?;
        Exchange::new(self.lifeline.clone(), entry, parts, body)
    }
}

/// Makes sure that the URI names scheme and authority: a path alone gets the origin's.
pub(super) fn complete(parts: &mut Parts, origin: &Origin) -> Result<(), Error> {
    if parts.uri.authority().is_some() && (parts.uri.scheme().is_some() || parts.method == Method::CONNECT) {
        return Ok(());
    }
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    let home = origin.uri().into_parts();
    uri.scheme = uri.scheme.or(home.scheme);
    uri.authority = uri.authority.or(home.authority);
    uri.path_and_query = uri.path_and_query.or(home.path_and_query);
    parts.uri = Uri::from_parts(uri).map_err(unusable)?;
    Ok(())
}
