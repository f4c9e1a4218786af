//! The tape behind `ReplayBody`: what has been recorded of a body, and the body itself while no reader polls it.
//! `body.rs` says how it is used; everything here happens under its lock.

use std::fmt;
use std::pin::Pin;
use std::task::Waker;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Frame;

/// Frames that one tape keeps at most, however small: they cost memory beyond their bytes. Fewer never go over the default
/// limit of bytes.
const MAX_FRAMES: usize = 64 * 1024;

pub(super) struct Tape<B> {
    pub(super) state: State,
    pub(super) frames: Vec<Recorded>,
    bytes: usize,
    limit: usize,
    pub(super) source: Option<Pin<Box<B>>>,
    /// Readers made so far, the first one not counted.
    pub(super) readers: u64,
    /// The youngest reader that has reached the end of the tape.
    pub(super) entitled: u64,
    /// The reader that was promised all of the body; 0 is none.
    pub(super) promised: u64,
    /// Whoever waits for the source to be put back.
    pub(super) waiting: Option<Waker>,
    /// The entitled reader, while it waits for the source to be ready.
    pub(super) pending: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Recording,
    Complete,
    Lost,
}

#[derive(Clone)]
pub(super) enum Recorded {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

impl<B> Tape<B> {
    pub(super) fn new(source: B, limit: usize) -> Self {
        Self {
            state: State::Recording,
            frames: Vec::new(),
            bytes: 0,
            limit,
            source: Some(Box::pin(source)),
            readers: 0,
            entitled: 0,
            promised: 0,
            waiting: None,
            pending: None,
        }
    }

    /// Reader `number` has reached the end of the tape. Returns whom it overtakes in waiting for the source.
    #[must_use = "it is woken after the unlock"]
    pub(super) fn entitle(&mut self, number: u64) -> Option<Waker> {
        let former = std::mem::replace(&mut self.entitled, number);
        self.pending.take_if(|_| former != number)
    }

    /// The source, if there is more to come, for whoever polls it next. Returns who waits for it.
    #[must_use = "it is woken after the unlock"]
    pub(super) fn put_back(&mut self, source: Option<Pin<Box<B>>>) -> Option<Waker> {
        self.source = source;
        self.waiting.take()
    }

    /// Keeps a frame that reader `number` read, or gives up all of them; what it returns is dropped after the unlock.
    ///
    /// Where the body was promised to a younger reader, or one has reached the end of the tape meanwhile, the frame that
    /// crosses the limit is the last one that the older reader gets, and is kept.
    #[must_use]
    pub(super) fn record(&mut self, frame: &Recorded, number: u64) -> Vec<Recorded> {
        let size = frame.size();
        if self.state != State::Recording || size == 0 {
            return Vec::new();
        }
        let left = self.limit.checked_sub(self.bytes);
        let fits = left.is_some_and(|left| size <= left) && self.frames.len() < MAX_FRAMES;
        if !fits {
            let heir = self.promised.max(self.entitled);
            if number >= heir {
                return self.finish(State::Lost);
            }
            self.entitled = heir;
        }
        self.bytes += size;
        self.frames.push(frame.clone());
        Vec::new()
    }

    /// Ends the recording, if it is still on.
    pub(super) fn finish(&mut self, state: State) -> Vec<Recorded> {
        if self.state == State::Recording {
            self.state = state;
        }
        match self.state {
            State::Lost => std::mem::take(&mut self.frames),
            State::Recording | State::Complete => Vec::new(),
        }
    }
}

impl Recorded {
    /// None for a frame of a kind that http-body does not know yet.
    pub(super) fn from_frame<D: Buf>(frame: Frame<D>) -> Option<Self> {
        match frame.into_data() {
            Ok(mut data) => Some(Self::Data(data.copy_to_bytes(data.remaining()))),
            Err(frame) => frame.into_trailers().ok().map(Box::new).map(Self::Trailers),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => trailers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum(),
        }
    }
}

/// A reader that cannot go on. Not seen by callers of the layer: it ends attempts that have been given up.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReplayError {
    TakenOver,
    Lost,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TakenOver => "another attempt took over the request's body",
            Self::Lost => "the request's body cannot be sent again",
        })
    }
}

impl std::error::Error for ReplayError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &'static str) -> Recorded {
        Recorded::Data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn empty_frames_are_not_kept_and_no_more_than_so_many_others() {
        // R10
        let mut tape = Tape::new((), 1_000_000);
        assert!(tape.record(&data(""), 0).is_empty());
        for kept in 0..MAX_FRAMES {
            assert_eq!(tape.frames.len(), kept);
            assert!(tape.record(&data("x"), 0).is_empty());
        }
        assert!(tape.state == State::Recording);
        assert_eq!(tape.record(&data("x"), 0).len(), MAX_FRAMES);
        assert!(tape.state == State::Lost && tape.frames.is_empty());
        assert!(tape.record(&data("x"), 0).is_empty() && tape.frames.is_empty());
    }

    #[test]
    fn trailers_count_by_their_names_and_values() {
        // R10: four bytes and five.
        let trailers: HeaderMap = [("name", "value")]
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect();
        for (limit, kept) in [(8, 0), (9, 1)] {
            let mut tape = Tape::new((), limit);
            let lost = tape.record(&Recorded::Trailers(Box::new(trailers.clone())), 0);
            assert_eq!((lost.len(), tape.frames.len()), (0, kept));
        }
    }

    #[test]
    fn the_two_ends_of_a_reader_can_be_told_apart() {
        // R10
        assert_ne!(ReplayError::TakenOver.to_string(), ReplayError::Lost.to_string());
    }
}
