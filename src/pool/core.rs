//! What all origins of a pool share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::entry::Entry;
use super::fallback::Fallback;
use super::registry::Registry;
use super::runtime::{Mourner, Runtimes};
use super::settings::{Settings, some};
use super::shared::run;
use crate::clock;
use crate::config::PoolConfig;
use crate::connect::ErasedConnect;
use crate::error::{Error, Kind};
use crate::origin::Key;
use crate::session::{Patience, Tuning};
use crate::state::h1_only::H1Only;
use crate::state::{Limits, RuntimeId};
use crate::stats::Counters;

/// The pool without its handles.
pub(crate) struct Core<O: Key> {
    pub(super) config: PoolConfig,
    pub(super) limits: Arc<Limits>,
    pub(super) tuning: Tuning,
    pub(super) patience: Patience,
    pub(super) connector: Arc<dyn ErasedConnect<O>>,
    pub(super) fallback: Option<Fallback>,
    pub(super) origins: Registry<Entry<O>>,
    /// Origins that had to leave (`max_origins`), while sessions of theirs have not ended.
    leaving: Mutex<Vec<Weak<Entry<O>>>>,
    pub(super) runtimes: Runtimes,
    pub(super) counters: Arc<Counters>,
    /// `limit_concurrency`, where it is on.
    pub(super) permits: Option<Arc<Semaphore>>,
    pub(super) h1_only: Mutex<H1Only<O>>,
    closed: AtomicBool,
    /// Told when it is closed, so that dials stop.
    closing: Notify,
    /// Sessions and dials that have not ended.
    alive: AtomicU64,
    ended: Notify,
    random: AtomicU64,
}

impl<O: Key> Core<O> {
    pub(crate) fn new(
        config: PoolConfig,
        connector: Arc<dyn ErasedConnect<O>>,
        fallback: Option<Fallback>,
    ) -> Arc<Self> {
        let permits = config.limit_concurrency;
        let settings = Settings::of(&config);
        Arc::new(Self {
            limits: Arc::new(settings.limits),
            tuning: settings.tuning,
            patience: settings.patience,
            connector,
            fallback,
            origins: Registry::new(config.max_origins),
            leaving: Mutex::default(),
            runtimes: Runtimes::default(),
            counters: Arc::new(Counters::new()),
            permits: (permits > 0).then(|| Arc::new(Semaphore::new(permits))),
            h1_only: Mutex::new(H1Only::new(config.h1_only_capacity, config.h1_only_ttl)),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            alive: AtomicU64::new(0),
            ended: Notify::new(),
            random: AtomicU64::new(seed()),
            config,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The origin's entry, made at its first use.
    pub(super) fn entry(self: &Arc<Self>, key: &O) -> Result<Arc<Entry<O>>, Error> {
        if let Some(entry) = self.origins.get(key) {
            return Ok(entry);
        }
        if self.is_closed() {
            return Err(closed());
        }
        let detached = key.detached();
        let inserted = self.origins.insert(key, || Entry::new(self.clone(), detached));
        let (entry, evicted) = inserted.ok_or_else(|| self.full(key))?;
        for old in evicted {
            self.dismiss(&old);
        }
        if self.is_closed() {
            // `close()` may have missed the entry.
            entry.close(some(self.config.drain_timeout));
            // Others may have sessions that drain, which `close()` has still to be told of.
            self.end_if_unused();
            return Err(closed());
        }
        Ok(entry)
    }

    /// Closes an origin that left the map. A request may have found it a moment before: what runs there is still the
    /// pool's.
    fn dismiss(&self, old: &Arc<Entry<O>>) {
        old.evict();
        let mut leaving = self.leaving.lock();
        leaving.retain(|entry| entry.strong_count() > 0);
        leaving.push(Arc::downgrade(old));
        drop(leaving);
        if self.is_closed() {
            // `close()` may have missed it.
            old.close(some(self.config.drain_timeout));
        }
    }

    /// All origins that sessions belong to, those included that had to leave.
    pub(super) fn entries(&self) -> Vec<Arc<Entry<O>>> {
        let mut entries = self.origins.all();
        entries.extend(self.leaving.lock().iter().filter_map(Weak::upgrade));
        entries
    }

    fn full(&self, key: &O) -> Error {
        let message = format!(
            "all {} origins (`max_origins`) have requests running or waiting",
            self.config.max_origins
        );
        Error::new(Kind::Saturated, message).with_origin(key.origin())
    }

    /// Refuses new work; running streams may go on for `grace`, `None` for as long as they take.
    pub(super) fn close(&self, grace: Option<Duration>) {
        self.closed.store(true, Ordering::Release);
        if let Some(permits) = &self.permits {
            permits.close();
        }
        for entry in self.entries() {
            entry.close(grace);
        }
        self.closing.notify_waiters();
        self.end_if_unused();
    }

    /// Resolves when the pool is closed.
    pub(super) async fn wait_closing(&self) {
        let notified = self.closing.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_closed() {
            notified.await;
        }
    }

    /// Resolves once all sessions of a closed pool have ended.
    pub(super) async fn wait_ended(&self) {
        loop {
            let notified = self.ended.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_closed() && self.alive.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    /// One more session or dial that holds the pool.
    pub(super) fn one_more(self: &Arc<Self>) -> AliveGuard<O> {
        self.alive.fetch_add(1, Ordering::AcqRel);
        AliveGuard { core: self.clone() }
    }

    fn end_if_unused(&self) {
        if self.is_closed() && self.alive.load(Ordering::Acquire) == 0 {
            self.runtimes.end();
            // Here, too: `close()` does not find those any more that it has not come to.
            for entry in self.entries() {
                entry.close(None);
            }
            self.origins.clear();
            self.ended.notify_waiters();
        }
    }

    /// Remembers that an origin speaks only HTTP/1.1, and returns until when; its state is told by others. One that had to
    /// leave the memory for it is offered HTTP/2 again with its next dial.
    pub(super) fn mark_h1_only(&self, key: &O, now: Instant) -> Option<Instant> {
        let kept = key.detached();
        let marked = self.h1_only.lock().mark(&kept, now);
        let (until, left) = marked?;
        if let Some(entry) = left.and_then(|left| self.origins.get(&left)) {
            run(&entry, |inner| inner.state.set_h1_only(None, now));
        }
        Some(until)
    }

    /// A server wants HTTP/1.1. What it says is remembered if it proved who it is (P25); otherwise the origin alone knows,
    /// for as long as it takes to serve what waits now.
    pub(super) fn wants_h1(&self, key: &O, authenticated: bool) {
        let now = clock::now();
        let remembered = authenticated.then(|| self.mark_h1_only(key, now));
        self.set_h1_only(key, remembered.flatten(), now);
    }

    pub(super) fn set_h1_only(&self, key: &O, until: Option<Instant>, now: Instant) {
        let until = until.or_else(|| now.checked_add(self.config.connect_timeout));
        if let Some(entry) = self.origins.get(key) {
            if self.speaks_h1() {
                run(&entry, |inner| inner.state.set_h1_only(until, now));
            } else {
                let cause = entry.name(self.only_h1());
                run(&entry, |inner| inner.state.turn_away(cause, now));
            }
        }
    }

    /// Whether HTTP/1.1 is the pool's own business: not where a fallback takes it, nor without the feature (P27).
    pub(super) fn speaks_h1(&self) -> bool {
        cfg!(feature = "http1") && self.fallback.is_none()
    }

    /// The error of an origin that speaks only HTTP/1.1, where that cannot be spoken. (A request goes to the fallback then,
    /// if there is one.)
    pub(super) fn only_h1(&self) -> Error {
        let message = if self.fallback.is_some() {
            "the origin speaks only HTTP/1.1, which the `fallback` serves: it takes requests, and gives no leases"
        } else {
            "the origin speaks only HTTP/1.1: enable the feature `http1`, or give the builder a `fallback` service"
        };
        Error::new(Kind::H1Only, message)
    }

    /// Forgets it.
    pub(super) fn clear_h1_only(&self, key: &O) -> bool {
        let now = clock::now();
        let was = self.h1_only.lock().forget(key, now);
        if let Some(entry) = self.origins.get(key) {
            run(&entry, |inner| inner.state.set_h1_only(None, now));
        }
        was
    }

    /// A number below 1, for jitter (splitmix64).
    pub(super) fn random(&self) -> f64 {
        (self.random_bits() >> 40) as f64 / (1_u64 << 24) as f64
    }

    pub(super) fn random_bits(&self) -> u64 {
        let mut bits = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }
}

impl<O: Key> Mourner for Core<O> {
    fn runtime_ended(self: Arc<Self>, runtime: RuntimeId) {
        if self.runtimes.forget(runtime) {
            let now = clock::now();
            for entry in self.entries() {
                run(&entry, |inner| inner.state.handle_runtime_ended(runtime, now));
            }
        }
    }
}

/// Held by every dial and session task.
pub(super) struct AliveGuard<O: Key> {
    core: Arc<Core<O>>,
}

impl<O: Key> Drop for AliveGuard<O> {
    fn drop(&mut self) {
        if self.core.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.core.end_if_unused();
        }
    }
}

/// The error of everything that is asked of a closed pool.
pub(super) fn closed() -> Error {
    Error::new(Kind::Closed, "the pool is closed")
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Uri, Version};

    use crate::connect::Offer;
    use crate::connect::memory::pair;
    use crate::{H2Pool, Origin};

    #[tokio::test(start_paused = true)]
    async fn what_runs_on_an_origin_that_had_to_leave_is_still_the_pools() {
        // P20, P39, P40
        let (connector, mut listener) = pair::<Origin>();
        let pool = H2Pool::builder().connector(connector).build().unwrap();
        tokio::spawn(async move {
            let io = listener.accept().await.unwrap().accept(Version::HTTP_2);
            let mut server = h2::server::handshake(io).await.unwrap();
            while let Some(Ok(_)) = server.accept().await {}
        });
        let key: Origin = "https://a".parse().unwrap();
        let lease = pool.acquire(&key).await.unwrap();
        // As when the slot was granted after the origin was found idle.
        let entry = pool.core().entry(&key).unwrap();
        pool.core().origins.clear();
        pool.core().dismiss(&entry);
        drop(entry);
        let stats = pool.stats();
        assert_eq!((stats.origins, stats.sessions_draining, stats.streams), (0, 1, 1));
        assert_eq!(pool.sessions().len(), 1);
        let before = crate::clock::now();
        pool.close();
        pool.closed().await;
        assert_eq!((crate::clock::now() - before).as_secs(), 30, "`drain_timeout`");
        assert_eq!(pool.stats().sessions_closed.evicted, 1);
        drop(lease);
        assert!(pool.sessions().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_memory_a_mark_changes_nothing() {
        // P25: nor where the origin is in use.
        let (connector, mut listener) = pair::<Origin>();
        let builder = H2Pool::builder().connector(connector);
        let pool = builder.h1_only_ttl(Duration::ZERO).build().unwrap();
        let key: Origin = "https://a".parse().unwrap();
        let _entry = pool.core().entry(&key).unwrap();
        pool.mark_h1_only(&key);
        assert!(!pool.is_h1_only(&key));
        pool.warm(&key, 1).unwrap();
        assert_eq!(listener.accept().await.unwrap().offer(), Offer::Any);
    }

    #[test]
    fn a_mark_keeps_no_uri() {
        // P39: an origin that was read from a URI holds on to the whole of it.
        let (connector, _listener) = pair::<Origin>();
        let pool = H2Pool::builder().connector(connector).build().unwrap();
        let text = Bytes::from(format!("https://a/?{}", "q".repeat(30_000)));
        let key = Origin::from_uri(&Uri::from_maybe_shared(text.clone()).unwrap()).unwrap();
        assert!(!text.is_unique(), "the key holds it");
        pool.mark_h1_only(&key);
        assert!(pool.is_h1_only(&key));
        drop(key);
        assert!(text.is_unique());
    }
}
