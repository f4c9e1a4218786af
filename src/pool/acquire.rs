//! Waiting for a slot as a request does: with a time limit, statistics, and the pool-wide permit.

use std::borrow::Borrow;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::core::closed;
use super::entry::Entry;
use super::lease::{Queue, Quick, Refusal, Right, Slot};
use super::runtime::Runtime;
use super::settings::some;
use super::shared::run;
use crate::clock;
use crate::error::{Error, Kind};
use crate::origin::Key;
use crate::state::{Caller, Failure};
use crate::stats::{Left, Tally};
use crate::timer::{Timer, outside};

/// A slot, with the permit of `limit_concurrency` where that is on.
pub(crate) struct Held<O: Key> {
    pub(super) slot: Slot<Entry<O>>,
    pub(super) permit: Option<Permit>,
}

/// A permit of `limit_concurrency`, which a request shares with its stream: lost the one, it goes on with the other.
pub(super) type Permit = Arc<OwnedSemaphorePermit>;

/// How a slot is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    /// The request has no body.
    pub(super) empty: bool,
    /// The caller had its turn already.
    pub(super) first: bool,
}

impl<O: Key> Entry<O> {
    /// A slot that is there for the taking: the path of a request on a warm pool. Otherwise the origin again.
    pub(super) fn try_acquire(self: Arc<Self>, want: Want) -> Result<Held<O>, Arc<Self>> {
        match self.quick(want) {
            Some(quick) => Ok(Held {
                slot: Slot::try_acquire(self, quick)?,
                permit: None,
            }),
            None => Err(self),
        }
    }

    /// The same for a lease, which looks for the session when it is used.
    pub(super) fn try_lease(self: Arc<Self>, want: Want) -> Result<Right<Self>, Arc<Self>> {
        match self.quick(want) {
            Some(quick) => Right::try_acquire(self, quick),
            None => Err(self),
        }
    }

    fn quick(&self, want: Want) -> Option<Quick> {
        if want.first || self.core.permits.is_some() {
            return None;
        }
        let private = self.core.runtimes.known_private();
        Some(Quick {
            empty: want.empty,
            private: private.map(|runtime| Caller {
                runtime,
                private: true,
                empty: want.empty,
                soft: false,
            }),
        })
    }

    /// A slot on a session of this origin, for a caller that [found none](Self::try_acquire) at once. One that has a permit
    /// keeps it if the slot is there now, and gives it to others before it waits: a dead origin hoards none (P15).
    pub(super) async fn acquire(
        self: &Arc<Self>,
        mut want: Want,
        mut waited: Pin<&mut Waited>,
        permit: &mut Option<Permit>,
    ) -> Result<Held<O>, Error> {
        loop {
            let (runtime, caller) = self.caller(want.empty, false)?;
            let queue = if want.first { Queue::first } else { Queue::last };
            let queue = queue(self.clone(), caller);
            let slot = self.wait(queue, runtime, caller, waited.as_mut(), permit).await?;
            if let Some(held) = self.with_permit(slot, waited.as_mut(), permit).await? {
                return Ok(held);
            }
            want.first = true;
        }
    }

    /// Whether the session of a slot may be used from here.
    pub(super) fn serves_here(self: &Arc<Self>, slot: &Slot<Self>) -> bool {
        self.caller_here().is_none_or(|caller| slot.serves(caller))
    }

    /// A session of its own, for a request that was misdirected on a shared one (P23); still without the permit.
    pub(super) async fn acquire_own(
        self: &Arc<Self>,
        empty: bool,
        waited: Pin<&mut Waited>,
    ) -> Result<Slot<Self>, Error> {
        let (runtime, caller) = self.caller(empty, false)?;
        let queue = Queue::own(self.clone(), caller);
        self.wait(queue, runtime, caller, waited, &mut None).await
    }

    /// The runtime of the caller, and the caller as the state knows it.
    pub(super) fn caller(self: &Arc<Self>, empty: bool, soft: bool) -> Result<(Arc<Runtime>, Caller), Error> {
        let runtime = self
            .core
            .runtimes
            .current(&self.core)
            .map_err(|error| self.name(error))?;
        let caller = Caller {
            runtime: runtime.id(),
            private: runtime.is_private(),
            empty,
            soft,
        };
        Ok((runtime, caller))
    }

    /// The caller, where some sessions may serve one runtime alone.
    pub(super) fn caller_here(self: &Arc<Self>) -> Option<Caller> {
        if !self.core.runtimes.any_private() {
            return None;
        }
        self.caller(true, false).ok().map(|(_, caller)| caller)
    }

    /// Waits on `runtime`, or wherever it is polled later: the runtime where it began may be gone by then.
    async fn wait(
        self: &Arc<Self>,
        mut queue: Queue<Self>,
        mut runtime: Arc<Runtime>,
        mut caller: Caller,
        mut waited: Pin<&mut Waited>,
        permit: &mut Option<Permit>,
    ) -> Result<Slot<Self>, Error> {
        let mut counted = None;
        let result = poll_fn(|cx| {
            let moved = !runtime.is_current();
            if moved {
                match self.caller(caller.empty, false) {
                    Ok(there) => (runtime, caller) = there,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if let Poll::Ready(outcome) = queue.poll_on(cx, caller) {
                return Poll::Ready(outcome.map_err(|refusal| self.refused(refusal)));
            }
            *permit = None;
            if counted.is_none() || moved {
                counted.get_or_insert_with(|| Waiting::start(&self.tally));
                self.arm_here(&runtime);
            }
            waited.as_mut().let_in();
            let late = waited
                .as_mut()
                .poll_timeout(self, Some(runtime.handle().id()), cx);
            late.map(|()| Err(self.timed_out("a slot")))
        })
        .await;
        drop(queue);
        if let Some(waiting) = counted {
            waiting.end(outcome(&result));
        }
        result
    }

    /// Whoever waits sees to it that the origin's deadlines are kept by a timer that runs.
    pub(super) fn arm_here(self: &Arc<Self>, runtime: &Runtime) {
        if !self.core.runtimes.any_private() {
            return;
        }
        let now = clock::now();
        if let Some(at) = run(self, |inner| inner.rehome(runtime.id(), now)) {
            // Whoever waits here keeps it from ending.
            let _armed = runtime.arm(at, self);
        }
    }

    /// The pool-wide permit, for a caller that has its slot: the one that it kept, or another, first come first served
    /// among those who ask (P15). `None`: the caller came here from another runtime, which the session stays on; it keeps
    /// the permit, and asks for another slot (P36).
    pub(super) async fn with_permit(
        self: &Arc<Self>,
        slot: Slot<Self>,
        waited: Pin<&mut Waited>,
        kept: &mut Option<Permit>,
    ) -> Result<Option<Held<O>>, Error> {
        let permit = match (kept.take(), &self.core.permits) {
            (None, Some(permits)) => {
                let permit = match permits.clone().try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => self.wait_permit(permits.clone(), waited).await?,
                };
                Some(Arc::new(permit))
            }
            (kept, _) => kept,
        };
        if self.serves_here(&slot) {
            return Ok(Some(Held { slot, permit }));
        }
        *kept = permit;
        Ok(None)
    }

    async fn wait_permit(
        self: &Arc<Self>,
        permits: Arc<Semaphore>,
        mut waited: Pin<&mut Waited>,
    ) -> Result<OwnedSemaphorePermit, Error> {
        if !run(self, |inner| inner.state.await_permit(waited.was_let_in())) {
            return Err(self.refused(Refusal::Saturated));
        }
        let _awaited = PermitWait(self);
        let waiting = Waiting::start(&self.tally);
        let mut acquire = pin!(permits.acquire_owned());
        let result = poll_fn(|cx| {
            if let Poll::Ready(permit) = acquire.as_mut().poll(cx) {
                return Poll::Ready(permit.map_err(|_| self.name(closed())));
            }
            let here = match Handle::try_current() {
                Ok(handle) => Some(handle.id()),
                Err(error) => return Poll::Ready(Err(self.name(outside(error)))),
            };
            let late = waited.as_mut().poll_timeout(self, here, cx);
            late.map(|()| Err(self.timed_out("a permit of `limit_concurrency`")))
        })
        .await;
        waiting.end(outcome(&result));
        result
    }

    pub(super) fn timed_out(&self, what: &str) -> Error {
        let timeout = self.core.config.acquire_timeout;
        let message = format!("waited {timeout:?} (`acquire_timeout`) for {what}");
        self.name(Error::new(Kind::Acquire, message))
    }

    pub(super) fn refused(&self, refusal: Refusal<Error>) -> Error {
        let error = match refusal {
            Refusal::Saturated => {
                self.tally.saturated();
                let max = self.core.config.max_waiters;
                Error::new(
                    Kind::Saturated,
                    format!("{max} callers (`max_waiters`) wait for this origin already"),
                )
            }
            Refusal::Closed | Refusal::Failed(Failure::Closed) => closed(),
            Refusal::Failed(Failure::Dial(error))
                if error.is_connect() || error.is_h1_only() || error.is_config() =>
            {
                error
            }
            // A session that ended before it served anything counts as a failed dial, and so it is shown.
            Refusal::Failed(Failure::Dial(cause)) => {
                let why = cause.message();
                let message =
                    format!("no session could be had: the last one ended before it served anything: {why}");
                Error::new(Kind::Connect, message).with_source(cause)
            }
            Refusal::Failed(Failure::Useless(_)) => {
                let message =
                    "the server accepted connections but allowed no stream within `connect_timeout`";
                Error::new(Kind::Connect, message).with_timeout()
            }
        };
        self.name(error)
    }
}

pin_project! {
    /// What a caller has behind it: the waits for a slot and for the permit are one, with one time limit.
    #[derive(Default)]
    pub(super) struct Waited {
        // It was let into the queue, or had its turn already: a full one does not turn it away any more.
        let_in: bool,
        // Runs from where it first had to wait.
        #[pin]
        limit: Timer,
    }
}

impl Waited {
    /// Not at all so far; `let_in`: the caller had its turn already.
    pub(super) fn new(let_in: bool) -> Self {
        Self {
            let_in,
            ..Self::default()
        }
    }

    /// It is in the queue. False: it was before.
    pub(super) fn let_in(self: Pin<&mut Self>) -> bool {
        !std::mem::replace(self.project().let_in, true)
    }

    fn was_let_in(&self) -> bool {
        self.let_in
    }

    /// For a wait that may have been left alone: a limit that passed so long ago, while nobody polled, that it would have
    /// passed again says nothing about whoever polls now, and runs anew.
    pub(super) fn resume<O: Key>(self: Pin<&mut Self>, entry: &Entry<O>) {
        let mut limit = self.project().limit;
        let timeout = entry.core.config.acquire_timeout;
        if limit.passed().is_some_and(|since| since > timeout) {
            limit.set(Timer::default());
        }
    }

    /// Ready when `acquire_timeout` has passed; `here` is the runtime that polls.
    pub(super) fn poll_timeout<O: Key>(
        self: Pin<&mut Self>,
        entry: &Entry<O>,
        here: Option<Id>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        match (some(entry.core.config.acquire_timeout), here) {
            (Some(timeout), Some(here)) => self.project().limit.poll(timeout, here, cx),
            _ => Poll::Pending,
        }
    }
}

/// A pause within a request.
pub(super) async fn pause(length: Duration) -> Result<(), Error> {
    let mut timer = pin!(Timer::default());
    poll_fn(|cx| timer.as_mut().poll_here(length, cx)).await
}

/// Counts a permit's waiter while it waits.
struct PermitWait<'a, O: Key>(&'a Arc<Entry<O>>);

impl<O: Key> Drop for PermitWait<'_, O> {
    fn drop(&mut self) {
        run(self.0, |inner| inner.state.permit_settled());
    }
}

/// Counts a wait; dropped before its end, it was cancelled.
pub(super) struct Waiting<T: Borrow<Tally>> {
    tally: T,
    since: Instant,
    ended: bool,
}

impl<T: Borrow<Tally>> Waiting<T> {
    pub(super) fn start(tally: T) -> Self {
        tally.borrow().waiter_queued();
        Self {
            tally,
            since: clock::now(),
            ended: false,
        }
    }

    pub(super) fn end(mut self, outcome: Left) {
        self.ended = true;
        self.leave(outcome);
    }

    fn leave(&self, outcome: Left) {
        let waited = clock::now().saturating_duration_since(self.since);
        self.tally.borrow().waiter_left(outcome, waited);
    }
}

impl<T: Borrow<Tally>> Drop for Waiting<T> {
    fn drop(&mut self) {
        if !self.ended {
            self.leave(Left::Cancelled);
        }
    }
}

fn outcome<T>(result: &Result<T, Error>) -> Left {
    result.as_ref().map_or_else(failed, |_| Left::Served)
}

/// How a wait ended that this error ended.
pub(super) fn failed(error: &Error) -> Left {
    match error.kind() {
        Kind::Acquire => Left::TimedOut,
        _ => Left::Failed,
    }
}
