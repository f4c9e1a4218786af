//! The origins of a pool: a bounded map that requests only read.
//!
//! A look-up takes the read lock and sets a flag. When a new origin would exceed the bound, the map is gone over in a
//! circle (second chance): an origin that was looked up since the last time is passed over once, one with work is
//! passed over always, and the first that is idle leaves.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::sync::{Arc, RwLock};

/// What is kept in the map.
pub trait Resident {
    /// It was looked up.
    fn touch(&self);
    /// Whether it was looked up since the last call.
    fn was_touched(&self) -> bool;
    /// Whether forgetting it loses nothing.
    fn is_idle(&self) -> bool;
}

/// The map.
pub struct Registry<K, V> {
    map: RwLock<Map<K, V>>,
    capacity: usize,
}

/// An entry, and those that had to leave for it.
pub type Inserted<V> = (Arc<V>, Vec<Arc<V>>);

struct Map<K, V> {
    /// Its seed is random, and what an attacker could gain by collisions is bounded by the capacity.
    entries: HashMap<K, Arc<V>, foldhash::fast::RandomState>,
    /// The order in which they are asked to leave; may name some that have left.
    circle: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V: Resident> Registry<K, V> {
    /// An empty map for so many.
    pub fn new(capacity: usize) -> Self {
        Self {
            map: RwLock::new(Map {
                entries: HashMap::default(),
                circle: VecDeque::new(),
            }),
            capacity,
        }
    }

    /// The entry of `key`, if it is there.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        let map = self.map.read();
        let entry = map.entries.get(key)?;
        entry.touch();
        Some(entry.clone())
    }

    /// The entry of `key`, made if it is not there, and those that had to leave for it. `None`: nobody could leave.
    pub fn insert(&self, key: &K, make: impl FnOnce() -> Arc<V>) -> Option<Inserted<V>> {
        let mut map = self.map.write();
        // Another may have made it since the look-up.
        #[cfg(not(h2pool_seed = "insert_without_looking"))]
        if let Some(entry) = map.entries.get(key) {
            return Some((entry.clone(), Vec::new()));
        }
        let mut evicted = Vec::new();
        while map.entries.len() >= self.capacity {
            evicted.push(map.evict()?);
        }
        let entry = make();
        map.entries.insert(key.clone(), entry.clone());
        map.circle.push_back(key.clone());
        Some((entry, evicted))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.read().entries.len()
    }

    /// All entries.
    pub fn all(&self) -> Vec<Arc<V>> {
        self.map.read().entries.values().cloned().collect()
    }

    /// Forgets all.
    pub fn clear(&self) {
        let entries = {
            let mut map = self.map.write();
            map.circle = VecDeque::new();
            std::mem::take(&mut map.entries)
        };
        drop(entries);
    }
}

impl<K: Clone + Eq + Hash, V: Resident> Map<K, V> {
    fn evict(&mut self) -> Option<Arc<V>> {
        for _ in 0..2 * self.circle.len() {
            let key = self.circle.pop_front()?;
            match self.entries.get(&key) {
                None => {}
                Some(_) if cfg!(h2pool_seed = "busy_ones_leave") => return self.entries.remove(&key),
                Some(entry) if entry.was_touched() || !entry.is_idle() => self.circle.push_back(key),
                Some(_) => return self.entries.remove(&key),
            }
        }
        None
    }
}
