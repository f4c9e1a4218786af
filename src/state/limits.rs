//! The numbers that the core decides by.

use std::time::Duration;

/// Bounds and times, checked before they get here. `None` means off.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions dialing and active, per group.
    pub max_sessions: u32,
    /// The same while the origin speaks HTTP/1.1.
    pub max_h1_connections: u32,
    /// Kept open while the origin is in use.
    pub min_sessions: u32,
    /// The cap on streams per session.
    pub streams_per_session: u32,
    /// Choose the busiest session with room, not the least busy.
    pub pack: bool,
    /// Callers that may queue; `None`: any number.
    pub max_waiters: Option<u32>,
    /// How long a session may take to become useful.
    pub connect_timeout: Duration,
    /// How long a session without streams is kept.
    pub idle_timeout: Option<Duration>,
    /// How long a session is used; jittered down by up to a tenth.
    pub max_age: Option<Duration>,
    /// How many streams a session may carry in its life.
    pub max_streams_per_session: Option<u64>,
    /// How long a draining session may take.
    pub drain_timeout: Option<Duration>,
    /// How long a probe may go unanswered.
    pub probe_timeout: Duration,
    /// How long a session that refused twice gets no work.
    pub refusal_pause: Duration,
    /// The first pause after a failed dial; doubled from failure to failure.
    pub backoff_base: Duration,
    /// The longest pause between dials.
    pub backoff_max: Duration,
}

impl Limits {
    /// How long a session that is to be replaced may be without streams and still count as in use.
    pub(super) fn lull(&self) -> Duration {
        self.max_age
            .map_or(LULL, |age| (age / 10).clamp(Duration::from_millis(1), LULL))
    }

    /// Whether a session that has carried so many streams is to be replaced.
    pub(super) fn is_worn(&self, streams: u64) -> bool {
        self.max_streams_per_session.is_some_and(|max| streams >= max)
    }
}

/// Longer than requests that follow each other are apart, and shorter than anybody waits for nothing.
const LULL: Duration = Duration::from_secs(1);

/// The limit on streams before the server's SETTINGS are known and nothing was learned before.
pub(super) const UNKNOWN_STREAMS: u32 = 100;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sessions: 4,
            max_h1_connections: 16,
            min_sessions: 0,
            streams_per_session: 256,
            pack: false,
            max_waiters: Some(2048),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Some(Duration::from_secs(90)),
            max_age: None,
            max_streams_per_session: None,
            drain_timeout: Some(Duration::from_secs(30)),
            probe_timeout: Duration::from_secs(1),
            refusal_pause: Duration::from_secs(1),
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}
