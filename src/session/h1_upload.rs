//! A request body in hyper's hands.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

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
    /// Boxed: hyper keeps room for many requests on each connection.
    body: Option<Box<Outgoing>>,
    /// Bytes still to come, where `content-length` says. hyper sends no more than these, whatever comes.
    left: Option<u64>,
    /// Trailers that were found when it was looked whether more comes.
    trailers: Option<Box<Frame<Bytes>>>,
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
                body: body.map(Box::new),
                left: length,
                trailers: None,
                progress: progress.clone(),
            },
            progress,
        )
    }

    /// The next frame that hyper is given.
    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        let step = ready!(self.next(cx));
        self.keep_promise(step, cx)
    }

    /// The next frame with something in it.
    fn next(&mut self, cx: &mut Context<'_>) -> Step {
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(*trailers)));
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        // The head is on its way: nothing of this will be sent again.
        body.let_go();
        for _ in 0..TURN {
            match ready!(body.poll_frame(cx)) {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                step => return Poll::Ready(step),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Not more than was promised, and not less.
    fn keep_promise(&mut self, step: Option<Result<Frame<Bytes>, Error>>, cx: &mut Context<'_>) -> Step {
        let (Some(left), None | Some(Ok(_))) = (&mut self.left, &step) else {
            return Poll::Ready(step);
        };
        let data = step.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        let Some(size) = data.map(Bytes::len) else {
            let short = (*left > 0).then(|| Err(wrong_length("shorter")));
            return Poll::Ready(short.or(step));
        };
        let Some(rest) = left.checked_sub(size as u64) else {
            return Poll::Ready(Some(Err(wrong_length("longer"))));
        };
        *left = rest;
        if rest == 0 {
            // hyper may ask for nothing beyond it: what comes at once is looked at here.
            match self.next(cx) {
                Poll::Ready(Some(Ok(more))) if more.is_data() => {
                    return Poll::Ready(Some(Err(wrong_length("longer"))));
                }
                Poll::Ready(Some(Ok(trailers))) => self.trailers = Some(Box::new(trailers)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        Poll::Ready(step)
    }

    /// The body again, of a request that was not sent.
    pub(super) fn take(&mut self) -> Option<Outgoing> {
        let mut body = self.body.take()?;
        body.rewind();
        Some(*body)
    }
}

impl Progress {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whether all of the request was written: hyper keeps much of it in a buffer. Whoever watches the session is woken
    /// when it was.
    pub(super) fn is_written(&self) -> bool {
        self.is_over() && self.control.flushes() > self.over_at.load(Ordering::Acquire)
    }

    /// The caller's body failed, and the connection ends with it.
    fn fail(&self, error: Error) {
        let _ = self.failed.set(error);
        self.control.set_given_up();
    }

    /// What the caller's body said. Where it panicked, in the session's task, the caller is to hear of it, too.
    fn survived<T>(&self, said: std::thread::Result<T>) -> T {
        said.unwrap_or_else(|panic| {
            self.fail(Error::new(Kind::Body, "the request body panicked"));
            resume_unwind(panic)
        })
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
        let step = catch_unwind(AssertUnwindSafe(|| this.step(cx)));
        let step = ready!(this.progress.survived(step));
        if let Some(Err(error)) = &step {
            this.progress.fail(error.clone());
        }
        Poll::Ready(step)
    }

    fn is_end_stream(&self) -> bool {
        let body = || self.body.as_ref().is_none_or(|body| body.is_end_stream());
        self.trailers.is_none() && self.progress.survived(catch_unwind(AssertUnwindSafe(body)))
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.as_ref().map_or(Some(0), |body| body.exact_size()) {
            Some(size) => SizeHint::with_exact(size),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let flushes = self.progress.control.flushes();
        self.progress.over_at.store(flushes, Ordering::Release);
        self.progress.over.store(true, Ordering::Release);
    }
}
