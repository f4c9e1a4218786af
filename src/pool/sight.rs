//! What a pool shows of itself, read from memory: nothing here dials or waits (P40).

use std::time::Instant;

use super::H2Pool;
use super::entry::Entry;
use crate::clock;
use crate::origin::Key;
use crate::state::{Phase, Snapshot};
use crate::stats::{SessionFilter, SessionInfo, SessionState, Stats};

impl<O: Key> H2Pool<O> {
    /// What the pool holds and has done. A session that was opened, or an origin that was marked, is in the next read.
    ///
    /// ```
    /// # let (connector, _) = h2pool::connect::memory::pair();
    /// # let new = || h2pool::H2Pool::builder().connector(connector).build();
    /// let pool = new()?;
    /// assert_eq!(pool.stats().sessions_opened, 0);
    /// # Ok::<(), h2pool::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        let core = self.core();
        let mut stats = core.counters.snapshot();
        let entries = core.entries();
        for entry in &entries {
            entry.shared().read(|inner| {
                stats.sessions_dialing += inner.state.dials().count();
                stats.waiters += inner.state.waiting() as usize;
                for session in inner.state.snapshot() {
                    stats.streams += session.in_use as usize;
                    match session.phase {
                        Phase::Active => stats.sessions_active += 1,
                        Phase::Draining => stats.sessions_draining += 1,
                    }
                }
            });
        }
        stats.origins = core.origins.len();
        stats.origins_h1_only = core.h1_only.lock().remembered(clock::now());
        stats
    }

    /// The sessions as they are now, and the connections being opened.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let now = clock::now();
        let entries = self.core().entries();
        entries.iter().flat_map(|entry| entry.sessions(now)).collect()
    }

    /// Those that a filter lets through.
    ///
    /// ```
    /// # let (connector, _) = h2pool::connect::memory::pair();
    /// # let new = || h2pool::H2Pool::builder().connector(connector).build();
    /// let pool = new()?;
    /// let draining = pool.sessions_matching(&"protocol=h2,state=draining".parse()?);
    /// assert!(draining.is_empty());
    /// # Ok::<(), h2pool::Error>(())
    /// ```
    #[must_use]
    pub fn sessions_matching(&self, filter: &SessionFilter) -> Vec<SessionInfo> {
        self.sessions()
            .into_iter()
            .filter(|session| filter.matches(session))
            .collect()
    }
}

impl<O: Key> Entry<O> {
    fn sessions(&self, now: Instant) -> Vec<SessionInfo> {
        let origin = self.key.origin().to_string();
        self.shared().read(|inner| {
            let open = inner.state.snapshot().map(|session| {
                let address = inner.handle(session.id).map(|handle| handle.address().clone());
                SessionInfo {
                    id: address.as_ref().map_or(0, |address| address.session),
                    peer_addr: address.and_then(|address| address.peer),
                    ..describe(&origin, &session, now)
                }
            });
            let dials = inner.state.dials().map(|started| SessionInfo {
                id: 0,
                origin: origin.clone(),
                protocol: None,
                state: SessionState::Dialing,
                streams: 0,
                limit: 0,
                streams_served: 0,
                age: now.saturating_duration_since(started),
                idle: None,
                peer_addr: None,
            });
            open.chain(dials).collect()
        })
    }
}

fn describe(origin: &str, session: &Snapshot, now: Instant) -> SessionInfo {
    SessionInfo {
        id: 0,
        origin: origin.to_owned(),
        protocol: Some(session.protocol.into()),
        state: session.phase.into(),
        streams: session.in_use as usize,
        limit: session.limit as usize,
        streams_served: session.streams,
        age: now.saturating_duration_since(session.opened_at),
        idle: session
            .idle_since
            .map(|since| now.saturating_duration_since(since)),
        peer_addr: None,
    }
}
