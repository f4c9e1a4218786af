//! The decision after an attempt, as a pure function of the request's head, the attempt, the time elapsed, what came
//! back, and one random number.
//!
//! ```text
//! verdict Final ───────────────────────────────────────────► Stop(Done)
//!    │ retries off for this request ───────────────────────► Stop(Disabled)
//!    │ Transient, and not safe to repeat ──────────────────► Stop(NotRepeatable)
//!    │ attempt ≥ max_attempts (unless 0) ──────────────────► Stop(Attempts)
//!    │ asked to wait longer than max_retry_after ──────────► Stop(RetryAfter)
//!    │ elapsed + delay leaves no tick before the deadline ─► Stop(Deadline)
//!    ▼
//! Retry { after: delay }
//! ```
//!
//! The delay is what the server asked for. Where it asked for less than the back-off's base (0 and dates in the past
//! among that), the drawn back-off applies too, the longer of both, so that a server cannot talk clients into a hot loop.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use http::{Extensions, Method};

use super::backoff::Backoff;
use super::clock::TICK;
use super::options::RetryOptions;
use super::outcome::{Decision, Outcome, Stop, Verdict};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The part of the policy that is plain data, and that the decision depends on.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) methods: Vec<Method>,
    pub(crate) idempotency_key: bool,
    pub(crate) max_attempts: u32,
    pub(crate) deadline: Option<Duration>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) max_retry_after: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) hedge: Option<Duration>,
    pub(crate) replay_limit: usize,
}

/// The rules as they apply to one request: its method, its headers and its [`RetryOptions`] taken into account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// No second attempt, whatever happens.
    pub(crate) disabled: bool,
    /// It may be sent again though the server may have acted on it.
    pub(crate) repeatable: bool,
    /// 0 is no limit.
    pub(crate) max_attempts: u32,
    pub(crate) deadline: Option<Duration>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) hedge: Option<Duration>,
    pub(crate) replay_limit: usize,
    max_retry_after: Duration,
    backoff: Backoff,
}

impl Rules {
    pub(crate) fn limits(&self, method: &Method, headers: &HeaderMap, extensions: &Extensions) -> Limits {
        let options = extensions.get::<RetryOptions>().copied().unwrap_or_default();
        let repeatable = options.any_method
            || self.methods.contains(method)
            || (self.idempotency_key && has_idempotency_key(headers));
        let hedge = options.hedge.unwrap_or(self.hedge);
        let replay_limit = options.replay_limit.unwrap_or(self.replay_limit);
        Limits {
            disabled: options.never,
            repeatable,
            max_attempts: options.max_attempts.unwrap_or(self.max_attempts),
            deadline: options.deadline.unwrap_or(self.deadline),
            attempt_timeout: options.attempt_timeout.unwrap_or(self.attempt_timeout),
            hedge: hedge.filter(|_| repeatable && !options.never),
            replay_limit: if options.never { 0 } else { replay_limit },
            max_retry_after: self.max_retry_after,
            backoff: self.backoff,
        }
    }
}

impl Limits {
    /// `attempt` counts from 1; `elapsed` is the time from the call to the outcome; `random` lies in `0.0..=1.0`.
    pub(crate) fn decide(&self, attempt: u32, elapsed: Duration, outcome: &Outcome, random: f64) -> Decision {
        if let Some(stop) = self.refuses(attempt, outcome.verdict()) {
            return Decision::Stop(stop);
        }
        let asked = outcome.delay();
        if asked.is_some_and(|asked| asked > self.max_retry_after) {
            return Decision::Stop(Stop::RetryAfter);
        }
        let after = self.delay(attempt, asked, random);
        if self.leaves_no_time(elapsed, after) {
            return Decision::Stop(Stop::Deadline);
        }
        Decision::Retry { after }
    }

    /// Whether one more attempt is within the number allowed, after so many.
    pub(crate) fn allows_another(&self, attempts: u32) -> bool {
        !self.disabled && (self.max_attempts == 0 || attempts < self.max_attempts)
    }

    fn refuses(&self, attempt: u32, verdict: Verdict) -> Option<Stop> {
        match verdict {
            Verdict::Final => Some(Stop::Done),
            _ if self.disabled => Some(Stop::Disabled),
            Verdict::Transient if !self.repeatable => Some(Stop::NotRepeatable),
            _ if !self.allows_another(attempt) => Some(Stop::Attempts),
            _ => None,
        }
    }

    fn delay(&self, attempt: u32, asked: Option<Duration>, random: f64) -> Duration {
        let drawn = self.backoff.delay(attempt, random);
        match asked {
            Some(asked) if asked >= self.backoff.base() => asked,
            Some(asked) => asked.max(drawn),
            None => drawn,
        }
    }

    /// A retry that would start at the deadline, or within the timer's last tick before it, could not be answered.
    fn leaves_no_time(&self, elapsed: Duration, after: Duration) -> bool {
        self.deadline
            .is_some_and(|deadline| elapsed.saturating_add(after).saturating_add(TICK) > deadline)
    }
}

fn has_idempotency_key(headers: &HeaderMap) -> bool {
    headers
        .get(IDEMPOTENCY_KEY)
        .is_some_and(|key| !key.as_bytes().trim_ascii().is_empty())
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
