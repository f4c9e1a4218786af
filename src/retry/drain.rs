//! Reading the rest of failed responses, within bounds, so that an HTTP/1.1 connection under them stays usable (and an
//! HTTP/2 stream ends without a reset). What is larger or slower is dropped.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http_body::Body;
use tokio::time::Instant;

/// The longest time for it.
const TIME: Duration = Duration::from_millis(100);

/// The most bytes that are read.
const LIMIT: usize = 64 * 1024;

/// What every frame costs at least, so that empty ones come to an end too.
const FRAME: usize = 64;

/// Failed responses that are being read to their ends: one, or two where a request was hedged.
pub(super) struct Drains<R>(Vec<Drain<R>>);

struct Drain<R> {
    body: Pin<Box<R>>,
    left: usize,
    until: Instant,
}

impl<R> Drains<R> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Hands them to whoever reads on.
    pub(super) fn take(&mut self) -> Self {
        Self(std::mem::take(&mut self.0))
    }

    /// Until when something is read.
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.iter().map(|drain| drain.until).min()
    }

    /// Drops what is not read to its end by then.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|drain| drain.until > now);
    }

    /// Reads no longer than until `at`, where it would leave less time before the `deadline`, for what is to come then, than
    /// it may take itself.
    pub(super) fn make_way(&mut self, at: Instant, deadline: Instant) {
        for drain in &mut self.0 {
            if drain.until + TIME > deadline {
                drain.until = drain.until.min(at);
            }
        }
    }
}

impl<R: Body> Drains<R> {
    /// Takes a body in, unless there is nothing to read, or too much.
    pub(super) fn add(&mut self, body: R, now: Instant) {
        let too_much = body.size_hint().lower() > LIMIT as u64;
        if !body.is_end_stream() && !too_much {
            self.0.push(Drain {
                body: Box::pin(body),
                left: LIMIT,
                until: now + TIME,
            });
        }
    }

    /// Ready when nothing is left to be read.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.retain_mut(|drain| drain.poll(cx).is_pending());
        match self.0.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl<R: Body> Drain<R> {
    /// Ready when the body has ended, failed, or turned out too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Ok(frame)) = ready!(self.body.as_mut().poll_frame(cx)) {
            let size = frame.data_ref().map_or(0, Buf::remaining).max(FRAME);
            match self.left.checked_sub(size) {
                Some(left) => self.left = left,
                None => break,
            }
        }
        Poll::Ready(())
    }
}
