//! A reader's looks at the tape: whose turn it is, and what is put there. `body.rs` says how it all goes together.
//!
//! Everything is decided under the lock; what is to be woken or dropped is, after the unlock.

use std::task::{Context, Waker};

use super::super::tape::{Recorded, ReplayError, State};
use super::ReplayBody;

/// What a look at the tape tells a reader to do.
pub(super) enum Turn {
    Give { frame: Recorded, last: bool },
    End,
    PollSource,
    Wait,
    Fail(ReplayError),
}

impl<B> ReplayBody<B> {
    /// Decides, under the lock, what is next for this reader. Wakes and drops nothing there.
    pub(super) fn turn(&mut self, cx: &Context<'_>) -> Turn {
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
            State::Recording if self.number < tape.entitled => Turn::Fail(ReplayError::TakenOver),
            State::Recording => {
                let overtaken = tape.entitle(self.number);
                self.source = self.source.take().or_else(|| tape.source.take());
                let displaced = match self.source {
                    Some(_) => None,
                    None => tape.waiting.replace(cx.waker().clone()),
                };
                drop(tape);
                wake(overtaken);
                wake(displaced.filter(|displaced| !displaced.will_wake(cx.waker())));
                match self.source {
                    Some(_) => Turn::PollSource,
                    None => Turn::Wait,
                }
            }
        }
    }

    /// The source is not ready: it is put back. False when somebody else became entitled to it meanwhile.
    pub(super) fn waits(&mut self, cx: &Context<'_>) -> bool {
        let Some(tape) = self.tape.as_ref().filter(|_| !self.detached) else {
            return true;
        };
        let mut tape = tape.lock();
        let woken = tape.put_back(self.source.take());
        let entitled = tape.entitled == self.number;
        let former = match entitled {
            true => tape.pending.replace(cx.waker().clone()),
            false => None,
        };
        drop(tape);
        drop(former);
        wake(woken);
        entitled
    }

    /// Records what the source gave, before it is given out, and puts the source back.
    pub(super) fn record(&mut self, frame: &Recorded, last: bool) {
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
        let woken = match self.detached {
            true => tape.waiting.take(),
            false => tape.put_back(self.source.take()),
        };
        drop(tape);
        drop(lost);
        wake(woken);
    }

    /// The source has ended, well or not.
    pub(super) fn finish(&mut self, state: State) {
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
}

/// Always after the unlock.
pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
