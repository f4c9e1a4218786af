//! The future of one request: attempts, and what lies between them.
//!
//! ```text
//!              ┌──────────────────────────────────────────┐
//!              ▼                                          │
//!         Attempting ── to be retried ─► Draining ─► Waiting
//!              │                                          │
//!              └── to be returned ─► Done ◄── deadline ───┘
//! ```
//!
//! Between attempts the failed response is gone, and what is kept is the service, which holds no permit since it has been
//! called and not been polled ready again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower::BoxError;
use tower_service::Service;

use super::attempt::{Attempt, Fault};
use super::body::ReplayBody;
use super::clock;
use super::drain::Drains;
use super::job::{Job, Next};
use super::race::{Race, poll_until};

pin_project! {
    /// The future of [`Retry`](super::Retry). It belongs to the tokio runtime that polls it first, since its timers do.
    ///
    /// # Cancel safety
    /// Dropping it at any point ends the attempt in flight, sends nothing more, and holds nothing.
    #[must_use = "futures do nothing unless polled"]
    pub struct RetryFuture<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        job: Job<B>,
        // Between attempts.
        service: Option<S>,
        #[pin]
        state: State<S, B, R>,
        #[pin]
        timer: Option<Sleep>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, R>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        Attempting { #[pin] race: Race<S, B, R> },
        Draining { drains: Drains<R>, retry_at: Instant },
        Waiting { retry_at: Instant },
        Done,
    }
}

impl<S, B, R> RetryFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>>,
{
    /// `service` has been called with the job's first request, which gave `response`.
    pub(super) fn new(job: Job<B>, service: S, response: S::Future) -> Self {
        let cut_at = job.cut_at(clock::now());
        let first = Attempt::called(service, response, job.number(), cut_at);
        let race = Race::new(first, job.hedge_at());
        Self {
            job,
            service: None,
            state: State::Attempting { race },
            timer: None,
        }
    }
}

impl<S, B, R> Future for RetryFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Attempting { race } => {
                    let (judged, service, drains) = ready!(race.poll(cx, this.job, this.timer.as_mut()));
                    // The attempt's future goes before anything else is done: it may hold a permit.
                    this.state.set(State::Done);
                    *this.service = Some(service);
                    this.job.settle(judged, drains)
                }
                StateProj::Draining { drains, retry_at } => {
                    while let (Poll::Pending, Some(until)) = (drains.poll(cx), drains.until()) {
                        ready!(poll_until(this.timer.as_mut(), until, cx));
                        drains.expire(clock::now());
                    }
                    let retry_at = *retry_at;
                    this.state.set(State::Waiting { retry_at });
                    continue;
                }
                StateProj::Waiting { retry_at } => {
                    ready!(poll_until(this.timer.as_mut(), *retry_at, cx));
                    this.state.set(State::Done);
                    let now = clock::now();
                    match this.service.take().filter(|_| !this.job.is_past_deadline(now)) {
                        Some(service) => {
                            let request = this.job.request();
                            let attempt =
                                Attempt::new(service, request, this.job.number(), this.job.cut_at(now));
                            let race = Race::new(attempt, None);
                            this.state.set(State::Attempting { race });
                            continue;
                        }
                        None => {
                            let late = this.job.judge(Err(Fault::Cut { sent: false }), this.job.number());
                            this.job.settle(late, Drains::new())
                        }
                    }
                }
                StateProj::Done => panic!("a future was polled after it had ended"),
            };
            match next {
                Next::Return(result) => {
                    *this.service = None;
                    return Poll::Ready(result);
                }
                Next::Retry { at, drains } => this.state.set(State::Draining { drains, retry_at: at }),
            }
        }
    }
}

impl<S, B, R> fmt::Debug for RetryFuture<S, B, R>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture")
            .field("attempt", &self.job.number())
            .finish_non_exhaustive()
    }
}
