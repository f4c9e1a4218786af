//! One `tracing` event for every outcome of an attempt, the last one included.
//!
//! Target `h2pool::retry`. Level DEBUG, or WARN when a limit (attempts, deadline, budget, body, Retry-After) ended the
//! matter. Fields: `method`, `attempt`, `elapsed_ms`; `status`, or `error.kind` and `error.message` (the whole source
//! chain); `delay_ms` when another attempt follows, `stop` when none does, `beside` when the answer does not count because
//! a hedged attempt still runs.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::Method;
use tracing::field::display;

use super::outcome::{Decision, Reason};

const TARGET: &str = "h2pool::retry";

/// What is known of an outcome when it is reported.
pub(super) struct Report<'a> {
    pub(super) method: &'a Method,
    pub(super) attempt: u32,
    pub(super) elapsed: Duration,
    pub(super) reason: Option<Reason>,
    pub(super) error: Option<&'a (dyn StdError + 'static)>,
    /// None while another attempt runs beside this one.
    pub(super) decision: Option<Decision>,
}

pub(super) fn report(report: &Report<'_>) {
    let (status, kind) = match report.reason {
        Some(Reason::Status(status)) => (Some(status.as_u16()), None),
        Some(Reason::Failure(failure)) => (None, Some(failure.as_str())),
        None => (None, None),
    };
    let (delay, stop) = match report.decision {
        Some(Decision::Retry { after }) => (Some(millis(after)), None),
        Some(Decision::Stop(stop)) => (None, Some(stop)),
        None => (None, None),
    };
    let method = report.method.as_str();
    let attempt = report.attempt;
    let elapsed = millis(report.elapsed);
    let message = report.error.map(|error| display(Chain(error)));
    if stop.is_some_and(super::Stop::is_limit) {
        tracing::warn!(
            target: TARGET, method, attempt, elapsed_ms = elapsed, status, error.kind = kind, error.message = message,
            stop = stop.map(super::Stop::as_str), "gave up",
        );
    } else {
        tracing::debug!(
            target: TARGET, method, attempt, elapsed_ms = elapsed, status, error.kind = kind, error.message = message,
            delay_ms = delay, stop = stop.map(super::Stop::as_str), beside = report.decision.is_none().then_some(true),
            "attempt ended",
        );
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An error and its causes on one line. By `source()`, which skips what an `io::Error` wraps, since it shows that itself.
struct Chain<'a>(&'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}
