//! The meter of a session: what h2 does not tell and does not bound, read off the frame headers as they pass.
//!
//! # Shape
//!
//! ```text
//!   h2 client Connection ── MeteredIo ── transport
//!                               │ FrameHeaders, one for each direction; rates
//!                               ▼
//!   driver, streams ─── Arc<Meter>: counters (atomics), streams by id (one mutex)
//! ```
//!
//! [`MeteredIo`] wraps the transport that h2 is given. It copies nothing: it looks at the bytes that `poll_read` brought
//! and that `poll_write` accepted, finds the 9-byte frame headers and jumps over the payloads ([`parser::FrameHeaders`]). One
//! read takes the streams' mutex once, however many frames it holds; a read in the midst of a payload takes nothing and
//! costs a subtraction. The clock is read only when a frame whose rate is bounded shows up, and when a write stalls.
//!
//! # Use
//!
//! ```text
//!   let meter = Meter::new(Bounds::default());
//!   let io = MeteredIo::new(transport, Arc::clone(&meter));        // -> h2::client::Builder::handshake(io)
//!   driver, after each poll of the connection:
//!       meter.violation()                  why a connection ended with an error (Kind::Protocol, its text names the bound)
//!       meter.settings_applied()           grows when h2 applies new limits: read them now
//!       meter.goaway()                     last stream id and code, which h2 keeps to itself
//!       meter.empty_data_frames(), error_resets_sent(), opened(), late_overhead()
//!                                          rotation ahead of h2's caps (P17)
//!       meter.data_received()              what the bandwidth is measured by (P33)
//!       meter.take_accused()               the stream to be cut; nothing is read before this was asked
//!       meter.unread()                     above a threshold: no new work for this session (P30)
//!       meter.write_stalled_since()        P44's write that makes no progress
//!       meter.has_answered()               when the session ends
//!       meter.frames_seen(), headers_or_data_seen()   parking and probing (P19, P44)
//!   stream, by its h2 stream id; it is known from the moment its HEADERS are written, nobody registers it:
//!       meter.stream_violation(id)         look whenever the response is polled (h2 wakes it for each 1xx): end the stream
//!       meter.are_trailers_cut(id, n)      when trailers of n fields are read
//!       meter.release(id, n)               before each release_capacity(n), frame by frame
//!       meter.forget(id)                   EXACTLY when the stream is over or given up, always: answers for the last
//!                                          time whether it was quiet, ended, unread
//! ```
//!
//! Counters only grow and are exact once h2 has handed on the frame in question: the meter sees a frame before h2 does.
//! `settings_applied` counts our own acknowledgements on their way out, which h2 writes as it applies the values; the
//! values are in force then and not when SETTINGS is merely seen, so read the limit only after it.
//!
//! # Bounds
//!
//! A peer over a bound of the session ([`Bounds`]) makes the next `poll_read` fail with `InvalidData`, which ends h2's
//! connection; nothing more is read from it. Over a bound of one stream (interim responses, header block) the stream is
//! marked, and only at twice the bound, when nobody acted on it, the session ends. DATA is bounded by the windows: h2
//! gives credit back for what comes for streams that are over, so that without a bound it would come for ever.

mod bounds;
mod fields;
mod io;
mod parser;
mod streams;
#[cfg(test)]
mod tests;
mod traffic;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(crate) use bounds::{Bounds, Violation};
pub(crate) use io::MeteredIo;
pub(crate) use streams::Forgotten;
use streams::{Stream, Streams};

/// Streams that were given up and wait to be written nevertheless.
const CLOGGED: usize = 1024;

/// What passed over one session so far. Written by its [`MeteredIo`], read by anybody.
#[derive(Debug)]
pub(crate) struct Meter {
    bounds: Bounds,
    epoch: Instant,
    incoming: Incoming,
    outgoing: Outgoing,
    streams: Mutex<Streams>,
    unread: Counter,
    late_overhead: Counter,
    /// The stream that is to be cut, 0 for none.
    accused: AtomicU32,
    /// Some stream went over a bound.
    marked: AtomicBool,
    goaway: Mutex<Option<Goaway>>,
    goaways: AtomicU32,
    violation: OnceLock<Violation>,
    /// Nanoseconds from `epoch`, plus one, since which a write waits; 0 when none does.
    stalled: AtomicU64,
    /// Streams handed to h2.
    handed: AtomicU64,
}

/// Counters of what the peer sent.
#[derive(Debug, Default)]
struct Incoming {
    frames: Counter,
    headers_or_data: Counter,
    settings_acks: Counter,
    answers: Counter,
    data_bytes: Counter,
    empty_data: Counter,
    open_heads: Counter,
}

/// Counters of what the transport accepted from us.
#[derive(Debug, Default)]
struct Outgoing {
    opened: Counter,
    data_bytes: Counter,
    data_frames: Counter,
    settings_acks: Counter,
    error_resets: Counter,
}

/// The last GOAWAY of the peer (RFC 9113 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goaway {
    /// Streams above it were not processed; 2³¹−1 is a warning that another GOAWAY will follow.
    pub(crate) last_stream_id: u32,
    /// The error code, 0 for a graceful end.
    pub(crate) code: u32,
    /// How many came so far.
    pub(crate) count: u32,
}

/// A counter with one writer, so that counting is a plain store. What a reader may rely on is ordered by h2's own lock
/// (it learns of a frame from h2, after the meter saw it), or by the streams' mutex.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }
}

impl Meter {
    /// A meter for a new connection.
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            epoch: crate::clock::now(),
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            streams: Mutex::default(),
            unread: Counter::default(),
            late_overhead: Counter::default(),
            accused: AtomicU32::new(0),
            marked: AtomicBool::new(false),
            goaway: Mutex::default(),
            goaways: AtomicU32::new(0),
            violation: OnceLock::new(),
            stalled: AtomicU64::new(0),
            handed: AtomicU64::new(0),
        })
    }

    /// The bound that the peer went over, which ended the connection.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get().copied()
    }

    /// SETTINGS frames of the peer that h2 has applied and acknowledged.
    pub(crate) fn settings_applied(&self) -> u64 {
        self.outgoing.settings_acks.get()
    }

    /// Whether the peer has acknowledged SETTINGS of ours.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.incoming.settings_acks.get() > 0
    }

    /// Frames of any kind that arrived.
    pub(crate) fn frames_seen(&self) -> u64 {
        self.incoming.frames.get()
    }

    /// HEADERS and DATA frames that arrived, on whatever stream.
    pub(crate) fn headers_or_data_seen(&self) -> u64 {
        self.incoming.headers_or_data.get()
    }

    /// Whether a response came, as far as frames tell: DATA of a stream that somebody holds, HEADERS that end one, or whose
    /// status is one of HPACK's static table, which has no interim one.
    pub(crate) fn has_answered(&self) -> bool {
        self.incoming.answers.get() > 0
    }

    /// Payload of the DATA frames that arrived, padding included, in bytes.
    pub(crate) fn data_received(&self) -> u64 {
        self.incoming.data_bytes.get()
    }

    /// Payload of the DATA frames that were written, in bytes.
    pub(crate) fn data_sent(&self) -> u64 {
        self.outgoing.data_bytes.get()
    }

    /// DATA frames that carried nothing and did not end their stream; h2 ends the session after 100 of them.
    pub(crate) fn empty_data_frames(&self) -> u64 {
        self.incoming.empty_data.get()
    }

    /// HEADERS frames that did not end their stream: interim responses, and heads of responses with a body.
    pub(crate) fn open_heads(&self) -> u64 {
        self.incoming.open_heads.get()
    }

    /// One more stream was handed to h2.
    pub(crate) fn hand(&self) {
        self.handed.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether reading has to wait for writing, once for each number of streams handed to h2: before the first SETTINGS,
    /// requests that were handed to h2 are written before SETTINGS are read. Otherwise h2 would keep those beyond the
    /// new limit in a queue of its own, from which nobody can take them back (P4); the server refuses them instead, and
    /// they are sent again.
    fn writes_first(&self, held_for: &mut u64) -> bool {
        if self.settings_applied() > 0 {
            return false;
        }
        let handed = self.handed.load(Ordering::Relaxed);
        handed > self.opened() && std::mem::replace(held_for, handed) != handed
    }

    /// Streams opened: first HEADERS frames written, also of streams that were cancelled before.
    pub(crate) fn opened(&self) -> u64 {
        self.outgoing.opened.get()
    }

    /// Whether the transport took HEADERS of stream `id`: until then the peer cannot know of it.
    pub(crate) fn is_written(&self, id: u32) -> bool {
        self.streams.lock().is_written(id)
    }

    /// RST_STREAM frames written with another code than NO_ERROR and CANCEL: those that h2 sends by itself, for late
    /// frames on streams that it forgot among them. It ends the session at `max_local_error_reset_streams` (1,024).
    pub(crate) fn error_resets_sent(&self) -> u64 {
        self.outgoing.error_resets.get()
    }

    /// How many GOAWAY frames came.
    pub(crate) fn goaways(&self) -> u32 {
        self.goaways.load(Ordering::Relaxed)
    }

    /// The peer's last GOAWAY.
    pub(crate) fn goaway(&self) -> Option<Goaway> {
        *self.goaway.lock()
    }

    /// Since when a write has waited without any byte being accepted; `None` while writes go through. A transport with
    /// a buffer of its own (TLS) counts as moving while the buffer takes bytes.
    pub(crate) fn write_stalled_since(&self) -> Option<Instant> {
        match self.stalled.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(self.epoch + Duration::from_nanos(nanos - 1)),
        }
    }

    /// DATA that arrived on all streams in the table and was not yet released, in bytes, without padding, which h2
    /// releases itself.
    pub(crate) fn unread(&self) -> u64 {
        self.unread.get()
    }

    /// The same as [`unread`](Self::unread), ordered with each [`release`](Self::release) and
    /// [`forget`](Self::forget): what was stored before is seen by whoever makes it less.
    pub(crate) fn unread_in_order(&self) -> u64 {
        self.streams.lock().unread()
    }

    /// What small DATA frames cost beyond their payload that came for streams after they were given up, in bytes. h2
    /// takes it from its budget (`data_frame_budget`) and returns it only for large frames.
    pub(crate) fn late_overhead(&self) -> u64 {
        self.late_overhead.get()
    }

    /// The stream whose unread small frames cost too much: it is to be cut, and nothing is read before that. Asked after
    /// each poll of the connection.
    pub(crate) fn take_accused(&self) -> Option<u32> {
        match self.accused.load(Ordering::Relaxed) {
            0 => None,
            id => {
                self.accused.store(0, Ordering::Relaxed);
                Some(id)
            }
        }
    }

    /// The accused stream was cut: accuses another one if that was not enough. A read can bring far more small frames than
    /// one of many streams holds.
    pub(crate) fn accuse_next(&self) {
        let max = self.bounds.small_frames;
        let mut streams = self.streams.lock();
        if streams.overhead() > max {
            self.accuse(streams.blame(max));
        }
    }

    /// Whether somebody is accused.
    fn has_accused(&self) -> bool {
        self.accused.load(Ordering::Relaxed) != 0
    }

    /// Some stream went over a bound: from now on they are looked at.
    fn mark(&self) {
        self.marked.store(true, Ordering::Relaxed);
    }

    fn accuse(&self, id: Option<u32>) {
        self.accused.store(id.unwrap_or(0), Ordering::Relaxed);
    }

    /// The reader of stream `id` has taken a DATA frame of `bytes`.
    pub(crate) fn release(&self, id: u32, bytes: u64) {
        let mut streams = self.streams.lock();
        streams.release(id, bytes);
        self.unread.set(streams.unread());
    }

    /// The bound that the peer went over on stream `id`.
    pub(crate) fn stream_violation(&self, id: u32) -> Option<Violation> {
        // h2 wakes the stream after the meter saw the frame.
        if !self.marked.load(Ordering::Relaxed) {
            return None;
        }
        self.streams.lock().get(id).and_then(|stream| stream.violation)
    }

    /// The bound that so many interim responses to the request on stream `id` go over.
    pub(crate) fn too_interim(&self, id: u32, count: u32, bytes: u64) -> Option<Violation> {
        let Bounds {
            informational,
            informational_bytes,
            ..
        } = self.bounds;
        if count > informational {
            return Some(Violation::Informational {
                stream: id,
                max: informational,
            });
        }
        (bytes > informational_bytes).then_some(Violation::InformationalBytes {
            stream: id,
            max: informational_bytes,
        })
    }

    /// Whether the trailers of stream `id` had more than the `fields` that came out of h2: it drops those that are too
    /// large, and pseudo-headers, and says nothing.
    pub(crate) fn are_trailers_cut(&self, id: u32, fields: usize) -> bool {
        let streams = self.streams.lock();
        let sent = streams.get(id).and_then(|stream| stream.trailers);
        sent.is_some_and(|sent| sent != fields as u64)
    }

    /// The largest header block that is taken, in bytes.
    pub(crate) fn max_header_block(&self) -> u64 {
        self.bounds.header_block_bytes
    }

    /// Whether the request on stream `id`, which has a body, was written to its end, or either side has reset the stream.
    pub(crate) fn is_whole(&self, id: u32) -> bool {
        self.streams.lock().is_whole(id)
    }

    /// Nothing is written any more: the transport is gone.
    fn end(&self) {
        let waiting = self.streams.lock().end();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ready once [that](Self::is_whole) has happened, or the session has ended: h2 keeps some of what it is given.
    pub(crate) fn poll_written(&self, id: u32, cx: &mut Context<'_>) -> Poll<()> {
        // A waker's clone and drop are the caller's code: never under the lock.
        let waker = cx.waker().clone();
        let (step, old) = self.streams.lock().poll_written(id, waker);
        drop(old);
        step
    }

    /// Whether the peer has ended its side of stream `id`, and no crowd of small frames waits there.
    pub(crate) fn is_settled(&self, id: u32) -> bool {
        self.streams.lock().get(id).is_some_and(Stream::is_settled)
    }

    /// Whether all that the peer had to say on stream `id` was read.
    pub(crate) fn is_read(&self, id: u32) -> bool {
        self.streams.lock().get(id).is_some_and(Stream::is_read)
    }

    /// Whether HEADERS came in the middle of the body of stream `id`.
    pub(crate) fn is_broken(&self, id: u32) -> bool {
        self.streams.lock().get(id).is_some_and(|stream| stream.broken)
    }

    /// Stream `id` is over, or nobody is interested any more: what it has not read is not counted any longer. `None`
    /// when it was forgotten before.
    pub(crate) fn forget(&self, id: u32) -> Option<Forgotten> {
        let mut streams = self.streams.lock();
        let writing = streams.take_writing(id);
        let forgotten = streams.forget(id, self.frames_seen(), &self.bounds);
        self.unread.set(streams.unread());
        drop(streams);
        drop(writing);
        forgotten
    }

    /// Whether far more streams than one would expect were given up before their HEADERS were written: the transport
    /// takes no bytes, and h2 keeps all of them.
    pub(crate) fn is_clogged(&self) -> bool {
        self.streams.lock().queued() > CLOGGED
    }

    /// A write waits, at `now`.
    fn write_waits(&self, now: impl FnOnce() -> Instant) {
        if self.stalled.load(Ordering::Relaxed) == 0 {
            let nanos = now().duration_since(self.epoch).as_nanos();
            self.stalled.store(
                u64::try_from(nanos).unwrap_or(u64::MAX - 1) + 1,
                Ordering::Relaxed,
            );
        }
    }

    /// Bytes were accepted, or all of them flushed.
    fn write_moves(&self) {
        if self.stalled.load(Ordering::Relaxed) != 0 {
            self.stalled.store(0, Ordering::Relaxed);
        }
    }
}
