//! The caller's own service for origins that speak only HTTP/1.1 (P27).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tower::ServiceExt;
use tower_service::Service;

use crate::connect::refused_certificate;
use crate::error::{BoxError, Error, Kind};
use crate::origin::Origin;
use crate::retry::classify::is_in_doubt;
use crate::session::{Body, Outgoing};

/// A fallback service whose type is forgotten.
#[derive(Clone)]
pub(crate) struct Fallback(Arc<dyn Fn(Request<RequestBody>, Origin) -> Answer + Send + Sync>);

type Answer = BoxFuture<'static, Result<Response<Body>, Error>>;

impl Fallback {
    pub(crate) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Arc::new(move |request, origin| {
            let service = service.clone();
            Box::pin(async move {
                let response = service.oneshot(request).await;
                let response = response.map_err(|error| failed(error.into()))?;
                Ok(response.map(|body| Body::other(body, origin)))
            })
        }))
    }

    /// The answer to a request for this origin.
    pub(super) fn call(&self, request: Request<RequestBody>, origin: &Origin) -> Answer {
        (self.0)(request, origin.clone())
    }
}

/// What a fallback failed with: where it had no connection, nothing was sent (P22), unless it had tried before.
fn failed(error: BoxError) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(ours) => return *ours,
        Err(error) => error,
    };
    let kind = if !never_connected(error.as_ref()) {
        Kind::Io
    } else if refused_certificate(error.as_ref()).is_some() {
        Kind::Certificate
    } else {
        Kind::Connect
    };
    let in_doubt = is_in_doubt(error.as_ref());
    let failed = Error::new(kind, "the fallback service failed").with_source(error);
    match in_doubt {
        true => failed.with_unprocessed(false),
        false => failed,
    }
}

/// Whether a client of hyper-util's, or one around it, found no connection.
#[cfg(all(feature = "tcp", feature = "http1"))]
fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .find_map(|error| error.downcast_ref::<hyper_util::client::legacy::Error>())
        .is_some_and(hyper_util::client::legacy::Error::is_connect)
}

#[cfg(not(all(feature = "tcp", feature = "http1")))]
fn never_connected(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}

/// The body of a request on its way to a [`fallback`](crate::Builder::fallback) service. `Send`, `Sync` and `Unpin`.
// The mutex makes it `Sync`, which many clients ask for; nobody ever waits for it.
pub struct RequestBody(Option<Mutex<Outgoing>>);

impl RequestBody {
    pub(super) fn new(body: Option<Outgoing>) -> Self {
        Self(body.map(Mutex::new))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Some(body) => body.get_mut().poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.lock().is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(body) => body
                .lock()
                .exact_size()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            None => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}
