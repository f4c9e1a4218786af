//! Counts the connections that a round uses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Count;

/// The server's counters. Relaxed is enough: rounds start and end while no request is under way.
#[derive(Debug, Default)]
pub(super) struct Counter {
    round: AtomicU64,
    used: AtomicU64,
    open: AtomicU64,
}

impl Counter {
    /// Ends the round and starts the next.
    pub(super) fn next_round(&self) -> Count {
        self.round.fetch_add(1, Relaxed);
        Count {
            used: self.used.swap(0, Relaxed),
            open: self.open.load(Relaxed),
        }
    }
}

/// One connection; it counts as open until dropped.
#[derive(Debug)]
pub(super) struct Connection {
    counter: Arc<Counter>,
    /// The last round in which it was counted.
    round: AtomicU64,
}

impl Connection {
    /// Counts a connection that was just accepted.
    pub(super) fn accepted(counter: &Arc<Counter>) -> Self {
        counter.open.fetch_add(1, Relaxed);
        counter.used.fetch_add(1, Relaxed);
        let round = counter.round.load(Relaxed).into();
        Self {
            counter: counter.clone(),
            round,
        }
    }

    /// Counts the connection if this is its first request in the round.
    pub(super) fn request(&self) {
        let round = self.counter.round.load(Relaxed);
        if self.round.swap(round, Relaxed) != round {
            self.counter.used.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counter.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_once_in_each_round_that_uses_it() {
        let counter = Arc::new(Counter::default());
        let (busy, _idle) = (Connection::accepted(&counter), Connection::accepted(&counter));
        busy.request();
        busy.request();
        assert_eq!(counter.next_round(), Count { used: 2, open: 2 });
        busy.request();
        busy.request();
        assert_eq!(counter.next_round(), Count { used: 1, open: 2 });
        drop(busy);
        assert_eq!(counter.next_round(), Count { used: 0, open: 1 });
    }
}
