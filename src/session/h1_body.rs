//! The body of a response over HTTP/1.1.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::h1::H1Control;
use super::h1_exchange::{Tail, describe};
use super::h1_upload::Progress;
use crate::error::{Error, Kind};

/// Read to its end, it hands the slot to the driver; dropped before, it closes the connection. So does one that is
/// dropped while the upload goes on.
pub(super) struct H1Body {
    // The order matters: hyper is to know that nobody reads before the slot comes back.
    incoming: Option<Incoming>,
    _uploading: Option<Uploading>,
    tail: Option<Tail>,
}

/// Dropped while the request half goes on, it ends the connection: also where hyper has all of the body in its buffer, and
/// the server takes no more of it.
struct Uploading {
    control: Arc<H1Control>,
    progress: Arc<Progress>,
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if !self.progress.is_written() {
            let message = "the response was dropped before the request body was sent";
            self.control.kill(Error::new(Kind::Io, message));
        }
    }
}

impl H1Body {
    pub(super) fn new(incoming: Incoming, tail: Tail) -> Self {
        let (control, progress) = (tail.control().clone(), tail.progress().clone());
        let mut body = Self {
            _uploading: (!progress.is_written()).then_some(Uploading { control, progress }),
            incoming: Some(incoming),
            tail: Some(tail),
        };
        body.finish_if_over();
        if let Some(tail) = &mut body.tail {
            tail.hold();
        }
        body
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        Poll::Ready(match ready!(Pin::new(incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(tail) = &self.tail {
                    tail.control().held.read();
                }
                if frame.is_trailers() {
                    self.finish();
                } else {
                    self.finish_if_over();
                }
                Some(Ok(frame))
            }
            None => {
                self.finish();
                None
            }
            Some(Err(error)) => {
                let error = match &self.tail {
                    Some(tail) => describe(tail, error),
                    None => Error::new(Kind::Body, "the response body failed").with_source(error),
                };
                self.finish();
                Some(Err(error.in_body()))
            }
        })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }

    fn finish_if_over(&mut self) {
        if self.incoming.as_ref().is_some_and(Incoming::is_end_stream) {
            self.finish();
        }
    }

    /// The response half is over. The request half may go on, as long as this body is held.
    fn finish(&mut self) {
        self.incoming = None;
        self.tail = None;
    }
}
