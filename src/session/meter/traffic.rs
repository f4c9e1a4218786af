//! The accounting: what each frame means to the [`Meter`]. Pure: bytes and time in, counters out.

use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use parking_lot::MutexGuard;

use super::bounds::{Bounds, Bucket, STRAYS_PER_STREAM, Violation};
use super::fields::Trailers;
use super::parser::{Frame, FrameHeaders, kind};
use super::streams::Streams;
use super::{Goaway, Meter};

/// Unused credit that is kept: what may well be under way on a fast link.
const CREDIT_CAP: u64 = 10_000;

const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

/// The frames of the peer, and the rates at which they come.
#[derive(Debug)]
pub(super) struct FromPeer {
    frames: FrameHeaders,
    control: Bucket,
    window_updates: Bucket,
    strays: Bucket,
    /// Those under way.
    trailers: Option<Trailers>,
}

impl FromPeer {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            frames: FrameHeaders::from_server(),
            control: Bucket::new(bounds.control_per_second, CREDIT_CAP),
            // The contract gives one for each KiB sent, whenever they come.
            window_updates: Bucket::new(bounds.window_updates_per_second, u64::MAX),
            strays: Bucket::new(bounds.strays_per_second, CREDIT_CAP),
            trailers: None,
        }
    }

    /// These bytes arrived. Answers how many of them may be passed on: all, or, when the peer went over a bound, those
    /// before the frame that did; the violation is then in the meter. `now` is asked at most once, and only when a
    /// rate is to be measured.
    #[inline]
    pub(super) fn feed(&mut self, meter: &Meter, bytes: &[u8], now: impl FnOnce() -> Instant) -> usize {
        let mut rest = bytes;
        if self.trailers.is_some() {
            self.trailers(&mut meter.streams.lock(), rest);
        }
        match self.frames.next(&mut rest) {
            None => bytes.len(),
            Some(first) => self.frames(meter, first, bytes.len(), rest, now),
        }
    }

    fn frames(
        &mut self,
        meter: &Meter,
        mut frame: Frame,
        total: usize,
        mut rest: &[u8],
        now: impl FnOnce() -> Instant,
    ) -> usize {
        let mut clock = Clock {
            read: None,
            source: Some(now),
        };
        let mut streams = meter.streams.lock();
        let passed = loop {
            if let Err(violation) = self.frame(meter, &mut streams, frame, &mut clock) {
                // The first one is the reason; nothing is read after it.
                let _ = meter.violation.set(violation);
                // A header that began in an earlier read ends before its length here.
                break (total - rest.len()).saturating_sub(frame.header_len());
            }
            if frame.kind == kind::HEADERS && frame.has_static_status(rest) {
                meter.incoming.answers.add(1);
            }
            self.trailers(&mut streams, rest);
            match self.frames.next(&mut rest) {
                Some(next) => frame = next,
                None => break total,
            }
        };
        meter.unread.set(streams.unread());
        meter.late_overhead.set(streams.late());
        let woken = std::mem::take(&mut streams.woken);
        drop(streams);
        woken.into_iter().for_each(Waker::wake);
        passed
    }

    fn frame(
        &mut self,
        meter: &Meter,
        streams: &mut MutexGuard<'_, Streams>,
        frame: Frame,
        clock: &mut Clock<impl FnOnce() -> Instant>,
    ) -> Result<(), Violation> {
        let seen = &meter.incoming;
        if seen.frames.get() == 0 {
            is_preface(frame)?;
        }
        seen.frames.add(1);
        let (id, bytes) = (frame.stream, frame.length);
        if matches!(frame.kind, kind::DATA | kind::HEADERS) && streams.is_unasked(id) {
            return Err(Violation::Unasked { stream: id });
        }
        match frame.kind {
            kind::DATA => {
                seen.headers_or_data.add(1);
                seen.data_bytes.add(u64::from(bytes));
                if frame.data_len() == 0 && !frame.is_end_stream() {
                    seen.empty_data.add(1);
                }
                let (end, bounds) = (frame.is_end_stream(), &meter.bounds);
                let held = streams.data(id, frame.data_len(), bytes, end, bounds)?;
                seen.answers.add(u64::from(held));
                if !held && (end || bytes == 0) {
                    self.stray(meter, clock)?;
                }
                let max = bounds.small_frames;
                if streams.overhead() > max {
                    meter.accuse(streams.blame(max));
                    meter.mark();
                }
            }
            kind::HEADERS => self.headers(meter, streams, frame, clock)?,
            kind::CONTINUATION => {
                if let Some(trailers) = &mut self.trailers {
                    trailers.frame(frame);
                }
                if let Some(stream) = streams.get_mut(id) {
                    stream.continuation(id, bytes, &meter.bounds);
                    if stream.violation.is_some() {
                        meter.mark();
                    }
                }
            }
            kind::RST_STREAM => {
                let waiting = streams.written(id);
                streams.woken.extend(waiting);
                self.stray(meter, clock)?;
            }
            kind::GOAWAY => goaway(meter, frame)?,
            kind::WINDOW_UPDATE => self.window_update(meter, clock)?,
            other => {
                seen.settings_acks
                    .add(u64::from(other == kind::SETTINGS && frame.is_ack()));
                self.control(meter, clock)?;
            }
        }
        Ok(())
    }

    fn headers(
        &mut self,
        meter: &Meter,
        streams: &mut Streams,
        frame: Frame,
        clock: &mut Clock<impl FnOnce() -> Instant>,
    ) -> Result<(), Violation> {
        let (seen, id, end) = (&meter.incoming, frame.stream, frame.is_end_stream());
        seen.headers_or_data.add(1);
        seen.open_heads.add(u64::from(!end));
        let Some(stream) = streams.get_mut(id) else {
            return self.stray(meter, clock);
        };
        seen.answers.add(u64::from(end));
        if stream.are_trailers(end) {
            self.trailers = Some(Trailers::new(frame));
        }
        let within = stream.headers(id, frame.length, end, &meter.bounds);
        if stream.violation.is_some() {
            meter.mark();
        }
        within
    }

    /// `bytes` come next: what of them belongs to trailers is looked at.
    fn trailers(&mut self, streams: &mut Streams, bytes: &[u8]) {
        let Some(trailers) = &mut self.trailers else {
            return;
        };
        let payload = &bytes[..self.frames.pending().min(bytes.len())];
        if let Some(fields) = trailers.feed(payload) {
            if let Some(stream) = streams.get_mut(trailers.stream) {
                stream.trailers = Some(fields);
            }
            self.trailers = None;
        }
    }

    fn control(
        &mut self,
        meter: &Meter,
        clock: &mut Clock<impl FnOnce() -> Instant>,
    ) -> Result<(), Violation> {
        let credit = meter.outgoing.data_frames.get();
        let per_second = meter.bounds.control_per_second;
        within(
            self.control.take(clock.now(), credit),
            Violation::ControlRate { per_second },
        )
    }

    fn window_update(
        &mut self,
        meter: &Meter,
        clock: &mut Clock<impl FnOnce() -> Instant>,
    ) -> Result<(), Violation> {
        let credit = meter.outgoing.data_bytes.get() / 1024 + 2 * meter.outgoing.data_frames.get();
        let per_second = meter.bounds.window_updates_per_second;
        within(
            self.window_updates.take(clock.now(), credit),
            Violation::WindowUpdateRate { per_second },
        )
    }

    fn stray(&mut self, meter: &Meter, clock: &mut Clock<impl FnOnce() -> Instant>) -> Result<(), Violation> {
        let credit = STRAYS_PER_STREAM * meter.outgoing.opened.get();
        let per_second = meter.bounds.strays_per_second;
        within(
            self.strays.take(clock.now(), credit),
            Violation::StrayRate { per_second },
        )
    }
}

/// The frames that the transport accepted from us.
#[derive(Debug)]
pub(super) struct ToPeer {
    frames: FrameHeaders,
}

impl ToPeer {
    pub(super) fn new() -> Self {
        Self {
            frames: FrameHeaders::from_client(),
        }
    }

    /// The transport accepted these bytes.
    #[inline]
    pub(super) fn feed(&mut self, meter: &Meter, mut bytes: &[u8]) {
        // Taken for the first frame that needs it, and kept for those that follow it.
        let mut streams = None;
        let mut written = Vec::new();
        while let Some(frame) = self.frames.next(&mut bytes) {
            written.extend(Self::frame(meter, frame, &mut streams));
        }
        drop(streams);
        written.into_iter().for_each(Waker::wake);
    }

    /// Whom to wake: its request was written to its end.
    fn frame<'a>(
        meter: &'a Meter,
        frame: Frame,
        streams: &mut Option<MutexGuard<'a, Streams>>,
    ) -> Option<Waker> {
        let sent = &meter.outgoing;
        match frame.kind {
            kind::DATA => {
                sent.data_bytes.add(u64::from(frame.length));
                sent.data_frames.add(1);
                if frame.is_end_stream() {
                    let streams = streams.get_or_insert_with(|| meter.streams.lock());
                    return streams.written(frame.stream);
                }
            }
            kind::HEADERS => {
                let streams = streams.get_or_insert_with(|| meter.streams.lock());
                if streams.opened(frame.stream, meter.incoming.frames.get()) {
                    sent.opened.add(1);
                } else {
                    return streams.written(frame.stream);
                }
            }
            kind::RST_STREAM => {
                if !matches!(frame.reset_code(), NO_ERROR | CANCEL) {
                    sent.error_resets.add(1);
                }
                let streams = streams.get_or_insert_with(|| meter.streams.lock());
                return streams.written(frame.stream);
            }
            kind::SETTINGS if frame.is_ack() => sent.settings_acks.add(1),
            _ => {}
        }
        None
    }
}

/// The clock, read once for all the frames of one read.
struct Clock<F> {
    read: Option<Instant>,
    source: Option<F>,
}

impl<F: FnOnce() -> Instant> Clock<F> {
    fn now(&mut self) -> Instant {
        if let Some(source) = self.source.take() {
            self.read = Some(source());
        }
        self.read.expect("the source was there when nothing was read")
    }
}

/// The first frame has to be SETTINGS (RFC 9113 §3.4).
fn is_preface(frame: Frame) -> Result<(), Violation> {
    if frame.kind == kind::SETTINGS && !frame.is_ack() {
        Ok(())
    } else if frame.kind == b'P' && frame.length == u32::from_be_bytes([0, b'H', b'T', b'T']) {
        Err(Violation::Http1)
    } else {
        Err(Violation::FirstFrame { kind: frame.kind })
    }
}

fn goaway(meter: &Meter, frame: Frame) -> Result<(), Violation> {
    let mut last = meter.goaway.lock();
    let count = last.map_or(1, |goaway| goaway.count + 1);
    meter.goaways.store(count, Ordering::Relaxed);
    *last = Some(Goaway {
        last_stream_id: frame.goaway_last_stream(),
        code: frame.goaway_code(),
        count,
    });
    let max = meter.bounds.goaways;
    within(count <= max, Violation::Goaways { max })
}

fn within(ok: bool, violation: Violation) -> Result<(), Violation> {
    if ok { Ok(()) } else { Err(violation) }
}
