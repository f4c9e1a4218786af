//! What clients and server share: the phase of the run, the ledger of processed requests, counts, and breaches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

/// What everybody does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Clients send, the server misbehaves.
    Storm,
    /// Clients pause. The server lets go of its connections, and treats new ones well.
    Rest,
    /// Clients end.
    End,
}

/// Breaches that are kept; the others are only counted.
const KEPT: usize = 20;

/// The shared state of one run.
pub(crate) struct World {
    phase: watch::Sender<Phase>,
    /// How often the request with this number was processed.
    processed: Mutex<Vec<u8>>,
    last_id: AtomicU64,
    counts: Mutex<BTreeMap<String, u64>>,
    breaches: Mutex<(Vec<String>, usize)>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Rest),
            processed: Mutex::default(),
            last_id: AtomicU64::new(0),
            counts: Mutex::default(),
            breaches: Mutex::default(),
        }
    }

    pub(crate) fn turn(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// A number for a request, never given twice.
    pub(crate) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The server has decided to process a request. The pool never sends again what may have been processed, whatever
    /// the method, so that twice is a breach.
    pub(crate) fn process(&self, id: u64, method: &str) {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        let mut processed = self.processed.lock();
        if processed.len() <= index {
            processed.resize(index + 1, 0);
        }
        processed[index] += 1;
        if processed[index] > 1 {
            drop(processed);
            self.breach(format!("{method} {id} was processed twice"));
        }
    }

    pub(crate) fn was_processed(&self, id: u64) -> bool {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        self.processed.lock().get(index).is_some_and(|count| *count > 0)
    }

    /// Bytes of heap that the ledger itself holds.
    pub(crate) fn ledger_bytes(&self) -> usize {
        self.processed.lock().capacity()
    }

    /// Counts an event.
    pub(crate) fn count(&self, what: &str) {
        self.count_many(what, 1);
    }

    pub(crate) fn count_many(&self, what: &str, n: u64) {
        let mut counts = self.counts.lock();
        match counts.get_mut(what) {
            Some(count) => *count += n,
            None => {
                counts.insert(what.to_owned(), n);
            }
        }
    }

    /// Something that must never happen has happened.
    pub(crate) fn breach(&self, what: String) {
        let mut breaches = self.breaches.lock();
        breaches.1 += 1;
        if breaches.0.len() < KEPT {
            breaches.0.push(what);
        }
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().clone()
    }

    /// The first breaches, and how many there were.
    pub(crate) fn breaches(&self) -> (Vec<String>, usize) {
        self.breaches.lock().clone()
    }
}
