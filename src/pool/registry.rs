//! The origins of a pool: a bounded map that requests only read.
//!
//! A look-up takes the read lock and sets a flag. When a new origin would exceed the bound, the map is gone over in a
//! circle (second chance): an origin that was looked up since the last time is passed over once, one with work is
//! passed over always, and the first that is idle leaves.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::RwLock;

use super::entry::Entry;
use crate::error::{Error, Kind};
use crate::origin::Key;

/// The map.
pub(super) struct Registry<O: Key> {
    map: RwLock<Map<O>>,
    capacity: usize,
}

struct Map<O: Key> {
    entries: HashMap<O, Arc<Entry<O>>>,
    /// The order in which they are asked to leave; may name some that have left.
    circle: VecDeque<O>,
}

impl<O: Key> Registry<O> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            map: RwLock::new(Map {
                entries: HashMap::new(),
                circle: VecDeque::new(),
            }),
            capacity,
        }
    }

    pub(super) fn get(&self, key: &O) -> Option<Arc<Entry<O>>> {
        let map = self.map.read();
        let entry = map.entries.get(key)?;
        entry.touch();
        Some(entry.clone())
    }

    /// The entry of `key`, made if it is not there, and those that had to leave for it.
    #[expect(clippy::type_complexity, reason = "two lists of entries, used in one place")]
    pub(super) fn insert(
        &self,
        key: &O,
        make: impl FnOnce() -> Arc<Entry<O>>,
    ) -> Result<(Arc<Entry<O>>, Vec<Arc<Entry<O>>>), Error> {
        let mut map = self.map.write();
        if let Some(entry) = map.entries.get(key) {
            return Ok((entry.clone(), Vec::new()));
        }
        let mut evicted = Vec::new();
        while map.entries.len() >= self.capacity {
            evicted.push(map.evict().ok_or_else(|| self.full(key))?);
        }
        let entry = make();
        map.entries.insert(key.clone(), entry.clone());
        map.circle.push_back(key.clone());
        Ok((entry, evicted))
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry<O>>> {
        self.map.read().entries.values().cloned().collect()
    }

    pub(super) fn clear(&self) {
        let entries = {
            let mut map = self.map.write();
            map.circle = VecDeque::new();
            std::mem::take(&mut map.entries)
        };
        drop(entries);
    }

    fn full(&self, key: &O) -> Error {
        let message = format!(
            "all {} origins (`max_origins`) have requests running or waiting",
            self.capacity
        );
        Error::new(Kind::Saturated, message).with_origin(key.origin())
    }
}

impl<O: Key> Map<O> {
    fn evict(&mut self) -> Option<Arc<Entry<O>>> {
        for _ in 0..2 * self.circle.len() {
            let key = self.circle.pop_front()?;
            match self.entries.get(&key) {
                None => {}
                Some(entry) if entry.was_touched() || !entry.is_idle() => self.circle.push_back(key),
                Some(_) => return self.entries.remove(&key),
            }
        }
        None
    }
}
