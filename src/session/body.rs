//! The response body.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::task::AbortHandle;

use super::bound::{Bound, idle_body};
use super::classify;
use super::exchange::Tail;
#[cfg(feature = "http1")]
use super::h1_body::H1Body;
use crate::error::{BoxError, Error, Kind};

/// A response body, streamed: an [`http_body::Body`] of [`Bytes`].
///
/// Data is taken from the network as it is read; the server may be at most a window ahead. Dropped before its end, the
/// stream is reset and its window given back (over HTTP/1.1 the connection is closed). The slot of the request is free
/// as soon as the end was read.
///
/// # Errors
/// A frame is an [`Error`] whose [`is_body`](Error::is_body) is true when the stream was reset, the session ended or
/// `body_idle_timeout` passed before the body's end.
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
    H1(H1Body),
    Other(UnsyncBoxBody<Bytes, Error>),
}

/// The request half beside a response.
pub(super) enum Upstream {
    /// It is over.
    Done(Tail),
    /// It goes on in a task.
    Running(Arc<Tail>, AbortHandle),
}

impl Upstream {
    fn tail(&self) -> &Tail {
        match self {
            Self::Done(tail) => tail,
            Self::Running(tail, _) => tail,
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Self::Running(_, task) = self {
            task.abort();
        }
    }
}

struct H2Body {
    // The order matters: h2 forgets the stream before the slot is free.
    incoming: Option<RecvStream>,
    upstream: Option<Upstream>,
    data_over: bool,
    /// Bytes still to come, where the server told.
    left: Option<u64>,
    idle: Bound,
}

impl Body {
    /// A body without any content.
    #[must_use]
    pub fn empty() -> Self {
        Self { kind: Inner::Empty }
    }

    /// `length` is what `content-length` said.
    pub(super) fn h2(
        incoming: RecvStream,
        upstream: Upstream,
        length: Option<u64>,
        idle_timeout: Option<Duration>,
    ) -> Self {
        let mut body = H2Body {
            incoming: Some(incoming),
            upstream: Some(upstream),
            data_over: false,
            left: length,
            idle: Bound::new(idle_timeout),
        };
        body.finish_if_over();
        Self {
            kind: Inner::H2(body),
        }
    }

    #[cfg(feature = "http1")]
    pub(super) fn h1(body: H1Body) -> Self {
        Self {
            kind: Inner::H1(body),
        }
    }

    /// Somebody else's body, of a fallback service.
    pub(crate) fn other<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let body =
            body.map_err(|error| Error::new(Kind::Body, "the response body failed").with_source(error));
        Self {
            kind: Inner::Other(body.boxed_unsync()),
        }
    }
}

impl H2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let step = if self.data_over {
            match incoming.poll_trailers(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(trailers)) => {
                    self.finish();
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Poll::Ready(Err(error)) => Poll::Ready(error),
            }
        } else {
            match incoming.poll_data(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => {
                    self.data_over = true;
                    return self.poll_frame(cx);
                }
                Poll::Ready(Some(Ok(data))) => return self.data(data, cx),
                Poll::Ready(Some(Err(error))) => Poll::Ready(error),
            }
        };
        match step {
            Poll::Pending => self.poll_idle(cx),
            Poll::Ready(error) => Poll::Ready(Some(Err(self.fail(error)))),
        }
    }

    fn data(&mut self, data: Bytes, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.idle.reset();
        if let (Some(incoming), Some(upstream)) = (&mut self.incoming, &self.upstream) {
            let tail = upstream.tail();
            // Fails only for a stream that is over, whose window nobody needs.
            let _ = incoming.flow_control().release_capacity(data.len());
            tail.session().control.meter.release(tail.id(), data.len() as u64);
        }
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        self.finish_if_over();
        if data.is_empty() {
            return self.poll_frame(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// The wait for the next frame is bounded.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.idle.poll(cx).map(|()| {
            self.finish();
            Some(Err(idle_body()))
        })
    }

    fn fail(&mut self, error: h2::Error) -> Error {
        let error = match &self.upstream {
            Some(upstream) => classify::in_body(&upstream.tail().session().control, error),
            None => Error::new(Kind::Body, "the response body failed").with_source(error),
        };
        self.finish();
        error
    }

    fn finish_if_over(&mut self) {
        if self.incoming.as_ref().is_some_and(RecvStream::is_end_stream) {
            self.data_over = true;
            self.finish();
        }
    }

    /// The response half is over: the slot is free, unless the request half goes on.
    fn finish(&mut self) {
        self.idle.reset();
        self.incoming = None;
        // An upload goes on until it is done or this body is dropped.
        let running = matches!(&self.upstream, Some(Upstream::Running(_, task)) if !task.is_finished());
        if !running {
            self.upstream = None;
        }
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
            Inner::H1(body) => body.poll_frame(cx),
            Inner::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Inner::Empty => true,
            Inner::H2(body) => body.incoming.is_none(),
            #[cfg(feature = "http1")]
            Inner::H1(body) => body.is_end_stream(),
            Inner::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::H2(body) => match (body.incoming.is_none(), body.left) {
                (true, _) => SizeHint::with_exact(0),
                (false, Some(left)) => SizeHint::with_exact(left),
                (false, None) => SizeHint::default(),
            },
            #[cfg(feature = "http1")]
            Inner::H1(body) => body.size_hint(),
            Inner::Other(body) => body.size_hint(),
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
