//! The response body.

use std::fmt;
use std::pin::Pin;
#[cfg(feature = "http1")]
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;

#[cfg(feature = "http1")]
use super::h1_body::H1Body;
use super::h2_body::{H2Body, Length};
#[cfg(feature = "http1")]
use super::link::Address;
use super::tail::Upstream;
use crate::error::{BoxError, Error, Kind};
use crate::origin::Origin;

/// A response body, streamed: an [`http_body::Body`] of [`Bytes`], `Send`, `Sync` and `Unpin`.
///
/// Data is taken from the network as it is read; the server may be at most a window ahead. Dropped before its end, the
/// stream is reset and its window given back (over HTTP/1.1 the connection is closed). The slot of the request is free
/// as soon as the end was read.
///
/// # Errors
/// A frame is an [`Error`] whose [`is_body`](Error::is_body) is true when the stream was reset, the session ended or
/// `body_idle_timeout` passed before the body's end, and when the server sent so many small frames that nobody read that
/// they were a danger to the other streams.
///
/// # Cancel safety
/// Polling for frames is cancel safe: no data is lost.
///
/// ```
/// use http_body_util::BodyExt;
///
/// # async fn read(response: http::Response<h2pool::Body>) -> Result<(), h2pool::Error> {
/// let bytes = response.into_body().collect().await?.to_bytes();
/// # Ok(())
/// # }
/// ```
pub struct Body {
    kind: Inner,
}

enum Inner {
    Empty,
    H2(H2Body),
    #[cfg(feature = "http1")]
    H1(H1Body, Arc<Address>),
    /// The mutex makes it `Sync`, which many who box bodies ask for; nobody ever waits for it.
    Other(Mutex<UnsyncBoxBody<Bytes, Error>>),
}

impl Body {
    /// A body without any content.
    #[must_use]
    pub fn empty() -> Self {
        Self { kind: Inner::Empty }
    }

    /// A body of your own: for tests of what takes this crate's responses, and for services that answer some requests
    /// themselves.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::boxed(body.map_err(failed))
    }

    /// `uploads`: the request had a body.
    pub(super) fn h2(incoming: RecvStream, upstream: Upstream, uploads: bool, length: Length) -> Self {
        Self {
            kind: Inner::H2(H2Body::new(incoming, upstream, uploads, length)),
        }
    }

    #[cfg(feature = "http1")]
    pub(super) fn h1(body: H1Body, address: Arc<Address>) -> Self {
        Self {
            kind: Inner::H1(body, address),
        }
    }

    /// Somebody else's body, of a fallback service.
    pub(crate) fn other<B>(body: B, origin: Origin) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::boxed(body.map_err(move |error| failed(error).with_origin(&origin)))
    }

    fn boxed(body: impl http_body::Body<Data = Bytes, Error = Error> + Send + 'static) -> Self {
        Self {
            kind: Inner::Other(Mutex::new(body.boxed_unsync())),
        }
    }
}

/// The error of somebody else's body, which may well be one of a pool: then it is known what it means.
fn failed(error: impl Into<BoxError>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(ours) => ours.with_unprocessed(false).in_body(),
        Err(error) => Error::new(Kind::Body, "the response body failed")
            .with_source(error)
            .in_body(),
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.get_mut().kind {
            Inner::Empty => Poll::Ready(None),
            Inner::H2(body) => body.poll_frame(cx),
            #[cfg(feature = "http1")]
            Inner::H1(body, address) => body
                .poll_frame(cx)
                .map_err(|error| error.with_origin(&address.origin)),
            Inner::Other(body) => Pin::new(body.get_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Inner::Empty => true,
            Inner::H2(body) => body.is_end_stream(),
            #[cfg(feature = "http1")]
            Inner::H1(body, _) => body.is_end_stream(),
            Inner::Other(body) => body.lock().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::H2(body) => body.size_hint(),
            #[cfg(feature = "http1")]
            Inner::H1(body, _) => body.size_hint(),
            Inner::Other(body) => body.lock().size_hint(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn error_of(error: BoxError) -> Error {
        let frames = stream::iter([Err::<Frame<Bytes>, _>(error)]);
        let read = Body::new(StreamBody::new(frames)).collect().now_or_never();
        read.unwrap().unwrap_err()
    }

    #[test]
    fn what_a_pool_says_of_a_body_stays_said_where_somebody_hands_it_on() {
        // P27, P41: a pool as another one's fallback, a 421 that is read ahead.
        let ours = error_of(Error::new(Kind::Reset, "reset").with_timeout().into());
        assert!(ours.is_body() && ours.is_reset() && ours.is_timeout());
        // A response had come.
        let late = error_of(Error::connect("refused").into());
        assert!(late.is_body() && late.is_connect() && !late.is_unprocessed());
        let other = error_of("broken".into());
        assert!(other.is_body() && !other.is_unprocessed());
        assert_eq!(std::error::Error::source(&other).unwrap().to_string(), "broken");
    }
}
