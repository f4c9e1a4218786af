//! Why a wait ended without the value awaited.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A wait that ended without the value awaited, and what it has seen.
#[derive(Clone)]
pub struct WaitError<T> {
    timeout: bool,
    last: Option<T>,
    rounds: u32,
    source: Option<Cause>,
}

pub(super) type Cause = Arc<dyn StdError + Send + Sync>;

impl<T> WaitError<T> {
    pub(super) fn timed_out(last: Option<T>, rounds: u32, source: Option<Cause>) -> Self {
        Self {
            timeout: true,
            last,
            rounds,
            source,
        }
    }

    pub(super) fn failed(last: Option<T>, rounds: u32, source: Cause) -> Self {
        Self {
            timeout: false,
            last,
            rounds,
            source: Some(source),
        }
    }

    /// The overall timeout passed. Otherwise the call failed, and its error is the [`source`](StdError::source). A timeout
    /// has a source too where the last round that ended met a connection error.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.timeout
    }

    /// The last value that the server sent. Rounds that brought nothing, or an error, leave it as it was.
    #[must_use]
    pub fn last(&self) -> Option<&T> {
        self.last.as_ref()
    }

    /// As [`last`](Self::last), by value.
    #[must_use]
    pub fn into_last(self) -> Option<T> {
        self.last
    }

    /// How many rounds were begun.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds
    }
}

impl<T> fmt::Display for WaitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.rounds;
        let plural = if rounds == 1 { "" } else { "s" };
        if self.timeout {
            write!(
                f,
                "the status awaited did not come in time, in {rounds} round{plural}"
            )
        } else {
            write!(f, "waiting for the status failed in round {rounds}")
        }
    }
}

impl<T> fmt::Debug for WaitError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitError")
            .field("timeout", &self.timeout)
            .field("value_seen", &self.last.is_some())
            .field("rounds", &self.rounds)
            .field("source", &self.source)
            .finish()
    }
}

impl<T> StdError for WaitError<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
