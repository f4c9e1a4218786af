//! The right to open one stream, and the wait for it.
//!
//! [`Right`] is the guard: dropped, it gives its slot back, and the oldest waiter gets it. [`Slot`] is the same with the
//! session's handle, for whoever sends at once. [`Queue`] is the wait: dropped, it leaves the queue at once, and a grant
//! that was on its way to it goes to the next (P12).
//!
//! These two, with `shared.rs` and `state/`, are what loom checks; they use no clock but the [`Env`]'s and no
//! primitive but `crate::sync` and [`Waker`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::shared::{Env, Handle, Inner, run};
use crate::state::{Acquired, Caller, Claim, Failure, OriginState, SessionId, WaiterId};
use crate::sync::Arc;

/// A slot on a session; dropped, it is given back.
pub struct Right<E: Env> {
    /// `None` once somebody else has to give it back.
    env: Option<Arc<E>>,
    id: SessionId,
}

impl<E: Env> Right<E> {
    /// A slot on a session with room, if nobody waits; otherwise the origin again.
    pub fn try_acquire(env: Arc<E>, quick: Quick) -> Result<Self, Arc<E>> {
        match run(&env, |inner| quick.choose(&mut inner.state)) {
            Some(id) => Ok(Self::new(env, id)),
            None => Err(env),
        }
    }

    fn new(env: Arc<E>, id: SessionId) -> Self {
        Self { env: Some(env), id }
    }

    /// The origin.
    pub fn env(&self) -> &Arc<E> {
        let env = self.env.as_ref();
        env.expect("only `Slot::into_parts` takes it, with the slot")
    }

    /// The same with the session's handle; `None` if the session is gone, and the slot with it.
    pub fn claim(self) -> Option<Slot<E>> {
        let handle = self.env().shared().read(|inner| inner.handle(self.id))?;
        Some(Slot { right: self, handle })
    }
}

impl<E: Env> Drop for Right<E> {
    fn drop(&mut self) {
        if let Some(env) = &self.env {
            let id = self.id;
            run(env, |inner| inner.state.give_back(id, || env.now()));
        }
    }
}

/// A slot on a session, with the session's handle.
pub struct Slot<E: Env> {
    right: Right<E>,
    handle: E::Handle,
}

impl<E: Env> Slot<E> {
    /// A slot on a session with room, if nobody waits: the path of a request on a warm pool. Otherwise the origin again.
    pub fn try_acquire(env: Arc<E>, quick: Quick) -> Result<Self, Arc<E>> {
        let taken = run(&env, |inner| {
            let id = quick.choose(&mut inner.state)?;
            granted(inner, id)
        });
        match taken {
            Some((id, handle)) => Ok(Self::new(env, id, handle)),
            None => Err(env),
        }
    }

    fn new(env: Arc<E>, id: SessionId, handle: E::Handle) -> Self {
        let right = Right::new(env, id);
        Self { right, handle }
    }

    /// The origin.
    pub fn env(&self) -> &Arc<E> {
        self.right.env()
    }

    /// The session.
    pub fn handle(&self) -> &E::Handle {
        &self.handle
    }

    /// Whether this caller may use the session (P36).
    pub fn serves(&self, caller: Caller) -> bool {
        let id = self.right.id;
        self.env().shared().read(|inner| inner.state.serves(id, caller))
    }

    /// The slot without the handle.
    pub fn into_right(self) -> Right<E> {
        self.right
    }

    /// The parts; whoever takes them gives the slot back.
    pub fn into_parts(self) -> (Arc<E>, SessionId, E::Handle) {
        let Self { mut right, handle } = self;
        let env = right.env.take();
        let env = env.expect("only this takes it");
        (env, right.id, handle)
    }
}

/// Who asks for a slot that is there for the taking, without a look at the clock.
#[derive(Clone, Copy, Debug)]
pub struct Quick {
    /// The request has no body.
    pub empty: bool,
    /// The caller, if it is on a single-thread runtime: sessions of that runtime serve it, and shared ones.
    pub private: Option<Caller>,
}

impl Quick {
    fn choose<C: Clone>(self, state: &mut OriginState<C>) -> Option<SessionId> {
        match self.private {
            None => state.try_acquire(self.empty),
            Some(caller) => state.try_acquire_private(caller),
        }
    }
}

/// Why no slot was had.
#[derive(Debug)]
pub enum Refusal<C> {
    /// The queue is full.
    Saturated,
    /// The origin is closed, or was forgotten for want of use.
    Closed,
    /// A dial failed, or a session proved useless.
    Failed(Failure<C>),
}

/// Where a wait stands.
enum Stage {
    /// Not asked yet.
    Start,
    Queued(WaiterId),
    Done,
}

/// What is waited for.
#[derive(Clone, Copy)]
enum Place {
    /// A slot, behind all others.
    Last,
    /// A slot, before all others: this caller had its turn already.
    First,
    /// A session of its own (P23).
    Own,
}

/// The wait for a slot. Cancel safe: dropped, it leaves nothing behind.
pub struct Queue<E: Env> {
    env: Arc<E>,
    caller: Caller,
    place: Place,
    stage: Stage,
}

impl<E: Env> Queue<E> {
    /// Waits behind all others.
    pub fn last(env: Arc<E>, caller: Caller) -> Self {
        Self::at(env, caller, Place::Last)
    }

    /// Waits before all others: this caller had its turn already.
    pub fn first(env: Arc<E>, caller: Caller) -> Self {
        Self::at(env, caller, Place::First)
    }

    /// Waits for a session of its own (P23).
    pub fn own(env: Arc<E>, caller: Caller) -> Self {
        Self::at(env, caller, Place::Own)
    }

    fn at(env: Arc<E>, caller: Caller, place: Place) -> Self {
        Self {
            env,
            caller,
            place,
            stage: Stage::Start,
        }
    }

    /// The origin that is waited for.
    pub fn env(&self) -> &Arc<E> {
        &self.env
    }

    /// For a soft wait that is ready: the slot, or `None` if it was taken back, or is one on a session of another runtime than
    /// the caller's, where that is known.
    pub fn firm_up(mut self, caller: Option<Caller>) -> Option<Slot<E>> {
        let Stage::Queued(waiter) = std::mem::replace(&mut self.stage, Stage::Done) else {
            return None;
        };
        let env = self.env.clone();
        let (slot, left) = run(&env, |inner| {
            let id = inner.state.firm_up(waiter);
            let elsewhere = |id: &SessionId| caller.is_some_and(|caller| !inner.state.serves(*id, caller));
            let slot = match id.filter(elsewhere) {
                Some(id) => {
                    inner.state.give_back(id, || env.now());
                    None
                }
                None => id.and_then(|id| granted(inner, id)),
            };
            let unseen = match slot {
                None => inner.state.cancel(waiter, || env.now()),
                Some(_) => None,
            };
            (slot, (inner.take_waker(waiter), unseen))
        });
        drop(left);
        let (id, handle) = slot?;
        Some(Slot::new(env, id, handle))
    }

    /// Polls a soft wait: ready when a slot is held, or was held and taken back.
    pub fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
    ) -> Poll<Result<(), Refusal<E::Cause>>> {
        debug_assert!(self.caller.soft);
        match self.poll_claim(cx, caller) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(refusal)) => Poll::Ready(Err(refusal)),
        }
    }

    fn poll_claim(&mut self, cx: &mut Context<'_>, caller: Caller) -> Poll<Claimed<E>> {
        // Waker's clone and drop are the caller's code: never under the lock.
        let mut waker = Some(cx.waker().clone());
        let env = self.env.clone();
        (self.caller.runtime, self.caller.private) = (caller.runtime, caller.private);
        let (step, old) = run(&env, |inner| self.step(inner, &env, &mut waker));
        #[cfg(h2pool_seed = "late_waker")]
        if let (Stage::Queued(waiter), Some(waker)) = (&self.stage, waker.take()) {
            drop(run(&env, |inner| inner.set_waker(*waiter, waker)));
        }
        drop((waker, old));
        match step {
            Step::Pending => Poll::Pending,
            Step::Ready => Poll::Ready(Ok(None)),
            Step::Granted(id, handle) => {
                self.stage = Stage::Done;
                Poll::Ready(Ok(Some(Slot::new(env, id, handle))))
            }
            Step::Refused(refusal) => {
                self.stage = Stage::Done;
                Poll::Ready(Err(refusal))
            }
        }
    }

    /// Under the lock: asks, or claims what has come.
    fn step(
        &mut self,
        inner: &mut Inner<E::Handle, E::Cause>,
        env: &Arc<E>,
        waker: &mut Option<Waker>,
    ) -> (Step<E>, Option<Waker>) {
        let mut old = None;
        // At most twice: a granted session that died before it was claimed is exchanged.
        loop {
            let waiter = match self.stage {
                Stage::Queued(waiter) => waiter,
                Stage::Start | Stage::Done => match self.ask(inner, env) {
                    Ok(waiter) => waiter,
                    Err(Step::Granted(id, handle)) => return (Step::Granted(id, handle), old),
                    Err(step) => return (step, old),
                },
            };
            self.stage = Stage::Queued(waiter);
            match inner.state.claim(waiter) {
                Claim::Pending => {
                    inner.state.moved(waiter, self.caller, || env.now());
                    #[cfg(not(h2pool_seed = "late_waker"))]
                    if waker
                        .as_ref()
                        .is_some_and(|waker| !inner.will_wake(waiter, waker))
                    {
                        // Two may have to go, after the unlock: what a lost grant left, and what lay here.
                        let before = waker.take().and_then(|waker| inner.set_waker(waiter, waker));
                        *waker = before;
                    }
                    return (Step::Pending, old);
                }
                Claim::Ready => return (Step::Ready, old),
                Claim::Granted(id) if !inner.state.serves(id, self.caller) => {
                    // It came here after the grant, and the session's runtime stayed where it was.
                    old = inner.take_waker(waiter);
                    inner.state.give_back(id, || env.now());
                    self.ask_again();
                }
                Claim::Granted(id) => {
                    old = inner.take_waker(waiter);
                    match granted(inner, id) {
                        Some((id, handle)) => return (Step::Granted(id, handle), old),
                        None if cfg!(h2pool_seed = "dead_grants_are_final") => {
                            return (Step::Refused(Refusal::Closed), old);
                        }
                        None => self.ask_again(),
                    }
                }
                Claim::Failed(failure) => {
                    old = inner.take_waker(waiter);
                    return (Step::Refused(Refusal::Failed(failure)), old);
                }
                Claim::Gone => return (Step::Refused(Refusal::Closed), old),
            }
        }
    }

    /// What it was granted is of no use: another of the same kind, without another wait.
    fn ask_again(&mut self) {
        self.stage = Stage::Start;
        if let Place::Last = self.place {
            self.place = Place::First;
        }
    }

    fn ask(&self, inner: &mut Inner<E::Handle, E::Cause>, env: &Arc<E>) -> Result<WaiterId, Step<E>> {
        let clock = || env.now();
        let acquired = match self.place {
            Place::First => inner.state.acquire_first(self.caller, clock),
            Place::Last => inner.state.acquire(self.caller, clock),
            Place::Own => {
                let queued = inner.state.acquire_own(self.caller, clock());
                let refused = match inner.state.is_closed() {
                    true => Acquired::Closed,
                    false => Acquired::Saturated,
                };
                queued.map_or(refused, Acquired::Queued)
            }
        };
        match acquired {
            Acquired::Queued(waiter) => Ok(waiter),
            Acquired::Granted(id) => Err(match granted(inner, id) {
                Some((id, handle)) => Step::Granted(id, handle),
                None => Step::Refused(Refusal::Closed),
            }),
            Acquired::Saturated => Err(Step::Refused(Refusal::Saturated)),
            Acquired::Closed => Err(Step::Refused(Refusal::Closed)),
        }
    }
}

impl<E: Env> Future for Queue<E> {
    type Output = Result<Slot<E>, Refusal<E::Cause>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let caller = self.caller;
        self.poll_on(cx, caller)
    }
}

impl<E: Env> Queue<E> {
    /// Polls on the runtime that `caller` names.
    pub fn poll_on(
        &mut self,
        cx: &mut Context<'_>,
        caller: Caller,
    ) -> Poll<Result<Slot<E>, Refusal<E::Cause>>> {
        debug_assert!(!self.caller.soft);
        match self.poll_claim(cx, caller) {
            Poll::Ready(Ok(Some(slot))) => Poll::Ready(Ok(slot)),
            Poll::Ready(Err(refusal)) => Poll::Ready(Err(refusal)),
            Poll::Ready(Ok(None)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<E: Env> Drop for Queue<E> {
    fn drop(&mut self) {
        if let Stage::Queued(waiter) = self.stage {
            if cfg!(h2pool_seed = "cancel_keeps_the_grant") {
                return;
            }
            let env = &self.env;
            let left = run(env, |inner| {
                let unseen = inner.state.cancel(waiter, || env.now());
                (unseen, inner.take_waker(waiter))
            });
            drop(left);
        }
    }
}

/// A slot; `None` for a soft wait that is ready; or why there is none.
type Claimed<E> = Result<Option<Slot<E>>, Refusal<<E as Env>::Cause>>;

/// What a poll came to, found under the lock.
enum Step<E: Env> {
    Pending,
    Ready,
    Granted(SessionId, E::Handle),
    Refused(Refusal<E::Cause>),
}

/// The handle of a session that was granted, unless it is gone; its slots went with it.
fn granted<H: Handle, C: Clone>(inner: &mut Inner<H, C>, id: SessionId) -> Option<(SessionId, H)> {
    let handle = inner.handle(id)?;
    Some((id, handle))
}
