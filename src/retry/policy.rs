//! `RetryPolicy`: what is retried, how often, how soon. A builder by value, a `Layer`, and the pure decision.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request;
use http::response;
use http::{Extensions, Method, StatusCode};
use tower::util::rng::{HasherRng, Rng};

use super::backoff::Backoff;
use super::budget::RetryBudget;
use super::classify;
use super::clock;
use super::decide::{Limits, Rules};
use super::headers;
use super::outcome::{Decision, Outcome, Reason, Verdict};

type ClassifyResponse = dyn Fn(&response::Parts) -> Option<Outcome> + Send + Sync;
type ClassifyError = dyn Fn(&(dyn StdError + 'static)) -> Option<Outcome> + Send + Sync;

/// What is retried, how often, and how soon. A [`tower::Layer`] that makes [`Retry`](super::Retry) services.
///
/// Cheap to clone; clones share the [`RetryBudget`], if one is given. The [module documentation](super) says what the
/// defaults do and shows the layer in use.
///
/// ```
/// use std::time::Duration;
/// use h2pool::retry::{RetryBudget, RetryPolicy};
///
/// let policy = RetryPolicy::new()
///     .max_attempts(5)
///     .deadline(Duration::from_secs(20))
///     .attempt_timeout(Duration::from_secs(5))
///     .backoff(Duration::from_millis(100), Duration::from_secs(1))
///     .budget(RetryBudget::default());
/// # let _ = policy;
/// ```
#[derive(Clone)]
pub struct RetryPolicy {
    settings: Arc<Settings>,
}

#[derive(Clone)]
struct Settings {
    rules: Rules,
    statuses: Vec<StatusCode>,
    count_header: Option<HeaderName>,
    budget: Option<RetryBudget>,
    classify_response: Option<Arc<ClassifyResponse>>,
    classify_error: Option<Arc<ClassifyError>>,
    random: Arc<dyn Fn() -> f64 + Send + Sync>,
    wall_clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl RetryPolicy {
    /// All defaults, as each setter names them.
    #[must_use]
    pub fn new() -> Self {
        let rules = Rules {
            methods: vec![Method::GET, Method::HEAD, Method::OPTIONS],
            idempotency_key: false,
            max_attempts: 10,
            deadline: Some(Duration::from_secs(60)),
            attempt_timeout: None,
            max_retry_after: Duration::from_secs(30),
            backoff: Backoff::DEFAULT,
            hedge: None,
            replay_limit: 64 * 1024,
        };
        let settings = Settings {
            rules,
            statuses: vec![
                StatusCode::TOO_EARLY,
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ],
            count_header: Some(HeaderName::from_static("x-retry-count")),
            budget: None,
            classify_response: None,
            classify_error: None,
            random: Arc::new(|| HasherRng::default().next_f64()),
            wall_clock: Arc::new(clock::wall),
        };
        Self {
            settings: Arc::new(settings),
        }
    }

    /// The methods that are safe to repeat. Default: GET, HEAD and OPTIONS.
    #[must_use]
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        let methods = methods.into_iter().collect();
        self.edit(|settings| settings.rules.methods = methods)
    }

    /// Whether a request with a non-empty `Idempotency-Key` header is safe to repeat, whatever its method. Default:
    /// false, since only a server that honours the header makes it so.
    #[must_use]
    pub fn idempotency_key(self, honoured: bool) -> Self {
        self.edit(|settings| settings.rules.idempotency_key = honoured)
    }

    /// The response statuses worth another attempt. Default: 425, 429, 502, 503 and 504.
    #[must_use]
    pub fn statuses(self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        let statuses = statuses.into_iter().collect();
        self.edit(|settings| settings.statuses = statuses)
    }

    /// The number of attempts for one request, the first and a hedge included. Default: 10; 0 leaves it to the deadline
    /// alone (without one, a server that always fails is asked for ever).
    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.edit(|settings| settings.rules.max_attempts = attempts)
    }

    /// The time from the call to the response's head, over all attempts and delays. Default: 60 s; `None` is off.
    ///
    /// An attempt is cut at the deadline; an answer that is there exactly at the deadline is still returned. A retry that
    /// could only start at the deadline is not made: what the last attempt came to is returned at once, without waiting.
    #[must_use]
    pub fn deadline(self, deadline: impl Into<Option<Duration>>) -> Self {
        let deadline = deadline.into();
        self.edit(|settings| settings.rules.deadline = deadline)
    }

    /// The time for one attempt up to the response's head, cut to what is left before the deadline. Default: `None`,
    /// the deadline alone.
    ///
    /// From the second attempt on it includes the wait for the inner service's readiness; the first one's readiness was
    /// waited for by the caller.
    #[must_use]
    pub fn attempt_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into();
        self.edit(|settings| settings.rules.attempt_timeout = timeout)
    }

    /// Exponential back-off with full jitter: before the `n`th retry a random delay between 0 and `min(base × 2ⁿ⁻¹, cap)`.
    /// Default: 0.2 s and 2 s.
    #[must_use]
    pub fn backoff(self, base: Duration, cap: Duration) -> Self {
        self.edit(|settings| settings.rules.backoff = Backoff::new(base, cap))
    }

    /// The longest delay that is waited for at a server's request (`Retry-After`, `retry-after-ms`). Above it the response
    /// is returned at once. Default: 30 s.
    #[must_use]
    pub fn max_retry_after(self, delay: Duration) -> Self {
        self.edit(|settings| settings.rules.max_retry_after = delay)
    }

    /// How many bytes of a request's body are kept for another attempt. Default: 64 KiB; 0 keeps none, so that only
    /// requests with an empty body, or one that nobody has begun to read, are sent again.
    #[must_use]
    pub fn replay_limit(self, bytes: usize) -> Self {
        self.edit(|settings| settings.rules.replay_limit = bytes)
    }

    /// Bounds the extra load of retries over all requests that share the budget. Default: none.
    #[must_use]
    pub fn budget(self, budget: impl Into<Option<RetryBudget>>) -> Self {
        let budget = budget.into();
        self.edit(|settings| settings.budget = budget)
    }

    /// Hedging: when a request that is safe to repeat has no answer after this delay, and its body has been recorded
    /// whole, a second attempt is sent beside the first. Default: `None`, off.
    ///
    /// The first answer wins and the other attempt is cancelled; an error, or an answer that would be retried, does not win
    /// while the other attempt still runs. Where no further attempt is allowed, such an answer is kept, and returned should
    /// the other end with an error, or bring nothing for another such delay (at least a second). Only the first attempt of a
    /// request is hedged, at that moment or not at all. A hedge counts as an attempt and draws on the budget, unless the
    /// service had no room for it before the first attempt ended: then it is not sent.
    #[must_use]
    pub fn hedge(self, delay: impl Into<Option<Duration>>) -> Self {
        let delay = delay.into();
        self.edit(|settings| settings.rules.hedge = delay)
    }

    /// The header that tells the server, from the second attempt on, how many went before. Default: `x-retry-count`;
    /// `None` sends none.
    #[must_use]
    pub fn retry_count_header(self, name: impl Into<Option<HeaderName>>) -> Self {
        let name = name.into();
        self.edit(|settings| settings.count_header = name)
    }

    /// A classifier asked first about every response; `None` leaves it to the statuses and to `x-should-retry`.
    #[must_use]
    pub fn classify_response<F>(self, classify: F) -> Self
    where
        F: Fn(&response::Parts) -> Option<Outcome> + Send + Sync + 'static,
    {
        self.edit(|settings| settings.classify_response = Some(Arc::new(classify)))
    }

    /// A classifier asked first about every error, as the inner service gave it; `None` leaves it to what the layer knows
    /// of the errors in its source chain. An error from `poll_ready` is final, and nobody is asked.
    #[must_use]
    pub fn classify_error<F>(self, classify: F) -> Self
    where
        F: Fn(&(dyn StdError + 'static)) -> Option<Outcome> + Send + Sync + 'static,
    {
        self.edit(|settings| settings.classify_error = Some(Arc::new(classify)))
    }

    /// The source of jitter: numbers within `0.0..=1.0`. Default: the standard library's random keys.
    #[must_use]
    pub fn random(self, source: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.edit(|settings| settings.random = Arc::new(source))
    }

    /// The wall clock that dates in `Retry-After` are compared with. Default: the system's.
    #[must_use]
    pub fn wall_clock(self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.edit(|settings| settings.wall_clock = Arc::new(clock))
    }

    fn edit(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

/// The decision, for tests of a policy and for services of your own.
impl RetryPolicy {
    /// What is done after an attempt: a pure function of its arguments.
    ///
    /// `attempt` counts from 1, `elapsed` runs from the call to the outcome, `random` lies within `0.0..=1.0` and places
    /// the delay within the back-off. Budget and body are no part of it: the layer asks them when it is about to retry.
    ///
    /// ```
    /// use std::time::Duration;
    /// use h2pool::retry::{Decision, Outcome, RetryPolicy, Stop};
    ///
    /// let (post, ()) = http::Request::post("/").body(()).unwrap().into_parts();
    /// let policy = RetryPolicy::default();
    /// let decide = |outcome| policy.decide(&post, 1, Duration::ZERO, &outcome, 0.5);
    /// assert_eq!(decide(Outcome::transient()), Decision::Stop(Stop::NotRepeatable));
    /// assert_eq!(decide(Outcome::unprocessed()), Decision::Retry { after: Duration::from_millis(100) });
    /// ```
    #[must_use]
    pub fn decide(
        &self,
        request: &request::Parts,
        attempt: u32,
        elapsed: Duration,
        outcome: &Outcome,
        random: f64,
    ) -> Decision {
        self.limits(&request.method, &request.headers, &request.extensions)
            .decide(attempt, elapsed, outcome, random)
    }

    /// What a response's head comes to under this policy.
    #[must_use]
    pub fn outcome_of_response(&self, head: &response::Parts) -> Outcome {
        let given = self
            .settings
            .classify_response
            .as_ref()
            .and_then(|classify| classify(head));
        let outcome = given.unwrap_or_else(|| self.outcome_of_status(head));
        let asked = match outcome.verdict() {
            Verdict::Final => None,
            _ => headers::asked_delay(&head.headers, &*self.settings.wall_clock),
        };
        outcome.or_after(asked).because(Reason::Status(head.status))
    }

    /// What an error comes to under this policy. Its source chain is searched.
    #[must_use]
    pub fn outcome_of_error(&self, error: &(dyn StdError + 'static)) -> Outcome {
        let found = classify::classify(error);
        let given = self
            .settings
            .classify_error
            .as_ref()
            .and_then(|classify| classify(error));
        given
            .unwrap_or(found.outcome)
            .because(Reason::Failure(found.failure))
    }

    /// A success asks for no other attempt, whatever its headers; that none is wanted, any response may say.
    fn outcome_of_status(&self, head: &response::Parts) -> Outcome {
        let listed = self.settings.statuses.contains(&head.status);
        let failed = head.status.is_client_error() || head.status.is_server_error();
        let wanted = (listed || failed)
            .then(|| headers::should_retry(&head.headers))
            .flatten();
        if wanted.unwrap_or(listed) {
            Outcome::transient()
        } else {
            Outcome::done()
        }
    }
}

/// For the layer.
impl RetryPolicy {
    pub(crate) fn limits(&self, method: &Method, headers: &HeaderMap, extensions: &Extensions) -> Limits {
        self.settings.rules.limits(method, headers, extensions)
    }

    pub(crate) fn draw(&self) -> f64 {
        (self.settings.random)()
    }

    pub(crate) fn shared_budget(&self) -> Option<&RetryBudget> {
        self.settings.budget.as_ref()
    }

    /// Tells the server how many attempts went before this one.
    pub(crate) fn mark_retry(&self, headers: &mut HeaderMap, before: u32) {
        if let Some(name) = &self.settings.count_header {
            // Fails only where a request has tens of thousands of headers, which then goes without this one.
            let _ = headers.try_insert(name.clone(), HeaderValue::from(before));
        }
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("rules", &self.settings.rules)
            .field("statuses", &self.settings.statuses)
            .field("budget", &self.settings.budget)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
