//! `ReplayBody`: a request body that is recorded as it streams, so that another attempt can send it again.
//!
//! All readers of one body share a *tape*: the frames recorded so far, and the source (the caller's body) while nobody
//! polls it. A reader gives out the recorded frames first; at their end it polls the source and records what it reads.
//! Frames are recorded before they are given out, so that whoever comes next continues exactly where the source stands,
//! and nothing is sent twice or lost.
//!
//! ```text
//!             source ended                 over the limit, or the source failed
//! Complete ◄─────────────── Recording ───────────────► Lost (frames dropped; the reader that met it streams on)
//! ```
//!
//! - The source lies on the tape, except while a reader polls it, outside the lock. So a reader that is held and not
//!   polled (an attempt that failed while its upload waited for the peer) keeps nothing from the others.
//! - The reader made last has the right to it, and takes the right when it reaches the end of the tape. An older reader
//!   that waits for the source is woken then, and ends with an error when it is next polled. Where it polls the source at
//!   that very moment, the newer one waits until the source is back, and has what it gave on the tape.
//! - A complete tape needs no source: any number of readers may play it at once (hedging).
//! - A reader can be *promised* the body: from then on an older one that still reads may fill the tape, but no longer lose
//!   it. (The upload of an attempt that was answered early goes on while the answer is drained.)

mod turns;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tower::BoxError;

use self::turns::{Turn, wake};
use super::tape::{Recorded, State, Tape};

/// A request body that can be sent more than once, up to a limit.
///
/// What the retry layer hands to the service below it. Its frames are those of `B`, recorded while they stream: `Bytes`
/// are shared, not copied. A body that grows over the limit (or over 65,536 frames) is no longer recorded; it streams on,
/// and cannot be [replayed](Self::replay) any more. Trailers are recorded too and count by their length.
///
/// ```
/// use http_body_util::{BodyExt, Full};
/// use h2pool::retry::ReplayBody;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let body = ReplayBody::new(Full::<bytes::Bytes>::from("hello"), 64 * 1024);
/// let again = body.replay();
/// assert_eq!(body.collect().await?.to_bytes(), "hello");
/// assert_eq!(again.collect().await?.to_bytes(), "hello");
/// # Ok::<(), tower::BoxError>(())
/// # })?;
/// # Ok::<(), tower::BoxError>(())
/// ```
pub struct ReplayBody<B> {
    /// None for an empty body, which needs neither tape nor memory.
    tape: Option<Arc<Mutex<Tape<B>>>>,
    /// The order in which the readers were made.
    number: u64,
    /// While this reader polls it, and for good once it is detached.
    source: Option<Pin<Box<B>>>,
    /// Frames given out from the tape, or recorded on it while they were given out.
    next: usize,
    /// What the source said of its size at first.
    total: (u64, Option<u64>),
    /// Bytes given out.
    given: u64,
    ended: bool,
    /// The tape is lost and this reader holds the source: there is no need to look at the tape again.
    detached: bool,
}

impl<B> ReplayBody<B> {
    /// Records up to `limit` bytes of `body`.
    #[must_use]
    pub fn new(body: B, limit: usize) -> Self
    where
        B: Body,
    {
        let hint = body.size_hint();
        let total = (hint.lower(), hint.upper());
        let tape = (!body.is_end_stream()).then(|| Arc::new(Mutex::new(Tape::new(body, limit))));
        Self::reader(tape, 0, total)
    }

    /// Another reader, from the beginning.
    ///
    /// Before the body has been recorded whole, the newest reader that reaches the end of what is recorded takes over the
    /// rest, whether older ones are read on, held or dropped; those end with an error there. Where the body
    /// [cannot be replayed](Self::is_replayable) any more, the reader ends with an error too.
    #[must_use]
    pub fn replay(&self) -> Self {
        let number = self.tape.as_ref().map_or(0, |tape| {
            let mut tape = tape.lock();
            tape.readers += 1;
            tape.readers
        });
        Self::reader(self.tape.clone(), number, self.total)
    }

    /// Another reader that gets all of the body, whatever older readers do meanwhile. None where it cannot be replayed.
    pub(super) fn promise(&self) -> Option<Self> {
        let number = match &self.tape {
            None => 0,
            Some(tape) => {
                let mut tape = tape.lock();
                if tape.state == State::Lost {
                    return None;
                }
                tape.readers += 1;
                tape.promised = tape.readers;
                tape.readers
            }
        };
        Some(Self::reader(self.tape.clone(), number, self.total))
    }

    /// No longer keeps what other readers do not need. It is not read, nor are others made of it, from then on.
    pub(super) fn let_go(&mut self) {
        self.tape = None;
        self.ended = true;
    }

    /// Whether a [`replay`](Self::replay) gives all of the body: it is within the limit so far, and has not failed.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        self.state() != State::Lost
    }

    /// Whether all of the body has been recorded, trailers included.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.state() == State::Complete
    }

    fn state(&self) -> State {
        self.tape
            .as_ref()
            .map_or(State::Complete, |tape| tape.lock().state)
    }

    fn reader(tape: Option<Arc<Mutex<Tape<B>>>>, number: u64, total: (u64, Option<u64>)) -> Self {
        Self {
            ended: tape.is_none(),
            tape,
            number,
            source: None,
            next: 0,
            total,
            given: 0,
            detached: false,
        }
    }

    fn give(&mut self, frame: Recorded) -> Frame<Bytes> {
        match frame {
            Recorded::Data(data) => {
                self.given += data.len() as u64;
                Frame::data(data)
            }
            Recorded::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        while !this.ended {
            let turn = if this.detached {
                Turn::PollSource
            } else {
                this.turn(cx)
            };
            match turn {
                Turn::Give { frame, last } => {
                    this.next += 1;
                    this.ended = last;
                    return Poll::Ready(Some(Ok(this.give(frame))));
                }
                Turn::End => this.ended = true,
                Turn::Wait => return Poll::Pending,
                Turn::Fail(error) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Turn::PollSource => match this.poll_source(cx) {
                    Poll::Ready(None) => {}
                    Poll::Ready(Some(given)) => return Poll::Ready(Some(given)),
                    Poll::Pending if this.waits(cx) => return Poll::Pending,
                    Poll::Pending => {}
                },
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        let mut left = SizeHint::new();
        let (lower, upper) = self.total;
        left.set_lower(lower.saturating_sub(self.given));
        if let Some(upper) = upper {
            left.set_upper(upper.saturating_sub(self.given));
        }
        left
    }
}

impl<B> ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Polls the source, outside the lock. Ready with None when there is nothing to give out for now.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(None);
        };
        loop {
            return match std::task::ready!(source.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let last = source.is_end_stream();
                    let Some(frame) = Recorded::from_frame(frame) else {
                        continue;
                    };
                    self.record(&frame, last);
                    Poll::Ready(Some(Ok(self.give(frame))))
                }
                Some(Err(error)) => {
                    self.finish(State::Lost);
                    Poll::Ready(Some(Err(error.into())))
                }
                None => {
                    self.finish(State::Complete);
                    Poll::Ready(None)
                }
            };
        }
    }
}

impl<B> Drop for ReplayBody<B> {
    /// Puts the source back for whoever comes next, should it have panicked while it was polled.
    fn drop(&mut self) {
        let Some(tape) = self.tape.as_ref().filter(|_| self.source.is_some()) else {
            return;
        };
        let mut tape = tape.lock();
        if tape.state != State::Recording {
            return;
        }
        let woken = tape.put_back(self.source.take());
        drop(tape);
        wake(woken);
    }
}

impl<B> Clone for ReplayBody<B> {
    /// The same as [`replay`](ReplayBody::replay): from the beginning, not from where this reader stands.
    fn clone(&self) -> Self {
        self.replay()
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("given", &self.given)
            .field("ended", &self.ended)
            .field("replayable", &self.is_replayable())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "body_turns_tests.rs"]
mod turns_tests;
