//! What a caller learns of the attempts made: the `Attempts` extension of a response, and the error that carries it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tower::BoxError;

use super::classify::chain;
use super::outcome::{Outcome, Reason, Stop, Verdict};
use crate::error::Error;

/// How many attempts a request took, and why: an extension of every response that the layer returns.
///
/// Where there is no response, [`Attempts::of_error`] finds it in the error.
///
/// ```
/// use h2pool::retry::Attempts;
///
/// # fn look<B>(response: &http::Response<B>) {
/// if let Some(attempts) = response.extensions().get::<Attempts>() {
///     println!("{} attempts in {:?}: {:?}", attempts.count(), attempts.total_time(), attempts.reasons());
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    count: u32,
    reasons: Vec<(Reason, u32)>,
    total_time: Duration,
    stop: Stop,
    /// One that was not the last may have been acted upon.
    in_doubt: bool,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self {
            count: 0,
            reasons: Vec::new(),
            total_time: Duration::ZERO,
            stop: Stop::Done,
            in_doubt: false,
        }
    }

    /// The attempts begun, the first one and a hedge included: at least 1. One that was still waiting for the service's
    /// readiness counts too, unless it was a hedge that the end of the first attempt forestalled.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Why attempts other than the last were not the last: each status or failure in the order in which it first came,
    /// and how often it did. Bounded by the number of different reasons, not by that of attempts.
    #[must_use]
    pub fn reasons(&self) -> &[(Reason, u32)] {
        &self.reasons
    }

    /// The time from the call to the last outcome.
    #[must_use]
    pub fn total_time(&self) -> Duration {
        self.total_time
    }

    /// Why there was no further attempt.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop
    }

    /// The attempts behind an error that the layer returned for a request, wherever in its source chain that is.
    #[must_use]
    pub fn of_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        chain(error)
            .find_map(|error| error.downcast_ref::<RetryError>())
            .map(RetryError::attempts)
    }

    pub(crate) fn begin(&mut self) {
        self.count = self.count.saturating_add(1);
    }

    pub(crate) fn withdraw(&mut self) {
        self.count -= 1;
    }

    /// The outcome of one that is not the last.
    pub(crate) fn note(&mut self, outcome: &Outcome) {
        self.in_doubt |= outcome.verdict() != Verdict::Unprocessed;
        let Some(reason) = outcome.reason() else { return };
        match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, times)) => *times = times.saturating_add(1),
            None => self.reasons.push((reason, 1)),
        }
    }

    /// Whether one before the last may have been acted upon.
    pub(crate) fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// The last error speaks for the attempts before it, too: what one of them may have done is not undone by it.
    pub(crate) fn settle(&self, error: &mut (dyn StdError + Send + Sync + 'static)) {
        if self.in_doubt {
            doubt(error);
        }
    }

    pub(crate) fn end(&mut self, stop: Stop, total_time: Duration) {
        self.stop = stop;
        self.total_time = total_time;
    }
}

/// The request may have been processed, whatever the pool's error says, or that of a layer inside.
fn doubt(error: &mut (dyn StdError + Send + Sync + 'static)) {
    if let Some(ours) = error.downcast_mut::<Error>() {
        *ours = ours.clone().with_unprocessed(false);
    } else if let Some(inside) = error.downcast_mut::<RetryError>() {
        doubt(&mut *inside.source);
    }
}

/// The layer's error for a request: the last attempt's, and the [`Attempts`] made.
///
/// (An error that `poll_ready` gives belongs to no request, and is the service's own.)
///
/// The services return it as `BoxError`; the error of the service below is its [`source`](StdError::source), and
/// [`into_inner`](Self::into_inner) gives it back. Code that looks for a type in an error should walk the source chain.
#[derive(Debug)]
pub struct RetryError {
    attempts: Attempts,
    source: BoxError,
}

impl RetryError {
    pub(crate) fn new(attempts: Attempts, source: BoxError) -> Self {
        Self { attempts, source }
    }

    /// The attempts made.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// The last attempt's error, as the service below returned it. It is no longer [unprocessed](crate::Error::is_unprocessed)
    /// where an attempt before it may have been processed.
    #[must_use]
    pub fn into_inner(self) -> BoxError {
        self.source
    }
}

impl fmt::Display for RetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attempts {
            count,
            stop,
            total_time,
            ..
        } = &self.attempts;
        let plural = if *count == 1 { "" } else { "s" };
        write!(
            f,
            "the request failed after {count} attempt{plural} in {total_time:.1?}: {stop}"
        )
    }
}

impl StdError for RetryError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::retry::Failure;

    #[test]
    fn reasons_are_counted_so_that_they_stay_bounded() {
        // R13
        let mut attempts = Attempts::new();
        for n in 0..2_000 {
            attempts.begin();
            attempts.note(&Outcome::transient().because(match n % 2 {
                0 => Reason::Status(StatusCode::BAD_GATEWAY),
                _ => Reason::Failure(Failure::Reset),
            }));
        }
        assert_eq!(attempts.count(), 2_000);
        let words: Vec<_> = attempts
            .reasons()
            .iter()
            .map(|(reason, n)| format!("{reason} {n}"))
            .collect();
        assert_eq!(words, ["502 1000", "reset 1000"]);
    }

    #[test]
    fn the_error_says_how_it_went_and_keeps_its_cause() {
        // R13
        let mut attempts = Attempts::new();
        attempts.begin();
        attempts.end(Stop::Attempts, Duration::from_millis(1_500));
        assert_eq!(
            (attempts.stop(), attempts.total_time()),
            (Stop::Attempts, Duration::from_millis(1_500))
        );
        let error = RetryError::new(attempts.clone(), "broken".into());
        assert_eq!(
            error.to_string(),
            "the request failed after 1 attempt in 1.5s: no attempt is left"
        );
        assert_eq!(error.source().unwrap().to_string(), "broken");
        let outer = std::io::Error::other(error);
        assert_eq!(
            Attempts::of_error(&outer),
            Some(&attempts),
            "source() would skip the inner error"
        );
    }
}
