//! Reading the rest of a failed response, within bounds, so that an HTTP/1.1 connection under it stays usable (and an
//! HTTP/2 stream ends without a reset). What is larger or slower is dropped.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http_body::Body;
use pin_project_lite::pin_project;

/// The longest time for it.
pub(super) const TIME: Duration = Duration::from_millis(100);

/// The most bytes that are read.
const LIMIT: usize = 64 * 1024;

/// What every frame costs at least, so that empty ones come to an end too.
const FRAME: usize = 64;

pin_project! {
    pub(super) struct Drain<R> {
        #[pin]
        body: R,
        left: usize,
    }
}

impl<R: Body> Drain<R> {
    /// None where there is nothing to read, or too much.
    pub(super) fn new(body: R) -> Option<Self> {
        let too_much = body.size_hint().lower() > LIMIT as u64;
        (!body.is_end_stream() && !too_much).then_some(Self { body, left: LIMIT })
    }

    /// Ready when the body has ended, failed, or turned out too long.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        while let Some(Ok(frame)) = ready!(this.body.as_mut().poll_frame(cx)) {
            let size = frame.data_ref().map_or(0, Buf::remaining).max(FRAME);
            match this.left.checked_sub(size) {
                Some(left) => *this.left = left,
                None => break,
            }
        }
        Poll::Ready(())
    }
}
