//! The origins of a pool: a bounded map that requests only read.
//!
//! A look-up takes the read lock and sets a flag. When a new origin would exceed the bound, the map is gone over in a
//! circle (second chance): an origin that was looked up since the last time is passed over once, one with work is
//! passed over always, and the first that is idle leaves.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::sync::{Arc, RwLock};

/// What is kept in the map.
pub trait Resident {
    /// What it is found by.
    type Key: Eq + Hash;

    /// Its own.
    fn key(&self) -> &Self::Key;
    /// It was looked up.
    fn touch(&self);
    /// Whether it was looked up since the last call.
    fn was_touched(&self) -> bool;
    /// Whether forgetting it loses nothing.
    fn is_idle(&self) -> bool;
}

/// The map.
pub struct Registry<V> {
    map: RwLock<Map<V>>,
    /// Its seed is random, and what an attacker could gain by collisions is bounded by the capacity.
    hasher: RandomState,
    capacity: usize,
}

/// An entry, and those that had to leave for it.
pub type Inserted<V> = (Arc<V>, Vec<Arc<V>>);

struct Map<V> {
    /// By the hash of their keys, which they hold themselves.
    entries: HashTable<Arc<V>>,
    /// The same, in the order in which they are asked to leave.
    circle: VecDeque<Arc<V>>,
}

impl<V: Resident> Registry<V> {
    /// An empty map for so many.
    pub fn new(capacity: usize) -> Self {
        Self {
            map: RwLock::new(Map::new()),
            hasher: RandomState::default(),
            capacity,
        }
    }

    /// The entry of `key`, if it is there.
    pub fn get(&self, key: &V::Key) -> Option<Arc<V>> {
        let hash = self.hasher.hash_one(key);
        let map = self.map.read();
        let entry = map.find(hash, key)?;
        entry.touch();
        Some(entry.clone())
    }

    /// The entry of `key`, made if it is not there, and those that had to leave for it. `None`: nobody could leave.
    pub fn insert(&self, key: &V::Key, make: impl FnOnce() -> Arc<V>) -> Option<Inserted<V>> {
        let hash = self.hasher.hash_one(key);
        let mut map = self.map.write();
        // Another may have made it since the look-up.
        #[cfg(not(h2pool_seed = "insert_without_looking"))]
        if let Some(entry) = map.find(hash, key) {
            return Some((entry.clone(), Vec::new()));
        }
        let mut evicted = Vec::new();
        while map.entries.len() >= self.capacity {
            evicted.push(map.evict(&self.hasher)?);
        }
        let entry = make();
        map.entries
            .insert_unique(hash, entry.clone(), |entry| self.hasher.hash_one(entry.key()));
        map.circle.push_back(entry.clone());
        Some((entry, evicted))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.read().entries.len()
    }

    /// All entries.
    pub fn all(&self) -> Vec<Arc<V>> {
        self.map.read().entries.iter().cloned().collect()
    }

    /// Forgets all.
    pub fn clear(&self) {
        let all = std::mem::replace(&mut *self.map.write(), Map::new());
        drop(all);
    }
}

impl<V: Resident> Map<V> {
    fn new() -> Self {
        Self {
            entries: HashTable::new(),
            circle: VecDeque::new(),
        }
    }

    fn find(&self, hash: u64, key: &V::Key) -> Option<&Arc<V>> {
        self.entries.find(hash, |entry| entry.key() == key)
    }

    fn evict(&mut self, hasher: &RandomState) -> Option<Arc<V>> {
        for _ in 0..2 * self.circle.len() {
            let entry = self.circle.pop_front()?;
            let stays = entry.was_touched() || !entry.is_idle();
            if stays && !cfg!(h2pool_seed = "busy_ones_leave") {
                self.circle.push_back(entry);
                continue;
            }
            let hash = hasher.hash_one(entry.key());
            if let Ok(place) = self.entries.find_entry(hash, |other| Arc::ptr_eq(other, &entry)) {
                place.remove();
            }
            return Some(entry);
        }
        None
    }
}
