//! How much a peer may send, and the token buckets that measure its rates.

use std::fmt;
use std::time::{Duration, Instant};

/// The bounds of one session. Rates allow bursts of one second's worth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// SETTINGS, PING, PRIORITY and unknown frames a second, plus one for each DATA frame that we sent: grpc-go answers
    /// DATA with a PING to measure the bandwidth, as often as once per round trip, which on a fast network is more than
    /// a thousand times a second. Default 1,000.
    pub(crate) control_per_second: u32,
    /// WINDOW_UPDATE frames a second, plus one per KiB of DATA that we sent, plus two per DATA frame: servers that
    /// return credit as they read (Go) send one for the stream and one for the connection for the smallest message.
    /// Default 1,000.
    pub(crate) window_updates_per_second: u32,
    /// Frames a second that end or touch streams which nobody holds any more: RST_STREAM, and HEADERS on streams that
    /// are over; plus [`STRAYS_PER_STREAM`] for each stream that we opened. Default 1,000.
    pub(crate) strays_per_second: u32,
    /// GOAWAY frames in a session's life; two are usual (RFC 9113 §6.8). Default 16.
    pub(crate) goaways: u32,
    /// Interim (1xx) responses to one request. Over it the stream is at fault, over twice as many the session, whose
    /// memory they fill as long as nobody reads the stream. Default 32.
    pub(crate) informational: u32,
    /// Header bytes of those interim responses, as on the wire; twice as many are the session's fault. Default 64 KiB.
    pub(crate) informational_bytes: u64,
    /// Bytes of one header or trailer block, as on the wire. h2 measures the decoded size and ends the stream; this
    /// bound only tells why. Default 64 KiB.
    pub(crate) header_block_bytes: u64,
    /// What unread DATA frames smaller than [`SMALL_FRAME`] may cost in memory beyond their payload, all streams
    /// together, in bytes: flow control does not see it. Over it the stream that holds most of them is at fault.
    /// Default 8 MiB: a window of 2 MiB full of frames of 52 bytes or more stays under it.
    pub(crate) small_frames: u64,
    /// The largest window that a stream is ever given, in bytes. DATA that nobody takes (on one stream held and unread,
    /// or late for streams that were given up) can honestly be no more than that for each stream; twice as much on a
    /// stream that is held, or [`LATE_SLACK`] more for those given up, is the session's fault. Default 16 MiB.
    pub(crate) stream_window: u64,
}

/// DATA in bytes that may come for streams that are over, beyond what their windows explain.
pub(crate) const LATE_SLACK: u64 = 1 << 20;

/// How many windows of streams that were given up may lie unused for late DATA: what is under way is far less, and years
/// of cancels buy no flood.
pub(crate) const LATE_WINDOWS: u64 = 64;

/// h2 counts a DATA frame as if it took at least this many bytes of memory, as it about does.
pub(crate) const SMALL_FRAME: u64 = 256;

/// What a DATA frame costs beyond its payload of `bytes`. Empty ones are counted by themselves.
pub(super) fn overhead(bytes: u64) -> u64 {
    if bytes == 0 {
        0
    } else {
        SMALL_FRAME.saturating_sub(bytes)
    }
}

/// What a server may still send for a stream after we gave it up: headers, trailers, RST_STREAM.
pub(crate) const STRAYS_PER_STREAM: u64 = 3;

impl Default for Bounds {
    fn default() -> Self {
        Self {
            control_per_second: 1_000,
            window_updates_per_second: 1_000,
            strays_per_second: 1_000,
            goaways: 16,
            informational: 32,
            informational_bytes: 64 * 1024,
            header_block_bytes: 64 * 1024,
            small_frames: 8 * 1024 * 1024,
            stream_window: 16 * 1024 * 1024,
        }
    }
}

/// A bound that the peer went over, or a rule that it broke. `Display` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// The answer to the preface is HTTP/1.x.
    Http1,
    /// The first frame is not SETTINGS.
    FirstFrame { kind: u8 },
    /// The answer to a request that was not sent yet.
    Unasked { stream: u32 },
    /// Too many SETTINGS, PING, PRIORITY or unknown frames.
    ControlRate { per_second: u32 },
    /// Too many WINDOW_UPDATE frames.
    WindowUpdateRate { per_second: u32 },
    /// Too many RST_STREAM frames, or HEADERS on streams that are over.
    StrayRate { per_second: u32 },
    /// Too many GOAWAY frames.
    Goaways { max: u32 },
    /// Too many interim responses on one stream.
    Informational { stream: u32, max: u32 },
    /// Too many bytes of interim responses on one stream.
    InformationalBytes { stream: u32, max: u64 },
    /// A header or trailer block that is too long.
    HeaderBlock { stream: u32, max: u64 },
    /// Too many small DATA frames that nobody reads.
    SmallFrames { stream: u32, max: u64 },
    /// Far more DATA on a stream than its window allowed.
    Window { stream: u32, max: u64 },
    /// More DATA for streams that are over than their windows allowed.
    LateData { window: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1 => f.write_str("the peer answered in HTTP/1.x, not in HTTP/2"),
            Self::FirstFrame { kind } => {
                write!(
                    f,
                    "the first frame of the peer has type {kind}, not SETTINGS (RFC 9113 section 3.4)"
                )
            }
            Self::Unasked { stream } => write!(
                f,
                "HEADERS or DATA on stream {stream}, of which no request was sent (RFC 9113 section 5.1)"
            ),
            Self::ControlRate { per_second } => {
                write!(
                    f,
                    "more than {per_second} SETTINGS, PING, PRIORITY or unknown frames a second \
                     (`control_frames_per_second`)"
                )
            }
            Self::WindowUpdateRate { per_second } => write!(
                f,
                "more than {per_second} WINDOW_UPDATE frames a second beyond those that the DATA sent explains \
                 (`control_frames_per_second`)"
            ),
            Self::StrayRate { per_second } => {
                write!(
                    f,
                    "more than {per_second} RST_STREAM frames, or HEADERS, empty or last DATA frames on closed streams, a second"
                )
            }
            Self::Goaways { max } => write!(f, "more than {max} GOAWAY frames"),
            Self::Informational { stream, max } => {
                write!(
                    f,
                    "more than {max} informational (1xx) responses on stream {stream} (`max_informational`)"
                )
            }
            Self::InformationalBytes { stream, max } => {
                write!(
                    f,
                    "more than {max} bytes of informational (1xx) responses on stream {stream} (`max_header_list_size`)"
                )
            }
            Self::HeaderBlock { stream, max } => {
                write!(
                    f,
                    "a header or trailer block of more than {max} bytes on stream {stream} (`max_header_list_size`)"
                )
            }
            Self::SmallFrames { stream, max } => write!(
                f,
                "unread DATA frames under {SMALL_FRAME} bytes took more than {max} bytes of memory, \
                 most of them on stream {stream}"
            ),
            Self::Window { stream, max } => write!(
                f,
                "more than {max} bytes of unread DATA on stream {stream}, beyond its window (RFC 9113 section 6.9, \
                 `stream_window`)"
            ),
            Self::LateData { window } => write!(
                f,
                "more DATA for streams that were over than their windows of at most {window} bytes allowed \
                 (`stream_window`)"
            ),
        }
    }
}

impl std::error::Error for Violation {}

/// A token bucket of one second's worth, kept as the time at which it will be full again (the generic cell rate
/// algorithm: exact, two words, nothing to refill). Traffic of our own earns credit, which is spent first.
#[derive(Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    full_at: Option<Instant>,
    /// How much of the credit ever earned is used up.
    credit_used: u64,
    /// Credit that lies unused beyond this is lost, so that years of traffic buy no flood.
    credit_cap: u64,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, credit_cap: u64) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            full_at: None,
            credit_used: 0,
            credit_cap,
        }
    }

    /// One frame at `now`, when `credit` was earned so far in all; false when it is one too many.
    #[must_use]
    pub(crate) fn take(&mut self, now: Instant, credit: u64) -> bool {
        if credit > self.credit_used {
            let unused = (credit - self.credit_used).min(self.credit_cap);
            self.credit_used = credit - unused + 1;
            return true;
        }
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.interval;
        if full_at > now + Duration::from_secs(1) {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many of `n` frames pass that come in equal steps during one second from `start` on.
    fn pass(bucket: &mut Bucket, start: Instant, n: u32) -> u32 {
        (0..n)
            .map(|i| u32::from(bucket.take(start + SECOND * i / n, 0)))
            .sum()
    }

    // P44: 1,000 a second.
    #[test]
    fn just_under_the_rate_for_ever_and_just_over_it_not() {
        let start = crate::clock::now();
        let mut bucket = Bucket::new(1_000, 0);
        for second in 0..3_600 {
            assert_eq!(
                pass(&mut bucket, start + SECOND * second, 999),
                999,
                "second {second}"
            );
        }
        let mut bucket = Bucket::new(1_000, 0);
        let refused = (0..3_600).find(|second| pass(&mut bucket, start + SECOND * *second, 1_001) < 1_001);
        assert!(
            (900..=1_000).contains(&refused.unwrap()),
            "each second eats one of the burst's 1,000: {refused:?}"
        );
    }

    // P44: a burst of one second's worth, no more, however long it was quiet before.
    #[test]
    fn burst_after_long_idle() {
        let start = crate::clock::now();
        let mut bucket = Bucket::new(1_000, 0);
        for idle in [Duration::ZERO, Duration::from_secs(86_400 * 365)] {
            let at = start + idle;
            assert_eq!((0..1_001).filter(|_| bucket.take(at, 0)).count(), 1_000);
        }
    }

    #[test]
    fn refused_frames_cost_nothing_and_the_clock_may_step_back() {
        let start = crate::clock::now() + SECOND;
        let mut bucket = Bucket::new(1_000, 0);
        assert_eq!((0..5_000).filter(|_| bucket.take(start, 0)).count(), 1_000);
        assert!(!bucket.take(start - SECOND / 2, 0), "earlier is not longer");
        assert!(bucket.take(start + Duration::from_millis(1), 0));
        assert!(!bucket.take(start + Duration::from_millis(1), 0));
    }

    #[test]
    fn credit_is_spent_first_and_kept_up_to_its_cap() {
        let at = crate::clock::now();
        let mut bucket = Bucket::new(1, 10);
        assert_eq!(
            (0..20).filter(|_| bucket.take(at, 5)).count(),
            5 + 1,
            "five earned, one of the second"
        );
        assert!(bucket.take(at, 6), "one more earned");
        assert_eq!(
            (0..2_000).filter(|_| bucket.take(at, 1_000)).count(),
            10,
            "the rest was lost"
        );
        assert_eq!((0..2_000).filter(|_| bucket.take(at, 1_001)).count(), 1);
        let mut bucket = Bucket::new(1, u64::MAX);
        assert!(bucket.take(at, u64::MAX), "no overflow");
    }

    #[test]
    fn violations_name_their_bound() {
        for (violation, name) in [
            (Violation::Http1, "HTTP/1.x"),
            (Violation::FirstFrame { kind: 7 }, "type 7, not SETTINGS"),
            (Violation::Unasked { stream: 3 }, "on stream 3"),
            (
                Violation::ControlRate { per_second: 1_000 },
                "1000 SETTINGS, PING, PRIORITY or unknown frames a second",
            ),
            (
                Violation::WindowUpdateRate { per_second: 1_000 },
                "1000 WINDOW_UPDATE frames a second",
            ),
            (
                Violation::StrayRate { per_second: 1_000 },
                "1000 RST_STREAM frames",
            ),
            (Violation::Goaways { max: 16 }, "16 GOAWAY"),
            (
                Violation::Informational { stream: 5, max: 32 },
                "32 informational (1xx) responses on stream 5",
            ),
            (
                Violation::InformationalBytes {
                    stream: 5,
                    max: 65_536,
                },
                "65536 bytes of informational",
            ),
            (
                Violation::HeaderBlock {
                    stream: 5,
                    max: 65_536,
                },
                "block of more than 65536 bytes on stream 5",
            ),
            (
                Violation::SmallFrames {
                    stream: 5,
                    max: 65_536,
                },
                "under 256 bytes took more than 65536 bytes of memory, most of them on stream 5",
            ),
            (
                Violation::Window { stream: 5, max: 9 },
                "more than 9 bytes of unread DATA on stream 5",
            ),
            (
                Violation::LateData { window: 9 },
                "windows of at most 9 bytes allowed",
            ),
        ] {
            assert!(violation.to_string().contains(name), "{violation}");
        }
    }
}
