//! An attempt and, perhaps, a hedge beside it.
//!
//! ```text
//! first ──────────────┬─ hedge_at ─────────────────────► answer ─┐
//!                     └─ (body recorded, budget) hedge ► answer ─┴─► the first response that would not be retried wins;
//!                                                                    an error, or one that would be, counts only when
//!                                                                    the other is over too
//! ```
//!
//! A response that would be retried if the other attempt were not the last one allowed is held in reserve: it is returned
//! should that one end with an error.
//!
//! Answers are looked at before the clock, so that one that is there at the very instant of a limit counts. All limits
//! share the caller's one timer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;
use tower_service::Service;

use super::attempt::Attempt;
use super::body::ReplayBody;
use super::clock;
use super::job::{Job, Judged};

pin_project! {
    pub(super) struct Race<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        first: Option<Attempt<S, B>>,
        hedge: Option<Pin<Box<Attempt<S, B>>>>,
        hedge_at: Option<Instant>,
        reserve: Option<Box<Judged<R>>>,
    }
}

impl<S, B, R> Race<S, B, R>
where
    S: Service<Request<ReplayBody<B>>>,
{
    pub(super) fn new(first: Attempt<S, B>, hedge_at: Option<Instant>) -> Self {
        Self {
            first: Some(first),
            hedge: None,
            hedge_at,
            reserve: None,
        }
    }
}

impl<S, B, R> Race<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    /// Ready with the end that counts, and the service for what may come after it.
    pub(super) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        job: &mut Job<B>,
        mut timer: Pin<&mut Option<Sleep>>,
    ) -> Poll<(Judged<R>, S)> {
        let mut now = None;
        loop {
            if let Poll::Ready(won) = self.as_mut().poll_answers(cx, job, now) {
                return Poll::Ready(won);
            }
            if now.is_some_and(|now| self.as_mut().hedge_if_due(job, now)) {
                continue;
            }
            let Some(due) = self.due() else {
                return Poll::Pending;
            };
            ready!(poll_until(timer.as_mut(), due, cx));
            now = Some(clock::now());
        }
    }

    fn poll_answers(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        job: &mut Job<B>,
        now: Option<Instant>,
    ) -> Poll<(Judged<R>, S)> {
        let mut this = self.project();
        if let Some(mut first) = this.first.as_mut().as_pin_mut() {
            let polled = first.as_mut().poll(cx, now);
            if first.as_mut().take_news() {
                job.sent();
            }
            if let Poll::Ready(end) = polled {
                let (service, number) = (first.service(), first.number());
                this.first.set(None);
                let alone = this.hedge.is_none();
                if let Some(counts) = job.weigh(end, number, alone, this.reserve) {
                    return Poll::Ready((counts, service));
                }
            }
        }
        if let Some(hedge) = this.hedge.as_mut() {
            let polled = hedge.as_mut().poll(cx, now);
            if hedge.as_mut().take_news() {
                job.sent();
            }
            if let Poll::Ready(end) = polled {
                let (service, number) = (hedge.service(), hedge.number());
                *this.hedge = None;
                let alone = this.first.is_none();
                if let Some(counts) = job.weigh(end, number, alone, this.reserve) {
                    return Poll::Ready((counts, service));
                }
            }
        }
        Poll::Pending
    }

    fn due(&self) -> Option<Instant> {
        let first = self.first.as_ref().and_then(Attempt::cut_at);
        let hedge = self.hedge.as_ref().and_then(|hedge| hedge.cut_at());
        [first, hedge, self.hedge_at].into_iter().flatten().min()
    }

    /// Once at most. True when there is a hedge now that wants to be polled.
    fn hedge_if_due(self: Pin<&mut Self>, job: &mut Job<B>, now: Instant) -> bool {
        let this = self.project();
        if this.hedge_at.is_none_or(|at| now < at) {
            return false;
        }
        *this.hedge_at = None;
        let Some(first) = this.first.as_ref().as_pin_ref() else {
            return false;
        };
        *this.hedge = job.hedge().map(|request| {
            Box::pin(Attempt::new(
                first.service(),
                request,
                job.number(),
                job.cut_at(now),
            ))
        });
        this.hedge.is_some()
    }
}

/// Waits on the one timer, which is set, or moved, as needed.
pub(super) fn poll_until(mut timer: Pin<&mut Option<Sleep>>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = timer.as_mut().as_pin_mut() {
        if sleep.deadline() != at {
            sleep.reset(at);
        }
    } else {
        timer.set(Some(sleep_until(at)));
    }
    match timer.as_pin_mut() {
        Some(sleep) => sleep.poll(cx),
        None => Poll::Pending,
    }
}
