//! `ReplayBody`: a request body that is recorded as it streams, so that another attempt can send it again.
//!
//! All readers of one body share a *tape*: the frames recorded so far, and the source (the caller's body) while nobody
//! holds it. A reader gives out the recorded frames first; at their end it takes the source and goes on with it,
//! recording what it reads. Frames are recorded before they are given out, so that whoever comes next continues exactly
//! where the source stands, and nothing is sent twice or lost.
//!
//! ```text
//!             source ended                 over the limit, or the source failed
//! Complete ◄─────────────── Recording ───────────────► Lost (frames dropped; the holder streams on)
//! ```
//!
//! - The source is owned by one reader at a time and polled outside the lock. A reader that is dropped puts it back.
//! - The reader made last has the right to it. It takes the right when it reaches the end of the tape; from then on an
//!   older reader that still holds the source (an attempt that failed while its upload was under way) gives it up when it
//!   is next polled, for which it is woken, and ends with an error.
//! - A complete tape needs no source: any number of readers may play it at once (hedging).
//! - A reader can be *promised* the body: from then on an older one that still reads may fill the tape, but no longer lose
//!   it. (The upload of an attempt that was answered early goes on while the answer is drained.)

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tower::BoxError;

use super::tape::{Recorded, ReplayError, State, Tape};

/// A request body that can be sent more than once, up to a limit.
///
/// What the retry layer hands to the service below it. Its frames are those of `B`, recorded while they stream: `Bytes`
/// are shared, not copied. A body that grows over the limit (or over 4,096 frames) is no longer recorded; it streams on,
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
    /// While this reader holds it.
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

/// What a look at the tape tells a reader to do.
enum Turn {
    Give { frame: Recorded, last: bool },
    End,
    PollSource,
    Wait,
    Fail(ReplayError),
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
    /// rest; older ones end with an error there. Where the body [cannot be replayed](Self::is_replayable) any more, the
    /// reader ends with an error too.
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

    /// Decides, under the lock, what is next for this reader. Wakes and drops nothing there.
    fn turn(&mut self, cx: &Context<'_>) -> Turn {
        let Some(tape) = &self.tape else {
            return Turn::End;
        };
        let mut tape = tape.lock();
        if let Some(frame) = tape.frames.get(self.next) {
            let frame = frame.clone();
            let last = tape.state == State::Complete && self.next + 1 == tape.frames.len();
            return Turn::Give { frame, last };
        }
        match tape.state {
            State::Complete => Turn::End,
            State::Lost if self.source.is_some() => Turn::PollSource,
            State::Lost => Turn::Fail(ReplayError::Lost),
            State::Recording if self.number < tape.entitled => {
                tape.source = self.source.take().or_else(|| tape.source.take());
                let woken = tape.waiting.take();
                drop(tape);
                wake(woken);
                Turn::Fail(ReplayError::TakenOver)
            }
            State::Recording => {
                tape.entitled = self.number;
                self.source = self.source.take().or_else(|| tape.source.take());
                if self.source.is_some() {
                    return Turn::PollSource;
                }
                let displaced = tape.waiting.replace(cx.waker().clone());
                let holder = tape.holding.take();
                drop(tape);
                wake(displaced.filter(|displaced| !displaced.will_wake(cx.waker())));
                wake(holder);
                Turn::Wait
            }
        }
    }

    /// The source is not ready. False when somebody else became entitled to it since the last look at the tape.
    fn holds_on(&self, cx: &Context<'_>) -> bool {
        let Some(tape) = self.tape.as_ref().filter(|_| !self.detached) else {
            return true;
        };
        let mut tape = tape.lock();
        if tape.entitled != self.number {
            return false;
        }
        let former = tape.holding.replace(cx.waker().clone());
        drop(tape);
        drop(former);
        true
    }

    /// Records what the source gave, before it is given out.
    fn record(&mut self, frame: &Recorded, last: bool) {
        if last {
            self.ended = true;
            self.source = None;
        }
        let Some(tape) = self.tape.as_ref().filter(|_| !self.detached) else {
            return;
        };
        let mut tape = tape.lock();
        let lost = tape.record(frame, self.number);
        if last {
            tape.finish(State::Complete);
        }
        self.detached = tape.state == State::Lost;
        self.next = tape.frames.len();
        let woken = match tape.state {
            State::Recording => None,
            State::Complete | State::Lost => tape.waiting.take(),
        };
        drop(tape);
        drop(lost);
        wake(woken);
    }

    /// The source has ended, well or not.
    fn finish(&mut self, state: State) {
        self.ended = true;
        self.source = None;
        let Some(tape) = &self.tape else { return };
        let mut tape = tape.lock();
        let lost = tape.finish(state);
        let woken = tape.waiting.take();
        drop(tape);
        drop(lost);
        wake(woken);
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
                    Poll::Pending if this.holds_on(cx) => return Poll::Pending,
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
        match std::task::ready!(source.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => {
                let last = source.is_end_stream();
                let Some(frame) = Recorded::from_frame(frame) else {
                    return Poll::Ready(None);
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
        }
    }
}

impl<B> Drop for ReplayBody<B> {
    /// Puts the source back for whoever comes next.
    fn drop(&mut self) {
        let Some(tape) = self.tape.as_ref().filter(|_| self.source.is_some()) else {
            return;
        };
        let mut tape = tape.lock();
        if tape.state != State::Recording {
            return;
        }
        tape.source = self.source.take();
        let woken = tape.waiting.take();
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

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
