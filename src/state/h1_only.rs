//! The negative cache: origins whose authenticated server said that it speaks only HTTP/1.1 (P25).
//!
//! Bounded: the least recently used entry leaves first. An entry lives for the TTL from when it was made and is not
//! prolonged by use, so that h2 is offered again now and then. Pure: time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The cache. A capacity of 0, or a TTL of zero, keeps nothing.
#[derive(Debug)]
pub struct H1Only<K> {
    entries: HashMap<K, Entry>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
    capacity: usize,
    ttl: Duration,
}

#[derive(Debug)]
struct Entry {
    until: Instant,
    used: u64,
}

impl<K: Clone + Eq + Hash> H1Only<K> {
    /// An empty cache.
    pub fn new(capacity: usize, ttl: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            capacity,
            ttl,
        }
    }

    /// Remembers an origin from `now` on for the TTL. Returns until when, and who had to leave for it.
    pub fn mark(&mut self, key: &K, now: Instant) -> Option<(Instant, Option<K>)> {
        if self.capacity == 0 || self.ttl.is_zero() {
            return None;
        }
        self.clear(key);
        let until = now.checked_add(self.ttl)?;
        self.uses += 1;
        self.entries.insert(
            key.clone(),
            Entry {
                until,
                used: self.uses,
            },
        );
        self.by_use.insert(self.uses, key.clone());
        let full = self.entries.len() > self.capacity;
        let left = if full { self.by_use.pop_first() } else { None };
        let left = left.map(|(_, oldest)| oldest);
        if let Some(oldest) = &left {
            self.entries.remove(oldest);
        }
        Some((until, left))
    }

    /// Until when an origin is remembered; counts as a use.
    pub fn get(&mut self, key: &K, now: Instant) -> Option<Instant> {
        let entry = self.entries.get_mut(key)?;
        if entry.until <= now {
            self.clear(key);
            return None;
        }
        self.uses += 1;
        let moved = self
            .by_use
            .remove(&std::mem::replace(&mut entry.used, self.uses))?;
        self.by_use.insert(self.uses, moved);
        Some(entry.until)
    }

    /// Forgets an origin. Returns whether it was remembered.
    pub fn forget(&mut self, key: &K, now: Instant) -> bool {
        self.clear(key).is_some_and(|until| until > now)
    }

    /// Forgets an origin.
    pub fn clear(&mut self, key: &K) -> Option<Instant> {
        let entry = self.entries.remove(key)?;
        self.by_use.remove(&entry.used);
        Some(entry.until)
    }

    /// How many origins are remembered. Looks at each.
    pub fn remembered(&self, now: Instant) -> usize {
        self.entries.values().filter(|entry| entry.until > now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lives_for_the_ttl_and_is_not_prolonged_by_use() {
        // P25
        let t0 = crate::state::sim::epoch();
        let mut cache = H1Only::new(8, Duration::from_secs(300));
        cache.mark(&"a", t0);
        assert!(cache.get(&"a", t0 + Duration::from_secs(299)).is_some());
        assert_eq!(cache.remembered(t0 + Duration::from_secs(299)), 1);
        assert_eq!(cache.remembered(t0 + Duration::from_secs(300)), 0, "P40");
        assert!(cache.get(&"a", t0 + Duration::from_secs(300)).is_none());
        assert!(cache.entries.is_empty() && cache.by_use.is_empty());
        cache.mark(&"a", t0);
        assert!(cache.forget(&"a", t0) && !cache.forget(&"a", t0));
        cache.mark(&"a", t0);
        assert!(
            !cache.forget(&"a", t0 + Duration::from_secs(300)),
            "its time was over"
        );
        assert!(cache.entries.is_empty() && cache.by_use.is_empty());
    }

    #[test]
    fn the_least_recently_used_leaves_first() {
        // P25
        let t0 = crate::state::sim::epoch();
        let mut cache = H1Only::new(2, Duration::from_secs(300));
        cache.mark(&"a", t0);
        cache.mark(&"b", t0);
        assert!(cache.get(&"a", t0).is_some());
        let (_, left) = cache.mark(&"c", t0).unwrap();
        assert_eq!((left, cache.remembered(t0)), (Some("b"), 2));
        assert!(
            cache.get(&"b", t0).is_none() && cache.get(&"a", t0).is_some() && cache.get(&"c", t0).is_some()
        );
        let mut off = H1Only::new(0, Duration::from_secs(300));
        assert!(off.mark(&"a", t0).is_none() && off.remembered(t0) == 0);
    }
}
