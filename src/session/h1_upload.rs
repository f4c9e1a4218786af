//! A request body in hyper's hands.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::h1::H1Control;
use super::outgoing::Outgoing;
use super::upload::wrong_length;
use crate::error::{Error, Kind};

/// Frames without bytes that are passed over in one poll. hyper would ask for the next one for ever.
const TURN: usize = 128;

type Step = Poll<Option<Result<Frame<Bytes>, Error>>>;

/// The body that hyper polls. hyper drops it when it has all of it.
pub(super) struct Upload {
    body: Option<Outgoing>,
    /// Bytes still to come, where `content-length` says. hyper sends no more than these, whatever comes.
    left: Option<u64>,
    progress: Arc<Progress>,
}

/// What the request's other parts see of the upload.
pub(super) struct Progress {
    control: Arc<H1Control>,
    over: AtomicBool,
    /// How often hyper had written all that it had by then.
    over_at: AtomicU64,
    failed: OnceLock<Error>,
}

impl Upload {
    /// `length` is what `content-length` says.
    pub(super) fn new(
        body: Option<Outgoing>,
        length: Option<u64>,
        control: Arc<H1Control>,
    ) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress {
            control,
            over: AtomicBool::new(false),
            over_at: AtomicU64::new(0),
            failed: OnceLock::new(),
        });
        (
            Self {
                body,
                left: length,
                progress: progress.clone(),
            },
            progress,
        )
    }

    /// Not more than was promised. hyper asks for nothing beyond it: what the body has at once is looked at here.
    fn keep_promise(&mut self, size: usize, step: Step, cx: &mut Context<'_>) -> Step {
        let (Some(left), Some(body)) = (&mut self.left, &mut self.body) else {
            return step;
        };
        let Some(rest) = left.checked_sub(size as u64) else {
            return Poll::Ready(Some(Err(wrong_length("longer"))));
        };
        *left = rest;
        if rest == 0 && size > 0 {
            for _ in 0..TURN {
                match body.poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                    Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                        return Poll::Ready(Some(Err(wrong_length("longer"))));
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                    _ => break,
                }
            }
        }
        step
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

    /// Ready once all of the request was written: hyper keeps much of it in a buffer.
    pub(super) fn poll_written(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.control.writing.register(cx.waker());
        if self.is_over() && self.control.flushes() > self.over_at.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The caller's body failed, and the connection ends with it.
    fn fail(&self, error: Error) {
        let _ = self.failed.set(error);
        self.control.set_given_up();
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
            let step = this.keep_promise(size.unwrap_or(0), step, cx);
            if let Poll::Ready(Some(Err(error))) = &step {
                this.progress.fail(error.clone());
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
            self.progress.fail(failed);
        }
        let flushes = self.progress.control.flushes();
        self.progress.over_at.store(flushes, Ordering::Release);
        self.progress.over.store(true, Ordering::Release);
    }
}
