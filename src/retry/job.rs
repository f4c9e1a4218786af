//! What one request carries through its attempts, and what is made of each outcome. No waiting happens here.

use std::time::Duration;

use http::request;
use http::response;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::BoxError;

use super::attempt::{End, Fault};
use super::attempts::{Attempts, RetryError};
use super::body::ReplayBody;
use super::budget::{Token, is_free};
use super::clock;
use super::decide::Limits;
use super::drain::Drains;
use super::events::{Report, report};
use super::outcome::{Decision, Failure, Outcome, Reason, Stop, Verdict};
use super::policy::RetryPolicy;
use crate::error::{Error, Kind};

/// How long an answer is kept in reserve, at least.
const RESERVE: Duration = Duration::from_secs(1);

pub(super) struct Job<B> {
    policy: RetryPolicy,
    limits: Limits,
    head: request::Parts,
    /// Makes the readers that are sent, and is never read itself.
    body: ReplayBody<B>,
    /// The reader of the attempt that was decided on and has not been sent yet.
    promised: Option<ReplayBody<B>>,
    /// An attempt that ended while another ran beside it, and when.
    passed_over: Option<(Outcome, Instant)>,
    started: Instant,
    deadline: Option<Instant>,
    attempts: Attempts,
    free_replays: u32,
    /// Taken from the budget for an attempt with which the service has not been called yet.
    token: Option<Token>,
}

/// An end that has been judged.
pub(super) struct Judged<R> {
    result: Result<(response::Parts, R), BoxError>,
    outcome: Outcome,
    number: u32,
    at: Instant,
    /// Its time limit ended it.
    cut: bool,
}

/// Ends that do not count, or not yet, while another attempt runs.
pub(super) struct Aside<R> {
    reserve: Option<Reserve<R>>,
    /// The responses among those that never will.
    pub(super) drains: Drains<R>,
}

/// An answer, and until when the other attempt is waited for. Not for ever: the body that is kept here may hold the very
/// slot that the other one waits for.
struct Reserve<R> {
    judged: Box<Judged<R>>,
    until: Option<Instant>,
}

impl<R> Aside<R> {
    pub(super) fn new() -> Self {
        Self {
            reserve: None,
            drains: Drains::new(),
        }
    }

    /// When the answer in reserve has been kept for long enough.
    pub(super) fn reserve_until(&self) -> Option<Instant> {
        self.reserve.as_ref().and_then(|reserve| reserve.until)
    }

    /// The answer in reserve, from then on.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Judged<R>> {
        let is_overdue = |reserve: &mut Reserve<R>| reserve.until.is_some_and(|until| until <= now);
        Some(*self.reserve.take_if(is_overdue)?.judged)
    }
}

/// What an end is worth while another attempt still runs.
enum Standing {
    /// It is returned, and the other cancelled.
    Answer,
    /// It is returned should the other, which is the last one allowed, bring no response.
    Reserve,
    /// It does not count by itself.
    PassedOver,
}

/// What follows an outcome.
pub(super) enum Next<R> {
    Return(Result<Response<R>, BoxError>),
    /// Another attempt at this time, or as soon after it as failed responses have been drained.
    Retry {
        at: Instant,
        drains: Drains<R>,
    },
}

impl<B: Body> Job<B> {
    pub(super) fn new(policy: RetryPolicy, request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        let limits = policy.limits(&head.method, &head.headers, &head.extensions);
        if let Some(budget) = policy.shared_budget() {
            budget.deposit(&head.uri);
        }
        let started = clock::now();
        Self {
            body: ReplayBody::new(body, limits.replay_limit),
            promised: None,
            passed_over: None,
            deadline: limits.deadline.and_then(|deadline| started.checked_add(deadline)),
            policy,
            limits,
            head,
            started,
            attempts: Attempts::new(),
            free_replays: 0,
            token: None,
        }
    }
}

impl<B> Job<B> {
    /// The number of the attempt last sent.
    pub(super) fn number(&self) -> u32 {
        self.attempts.count()
    }

    /// The request for one more attempt, which is counted as begun.
    pub(super) fn request(&mut self) -> Request<ReplayBody<B>> {
        let mut head = self.head.clone();
        let before = self.attempts.count();
        if before > 0 {
            self.policy.mark_retry(&mut head.headers, before);
        }
        self.attempts.begin();
        let body = self.promised.take().unwrap_or_else(|| self.body.replay());
        Request::from_parts(head, body)
    }

    /// The request that was made last has not been sent, and is not going to be.
    pub(super) fn withdraw(&mut self) {
        self.attempts.withdraw();
    }

    /// The service was called: what was paid for it is spent.
    pub(super) fn sent(&mut self) {
        if let Some(token) = self.token.take() {
            token.spend();
        }
    }

    pub(super) fn is_past_deadline(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// When an attempt that starts now has to have its answer.
    pub(super) fn cut_at(&self, now: Instant) -> Option<Instant> {
        let alone = self
            .limits
            .attempt_timeout
            .and_then(|timeout| now.checked_add(timeout));
        alone.into_iter().chain(self.deadline).min()
    }

    /// When the first attempt is hedged, if it is.
    pub(super) fn hedge_at(&self) -> Option<Instant> {
        let delay = self.limits.hedge.filter(|_| self.limits.allows_another(1))?;
        self.started.checked_add(delay)
    }

    /// The request of a hedge, if the body is recorded whole and the budget allows it.
    pub(super) fn hedge(&mut self) -> Option<Request<ReplayBody<B>>> {
        (self.body.is_recorded() && self.pay()).then(|| self.request())
    }

    /// What an end comes to under the policy.
    pub(super) fn judge<R>(&self, end: End<R>, number: u32) -> Judged<R> {
        let cut = matches!(end, Err(Fault::Cut { .. }));
        let dead = matches!(end, Err(Fault::NotReady(_)));
        let result = end.map_err(|fault| self.error(fault));
        let outcome = match &result {
            Ok((head, _)) => self.policy.outcome_of_response(head),
            Err(_) if dead => Outcome::done().because(Reason::Failure(Failure::NotReady)),
            Err(error) => self.policy.outcome_of_error(&**error),
        };
        Judged {
            result,
            outcome,
            number,
            at: clock::now(),
            cut,
        }
    }

    /// What counts of an end, if anything does yet: `alone`, no other attempt runs beside it.
    pub(super) fn weigh<R: Body>(
        &mut self,
        end: End<R>,
        number: u32,
        alone: bool,
        aside: &mut Aside<R>,
    ) -> Option<Judged<R>> {
        let judged = self.judge(end, number);
        if alone {
            return Some(self.after_both(judged, aside));
        }
        match self.standing(&judged) {
            Standing::Answer => return Some(judged),
            Standing::Reserve => {
                let patience = self.limits.hedge.map_or(RESERVE, |hedge| hedge.max(RESERVE));
                aside.reserve = Some(Reserve {
                    until: judged.at.checked_add(patience),
                    judged: Box::new(judged),
                });
            }
            Standing::PassedOver => self.pass_over(judged, aside),
        }
        None
    }

    /// The last end counts, unless it is an error and there is a response in reserve.
    fn after_both<R: Body>(&mut self, judged: Judged<R>, aside: &mut Aside<R>) -> Judged<R> {
        let Some(Reserve { judged: reserve, .. }) = aside.reserve.take() else {
            return judged;
        };
        let (counts, other) = match judged.result {
            Ok(_) => (judged, *reserve),
            Err(_) => (*reserve, judged),
        };
        self.pass_over(other, aside);
        counts
    }

    /// An error is never an answer: the other attempt may fare better. Nor is a response that would be retried.
    fn standing<R>(&self, judged: &Judged<R>) -> Standing {
        if judged.result.is_err() {
            return Standing::PassedOver;
        }
        let elapsed = judged.at.saturating_duration_since(self.started);
        // What the shortest of all delays rules out after the first of all attempts is ruled out.
        match self.limits.decide(1, elapsed, &judged.outcome, 0.0) {
            Decision::Stop(_) => Standing::Answer,
            Decision::Retry { .. } if self.may_go_on(&judged.outcome) => Standing::PassedOver,
            Decision::Retry { .. } => Standing::Reserve,
        }
    }

    /// Whether the attempts and the budget allow another one, as things stand.
    fn may_go_on(&self, outcome: &Outcome) -> bool {
        let affordable = self.token.is_some()
            || is_free(outcome, &mut self.free_replays.clone())
            || self
                .policy
                .shared_budget()
                .is_none_or(|budget| budget.available(&self.head.uri) > 0);
        affordable && self.limits.allows_another(self.number())
    }

    /// An end that does not count by itself.
    fn pass_over<R: Body>(&mut self, judged: Judged<R>, aside: &mut Aside<R>) {
        self.report(&judged, None);
        self.attempts.note(&judged.outcome);
        self.passed_over = Some((judged.outcome, judged.at));
        if let Ok((_, body)) = judged.result {
            aside.drains.add(body, judged.at);
        }
    }

    /// Decides what follows an end, and reports both. `drains` is what is still to be read of other ends.
    pub(super) fn settle<R: Body>(&mut self, mut judged: Judged<R>, mut drains: Drains<R>) -> Next<R> {
        let now = clock::now();
        if let Some((other, at)) = self.passed_over.take().filter(|_| !judged.is_final()) {
            let since = now.saturating_duration_since(at);
            judged.outcome = judged.outcome.beside(&other, since);
        }
        let decision = self.decide(&judged, now);
        self.report(&judged, Some(decision));
        match decision {
            Decision::Retry { after } => {
                self.attempts.note(&judged.outcome);
                let at = now.checked_add(after).unwrap_or(now);
                if let Ok((_, body)) = judged.result {
                    drains.add(body, now);
                }
                // An attempt that the deadline allows is not put off beyond it, nor until there is no time for it.
                if let Some(deadline) = self.deadline {
                    drains.make_way(at, deadline);
                }
                Next::Retry { at, drains }
            }
            Decision::Stop(stop) => Next::Return(self.finish(judged.result, stop, now)),
        }
    }

    fn decide<R>(&mut self, judged: &Judged<R>, now: Instant) -> Decision {
        let outcome = &judged.outcome;
        if judged.cut && self.is_past_deadline(now) {
            return Decision::Stop(Stop::Deadline);
        }
        let random = match outcome.verdict() {
            Verdict::Final => 0.0,
            _ => self.policy.draw(),
        };
        let elapsed = now.saturating_duration_since(self.started);
        let decision = self
            .limits
            .decide(self.attempts.count(), elapsed, outcome, random);
        match decision {
            // Beyond what a clock can count, and so beyond any server's lifetime.
            Decision::Retry { after } if is_never(now, after) => Decision::Stop(match outcome.delay() {
                Some(asked) if is_never(now, asked) => Stop::RetryAfter,
                _ => Stop::Deadline,
            }),
            Decision::Retry { .. } if !self.body.is_replayable() => Decision::Stop(Stop::Body),
            Decision::Retry { .. } if !self.afford(outcome) => Decision::Stop(Stop::Budget),
            Decision::Retry { .. } if !self.promise_body() => Decision::Stop(Stop::Body),
            decision => decision,
        }
    }

    /// Whether the budget allows a retry after this outcome.
    fn afford(&mut self, outcome: &Outcome) -> bool {
        if is_free(outcome, &mut self.free_replays) {
            // What was paid for a hedge that was never sent is not spent on this one.
            self.token = None;
            return true;
        }
        self.pay()
    }

    /// Makes sure that the next attempt has the body, though the last one may still be sending it.
    fn promise_body(&mut self) -> bool {
        self.promised = self.body.promise();
        self.promised.is_some()
    }

    /// Takes a token for one more attempt, unless there is one of an attempt that was never sent; in the end it is given
    /// back.
    fn pay(&mut self) -> bool {
        let Some(budget) = self.policy.shared_budget().filter(|_| self.token.is_none()) else {
            return true;
        };
        self.token = budget.withdraw(&self.head.uri);
        self.token.is_some()
    }

    /// The response or the error as the caller gets it, with the attempts made.
    fn finish<R>(
        &mut self,
        result: Result<(response::Parts, R), BoxError>,
        stop: Stop,
        now: Instant,
    ) -> Result<Response<R>, BoxError> {
        // There is no other attempt: what it would need goes, though the future may be kept.
        self.token = None;
        self.body.let_go();
        let mut attempts = self.attempts.clone();
        attempts.end(stop, now.saturating_duration_since(self.started));
        match result {
            Ok((mut head, body)) => {
                head.extensions.insert(attempts);
                Ok(Response::from_parts(head, body))
            }
            Err(mut error) => {
                attempts.settle(&mut *error);
                Err(RetryError::new(attempts, error).into())
            }
        }
    }

    fn error(&self, fault: Fault) -> BoxError {
        match fault {
            Fault::Called(error) | Fault::NotReady(error) => error,
            Fault::Cut { sent } => Error::new(Kind::Timeout, "no answer within the time allowed")
                .with_unprocessed(!sent && !self.attempts.in_doubt())
                .into(),
        }
    }

    fn report<R>(&self, judged: &Judged<R>, decision: Option<Decision>) {
        report(&Report {
            method: &self.head.method,
            attempt: judged.number,
            elapsed: judged.at.saturating_duration_since(self.started),
            reason: judged.outcome.reason(),
            error: judged.result.as_ref().err().map(|error| &**error as _),
            decision,
        });
    }
}

impl<R> Judged<R> {
    /// Whether it is a response to be returned as it is. An error is none, even a final one.
    fn is_final(&self) -> bool {
        self.result.is_ok() && self.outcome.verdict() == Verdict::Final
    }
}

/// Whether the clock ends before this delay does.
fn is_never(now: Instant, delay: Duration) -> bool {
    now.checked_add(delay).is_none()
}
