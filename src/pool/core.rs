//! What all origins of a pool share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::dial::h1_only;
use super::entry::Entry;
use super::fallback::Fallback;
use super::registry::Registry;
use super::runtime::{Mourner, Runtimes};
use super::shared::run;
use crate::clock;
use crate::config::{Balance, PoolConfig};
use crate::connect::ErasedConnect;
use crate::error::{Error, Kind};
use crate::origin::Key;
use crate::session::meter::Bounds;
use crate::session::{KeepAlive, Patience, Sizes, Tuning};
use crate::state::h1_only::H1Only;
use crate::state::{Limits, RuntimeId};
use crate::stats::Counters;

/// The first and the longest pause between dials to an origin that fails.
const DIAL_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a session that refused twice gets no work.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// The pool without its handles.
pub(crate) struct Core<O: Key> {
    pub(super) config: PoolConfig,
    pub(super) limits: Arc<Limits>,
    pub(super) tuning: Tuning,
    pub(super) patience: Patience,
    pub(super) connector: Arc<dyn ErasedConnect<O>>,
    pub(super) fallback: Option<Fallback>,
    pub(super) origins: Registry<O, Entry<O>>,
    pub(super) runtimes: Runtimes,
    pub(super) counters: Arc<Counters>,
    /// `limit_concurrency`, where it is on.
    pub(super) permits: Option<Arc<Semaphore>>,
    pub(super) h1_only: Mutex<H1Only<O>>,
    closed: AtomicBool,
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
        Arc::new(Self {
            limits: Arc::new(limits(&config)),
            tuning: tuning(&config),
            patience: Patience {
                header: some(config.header_timeout),
                body_idle: some(config.body_idle_timeout),
                write: some(config.write_timeout),
            },
            connector,
            fallback,
            origins: Registry::new(config.max_origins),
            runtimes: Runtimes::default(),
            counters: Arc::new(Counters::new()),
            permits: (permits > 0).then(|| Arc::new(Semaphore::new(permits))),
            h1_only: Mutex::new(H1Only::new(config.h1_only_capacity, config.h1_only_ttl)),
            closed: AtomicBool::new(false),
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
        let key = &key.detached();
        let inserted = self.origins.insert(key, || Entry::new(self.clone(), key.clone()));
        let (entry, evicted) = inserted.ok_or_else(|| self.full(key))?;
        for old in evicted {
            old.evict();
        }
        if self.is_closed() {
            // `close()` may have missed the entry.
            entry.close(some(self.config.drain_timeout));
            self.origins.clear();
            return Err(closed());
        }
        Ok(entry)
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
        for entry in self.origins.all() {
            entry.close(grace);
        }
        self.end_if_unused();
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
            self.origins.clear();
            self.ended.notify_waiters();
        }
    }

    /// Remembers that an origin speaks only HTTP/1.1.
    pub(super) fn remember_h1_only(&self, key: &O, now: Instant) {
        let remembered = self.h1_only.lock().mark(key, now);
        self.set_h1_only(key, remembered, now);
    }

    /// A server wants HTTP/1.1. What it says is remembered if it proved who it is (P25); otherwise the origin alone knows,
    /// for as long as it takes to serve what waits now.
    pub(super) fn wants_h1(&self, key: &O, authenticated: bool) {
        let now = clock::now();
        if authenticated {
            self.remember_h1_only(key, now);
        } else {
            self.set_h1_only(key, None, now);
        }
    }

    fn set_h1_only(&self, key: &O, until: Option<Instant>, now: Instant) {
        let until = until.or_else(|| now.checked_add(self.config.connect_timeout));
        if let Some(entry) = self.origins.get(key) {
            if self.speaks_h1() {
                run(&entry, |inner| inner.state.set_h1_only(until, now));
            } else {
                let cause = entry.name(h1_only());
                run(&entry, |inner| inner.state.turn_away(cause, now));
            }
        }
    }

    /// Whether HTTP/1.1 is the pool's own business: not where a fallback takes it, nor without the feature (P27).
    pub(super) fn speaks_h1(&self) -> bool {
        cfg!(feature = "http1") && self.fallback.is_none()
    }

    /// Forgets it.
    pub(super) fn clear_h1_only(&self, key: &O) -> bool {
        let now = clock::now();
        let was = self.h1_only.lock().clear(key);
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
            for entry in self.origins.all() {
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

/// Zero means off.
pub(super) fn some(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

fn limits(config: &PoolConfig) -> Limits {
    Limits {
        max_sessions: bound(config.max_sessions),
        max_h1_connections: bound(config.max_h1_connections),
        min_sessions: bound(config.min_sessions),
        streams_per_session: bound(config.streams_per_session),
        pack: config.balance == Balance::Pack,
        max_waiters: (config.max_waiters > 0).then(|| bound(config.max_waiters)),
        connect_timeout: config.connect_timeout,
        idle_timeout: some(config.idle_timeout),
        max_age: some(config.max_age),
        max_streams_per_session: (config.max_streams_per_session > 0)
            .then_some(config.max_streams_per_session as u64),
        drain_timeout: some(config.drain_timeout),
        probe_timeout: config.probe_timeout,
        refusal_pause: REFUSAL_PAUSE,
        backoff_base: DIAL_BACKOFF.0,
        backoff_max: DIAL_BACKOFF.1,
    }
}

fn tuning(config: &PoolConfig) -> Tuning {
    Tuning {
        windows: Sizes {
            stream: config.stream_window,
            connection: config.connection_window,
        },
        most_windows: config.adaptive_window.then_some(Sizes {
            stream: config.max_stream_window,
            connection: config.max_connection_window,
        }),
        max_frame_size: config.max_frame_size,
        max_header_list_size: config.max_header_list_size,
        max_send_buffer: config.max_send_buffer,
        streams: config.streams_per_session,
        keep_alive: some(config.keep_alive_interval).map(|interval| KeepAlive {
            interval,
            timeout: config.keep_alive_timeout,
            while_idle: config.keep_alive_while_idle,
        }),
        write_timeout: some(config.write_timeout),
        body_idle_timeout: some(config.body_idle_timeout),
        bounds: Bounds {
            control_per_second: bound(config.control_frames_per_second),
            window_updates_per_second: bound(config.control_frames_per_second),
            informational: bound(config.max_informational),
            informational_bytes: u64::from(config.max_header_list_size),
            header_block_bytes: u64::from(config.max_header_list_size),
            ..Bounds::default()
        },
    }
}

/// Validated to fit.
fn bound(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
