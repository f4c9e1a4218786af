//! What is known of each stream that somebody holds.
//!
//! A stream enters the table when its HEADERS pass by on the way out, so that no frame of it can come in before, and
//! leaves it by [`Streams::forget`]. Header blocks are told apart without decoding them: a HEADERS frame that does not
//! end the stream proves that the block before it was an interim response (1xx), since trailers always end the stream
//! (RFC 9113 §8.1; h2 resets it otherwise). So the interim responses are known exactly, one block late.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Poll, Waker};

use super::bounds::{Bounds, LATE_SLACK, LATE_WINDOWS, SMALL_FRAME, Violation, overhead};

/// The streams of one session, by id.
#[derive(Debug, Default)]
pub(super) struct Streams {
    map: HashMap<u32, Stream, BuildHasherDefault<IdHasher>>,
    /// The highest id whose HEADERS were written; ids on the wire only grow (RFC 9113 §5.1.1).
    highest: u32,
    /// Forgotten before their HEADERS were written: h2 writes them nevertheless, and nobody will forget them again.
    early: BTreeSet<u32>,
    /// Whoever waits for the end of a request whose HEADERS are not written yet.
    unopened: Vec<(u32, Waker)>,
    /// Whoever has to be woken after the unlock.
    pub(super) woken: Vec<Waker>,
    /// Nothing is written any more.
    over: bool,
    /// DATA received and not yet released, over all streams in the table.
    unread: u64,
    /// What the unread frames among it cost beyond their payload.
    overhead: u64,
    /// The same for frames that came after their stream was given up, as h2 keeps book of it: it never gives that back
    /// but for large frames.
    late: u64,
    /// DATA that may still come for streams that were given up before their end: what was left of their windows.
    late_credit: u64,
    /// DATA that came for streams that nobody holds and that is not explained so, padding included.
    late_bytes: u64,
}

/// The state of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// How many frames had arrived on the session when its HEADERS were written.
    written_at: u64,
    pub(super) unread: u64,
    overhead: u64,
    /// Interim responses, without the last block, which may be the final one.
    interim: u32,
    interim_bytes: u64,
    /// Length of the current or last header block; `None` before the first.
    block: Option<u64>,
    /// The request's body, or its trailers, were written to their end, or never will be: the stream was reset.
    written: bool,
    /// Whoever waits for that.
    writing: Option<Waker>,
    pub(super) ended: bool,
    /// By trailers, or by a head after interim ones.
    ended_by_headers: bool,
    /// DATA came.
    began: bool,
    /// HEADERS came after DATA and were no trailers (RFC 9113 §8.1): h2 resets the stream.
    pub(super) broken: bool,
    /// Fields of its trailers.
    pub(super) trailers: Option<u64>,
    pub(super) violation: Option<Violation>,
}

/// What was known of a stream when it was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// DATA that was received and never released, in bytes.
    pub(crate) unread: u64,
    /// The peer had ended its side.
    pub(crate) ended: bool,
    /// No frame had arrived on the session since its HEADERS were written, or they were not written yet (P44).
    pub(crate) quiet: bool,
    /// The bound that the peer went over on this stream.
    pub(crate) violation: Option<Violation>,
}

impl Streams {
    /// HEADERS for `id` were written when `frames` frames had arrived; false for the trailers of an upload.
    pub(super) fn opened(&mut self, id: u32, frames: u64) -> bool {
        if id <= self.highest {
            return false;
        }
        self.highest = id;
        let forgotten = self.early.remove(&id);
        // Those that h2 left out.
        while self.early.first().is_some_and(|early| *early < id) {
            self.early.pop_first();
        }
        if !forgotten {
            let mut stream = Stream::new(frames);
            stream.writing = self.take_writing(id);
            self.map.insert(id, stream);
        }
        true
    }

    /// Whether HEADERS of stream `id` were written, at least their first bytes.
    pub(super) fn is_written(&self, id: u32) -> bool {
        id <= self.highest
    }

    /// Whether it is a stream of ours of which nothing was written. h2 would take a response there: it knows of requests
    /// before they are written.
    pub(super) fn is_unasked(&self, id: u32) -> bool {
        id % 2 == 1 && !self.is_written(id)
    }

    /// The last of the request on stream `id` was written, beyond its HEADERS, or never will be. Answers whom to wake.
    pub(super) fn written(&mut self, id: u32) -> Option<Waker> {
        let stream = self.map.get_mut(&id)?;
        stream.written = true;
        stream.writing.take()
    }

    /// Whether that has happened, or nobody holds the stream any more.
    pub(super) fn is_whole(&self, id: u32) -> bool {
        match self.map.get(&id) {
            Some(stream) => stream.written,
            None => self.is_written(id),
        }
    }

    /// Nothing is written any more. Answers whom to wake.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        self.over = true;
        let opened = self.map.values_mut().filter_map(|stream| stream.writing.take());
        let unopened = self.unopened.drain(..).map(|(_, waker)| waker);
        opened.chain(unopened).collect()
    }

    /// Ready once it [is whole](Self::is_whole), or nothing is written any more. Also a waker to be dropped after the
    /// unlock.
    pub(super) fn poll_written(&mut self, id: u32, waker: Waker) -> (Poll<()>, Option<Waker>) {
        if self.over {
            return (Poll::Ready(()), Some(waker));
        }
        let opened = self.is_written(id);
        match self.map.get_mut(&id) {
            Some(stream) if !stream.written => (Poll::Pending, stream.writing.replace(waker)),
            None if !opened => {
                let old = self.take_writing(id);
                self.unopened.push((id, waker));
                (Poll::Pending, old)
            }
            _ => (Poll::Ready(()), Some(waker)),
        }
    }

    /// The waker of whoever waits for that.
    pub(super) fn take_writing(&mut self, id: u32) -> Option<Waker> {
        if let Some(stream) = self.map.get_mut(&id) {
            return stream.writing.take();
        }
        let place = self.unopened.iter().position(|(waits, _)| *waits == id)?;
        Some(self.unopened.swap_remove(place).1)
    }

    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        self.map.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.map.get_mut(&id)
    }

    /// `bytes` of DATA came for `id`, and beyond them padding: `flow` bytes in all. False: nobody holds the stream.
    ///
    /// # Errors
    ///
    /// It is far more than an honest peer can send.
    pub(super) fn data(
        &mut self,
        id: u32,
        bytes: u32,
        flow: u32,
        end_stream: bool,
        bounds: &Bounds,
    ) -> Result<bool, Violation> {
        let bytes = u64::from(bytes);
        if bytes >= SMALL_FRAME && !end_stream {
            self.late = self.late.saturating_sub(bytes - SMALL_FRAME);
        }
        let Some(stream) = self.map.get_mut(&id) else {
            self.late += if end_stream { 0 } else { overhead(bytes) };
            return self.late_data(u64::from(flow), bounds).map(|()| false);
        };
        stream.ended |= end_stream;
        stream.began = true;
        stream.unread += bytes;
        self.unread += bytes;
        stream.overhead += overhead(bytes);
        self.overhead += overhead(bytes);
        let max = 2 * bounds.stream_window;
        if stream.unread > max {
            return Err(Violation::Window { stream: id, max });
        }
        Ok(true)
    }

    /// `flow` bytes of DATA came for a stream that nobody holds.
    fn late_data(&mut self, flow: u64, bounds: &Bounds) -> Result<(), Violation> {
        let explained = flow.min(self.late_credit);
        self.late_credit -= explained;
        self.late_bytes += flow - explained;
        if self.late_bytes > LATE_SLACK {
            return Err(Violation::LateData {
                window: bounds.stream_window,
            });
        }
        Ok(())
    }

    /// Marks the stream whose unread frames cost most beyond their payload, and names it.
    pub(super) fn blame(&mut self, max: u64) -> Option<u32> {
        let (id, stream) = self.map.iter_mut().max_by_key(|(_, stream)| stream.overhead)?;
        stream
            .violation
            .get_or_insert(Violation::SmallFrames { stream: *id, max });
        Some(*id)
    }

    /// The reader of `id` has taken a frame of `bytes`.
    pub(super) fn release(&mut self, id: u32, bytes: u64) {
        if let Some(stream) = self.map.get_mut(&id) {
            debug_assert!(
                bytes <= stream.unread,
                "stream {id} released {bytes} of {} bytes",
                stream.unread
            );
            let bytes = bytes.min(stream.unread);
            stream.unread -= bytes;
            self.unread -= bytes;
            stream.overhead -= overhead(bytes);
            self.overhead -= overhead(bytes);
        }
    }

    /// Nobody holds `id` any more; `frames` have arrived on the session so far. `None` when it was forgotten before.
    pub(super) fn forget(&mut self, id: u32, frames: u64, bounds: &Bounds) -> Option<Forgotten> {
        if id > self.highest {
            if !self.early.insert(id) {
                return None;
            }
            self.given_up(0, bounds);
            return Some(Forgotten {
                unread: 0,
                ended: false,
                quiet: true,
                violation: None,
            });
        }
        let stream = self.map.remove(&id)?;
        self.unread -= stream.unread;
        self.overhead -= stream.overhead;
        if !stream.ended {
            self.given_up(stream.unread, bounds);
        }
        Some(Forgotten {
            unread: stream.unread,
            ended: stream.ended,
            quiet: stream.written_at == frames,
            violation: stream.violation,
        })
    }

    /// A stream was given up before its end: the rest of its window may be under way.
    fn given_up(&mut self, unread: u64, bounds: &Bounds) {
        let most = LATE_WINDOWS * bounds.stream_window;
        let left = bounds.stream_window.saturating_sub(unread);
        self.late_credit = (self.late_credit + left).min(most);
    }

    /// Streams that were given up before their HEADERS were written.
    pub(super) fn queued(&self) -> usize {
        self.early.len()
    }

    pub(super) fn unread(&self) -> u64 {
        self.unread
    }

    pub(super) fn overhead(&self) -> u64 {
        self.overhead
    }

    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// Streams that are held, or were given up before h2 wrote them.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.map.len() + self.early.len()
    }
}

impl Stream {
    fn new(written_at: u64) -> Self {
        Self {
            written_at,
            unread: 0,
            overhead: 0,
            interim: 0,
            interim_bytes: 0,
            block: None,
            written: false,
            writing: None,
            ended: false,
            ended_by_headers: false,
            began: false,
            broken: false,
            trailers: None,
            violation: None,
        }
    }

    /// Whether HEADERS are trailers: the last ones, after others (RFC 9113 §8.1).
    pub(super) fn are_trailers(&self, end_stream: bool) -> bool {
        end_stream && self.block.is_some()
    }

    /// Ended, and the unread frames cost little beyond their payload.
    pub(super) fn is_settled(&self) -> bool {
        self.ended && self.overhead <= 16 * SMALL_FRAME
    }

    /// Whether the peer ended its side, and all DATA of it was read. False where trailers may be missing.
    pub(super) fn is_read(&self) -> bool {
        self.ended && !self.ended_by_headers && self.unread == 0
    }

    /// A HEADERS frame of `bytes`.
    ///
    /// # Errors
    ///
    /// The violation that ends the session; one that ends the stream is kept in it.
    pub(super) fn headers(
        &mut self,
        id: u32,
        bytes: u32,
        end_stream: bool,
        bounds: &Bounds,
    ) -> Result<(), Violation> {
        if let (Some(last), false) = (self.block, end_stream) {
            self.interim += 1;
            self.interim_bytes += last;
        }
        self.broken |= self.began && !end_stream;
        self.ended_by_headers |= self.are_trailers(end_stream);
        self.ended |= end_stream;
        self.block = Some(u64::from(bytes));
        self.check(id, bounds);
        self.check_session(id, bounds)
    }

    /// A CONTINUATION frame of `bytes`: more of the same header block.
    pub(super) fn continuation(&mut self, id: u32, bytes: u32, bounds: &Bounds) {
        self.block = Some(self.block.unwrap_or(0) + u64::from(bytes));
        self.check(id, bounds);
    }

    fn check(&mut self, id: u32, bounds: &Bounds) {
        let found = if self.interim > bounds.informational {
            Violation::Informational {
                stream: id,
                max: bounds.informational,
            }
        } else if self.interim_bytes > bounds.informational_bytes {
            Violation::InformationalBytes {
                stream: id,
                max: bounds.informational_bytes,
            }
        } else if self.block.is_some_and(|block| block > bounds.header_block_bytes) {
            Violation::HeaderBlock {
                stream: id,
                max: bounds.header_block_bytes,
            }
        } else {
            return;
        };
        self.violation.get_or_insert(found);
    }

    fn check_session(&self, id: u32, bounds: &Bounds) -> Result<(), Violation> {
        let (count, bytes) = (2 * bounds.informational, 2 * bounds.informational_bytes);
        if self.interim > count {
            return Err(Violation::Informational {
                stream: id,
                max: count,
            });
        }
        if self.interim_bytes > bytes {
            return Err(Violation::InformationalBytes {
                stream: id,
                max: bytes,
            });
        }
        Ok(())
    }
}

/// One multiplication: the keys are our own stream ids, which nobody can choose so as to collide.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte) ^ (self.0 as u32));
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Ids are odd; the rotation moves the well-mixed upper bits to where the table looks.
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}
