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
//! should that one end with an error, or bring nothing for as long as the hedge's delay, at least a second. A hedge that
//! has not been sent when the first attempt ends is withdrawn.
//!
//! Answers are looked at before the clock, so that one that is there at the very instant of a limit counts. All limits
//! share the caller's one timer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;
use tower_service::Service;

use super::attempt::Attempt;
use super::body::ReplayBody;
use super::clock;
use super::drain::Drains;
use super::job::{Aside, Job, Judged};

pin_project! {
    pub(super) struct Race<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        first: Option<Attempt<S, B>>,
        hedge: Option<Pin<Box<Attempt<S, B>>>>,
        hedge_at: Option<Instant>,
        aside: Aside<R>,
    }
}

/// The end that counts, the service for what may come after it, and what is still to be read of other responses.
type Won<S, R> = (Judged<R>, S, Drains<R>);

impl<S, B, R> Race<S, B, R>
where
    S: Service<Request<ReplayBody<B>>>,
{
    pub(super) fn new(first: Attempt<S, B>, hedge_at: Option<Instant>) -> Self {
        Self {
            first: Some(first),
            hedge: None,
            hedge_at,
            aside: Aside::new(),
        }
    }
}

impl<S, B, R> Race<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    /// Ready with the end that counts.
    pub(super) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        job: &mut Job<B>,
        mut timer: Pin<&mut Option<Sleep>>,
    ) -> Poll<Won<S, R>> {
        let mut now = None;
        loop {
            if let Poll::Ready(won) = self.as_mut().poll_answers(cx, job, now) {
                return Poll::Ready(won);
            }
            if let Some(won) = now.and_then(|now| self.as_mut().overdue(now)) {
                return Poll::Ready(won);
            }
            if now.is_some_and(|now| self.as_mut().hedge_if_due(job, now)) {
                continue;
            }
            let Some(due) = self.due() else {
                return Poll::Pending;
            };
            ready!(poll_until(timer.as_mut(), due, cx));
            let reached = clock::now();
            self.as_mut().project().aside.drains.expire(reached);
            now = Some(reached);
        }
    }

    fn poll_answers(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        job: &mut Job<B>,
        now: Option<Instant>,
    ) -> Poll<Won<S, R>> {
        let mut this = self.project();
        if let Some(mut first) = this.first.as_mut().as_pin_mut() {
            let polled = first.as_mut().poll(cx, now);
            if first.as_mut().take_news() {
                job.sent();
            }
            if let Poll::Ready(end) = polled {
                let (service, number) = (first.service(), first.number());
                this.first.set(None);
                // One that still waits for room is withdrawn: sent now it would be a retry without a delay.
                if this.hedge.take_if(|hedge| !hedge.is_called()).is_some() {
                    job.withdraw();
                }
                let alone = this.hedge.is_none();
                if let Some(counts) = job.weigh(end, number, alone, this.aside) {
                    return Poll::Ready((counts, service, this.aside.drains.take()));
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
                if let Some(counts) = job.weigh(end, number, alone, this.aside) {
                    return Poll::Ready((counts, service, this.aside.drains.take()));
                }
            }
        }
        // Read beside the attempt that goes on.
        let _drained = this.aside.drains.poll(cx);
        Poll::Pending
    }

    fn due(&self) -> Option<Instant> {
        let first = self.first.as_ref().and_then(Attempt::cut_at);
        let hedge = self.hedge.as_ref().and_then(|hedge| hedge.cut_at());
        let dues = [
            first,
            hedge,
            self.hedge_at,
            self.aside.drains.until(),
            self.aside.reserve_until(),
        ];
        dues.into_iter().flatten().min()
    }

    /// The answer in reserve, where the other attempt has brought nothing for too long.
    fn overdue(self: Pin<&mut Self>, now: Instant) -> Option<Won<S, R>> {
        let this = self.project();
        let judged = this.aside.overdue(now)?;
        let first = this.first.as_ref().as_pin_ref().map(|first| first.service());
        let service = first.or_else(|| this.hedge.as_ref().map(|hedge| hedge.service()))?;
        Some((judged, service, this.aside.drains.take()))
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
