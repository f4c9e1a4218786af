//! What the client counts: requests, attempts, and why there were more of these than of those.

use std::collections::BTreeMap;
use std::error::Error as StdError;

use h2pool::retry::Attempts;
use http::Response;
use parking_lot::Mutex;

/// Counts, shared by all tasks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    totals: Mutex<Totals>,
}

/// The counts at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) attempts: u64,
    /// Answers that were lost, so that the operation had to be looked up.
    pub(crate) lookups: u64,
    /// Retries by what made them necessary.
    pub(crate) reasons: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn response<B>(&self, response: &Response<B>) {
        self.add(response.extensions().get::<Attempts>());
    }

    pub(crate) fn error(&self, error: &(dyn StdError + 'static)) {
        self.add(Attempts::of_error(error));
    }

    pub(crate) fn lookup(&self) {
        self.totals.lock().lookups += 1;
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals.lock().clone()
    }

    fn add(&self, attempts: Option<&Attempts>) {
        let mut totals = self.totals.lock();
        totals.requests += 1;
        let Some(attempts) = attempts else { return };
        totals.attempts += u64::from(attempts.count());
        for (reason, times) in attempts.reasons() {
            *totals.reasons.entry(reason.to_string()).or_default() += u64::from(*times);
        }
    }
}
