//! What a pool shows of itself: [`Stats`], the sessions' [`SessionInfo`], and the counters behind them.
//!
//! Plain data, read from memory: making a snapshot never dials and never waits (P40).

mod counters;
mod filter;
mod session;

use std::time::Duration;

pub use filter::SessionFilter;
pub use session::{SessionInfo, SessionProtocol, SessionState};

pub(crate) use counters::{CloseReason, Counters, Left, SessionTally, StreamTally, Tally};

/// A pool's numbers at one moment: what there is now, and what happened since the pool was made.
///
/// ```
/// # fn log(stats: &h2pool::Stats) {
/// let sessions = stats.sessions_active + stats.sessions_dialing + stats.sessions_draining;
/// println!("{} streams on {sessions} sessions, {} waiting", stats.streams, stats.waiters);
/// # }
/// ```
///
/// With the feature `serde` it can be written; durations as `"1s 500ms"`.
///
/// # Metrics
///
/// With the feature `metrics` the same events go to the recorder of the [`metrics`](https://docs.rs/metrics) facade
/// that is installed when they happen. Every metric carries `server.address` and `server.port`. Three have the names
/// and units of OpenTelemetry's semantic conventions:
///
/// | metric | type | further labels |
/// | --- | --- | --- |
/// | `http.client.open_connections` | gauge | `http.connection.state` = `active`, `idle`; `network.protocol.version` |
/// | `http.client.active_requests` | gauge | |
/// | `http.client.connection.duration` | histogram, seconds | `network.protocol.version` |
///
/// The others are the pool's own:
///
/// | metric | type | further labels |
/// | --- | --- | --- |
/// | `h2pool.sessions.opened` | counter | `network.protocol.version` |
/// | `h2pool.sessions.closed` | counter | `network.protocol.version`; `reason`: a field of [`SessionsClosed`] |
/// | `h2pool.dials.failed` | counter | `error.type` = `connect`, `connect_timeout`, `certificate`, …; `unused` for a session that ended before it served anything |
/// | `h2pool.streams.started` | counter | |
/// | `h2pool.streams.refused` | counter | |
/// | `h2pool.replays` | counter | |
/// | `h2pool.waiters` | gauge | |
/// | `h2pool.wait.duration` | histogram, seconds | `outcome` = `served`, `cancelled`, `timeout`, `failed` |
/// | `h2pool.saturated` | counter | |
/// | `h2pool.h1_only.hits` | counter | |
/// | `h2pool.probes` | counter | |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Now: sessions that take work.
    pub sessions_active: usize,
    /// Now: connections being opened.
    pub sessions_dialing: usize,
    /// Now: sessions that take no more work and end with their last stream, and those that do so once their replacement is
    /// open.
    pub sessions_draining: usize,
    /// Now: slots in use, over all sessions.
    pub streams: usize,
    /// Now: callers that wait for a slot.
    pub waiters: usize,
    /// Now: origins that the pool remembers.
    pub origins: usize,
    /// Now: origins that are remembered to speak only HTTP/1.1.
    pub origins_h1_only: usize,

    /// Since the start: sessions opened.
    pub sessions_opened: u64,
    /// Since the start: sessions closed, by reason.
    pub sessions_closed: SessionsClosed,
    /// Since the start: requests given to a session, each attempt counted, also one that found the session ended.
    pub streams_started: u64,
    /// Since the start: of those, the ones that the server refused without having processed them.
    pub streams_refused: u64,
    /// Since the start: requests that the pool sent again: because the server did not process them, because it
    /// answered 421 (Misdirected Request), or because the runtime of their session ended and their method is safe.
    pub replays: u64,
    /// Since the start: dials that failed, and sessions that ended before they served anything.
    pub dials_failed: u64,
    /// Since the start: acquisitions that found no room and queued.
    pub waits: u64,
    /// Since the start: the time that acquisitions spent in queues, whatever came of them. Those still in a queue
    /// are not in it.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub wait_time: Duration,
    /// Since the start: waiters that were dropped before they were served.
    pub waiters_cancelled: u64,
    /// Since the start: waiters that `acquire_timeout` ended.
    pub acquire_timeouts: u64,
    /// Since the start: acquisitions refused because the queue was full.
    pub saturated: u64,
    /// Since the start: dials that offered only HTTP/1.1 because the origin was remembered to speak nothing else, and requests
    /// that went to the `fallback`.
    pub h1_only_hits: u64,
    /// Since the start: PINGs sent because a request was cancelled unanswered.
    pub probes: u64,
}

/// How many sessions were closed, by what ended them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SessionsClosed {
    /// No stream for `idle_timeout`.
    pub idle: u64,
    /// Older than `max_age`.
    pub age: u64,
    /// Served `max_streams_per_session`, or came near the end of its stream ids or another lifetime cap.
    pub streams_served: u64,
    /// The server said GOAWAY.
    pub goaway: u64,
    /// A keep-alive PING or a probe was not answered.
    pub keep_alive: u64,
    /// The connection ended or failed, or the runtime that drove it ended.
    pub io: u64,
    /// Ended before it served anything: no SETTINGS in time, a limit that stayed at zero, or nobody wanted it any more when it
    /// was open.
    pub unused: u64,
    /// The origin turned to the other protocol.
    pub switched: u64,
    /// The server broke the protocol or exceeded a bound.
    pub protocol: u64,
    /// Its origin was forgotten to make room for another (`max_origins`).
    pub evicted: u64,
    /// The pool was closed.
    pub closed: u64,
}

impl SessionsClosed {
    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        let mut copy = *self;
        CloseReason::ALL.iter().map(|reason| *reason.of(&mut copy)).sum()
    }
}
