//! One request at the server: read, decided, answered.
//!
//! ```text
//!   HEADERS ──▶ Undecided ──▶ refused, or excluded by GOAWAY: never processed
//!                   └──▶ processed ──▶ Answer | Download | Reset | Never
//! ```

use std::time::Duration;

use bytes::BytesMut;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::clock::Instant;
use crate::support::peer::{Headers, code, frame, hpack};

use super::pattern;

/// Bytes of one DATA frame of ours.
const CHUNK: usize = 8 * 1024;
/// What we look at again when the client's window is shut.
const SHUT: Duration = Duration::from_millis(3);

/// An open stream.
pub(super) struct Stream {
    pub(super) stream: u32,
    pub(super) id: u64,
    pub(super) method: String,
    /// What the response's body will be, in bytes.
    download: usize,
    /// What the request's body must be, in bytes, and how much of it came.
    upload: usize,
    read: Vec<u8>,
    pub(super) upload_ended: bool,
    /// The client's window for us.
    pub(super) window: i64,
    pub(super) state: State,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not processed; to be decided at this time, once its upload has come.
    Undecided(Option<Instant>),
    /// Processed; to be answered at this time.
    Answer(Instant),
    /// Processed; to be reset at this time, after the head and some body or before.
    Reset { at: Instant, headed: bool },
    /// The head was sent; this much of the body too.
    Download { at: Instant, sent: usize },
    /// Processed, and never answered.
    Never,
    /// Our END_STREAM was sent.
    Answered,
    /// Over.
    Gone,
}

impl Stream {
    pub(super) fn new(head: &Headers, window: i64, now: Instant, rng: &mut SmallRng) -> Option<Self> {
        let number = |name| head.get(name)?.parse().ok();
        let soon = now + Duration::from_micros(rng.random_range(0..4_000));
        // Some are answered before their upload is here.
        let early = rng.random_bool(0.15);
        Some(Self {
            stream: head.stream,
            id: head.get("x-id")?.parse().ok()?,
            method: head.get(":method")?.to_owned(),
            download: number("x-download")?,
            upload: number("x-upload")?,
            read: Vec::new(),
            upload_ended: head.end,
            window,
            state: State::Undecided((head.end || early).then_some(soon)),
        })
    }

    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.state, State::Undecided(_))
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Gone || (self.state == State::Answered && self.upload_ended)
    }

    /// When it wants to act.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Undecided(at) => at,
            State::Answer(at) | State::Reset { at, .. } | State::Download { at, .. } => Some(at),
            State::Never | State::Answered | State::Gone => None,
        }
    }

    /// Data of the request. `Err` says what is wrong with it.
    pub(super) fn receive(&mut self, data: &[u8], end: bool, now: Instant) -> Result<(), String> {
        self.read.extend_from_slice(data);
        self.upload_ended |= end;
        if end && self.state == State::Undecided(None) {
            self.state = State::Undecided(Some(now));
        }
        let whole = pattern(self.id, self.upload);
        if whole.starts_with(&self.read) && (!end || whole.len() == self.read.len()) {
            return Ok(());
        }
        let (id, read, upload) = (self.id, self.read.len(), self.upload);
        Err(format!(
            "the upload of {id} is not what was sent: {read} bytes of {upload}, end {end}"
        ))
    }

    /// It is processed: what will become of it. In a storm, not always an answer.
    pub(super) fn process(&mut self, now: Instant, storm: bool, rng: &mut SmallRng) {
        let at = now + Duration::from_micros(rng.random_range(0..10_000));
        self.state = match rng.random_range(0..1000) {
            0..25 if storm => State::Reset { at, headed: false },
            25..40 if storm => State::Reset { at, headed: true },
            40..46 if storm => State::Never,
            _ => State::Answer(at),
        };
    }

    /// Sends what is due, as far as the windows allow.
    pub(super) fn answer(&mut self, now: Instant, window: &mut i64, out: &mut BytesMut, rng: &mut SmallRng) {
        match self.state {
            State::Answer(_) => {
                self.head(out);
                self.state = if self.download == 0 {
                    out.extend_from_slice(&frame::data(self.stream, b"", true));
                    State::Answered
                } else {
                    State::Download { at: now, sent: 0 }
                };
            }
            State::Reset { headed, .. } => {
                if headed {
                    self.head(out);
                }
                let codes = [code::INTERNAL_ERROR, code::CANCEL, code::ENHANCE_YOUR_CALM];
                let code = codes[rng.random_range(0..codes.len())];
                out.extend_from_slice(&frame::reset(self.stream, code));
                self.state = State::Gone;
            }
            State::Download { sent, .. } => self.send(sent, now, window, out, rng),
            _ => {}
        }
    }

    fn head(&self, out: &mut BytesMut) {
        let id = self.id.to_string();
        let length = self.download.to_string();
        let fields = [
            (":status", "200"),
            ("x-id", id.as_str()),
            ("content-length", &length),
        ];
        out.extend_from_slice(&frame::headers(self.stream, &hpack::literals(fields), false));
    }

    fn send(&mut self, sent: usize, now: Instant, window: &mut i64, out: &mut BytesMut, rng: &mut SmallRng) {
        let allowed = usize::try_from(self.window.min(*window)).unwrap_or(0);
        let size = CHUNK.min(self.download - sent).min(allowed);
        if size == 0 {
            self.state = State::Download { at: now + SHUT, sent };
            return;
        }
        let taken = i64::try_from(size).unwrap_or(i64::MAX);
        self.window -= taken;
        *window -= taken;
        let upto = sent + size;
        let end = upto == self.download;
        let offset = u64::try_from(sent).unwrap_or(u64::MAX);
        let data = pattern(self.id.wrapping_add(offset), size);
        out.extend_from_slice(&frame::data(self.stream, &data, end));
        self.state = if end {
            State::Answered
        } else {
            let at = now + Duration::from_micros(rng.random_range(0..1_500));
            State::Download { at, sent: upto }
        };
    }
}
