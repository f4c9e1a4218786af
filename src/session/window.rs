//! How much the server may send ahead: the windows of a session, and how they grow.
//!
//! A window that is smaller than bandwidth × delay makes the server wait for us once in each round trip. So a PING
//! measures, now and then, the time of a round trip and how much DATA came in meanwhile: where that is most of a stream's
//! window, and faster than ever before, the windows are the bottleneck, and both grow to twice of what came. Where it is
//! not, the next measurement waits twice as long as the last one did.
//!
//! The PING waits behind the very DATA it measures, so that on a short link the windows would seem to be the bottleneck
//! however large they are, and whatever else is asked for would wait behind them. So the shortest trip counts, that of the
//! session's first SETTINGS included: windows that allow a stream [`PLENTY`] at that do not grow.
//!
//! ```text
//!   half a stream's window came ──▶ PING ──▶ answer: bytes, time ──┬──▶ grow; again
//!          ▲                                                      └──▶ rest: a round trip, 2, 4, .. 10 s
//!          └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Small responses cause no PING, and at most one is under way. A stream's window grows to at most half of the
//! connection's, so that one body that nobody reads leaves the other half to all others (P30).
//!
//! Pure: bytes and time in, windows out.

use std::time::{Duration, Instant};

/// The longest rest between two measurements.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// What a round trip takes at least, for the arithmetic.
const SHORTEST: Duration = Duration::from_micros(1);

/// Bytes a second that a stream's window allows, from which on a greater one would not make it faster.
const PLENTY: f64 = 400e6;

/// RFC 9113 §6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Bytes of a stream's window, and of the connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) stream: u32,
    pub(crate) connection: u32,
}

impl Sizes {
    /// The connection's is never less than twice the stream's: one unread body leaves the other half to all others (P30).
    pub(crate) fn new(stream: u32, connection: u32) -> Self {
        Self {
            stream,
            connection: connection.max(stream.saturating_mul(2).min(MAX_WINDOW)),
        }
    }
}

/// The windows of one session.
#[derive(Debug)]
pub(super) struct Windows {
    now: Sizes,
    /// `None` once they cannot grow.
    growth: Option<Growth>,
}

#[derive(Debug)]
struct Growth {
    most: Sizes,
    /// DATA that had come when the last measurement ended, in bytes.
    mark: u64,
    /// The measurement under way: DATA that had come, and when.
    sample: Option<(u64, Instant)>,
    /// The greatest bandwidth so far, in bytes a second.
    best: f64,
    /// The shortest round trip so far.
    shortest: Duration,
    rest: Duration,
    rest_until: Option<Instant>,
}

impl Windows {
    /// `most` is what they may grow to; `None`: they stay as they are.
    pub(super) fn new(now: Sizes, most: Option<Sizes>) -> Self {
        let mut windows = Self {
            now,
            growth: most.map(Growth::new),
        };
        windows.settle();
        windows
    }

    pub(super) fn now(&self) -> Sizes {
        self.now
    }

    /// Unread bytes above which the session gets no work, and down to which it does again: one unread body alone never
    /// keeps it from work, as long as its window is at most half of the connection's (P30).
    pub(super) fn stall_marks(&self) -> (u64, u64) {
        let (stream, connection) = (u64::from(self.now.stream), u64::from(self.now.connection));
        let high = connection.saturating_sub(stream).max(connection / 2);
        (high, stream.min(high).max(high / 2))
    }

    /// The first SETTINGS were acknowledged after this time: a round trip without load.
    pub(super) fn acknowledged(&mut self, trip: Duration) {
        if let Some(growth) = &mut self.growth {
            growth.shortest = growth.shortest.min(trip.max(SHORTEST));
        }
    }

    /// Whether it is time for a PING; `received` is all DATA that came so far, in bytes. The clock is read only when
    /// enough came.
    pub(super) fn wants_ping(&self, received: u64, now: impl FnOnce() -> Instant) -> bool {
        let Some(growth) = self.growth.as_ref().filter(|growth| growth.sample.is_none()) else {
            return false;
        };
        let enough = received - growth.mark >= u64::from(self.now.stream / 2);
        enough && growth.rest_until.is_none_or(|until| until <= now())
    }

    /// The PING was sent.
    pub(super) fn pinged(&mut self, received: u64, now: Instant) {
        if let Some(growth) = &mut self.growth {
            growth.sample = Some((received, now));
        }
    }

    /// A PING was answered; true: the windows grew. One that was not sent for this changes nothing.
    pub(super) fn answered(&mut self, received: u64, now: Instant) -> bool {
        let Some(growth) = &mut self.growth else {
            return false;
        };
        let Some((before, since)) = growth.sample.take() else {
            return false;
        };
        growth.mark = received;
        let trip = now.saturating_duration_since(since).max(SHORTEST);
        let grown = growth.measured(self.now, received - before, trip);
        if grown == self.now {
            growth.rest = (growth.rest * 2).clamp(trip, LONGEST_REST.max(trip));
            growth.rest_until = Some(now + growth.rest);
            return false;
        }
        (growth.rest, growth.rest_until) = (Duration::ZERO, None);
        self.now = grown;
        self.settle();
        true
    }

    /// Measures no more where nothing can grow.
    fn settle(&mut self) {
        let now = self.now;
        self.growth = self
            .growth
            .take()
            .filter(|growth| growth.bound(now, u64::MAX) != now);
    }
}

impl Growth {
    fn new(most: Sizes) -> Self {
        Self {
            most,
            mark: 0,
            sample: None,
            best: 0.0,
            shortest: Duration::MAX,
            rest: Duration::ZERO,
            rest_until: None,
        }
    }

    /// The sizes after `bytes` came within one round trip.
    fn measured(&mut self, now: Sizes, bytes: u64, trip: Duration) -> Sizes {
        let bandwidth = bytes as f64 / trip.as_secs_f64();
        let faster = bandwidth > self.best;
        self.best = self.best.max(bandwidth);
        self.shortest = self.shortest.min(trip);
        let plenty = f64::from(now.stream) >= PLENTY * self.shortest.as_secs_f64();
        if plenty || !faster || bytes.saturating_mul(3) < u64::from(now.stream) * 2 {
            return now;
        }
        self.bound(now, bytes.saturating_mul(2))
    }

    /// Sizes for `wanted` bytes within one round trip: never smaller than now, nor greater than they may be.
    fn bound(&self, now: Sizes, wanted: u64) -> Sizes {
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let most = self.most.stream.min(self.most.connection / 2);
        let stream = wanted.min(most).max(now.stream);
        let connection = wanted.max(stream.saturating_mul(2)).min(self.most.connection);
        Sizes {
            stream,
            connection: connection.max(now.connection),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;
    const TRIP: Duration = Duration::from_millis(100);

    fn mib(stream: u32, connection: u32) -> Sizes {
        Sizes {
            stream: stream * MIB,
            connection: connection * MIB,
        }
    }

    /// Windows with a server that sends as fast as they allow, or `rate` bytes a round trip.
    struct Link {
        windows: Windows,
        received: u64,
        now: Instant,
        pings: usize,
    }

    impl Link {
        fn new(now: Sizes, most: Sizes) -> Self {
            Self {
                windows: Windows::new(now, Some(most)),
                received: 0,
                now: crate::clock::now(),
                pings: 0,
            }
        }

        /// One round trip, in which a PING is answered if one was sent before it; true: the windows grew.
        fn trip(&mut self, rate: u64, trip: Duration) -> bool {
            let pinged = self.windows.wants_ping(self.received, || self.now);
            if pinged {
                self.windows.pinged(self.received, self.now);
                self.pings += 1;
            }
            self.received += rate.min(u64::from(self.windows.now().stream));
            self.now += trip;
            pinged && self.windows.answered(self.received, self.now)
        }
    }

    #[test]
    fn they_double_until_they_are_no_bottleneck() {
        // P33
        let mut link = Link::new(mib(2, 5), mib(64, 128));
        let mut grown = Vec::new();
        for _ in 0..20 {
            if link.trip(u64::from(20 * MIB), TRIP) {
                grown.push(link.windows.now());
            }
        }
        assert_eq!(grown, [mib(4, 8), mib(8, 16), mib(16, 32), mib(32, 64)]);
        assert!(link.pings < 12, "{}", link.pings);
    }

    #[test]
    fn never_beyond_what_they_may() {
        // P33, P30
        let mut link = Link::new(mib(2, 5), mib(16, 16));
        for _ in 0..20 {
            link.trip(u64::MAX, TRIP);
        }
        assert_eq!(link.windows.now(), mib(8, 16), "half of the connection's");
        assert_eq!(link.pings, 2, "nothing to measure any more");
        let narrow = Link::new(mib(2, 5), mib(2, 5));
        assert!(
            !narrow
                .windows
                .wants_ping(u64::MAX, || unreachable!("the clock is not read"))
        );
    }

    #[test]
    fn a_link_that_is_full_is_measured_ever_more_rarely() {
        // P33
        let mut link = Link::new(mib(2, 5), mib(16, 16));
        for _ in 0..1000 {
            assert!(!link.trip(u64::from(MIB), TRIP));
        }
        assert!((7..=20).contains(&link.pings), "{} in 100 s", link.pings);
    }

    #[test]
    fn a_queue_that_only_delays_is_no_bandwidth() {
        // P33: twice as much in twice the time.
        let mut link = Link::new(mib(2, 5), mib(64, 64));
        assert!(!link.trip(u64::MAX, TRIP));
        assert!(link.trip(u64::MAX, TRIP));
        for _ in 0..20 {
            assert!(!link.trip(u64::MAX, 2 * TRIP));
        }
        assert_eq!(link.windows.now(), mib(4, 8));
    }

    #[test]
    fn a_short_link_needs_no_more_however_long_its_queue_is() {
        // P33: the trip without load is what tells.
        let mut link = Link::new(mib(2, 5), mib(64, 64));
        link.windows.acknowledged(Duration::from_millis(5));
        for _ in 0..20 {
            assert!(!link.trip(u64::MAX, TRIP));
        }
        let mut link = Link::new(mib(2, 5), mib(64, 64));
        link.windows.acknowledged(Duration::from_millis(20));
        let grown = (0..20).filter(|_| link.trip(u64::MAX, TRIP)).count();
        assert_eq!((grown, link.windows.now()), (2, mib(8, 16)), "400 MB a second");
    }

    #[test]
    fn small_responses_are_not_measured() {
        // P33
        let windows = Windows::new(mib(2, 5), Some(mib(16, 16)));
        assert!(!windows.wants_ping(u64::from(MIB) - 1, || unreachable!("the clock is not read")));
        assert!(windows.wants_ping(u64::from(MIB), crate::clock::now));
    }

    #[test]
    fn the_connection_grows_with_many_streams() {
        // P33
        let mut windows = Windows::new(mib(1, 4), Some(mib(1, 32)));
        let now = crate::clock::now();
        windows.pinged(0, now);
        assert!(windows.answered(u64::from(4 * MIB), now + TRIP));
        assert_eq!(windows.now(), mib(1, 8));
    }

    #[test]
    fn a_connection_has_room_for_two_bodies() {
        // P30
        assert_eq!(Sizes::new(MIB, 5 * MIB), mib(1, 5));
        assert_eq!(Sizes::new(4 * MIB, 4 * MIB), mib(4, 8));
        assert_eq!(Sizes::new(MAX_WINDOW, MAX_WINDOW).connection, MAX_WINDOW);
    }

    #[test]
    fn stall_marks_leave_room_for_one_held_body() {
        // P30
        for (stream, connection) in [(2, 5), (8, 16), (1, 2), (1, 64)] {
            let (high, low) = Windows::new(mib(stream, connection), None).stall_marks();
            let (stream, connection) = (u64::from(stream * MIB), u64::from(connection * MIB));
            assert!(high + stream <= connection && low >= stream.min(high) && low <= high);
        }
        let (high, low) = Windows::new(mib(4, 4), None).stall_marks();
        assert_eq!((high, low), (u64::from(2 * MIB), u64::from(2 * MIB)));
    }
}
