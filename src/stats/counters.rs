//! The counters, and the one place through which every countable event goes.
//!
//! A pool has one [`Counters`]. Each origin has a [`Tally`] (the counters and the origin's metric labels), each
//! session a [`SessionTally`], each open stream a [`StreamTally`]. What comes in pairs is a guard: a session that is
//! dropped without a word counts as closed, and a stream ends when its guard is dropped, so that no gauge drifts.
//!
//! Counting is relaxed: each number is exact, but two of them may be read a moment apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{SessionProtocol, SessionsClosed, Stats};
use crate::metrics::{self, Labels};
use crate::origin::Origin;
use crate::state::Reason;

/// What happened since the pool was made.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    sessions_opened: AtomicU64,
    sessions_closed: [AtomicU64; CloseReason::ALL.len()],
    streams_started: AtomicU64,
    streams_refused: AtomicU64,
    replays: AtomicU64,
    dials_failed: AtomicU64,
    waits: AtomicU64,
    /// 584 years of waiting fit.
    wait_nanos: AtomicU64,
    waiters_cancelled: AtomicU64,
    acquire_timeouts: AtomicU64,
    saturated: AtomicU64,
    h1_only_hits: AtomicU64,
    probes: AtomicU64,
}

impl Counters {
    /// All zero.
    pub(crate) fn new() -> Self {
        metrics::describe();
        Self::default()
    }

    /// What happened so far. The numbers about now are zero: whoever holds the sessions fills them in.
    pub(crate) fn snapshot(&self) -> Stats {
        let mut sessions_closed = SessionsClosed::default();
        for (reason, count) in CloseReason::ALL.iter().zip(&self.sessions_closed) {
            *reason.of(&mut sessions_closed) = count.load(Relaxed);
        }
        Stats {
            sessions_opened: self.sessions_opened.load(Relaxed),
            sessions_closed,
            streams_started: self.streams_started.load(Relaxed),
            streams_refused: self.streams_refused.load(Relaxed),
            replays: self.replays.load(Relaxed),
            dials_failed: self.dials_failed.load(Relaxed),
            waits: self.waits.load(Relaxed),
            wait_time: Duration::from_nanos(self.wait_nanos.load(Relaxed)),
            waiters_cancelled: self.waiters_cancelled.load(Relaxed),
            acquire_timeouts: self.acquire_timeouts.load(Relaxed),
            saturated: self.saturated.load(Relaxed),
            h1_only_hits: self.h1_only_hits.load(Relaxed),
            probes: self.probes.load(Relaxed),
            ..Stats::default()
        }
    }
}

/// Counts for one origin. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    counters: Arc<Counters>,
    labels: Labels,
}

impl Tally {
    pub(crate) fn new(counters: &Arc<Counters>, origin: &Origin) -> Self {
        Self {
            counters: Arc::clone(counters),
            labels: Labels::new(origin),
        }
    }

    /// A connection is open and its protocol settled.
    pub(crate) fn session_opened(&self, protocol: SessionProtocol) -> SessionTally {
        add(&self.counters.sessions_opened);
        metrics::session_opened(&self.labels, protocol);
        SessionTally {
            tally: self.clone(),
            protocol,
            state: AtomicU64::new(0),
            reason: OnceLock::new(),
        }
    }

    /// `kind` is the error's, or `unused` for a session that ended before it served anything.
    pub(crate) fn dial_failed(&self, kind: &'static str) {
        add(&self.counters.dials_failed);
        metrics::dial_failed(&self.labels, kind);
    }

    /// A dial offers only HTTP/1.1 because the origin is remembered to speak nothing else.
    pub(crate) fn h1_only_hit(&self) {
        add(&self.counters.h1_only_hits);
        metrics::h1_only_hit(&self.labels);
    }

    /// An acquisition found no room and queues. [`waiter_left`](Self::waiter_left) follows, once.
    pub(crate) fn waiter_queued(&self) {
        add(&self.counters.waits);
        metrics::waiter_queued(&self.labels);
    }

    /// It queues no longer.
    pub(crate) fn waiter_left(&self, outcome: Left, waited: Duration) {
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.counters.wait_nanos.fetch_add(nanos, Relaxed);
        match outcome {
            Left::Served | Left::Failed => {}
            Left::Cancelled => add(&self.counters.waiters_cancelled),
            Left::TimedOut => add(&self.counters.acquire_timeouts),
        }
        metrics::waiter_left(&self.labels, outcome, waited);
    }

    /// An acquisition was refused because the queue is full.
    pub(crate) fn saturated(&self) {
        add(&self.counters.saturated);
        metrics::saturated(&self.labels);
    }

    /// A server refused a stream without having processed it: REFUSED_STREAM, or a GOAWAY that excludes it.
    pub(crate) fn stream_refused(&self) {
        add(&self.counters.streams_refused);
        metrics::stream_refused(&self.labels);
    }

    /// A request is sent again.
    pub(crate) fn replayed(&self) {
        add(&self.counters.replays);
        metrics::replayed(&self.labels);
    }

    /// A session is asked for a sign of life.
    pub(crate) fn probed(&self) {
        add(&self.counters.probes);
        metrics::probed(&self.labels);
    }
}

/// One open session. Dropped before [`closed`](Self::closed) was called, it counts as lost.
#[derive(Debug)]
pub(crate) struct SessionTally {
    tally: Tally,
    protocol: SessionProtocol,
    /// The number of open streams, which only metrics ask for; [`CLOSED`] on top when the session is closed.
    state: AtomicU64,
    /// Why it was closed.
    reason: OnceLock<CloseReason>,
}

/// Above any number of streams.
const CLOSED: u64 = 1 << 63;

impl SessionTally {
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A request is given to the session. It counts as running until the guard is dropped.
    pub(crate) fn stream_started(self: &Arc<Self>) -> StreamTally {
        add(&self.tally.counters.streams_started);
        if !metrics::ENABLED {
            return StreamTally { session: None };
        }
        let first = self.state.fetch_add(1, Relaxed) == 0;
        metrics::stream_started(&self.tally.labels, first.then_some(self.protocol));
        StreamTally {
            session: Some(Arc::clone(self)),
        }
    }

    /// The session is closed, `age` after it was opened. Only the first call counts; answers with its reason.
    pub(crate) fn closed(&self, reason: CloseReason, age: Duration) -> CloseReason {
        let counted = *self.reason.get_or_init(|| reason);
        if self.count_closed(counted) {
            metrics::session_lasted(&self.tally.labels, self.protocol, age);
        }
        counted
    }

    /// False if it was closed before.
    fn count_closed(&self, reason: CloseReason) -> bool {
        let before = self.state.fetch_or(CLOSED, Relaxed);
        if before & CLOSED != 0 {
            return false;
        }
        add(&self.tally.counters.sessions_closed[reason as usize]);
        metrics::session_closed(&self.tally.labels, self.protocol, before > 0, reason.as_str());
        true
    }
}

impl Drop for SessionTally {
    fn drop(&mut self) {
        self.count_closed(CloseReason::Io);
    }
}

/// One open stream; ends when dropped.
#[derive(Debug)]
pub(crate) struct StreamTally {
    /// `None` where nobody wants to know.
    session: Option<Arc<SessionTally>>,
}

impl Drop for StreamTally {
    fn drop(&mut self) {
        let Some(session) = &self.session else {
            return;
        };
        let last = session.state.fetch_sub(1, Relaxed) == 1;
        metrics::stream_ended(&session.tally.labels, last.then_some(session.protocol));
    }
}

/// How an acquisition left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// With a slot.
    Served,
    /// It was dropped.
    Cancelled,
    /// `acquire_timeout` passed.
    TimedOut,
    /// With an error: the dial failed, the pool was closed.
    Failed,
}

impl Left {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// Why a session was closed; a field of [`SessionsClosed`] each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    Idle,
    Age,
    StreamsServed,
    Goaway,
    KeepAlive,
    Io,
    Unused,
    Switched,
    Protocol,
    Evicted,
    Closed,
}

impl CloseReason {
    /// In the order of the discriminants.
    pub(super) const ALL: [Self; 11] = [
        Self::Idle,
        Self::Age,
        Self::StreamsServed,
        Self::Goaway,
        Self::KeepAlive,
        Self::Io,
        Self::Unused,
        Self::Switched,
        Self::Protocol,
        Self::Evicted,
        Self::Closed,
    ];

    /// The field's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Age => "age",
            Self::StreamsServed => "streams_served",
            Self::Goaway => "goaway",
            Self::KeepAlive => "keep_alive",
            Self::Io => "io",
            Self::Unused => "unused",
            Self::Switched => "switched",
            Self::Protocol => "protocol",
            Self::Evicted => "evicted",
            Self::Closed => "closed",
        }
    }

    /// The field.
    pub(super) fn of(self, closed: &mut SessionsClosed) -> &mut u64 {
        match self {
            Self::Idle => &mut closed.idle,
            Self::Age => &mut closed.age,
            Self::StreamsServed => &mut closed.streams_served,
            Self::Goaway => &mut closed.goaway,
            Self::KeepAlive => &mut closed.keep_alive,
            Self::Io => &mut closed.io,
            Self::Unused => &mut closed.unused,
            Self::Switched => &mut closed.switched,
            Self::Protocol => &mut closed.protocol,
            Self::Evicted => &mut closed.evicted,
            Self::Closed => &mut closed.closed,
        }
    }
}

impl From<Reason> for CloseReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Idle => Self::Idle,
            Reason::Age => Self::Age,
            Reason::Worn => Self::StreamsServed,
            Reason::Goaway => Self::Goaway,
            Reason::Unanswered => Self::KeepAlive,
            Reason::Lost => Self::Io,
            Reason::Useless => Self::Unused,
            Reason::Protocol => Self::Switched,
            Reason::Evicted => Self::Evicted,
            Reason::Closed => Self::Closed,
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> (Arc<Counters>, Tally) {
        let counters = Arc::new(Counters::new());
        let tally = Tally::new(&counters, &Origin::https("example.com", 443).unwrap());
        (counters, tally)
    }

    #[test]
    fn each_event_is_seen_in_the_next_snapshot() {
        // P40
        let (counters, tally) = tally();
        assert_eq!(counters.snapshot(), Stats::default());

        let session = Arc::new(tally.session_opened(SessionProtocol::H2));
        assert_eq!(counters.snapshot().sessions_opened, 1);
        drop(session.stream_started());
        drop(session.stream_started());
        assert_eq!(counters.snapshot().streams_started, 2);
        tally.stream_refused();
        tally.replayed();
        tally.dial_failed("connect");
        tally.h1_only_hit();
        tally.saturated();
        tally.probed();
        session.closed(CloseReason::Goaway, Duration::from_secs(5));

        let mut expected = Stats::default();
        (expected.sessions_opened, expected.sessions_closed.goaway) = (1, 1);
        (
            expected.streams_started,
            expected.streams_refused,
            expected.replays,
        ) = (2, 1, 1);
        (expected.dials_failed, expected.h1_only_hits) = (1, 1);
        (expected.saturated, expected.probes) = (1, 1);
        assert_eq!(counters.snapshot(), expected);
    }

    #[test]
    fn waits_are_counted_when_they_begin_and_timed_when_they_end() {
        // P40
        let (counters, tally) = tally();
        let outcomes = [Left::Served, Left::Cancelled, Left::TimedOut, Left::Failed];
        for _ in outcomes {
            tally.waiter_queued();
        }
        assert_eq!(
            (counters.snapshot().waits, counters.snapshot().wait_time),
            (4, Duration::ZERO)
        );
        for (seconds, outcome) in outcomes.into_iter().enumerate() {
            tally.waiter_left(outcome, Duration::from_secs(seconds as u64));
        }
        let stats = counters.snapshot();
        assert_eq!((stats.waits, stats.wait_time), (4, Duration::from_secs(6)));
        assert_eq!((stats.waiters_cancelled, stats.acquire_timeouts), (1, 1));
    }

    #[test]
    fn a_session_is_closed_once_and_by_drop_if_nobody_said_why() {
        // P40
        let (counters, tally) = tally();
        let session = tally.session_opened(SessionProtocol::H1);
        session.closed(CloseReason::Idle, Duration::ZERO);
        session.closed(CloseReason::Age, Duration::ZERO);
        drop(session);
        drop(tally.session_opened(SessionProtocol::H1));
        let closed = counters.snapshot().sessions_closed;
        assert_eq!((closed.idle, closed.age, closed.io, closed.total()), (1, 0, 1, 2));
    }

    #[test]
    fn every_reason_counts_in_the_field_of_its_name() {
        // P40
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let (counters, tally) = tally();
            tally
                .session_opened(SessionProtocol::H2)
                .closed(reason, Duration::ZERO);
            let closed = counters.snapshot().sessions_closed;
            assert_eq!(closed.total(), 1);
            let shown = format!("{closed:?}");
            assert!(shown.contains(&format!(" {}: 1", reason.as_str())), "{shown}");
        }
        let fields = format!("{:?}", SessionsClosed::default()).matches(": ").count();
        assert_eq!(fields, CloseReason::ALL.len());
    }

    #[test]
    fn the_reasons_of_the_core_have_a_place() {
        // P40
        assert_eq!(CloseReason::from(Reason::Worn), CloseReason::StreamsServed);
        assert_eq!(CloseReason::from(Reason::Unanswered), CloseReason::KeepAlive);
        assert_eq!(CloseReason::from(Reason::Useless), CloseReason::Unused);
        assert_eq!(CloseReason::from(Reason::Protocol), CloseReason::Switched);
    }
}
