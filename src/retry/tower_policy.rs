//! The part of `RetryPolicy` that fits `tower::retry::Policy`.

use std::error::Error as StdError;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower::BoxError;
use tower::retry::Policy;

use super::attempts::Attempts;
use super::body::ReplayBody;
use super::budget::{Token, is_free};
use super::clock;
use super::outcome::{Decision, Outcome, Stop};
use super::policy::RetryPolicy;
use crate::error::Error;

/// A [`tower::retry::Policy`] made by [`RetryPolicy::tower_policy`].
///
/// It decides as the policy does, with back-off, `Retry-After`, attempts, deadline and budget. What `tower::retry` cannot
/// do is left out: attempts are not cut at a time limit, failed responses are not drained before they are dropped, nothing
/// is hedged, no event is emitted, and an error does not tell the attempts made.
#[derive(Clone, Debug)]
pub struct TowerPolicy {
    policy: RetryPolicy,
    attempts: Attempts,
    free_replays: u32,
    started: Instant,
}

pin_project! {
    /// The delay before another attempt.
    #[derive(Debug)]
    pub struct Delay {
        #[pin]
        sleep: Sleep,
        token: Option<Token>,
    }
}

impl RetryPolicy {
    /// This policy for `tower::retry::RetryLayer`, as far as it fits there: see [`TowerPolicy`].
    ///
    /// It takes requests whose body is a [`ReplayBody`], and errors that are [`BoxError`] or [`Error`].
    ///
    /// ```
    /// use bytes::Bytes;
    /// use h2pool::retry::{ReplayBody, RetryPolicy};
    /// use http_body_util::Full;
    /// use tower::{BoxError, ServiceBuilder, service_fn};
    ///
    /// let service = ServiceBuilder::new()
    ///     .map_request(|request: http::Request<Full<Bytes>>| request.map(|body| ReplayBody::new(body, 65_536)))
    ///     .retry(RetryPolicy::default().tower_policy())
    ///     .service(service_fn(|_: http::Request<ReplayBody<Full<Bytes>>>| async {
    ///         Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default()))
    ///     }));
    /// # let _ = service;
    /// ```
    #[must_use]
    pub fn tower_policy(&self) -> TowerPolicy {
        TowerPolicy {
            policy: self.clone(),
            attempts: Attempts::new(),
            free_replays: 0,
            started: clock::now(),
        }
    }
}

impl TowerPolicy {
    /// `tower::retry` clones the request before each attempt, and then the policy once for each request.
    fn begin<B>(&mut self, request: &Request<ReplayBody<B>>) -> Request<ReplayBody<B>> {
        if self.attempts.count() == 0 {
            self.started = clock::now();
            if let Some(budget) = self.policy.shared_budget() {
                budget.deposit(request.uri());
            }
        }
        request.clone()
    }

    fn again<B>(&mut self, request: &mut Request<ReplayBody<B>>, outcome: &Outcome) -> Result<Delay, Stop> {
        self.attempts.begin();
        let elapsed = clock::now().saturating_duration_since(self.started);
        let limits = self
            .policy
            .limits(request.method(), request.headers(), request.extensions());
        match limits.decide(self.attempts.count(), elapsed, outcome, self.policy.draw()) {
            Decision::Stop(stop) => Err(stop),
            Decision::Retry { .. } if !request.body().is_replayable() => Err(Stop::Body),
            Decision::Retry { after } => {
                let token = self.afford(request, outcome)?;
                // The last attempt may still be sending, and may no longer lose the body.
                *request.body_mut() = request.body().promise().ok_or(Stop::Body)?;
                self.attempts.note(outcome);
                self.policy
                    .mark_retry(request.headers_mut(), self.attempts.count());
                Ok(Delay {
                    sleep: sleep(after),
                    token,
                })
            }
        }
    }

    /// What is paid for a retry, if it costs anything.
    fn afford<B>(&mut self, request: &Request<B>, outcome: &Outcome) -> Result<Option<Token>, Stop> {
        match self.policy.shared_budget() {
            Some(budget) if !is_free(outcome, &mut self.free_replays) => {
                budget.withdraw(request.uri()).map(Some).ok_or(Stop::Budget)
            }
            _ => Ok(None),
        }
    }

    fn after_response<B, R>(
        &mut self,
        request: &mut Request<ReplayBody<B>>,
        response: &mut Response<R>,
    ) -> Option<Delay> {
        let outcome = self.outcome(response);
        match self.again(request, &outcome) {
            Ok(delay) => Some(delay),
            Err(stop) => {
                let mut attempts = self.attempts.clone();
                attempts.end(stop, clock::now().saturating_duration_since(self.started));
                response.extensions_mut().insert(attempts);
                None
            }
        }
    }

    fn after_error<B>(
        &mut self,
        request: &mut Request<ReplayBody<B>>,
        error: &mut (dyn StdError + Send + Sync + 'static),
    ) -> Option<Delay> {
        let outcome = self.policy.outcome_of_error(error);
        let delay = self.again(request, &outcome).ok();
        if delay.is_none() {
            self.attempts.settle(error);
        }
        delay
    }

    /// The response is only lent, while the classifiers look at a head: it lends its parts to one.
    fn outcome<R>(&self, response: &mut Response<R>) -> Outcome {
        let (mut head, ()) = Response::new(()).into_parts();
        let swap = |response: &mut Response<R>, head: &mut http::response::Parts| {
            mem::swap(response.status_mut(), &mut head.status);
            mem::swap(response.version_mut(), &mut head.version);
            mem::swap(response.headers_mut(), &mut head.headers);
            mem::swap(response.extensions_mut(), &mut head.extensions);
        };
        swap(response, &mut head);
        let outcome = self.policy.outcome_of_response(&head);
        swap(response, &mut head);
        outcome
    }
}

impl<B, R> Policy<Request<ReplayBody<B>>, Response<R>, BoxError> for TowerPolicy {
    type Future = Delay;

    fn retry(
        &mut self,
        request: &mut Request<ReplayBody<B>>,
        result: &mut Result<Response<R>, BoxError>,
    ) -> Option<Delay> {
        match result {
            Ok(response) => self.after_response(request, response),
            Err(error) => self.after_error(request, &mut **error),
        }
    }

    fn clone_request(&mut self, request: &Request<ReplayBody<B>>) -> Option<Request<ReplayBody<B>>> {
        Some(self.begin(request))
    }
}

impl<B, R> Policy<Request<ReplayBody<B>>, Response<R>, Error> for TowerPolicy {
    type Future = Delay;

    fn retry(
        &mut self,
        request: &mut Request<ReplayBody<B>>,
        result: &mut Result<Response<R>, Error>,
    ) -> Option<Delay> {
        match result {
            Ok(response) => self.after_response(request, response),
            Err(error) => self.after_error(request, error),
        }
    }

    fn clone_request(&mut self, request: &Request<ReplayBody<B>>) -> Option<Request<ReplayBody<B>>> {
        Some(self.begin(request))
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        ready!(this.sleep.poll(cx));
        if let Some(token) = this.token.take() {
            token.spend();
        }
        Poll::Ready(())
    }
}
