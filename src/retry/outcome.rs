//! The words that policy and layer talk in: outcomes of attempts, reasons for them, decisions about them.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// What one attempt came to, as far as trying again is concerned.
///
/// The policy makes one from every response head and every error; a classifier of your own
/// ([`RetryPolicy::classify_response`](super::RetryPolicy::classify_response),
/// [`classify_error`](super::RetryPolicy::classify_error)) may make another:
///
/// ```
/// use h2pool::retry::{Outcome, RetryPolicy};
///
/// // This server refuses work before it starts, with a header that says so.
/// let policy = RetryPolicy::default().classify_response(|head| {
///     head.headers.contains_key("x-not-started").then(Outcome::unprocessed)
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    verdict: Verdict,
    reason: Option<Reason>,
    retry_after: Option<Duration>,
    costs: bool,
}

/// Whether another attempt makes sense, and for which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// To be returned as it is: a success, or a failure that the same request would meet again.
    Final,
    /// May well succeed later. The server may have acted on the request, so that only one that is safe to repeat is sent
    /// again.
    Transient,
    /// The server provably did nothing: any request may be sent again, whatever its method (RFC 9113 §8.7).
    Unprocessed,
}

impl Outcome {
    /// To be returned as it is.
    #[must_use]
    pub fn done() -> Self {
        Self::of(Verdict::Final)
    }

    /// Worth another attempt where the request is safe to repeat.
    #[must_use]
    pub fn transient() -> Self {
        Self::of(Verdict::Transient)
    }

    /// The server did nothing, so that any request may be sent again. Free of charge to the
    /// [`RetryBudget`](super::RetryBudget), up to three times for one request.
    #[must_use]
    pub fn unprocessed() -> Self {
        Self::of(Verdict::Unprocessed)
    }

    /// The next attempt comes no earlier than this. Default: what the response's headers ask for, if anything.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Whether another attempt makes sense.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The status or the failure behind it, once the policy has filled it in.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// How long the server, or the classifier, asks to be left alone.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.retry_after
    }

    fn of(verdict: Verdict) -> Self {
        Self {
            verdict,
            reason: None,
            retry_after: None,
            costs: verdict != Verdict::Unprocessed,
        }
    }

    /// The request never left, but that is no proof of a healthy server: a retry of it draws on the budget.
    pub(crate) fn costly(mut self) -> Self {
        self.costs = true;
        self
    }

    /// Whether a retry draws on the budget from the first one on.
    pub(crate) fn costs(&self) -> bool {
        self.costs
    }

    /// Of two attempts side by side, this one ended last, and `other` so long before. What either would be retried for,
    /// both are; the longer of the delays asked for counts.
    pub(crate) fn beside(mut self, other: &Self, since: Duration) -> Self {
        if other.verdict == Verdict::Final {
            return self;
        }
        if self.verdict == Verdict::Final {
            self.verdict = Verdict::Transient;
        }
        self.costs |= other.costs;
        let left = other.retry_after.map(|delay| delay.saturating_sub(since));
        self.retry_after = self.retry_after.max(left);
        self
    }

    /// The same where something before it may have been acted upon.
    pub(crate) fn in_doubt(self) -> Self {
        match self.verdict {
            Verdict::Unprocessed => Self {
                verdict: Verdict::Transient,
                costs: true,
                ..self
            },
            Verdict::Final | Verdict::Transient => self,
        }
    }

    pub(crate) fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(crate) fn or_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = self.retry_after.or(delay);
        self
    }
}

/// Why an attempt did not settle the matter: what came back, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A response with this status.
    Status(StatusCode),
    /// An error of this kind.
    Failure(Failure),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => f.write_str(status.as_str()),
            Self::Failure(failure) => f.write_str(failure.as_str()),
        }
    }
}

/// The kinds of error that the layer tells apart. The [module documentation](super#what-is-retried) says which of them
/// are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// No connection could be opened.
    Connect,
    /// A certificate, or TLS as a whole, was refused.
    Certificate,
    /// Some time limit passed, the layer's own or one below it.
    Timeout,
    /// The stream was refused, or excluded by a GOAWAY, before the server did anything.
    Refused,
    /// The stream or the connection was reset.
    Reset,
    /// The connection ended before the response did.
    Incomplete,
    /// Another input or output error.
    Io,
    /// The peer broke the protocol.
    Protocol,
    /// The request's body failed.
    Body,
    /// The request or the configuration is wrong.
    Config,
    /// Refused locally: a full queue, a closed pool, an origin that speaks no suitable protocol.
    Refusal,
    /// The inner service reported that it is no longer usable (an error from `poll_ready`).
    NotReady,
    /// Nothing that the layer knows.
    Other,
}

impl Failure {
    /// The stable word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Certificate => "certificate",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Incomplete => "incomplete",
            Self::Io => "io",
            Self::Protocol => "protocol",
            Self::Body => "body",
            Self::Config => "config",
            Self::Refusal => "refusal",
            Self::NotReady => "not_ready",
            Self::Other => "other",
        }
    }
}

/// What the policy decides after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Send the request again after this delay.
    Retry {
        /// Counted from the end of the attempt.
        after: Duration,
    },
    /// Return what the attempt came to.
    Stop(Stop),
}

/// Why no further attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// There is nothing to retry: a success, or a failure that the same request would meet again.
    Done,
    /// The server may have acted, and this request is not safe to repeat.
    NotRepeatable,
    /// Retries are switched off for this request.
    Disabled,
    /// As many attempts as allowed have been made.
    Attempts,
    /// The deadline has passed, or would pass before another attempt could start; or, without a deadline, the back-off is
    /// longer than the clock can count.
    Deadline,
    /// The server, or the classifier, asks for a longer delay than the policy waits.
    RetryAfter,
    /// The budget is spent.
    Budget,
    /// The request's body cannot be sent a second time: it is over the limit, or it failed.
    Body,
}

impl Stop {
    /// The stable word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotRepeatable => "not_repeatable",
            Self::Disabled => "disabled",
            Self::Attempts => "attempts",
            Self::Deadline => "deadline",
            Self::RetryAfter => "retry_after",
            Self::Budget => "budget",
            Self::Body => "body",
        }
    }

    /// Whether a limit ended the matter, not the answer itself.
    pub(crate) fn is_limit(self) -> bool {
        !matches!(self, Self::Done | Self::NotRepeatable | Self::Disabled)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "it is final",
            Self::NotRepeatable => "the request is not safe to repeat",
            Self::Disabled => "retries are switched off",
            Self::Attempts => "no attempt is left",
            Self::Deadline => "no time is left",
            Self::RetryAfter => "the server asks for too long a delay",
            Self::Budget => "the retry budget is spent",
            Self::Body => "the request's body cannot be sent again",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_one_of_two_is_retried_for_both_are_after_the_longer_delay() {
        // R15 R7 R9
        let second = Duration::from_secs(1);
        let asked = |seconds| Outcome::transient().retry_after(second * seconds);
        let over = Outcome::done().retry_after(second * 9);
        assert_eq!(asked(3).beside(&over, second), asked(3));
        assert_eq!(asked(3).beside(&asked(3), second), asked(3));
        assert_eq!(
            asked(1).beside(&asked(3), second),
            asked(2),
            "a second has passed"
        );
        assert_eq!(Outcome::done().beside(&asked(3), second), asked(2));
        let free = Outcome::unprocessed();
        assert_eq!(free.beside(&free, second), free);
        assert_eq!(free.beside(&Outcome::transient(), second), free.costly());
        assert_eq!(free.costly().beside(&free, second), free.costly());
    }

    #[test]
    fn the_words_of_events_stay_as_they_are_and_tell_everything_apart() {
        // R13, R14
        use Failure as F;
        for (failure, word) in [
            (F::Connect, "connect"),
            (F::Certificate, "certificate"),
            (F::Timeout, "timeout"),
            (F::Refused, "refused"),
            (F::Reset, "reset"),
            (F::Incomplete, "incomplete"),
            (F::Io, "io"),
            (F::Protocol, "protocol"),
            (F::Body, "body"),
            (F::Config, "config"),
            (F::Refusal, "refusal"),
            (F::NotReady, "not_ready"),
            (F::Other, "other"),
        ] {
            assert_eq!(failure.as_str(), word);
        }
        let stops = [
            (Stop::Done, "done", false),
            (Stop::NotRepeatable, "not_repeatable", false),
            (Stop::Disabled, "disabled", false),
            (Stop::Attempts, "attempts", true),
            (Stop::Deadline, "deadline", true),
            (Stop::RetryAfter, "retry_after", true),
            (Stop::Budget, "budget", true),
            (Stop::Body, "body", true),
        ];
        for (stop, word, limit) in stops {
            assert_eq!((stop.as_str(), stop.is_limit()), (word, limit));
        }
        let sentences: HashSet<_> = stops.iter().map(|(stop, ..)| stop.to_string()).collect();
        assert_eq!(sentences.len(), stops.len());
    }
}
