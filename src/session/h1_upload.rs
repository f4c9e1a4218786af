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

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        // The head is on its way: nothing of this will be sent again.
        body.let_go();
        let mut step = body.poll_frame(cx);
        if let (Some(left), Poll::Ready(Some(Ok(frame)))) = (&mut this.left, &step) {
            let size = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(size) {
                Some(rest) => *left = rest,
                None => step = Poll::Ready(Some(Err(wrong_length("longer")))),
            }
        }
        if let Poll::Ready(Some(Err(error))) = &step {
            let _ = this.progress.failed.set(error.clone());
        }
        step
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
