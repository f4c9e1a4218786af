//! An HTTP/2 session on the `h2` crate: its handle and what its parts share.
//!
//! ```text
//!   leases ──▶ H2 { sender, control } ──▶ h2 ◀── driver (h2_driver.rs): the connection, PING, SETTINGS, GOAWAY
//!                        ▲                              │
//!                        └── streams (exchange.rs) ◀────┘ flags, limit, why it ended
//! ```
//!
//! The origin's table and the leases hold the [`H2`]; the driver holds only its [`Control`]. So the session ends by
//! itself, with GOAWAY, once the table has let go of it and the last stream is over: the `h2` crate closes a connection
//! when nobody can send on it any more.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::client::SendRequest;
use parking_lot::Mutex;

use super::alive::Ending;
use super::held::Bodies;
use super::link::{Address, Informant};
use super::meter::Meter;
use crate::clock;
use crate::connect::Fault;
use crate::error::{Error, Kind};
use crate::state::Reason;

/// SETTINGS were applied.
const READY: u8 = 1;
/// No new streams.
const DRAINING: u8 = 2;
/// The driver is to end the connection.
const KILL: u8 = 4;
/// The driver is to send a PING.
const PROBE: u8 = 8;

/// How long a session says nothing before it is doubted without a probe.
const SILENCE: Duration = Duration::from_secs(1);

/// The handle of a session: opens streams on it.
pub(crate) struct H2 {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) control: Arc<Control>,
}

/// What the driver, the streams and the pool share of a session.
pub(crate) struct Control {
    pub(super) meter: Arc<Meter>,
    /// The limit on streams last read; no stream is handed to h2 beyond it (P4).
    limit: AtomicU32,
    /// Streams handed to h2 that are not over.
    open: AtomicU32,
    /// Some were handed to it since the driver looked.
    handed: AtomicBool,
    flags: AtomicU8,
    /// The driver's.
    pub(super) waker: AtomicWaker,
    /// Why it ended, or is to end.
    cause: OnceLock<Error>,
    pub(super) answered: AtomicBool,
    /// A stream was refused since the last answer.
    pub(super) refused: AtomicBool,
    /// A probe is under way.
    probing: AtomicBool,
    /// HEADERS and DATA frames seen when the last probe was asked for, plus one; 0 when none was.
    probed_at: AtomicU64,
    /// Frames heard when a request was given up in silence and no probe was allowed, and when that was.
    doubt: Mutex<Option<(u64, Instant)>>,
    /// Unread bytes down to which the driver waits before the session gets work again; 0 when it does get work.
    stalled_above: AtomicU64,
    /// Response bodies that somebody holds.
    pub(super) bodies: Bodies,
    pub(super) informant: Informant,
    pub(super) fault: Fault,
}

impl H2 {
    /// Takes note of one more stream, if the session still takes any; `settled`: of those that wait for SETTINGS.
    pub(super) fn try_open(&self, settled: bool) -> bool {
        let control = &self.control;
        let flags = control.flags.load(Ordering::Acquire);
        if flags & (DRAINING | KILL) != 0 || (settled && flags & READY == 0) {
            return false;
        }
        let open = control.open.fetch_add(1, Ordering::AcqRel);
        if open >= control.limit() {
            control.stream_over();
            return false;
        }
        true
    }

    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }
}

impl Control {
    pub(super) fn new(meter: Arc<Meter>, address: Arc<Address>, fault: Fault, bodies: Bodies) -> Self {
        Self {
            meter,
            limit: AtomicU32::new(u32::MAX),
            open: AtomicU32::new(0),
            handed: AtomicBool::new(false),
            flags: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            cause: OnceLock::new(),
            answered: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            probing: AtomicBool::new(false),
            probed_at: AtomicU64::new(0),
            doubt: Mutex::new(None),
            stalled_above: AtomicU64::new(0),
            bodies,
            informant: Informant::new(address),
            fault,
        }
    }

    /// SETTINGS were applied.
    pub(super) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
        self.flags.fetch_or(READY, Ordering::AcqRel);
    }

    /// The limit last read.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.flags.load(Ordering::Acquire) & READY != 0
    }

    /// No new streams from now on; those that run may end.
    pub(crate) fn set_draining(&self) {
        self.flags.fetch_or(DRAINING, Ordering::AcqRel);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.flags.load(Ordering::Acquire) & DRAINING != 0
    }

    /// One stream less; see [`H2::try_open`].
    pub(super) fn stream_over(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn is_killed(&self) -> bool {
        self.flags.load(Ordering::Acquire) & KILL != 0
    }

    /// A stream was handed to h2, which has woken the driver or is about to.
    pub(super) fn hand(&self) {
        self.handed.store(true, Ordering::Relaxed);
    }

    /// Whether streams were handed to h2 since the last call, beside others.
    pub(super) fn take_handed(&self) -> bool {
        self.handed.load(Ordering::Relaxed)
            && self.handed.swap(false, Ordering::Relaxed)
            && self.open.load(Ordering::Relaxed) > 1
    }

    /// Whether streams are open.
    pub(super) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// The driver waits until no more than `bytes` are unread; 0: it does not wait. It looks at
    /// [`Meter::unread_in_order`] after this.
    pub(super) fn stalled_above(&self, bytes: u64) {
        self.stalled_above.store(bytes, Ordering::Release);
    }

    /// The meter's unread bytes became less.
    pub(super) fn unread_fell(&self) {
        let mark = self.stalled_above.load(Ordering::Acquire);
        if mark > 0 && self.meter.unread() <= mark {
            self.waker.wake();
        }
    }

    /// Whether a PING was asked for since the last call.
    pub(super) fn take_probe(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & PROBE != 0
            && self.flags.fetch_and(!PROBE, Ordering::AcqRel) & PROBE != 0
    }

    /// Why the session ended, as far as it is known; the first cause stays.
    pub(super) fn set_cause(&self, cause: Error) {
        let _ = self.cause.set(cause);
    }

    pub(crate) fn cause(&self) -> Option<&Error> {
        self.cause.get()
    }

    /// No stream is left; see the module's text.
    pub(crate) fn close(&self) {
        self.set_draining();
        self.waker.wake();
    }

    /// Ends the connection with all that runs on it.
    pub(crate) fn kill(&self, cause: Error) {
        self.set_cause(cause);
        self.flags.fetch_or(KILL | DRAINING, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Whether a cancelled slot may be parked: a probe is under way, or one more may be sent. At most one is until
    /// HEADERS or DATA arrive, since some servers take PINGs without them for a flood (P44).
    pub(super) fn may_park(&self) -> bool {
        self.probing.load(Ordering::Acquire)
            || self.probed_at.load(Ordering::Acquire) <= self.meter.headers_or_data_seen()
    }

    /// A request was given up in silence. True: the second in a row, with not a single frame for [`SILENCE`] between them.
    pub(super) fn is_doubtful(&self) -> bool {
        let (frames, now) = (self.meter.frames_seen(), clock::now());
        let mut doubt = self.doubt.lock();
        match *doubt {
            Some((heard, since)) if heard == frames => now.saturating_duration_since(since) >= SILENCE,
            _ => {
                *doubt = Some((frames, now));
                false
            }
        }
    }

    pub(super) fn probe_answered(&self) {
        self.probing.store(false, Ordering::Release);
    }

    /// Asks for a PING. False: one was answered since [`may_park`](Self::may_park) was asked, and neither HEADERS nor DATA
    /// came since.
    pub(crate) fn probe(&self) -> bool {
        if !self.may_park() {
            return false;
        }
        self.probing.store(true, Ordering::Release);
        self.probed_at
            .store(self.meter.headers_or_data_seen() + 1, Ordering::Release);
        self.flags.fetch_or(PROBE, Ordering::AcqRel);
        self.waker.wake();
        true
    }

    pub(crate) fn address(&self) -> &Arc<Address> {
        self.informant.address()
    }
}

impl Ending for Control {
    fn end(&self, cause: Error) -> Error {
        // First the cause: whoever is turned away finds it.
        let cause = self.cause.get_or_init(|| cause).clone();
        self.set_draining();
        cause
    }
}

/// The error of streams on a session that the pool ended.
pub(crate) fn killed(reason: Reason) -> Error {
    let (kind, message) = match reason {
        Reason::Useless => (
            Kind::Protocol,
            "the server sent no SETTINGS within `connect_timeout`, or kept its limit on streams at 0",
        ),
        Reason::Closed => (
            Kind::Closed,
            "the pool was closed and its deadline for running streams passed",
        ),
        Reason::Goaway => (
            Kind::Goaway,
            "the server said GOAWAY and the stream did not end within `drain_timeout`",
        ),
        Reason::Unanswered => (Kind::Io, "the session stopped answering"),
        _ => (
            Kind::Io,
            "the session was retired and the stream did not end within `drain_timeout`",
        ),
    };
    let error = Error::new(kind, message).with_unprocessed(false);
    if matches!(reason, Reason::Closed | Reason::Unanswered) {
        error
    } else {
        error.with_timeout()
    }
}
