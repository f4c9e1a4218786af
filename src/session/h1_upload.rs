//! A request body in hyper's hands.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};

use super::outgoing::Outgoing;
use super::upload::wrong_length;
use crate::error::{Error, Kind};

/// Frames without bytes that are passed over in one poll. hyper would ask for the next one for ever.
const TURN: usize = 128;

type Step = Poll<Option<Result<Frame<Bytes>, Error>>>;

/// The body that hyper polls. hyper drops it when the request half is over.
pub(super) struct Upload {
    body: Option<Outgoing>,
    /// Bytes still to come, where `content-length` says. hyper sends no more than these, whatever comes.
    left: Option<u64>,
    progress: Arc<Progress>,
}

/// What the request's other parts see of the upload.
#[derive(Default)]
pub(super) struct Progress {
    over: AtomicBool,
    waker: AtomicWaker,
    failed: OnceLock<Error>,
}

impl Upload {
    /// `length` is what `content-length` says.
    pub(super) fn new(body: Option<Outgoing>, length: Option<u64>) -> (Self, Arc<Progress>) {
        let progress = Arc::<Progress>::default();
        (
            Self {
                body,
                left: length,
                progress: progress.clone(),
            },
            progress,
        )
    }

    /// Not more than was promised.
    fn keep_promise(&mut self, size: usize, step: Step) -> Step {
        let Some(left) = &mut self.left else {
            return step;
        };
        match left.checked_sub(size as u64) {
            Some(rest) => {
                *left = rest;
                step
            }
            None => Poll::Ready(Some(Err(wrong_length("longer")))),
        }
    }

    /// The body again, of a request that was not sent.
    pub(super) fn take(&mut self) -> Option<Outgoing> {
        let mut body = self.body.take()?;
        body.rewind();
        Some(body)
    }
}

impl Progress {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ready once the request half is over.
    pub(super) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_over() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The error of the caller's body.
    pub(super) fn failed(&self) -> Option<&Error> {
        self.failed.get()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Step {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        // The head is on its way: nothing of this will be sent again.
        body.let_go();
        for _ in 0..TURN {
            let step = body.poll_frame(cx);
            let size = match &step {
                Poll::Ready(Some(Ok(frame))) => frame.data_ref().map(Bytes::len),
                _ => None,
            };
            if size == Some(0) {
                continue;
            }
            let step = this.keep_promise(size.unwrap_or(0), step);
            if let Poll::Ready(Some(Err(error))) = &step {
                let _ = this.progress.failed.set(error.clone());
            }
            return step;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Outgoing::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.as_ref().map_or(Some(0), Outgoing::exact_size) {
            Some(size) => SizeHint::with_exact(size),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // In the session's task: the caller is to hear of it, too.
        if std::thread::panicking() {
            let failed = Error::new(Kind::Body, "the request body panicked");
            let _ = self.progress.failed.set(failed);
        }
        self.progress.over.store(true, Ordering::Release);
        self.progress.waker.wake();
    }
}
