//! The gateway's sandboxes, its book of operations, and its moods.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::clock::{self, Instant};
use crate::fleet;

/// Everything behind the gateway.
pub(crate) struct World {
    sandboxes: Vec<Mutex<Sandbox>>,
    ledger: Mutex<Ledger>,
    moods: Mutex<SmallRng>,
}

/// A sandbox: on standby until it is touched.
struct Sandbox {
    ready_at: Option<Instant>,
    files: HashMap<usize, Bytes>,
}

/// How often every operation was executed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(HashMap<String, u32>);

impl World {
    pub(crate) fn new(seed: u64, sandboxes: usize) -> Self {
        let sandbox = |number| {
            Mutex::new(Sandbox {
                ready_at: None,
                files: HashMap::from([(0, fleet::content(number, 0))]),
            })
        };
        Self {
            sandboxes: (0..sandboxes).map(sandbox).collect(),
            ledger: Mutex::default(),
            moods: Mutex::new(SmallRng::seed_from_u64(seed)),
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.lock().clone()
    }

    pub(crate) fn says_goaway(&self) -> bool {
        self.chance(400)
    }

    /// True once in so many times.
    pub(super) fn chance(&self, of: u32) -> bool {
        self.moods.lock().random_ratio(1, of)
    }

    /// A number below this one.
    pub(super) fn mood(&self, below: u32) -> u32 {
        self.moods.lock().random_range(0..below)
    }

    /// Wakes a sandbox that is on standby: over 1 to 3 s.
    pub(super) fn touch(&self, sandbox: usize) {
        let takes = Duration::from_millis(self.moods.lock().random_range(1_000..=3_000));
        if let Some(sandbox) = self.sandboxes.get(sandbox) {
            sandbox.lock().ready_at.get_or_insert(clock::now() + takes);
        }
    }

    /// How long until the sandbox is ready, by this clock; None while it is on standby, or if there is none.
    pub(super) fn wakes_in(&self, sandbox: usize) -> Option<Duration> {
        let ready_at = self.sandboxes.get(sandbox)?.lock().ready_at?;
        Some(ready_at.saturating_duration_since(clock::now()))
    }

    pub(super) fn write(&self, sandbox: usize, file: usize, content: Bytes) {
        if let Some(sandbox) = self.sandboxes.get(sandbox) {
            sandbox.lock().files.insert(file, content);
        }
    }

    pub(super) fn read(&self, sandbox: usize, file: usize) -> Option<Bytes> {
        self.sandboxes.get(sandbox)?.lock().files.get(&file).cloned()
    }

    /// Enters an operation that is being executed.
    pub(super) fn executes(&self, operation: &str) {
        *self.ledger.lock().0.entry(operation.to_owned()).or_default() += 1;
    }

    pub(super) fn has_executed(&self, operation: &str) -> bool {
        self.ledger.lock().0.contains_key(operation)
    }
}

impl Ledger {
    /// Operations that were executed, however often.
    pub(crate) fn executed(&self) -> usize {
        self.0.len()
    }

    /// Operations that were executed more than once.
    pub(crate) fn doubled(&self) -> usize {
        self.0.values().filter(|times| **times > 1).count()
    }
}
