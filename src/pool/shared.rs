//! One origin, shared: its state, its session handles and the wakers of its waiters, under one mutex.
//!
//! Everything goes through [`run`]: lock, let the state decide, collect what it wants done, unlock, do it. Waking,
//! dialing, closing and dropping happen after the unlock, so that nothing foreign ever runs under the lock. Effects are
//! collected in batches of [`BATCH`], so that one event that settles thousands of waiters does not hold the lock for
//! all of them; an operation that has no effects, or one, allocates nothing.
//!
//! Generic over the session handle and over the [`Env`], so that loom runs this very code without sockets or h2.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;
use std::time::Instant;

use crate::state::{Action, DialOrder, OriginState, Reason, RuntimeId, SessionId, WaiterId};
use crate::sync::{Arc, Mutex};

/// Effects collected per lock; few under loom, so that it sees what happens between two batches.
const BATCH: usize = if cfg!(h2pool_loom) { 2 } else { 64 };

/// A session as the origin holds it.
pub trait Handle: Clone {
    /// What is left of it in the origin's table once it was told to close: enough to kill it.
    #[must_use]
    fn remnant(&self) -> Self;
    /// No more requests: whoever has a slot and has not used it finds that out, and asks for another (P4).
    fn retire(&self);
    /// No stream is left and none will come: end when the last reference goes.
    fn close(&self, reason: Reason);
    /// End now, with everything that runs on it.
    fn kill(&self, reason: Reason);
    /// Ask the peer for a sign of life. False: it was asked and has answered, and must not be asked again yet.
    fn probe(&self) -> bool;
}

/// What surrounds an origin: it dials, keeps the timer and knows the time.
pub trait Env: Sized {
    /// The sessions' handle.
    type Handle: Handle;
    /// Why a dial failed; each waiter that it fails gets a clone.
    type Cause: Clone;

    /// The origin's shared part.
    fn shared(&self) -> &Shared<Self::Handle, Self::Cause>;
    /// The one clock.
    fn now(&self) -> Instant;
    /// Opens a connection.
    fn dial(this: &Arc<Self>, order: DialOrder);
    /// Sees to it that [`timeout`] is called then, and tells whose timer does.
    fn arm(this: &Arc<Self>, at: Instant) -> Keeper;
    /// Whether the caller runs on another runtime than this one.
    fn is_elsewhere(&self, runtime: RuntimeId) -> bool;
    /// A session came to nothing and counts as a failed dial.
    fn wasted(&self) {}
}

/// Whose timer keeps the deadline of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// No runtime is left; whoever uses the origin next arms another.
    Nobody,
    /// A multi-thread runtime's, which never stands still.
    Shared,
    /// That of this single-thread runtime, which stands still whenever nobody blocks on it.
    Private(RuntimeId),
}

/// The mutex and what it guards.
#[derive(Debug)]
pub struct Shared<H, C> {
    inner: Mutex<Inner<H, C>>,
}

/// What the mutex guards.
#[derive(Debug)]
pub struct Inner<H, C> {
    /// What is decided.
    pub state: OriginState<C>,
    /// By session slot.
    handles: Vec<Option<H>>,
    /// By waiter slot.
    wakers: Vec<Option<Waker>>,
    /// The deadline that the timer was last told, by the state's time ..
    armed: Option<Instant>,
    /// .. and by the clock of the runtime that keeps it.
    armed_at: Option<Instant>,
    /// The single-thread runtime that keeps it, if it is one.
    armed_on: Option<RuntimeId>,
}

impl<H: Handle, C: Clone> Shared<H, C> {
    /// An origin that was never used.
    pub fn new(state: OriginState<C>) -> Self {
        let inner = Inner {
            state,
            handles: Vec::new(),
            wakers: Vec::new(),
            armed: None,
            armed_at: None,
            armed_on: None,
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    /// Reads something, changing nothing.
    pub fn read<R>(&self, look: impl FnOnce(&Inner<H, C>) -> R) -> R {
        look(&self.inner.lock())
    }
}

impl<H: Handle, C: Clone> Inner<H, C> {
    /// The handle of a session that is still there.
    pub(super) fn handle(&self, id: SessionId) -> Option<H> {
        if !self.state.is_live(id) {
            return None;
        }
        self.handles.get(id.slot as usize)?.clone()
    }

    /// Puts the handle of a session into the table; returns what was there.
    pub fn set_handle(&mut self, id: SessionId, handle: H) -> Option<H> {
        place(&mut self.handles, id.slot).replace(handle)
    }

    /// The origin's own reference to a session, which is to be dropped after the unlock.
    pub fn take_handle(&mut self, id: SessionId) -> Option<H> {
        if !self.state.is_live(id) {
            return None;
        }
        self.handles.get_mut(id.slot as usize)?.take()
    }

    /// Remembers whom to wake; the old waker is to be dropped after the unlock.
    pub(super) fn set_waker(&mut self, id: WaiterId, waker: Waker) -> Option<Waker> {
        place(&mut self.wakers, id.slot).replace(waker)
    }

    pub(super) fn take_waker(&mut self, id: WaiterId) -> Option<Waker> {
        self.wakers.get_mut(id.slot as usize)?.take()
    }

    pub(super) fn will_wake(&self, id: WaiterId, waker: &Waker) -> bool {
        let known = self.wakers.get(id.slot as usize).and_then(Option::as_ref);
        known.is_some_and(|known| known.will_wake(waker))
    }

    /// Nothing follows from what was decided, as for most requests on a warm pool.
    #[inline]
    fn is_quiet(&mut self) -> bool {
        self.state.is_quiet() && (!self.state.has_armed() || self.keeps_time())
    }

    /// The timer fires early enough for what was armed, and never stands still.
    fn keeps_time(&mut self) -> bool {
        let armed = self.state.poll_timeout().is_none_or(|due| self.is_armed_for(due));
        let keeps = armed && self.armed_on.is_none();
        if keeps {
            self.state.take_armed();
        }
        keeps
    }

    /// What the timer was told is lost, or done.
    fn forget_timer(&mut self) {
        (self.armed, self.armed_at) = (None, None);
        self.state.rearm();
    }

    /// The timer fires by then.
    fn is_armed_for(&self, due: Instant) -> bool {
        self.armed.is_some_and(|armed| armed <= due)
    }

    /// Turns up to a batch of actions into effects. True: there is more.
    fn collect(&mut self, effects: &mut Effects<H>) -> bool {
        for _ in 0..BATCH {
            let Some(action) = self.state.poll_action() else {
                self.collect_timer(effects);
                self.shrink();
                return false;
            };
            match action {
                Action::Wake(waiter) => {
                    // A waiter that went away between two batches may have left its place to another.
                    if self.state.is_waiting(waiter) && !cfg!(h2pool_seed = "grants_wake_nobody") {
                        effects.extend(self.take_waker(waiter).map(Effect::Wake));
                    }
                }
                Action::Dial(order) => effects.push(Effect::Dial(order)),
                Action::Retire(id) => effects.extend(self.handle(id).map(Effect::Retire)),
                Action::Close(id, reason) => {
                    // The origin's own reference goes with this effect: the session ends with its last one.
                    let handle = self.take_handle(id);
                    if let Some(handle) = handle {
                        self.set_handle(id, handle.remnant());
                        effects.push(Effect::Close(handle, reason));
                    }
                }
                Action::Kill(id, reason) => {
                    effects.extend(self.handle(id).map(|handle| Effect::Kill(handle, reason)));
                }
                Action::Probe(id) => effects.extend(self.handle(id).map(|handle| Effect::Probe(handle, id))),
                Action::Wasted => effects.push(Effect::Wasted),
            }
        }
        true
    }

    fn collect_timer(&mut self, effects: &mut Effects<H>) {
        let anew = self.state.take_armed();
        let Some(due) = self.state.poll_timeout() else {
            return;
        };
        let deadline = Deadline {
            due,
            latest: self.state.latest(),
        };
        if !self.is_armed_for(due) {
            (self.armed, self.armed_at) = (Some(due), None);
            effects.push(Effect::Arm(deadline));
        } else if let Some(keeper) = self.armed_on.filter(|_| anew) {
            // The keeper's timer may fire earlier, and does so for nothing then.
            (self.armed, self.armed_at) = (Some(due), None);
            effects.push(Effect::ArmHere(deadline, keeper));
        }
    }

    /// The timer fired, at this time of the runtime that keeps it: the state's time then.
    fn fired(&mut self, now: Instant) -> Instant {
        let come = self.armed_at.is_some_and(|at| at <= now);
        let now = now.max(self.armed.filter(|_| come).unwrap_or(now));
        self.forget_timer();
        now
    }

    fn set_keeper(&mut self, keeper: Keeper, due: Instant, at: Instant) {
        if self.armed != Some(due) {
            // It has fired meanwhile, or others have armed for something else.
            return;
        }
        self.armed_at = Some(at);
        self.armed_on = match keeper {
            Keeper::Private(runtime) => Some(runtime),
            Keeper::Shared | Keeper::Nobody => None,
        };
        if keeper == Keeper::Nobody {
            self.forget_timer();
        }
    }

    /// For a caller that waits on `runtime`: when its own timer is to be armed, since the one that keeps the deadline now
    /// belongs to another single-thread runtime, which may stand still.
    pub(super) fn rehome(&mut self, runtime: RuntimeId, now: Instant) -> Option<Instant> {
        if self.armed_on.is_none_or(|keeper| keeper == runtime) {
            return None;
        }
        self.armed_on = Some(runtime);
        let latest = self.state.latest();
        self.armed_at = self.armed.map(|due| Deadline { due, latest }.on_clock(now));
        self.armed_at
    }

    /// Gives memory back once nothing is here.
    fn shrink(&mut self) {
        if self.state.is_unused() {
            (self.handles, self.wakers) = (Vec::new(), Vec::new());
            self.state.release_memory();
        }
    }
}

/// Runs `decide` under the lock, and everything that follows from it after the unlock.
pub fn run<E: Env, R>(env: &Arc<E>, decide: impl FnOnce(&mut Inner<E::Handle, E::Cause>) -> R) -> R {
    let mut inner = env.shared().inner.lock();
    let result = decide(&mut inner);
    if inner.is_quiet() {
        return result;
    }
    let mut effects = Effects::new();
    let mut more = inner.collect(&mut effects);
    drop(inner);
    let mut panicked = effects.carry_out(env);
    while more && !cfg!(h2pool_seed = "one_batch") {
        let mut effects = Effects::new();
        more = env.shared().inner.lock().collect(&mut effects);
        panicked = panicked.or(effects.carry_out(env));
    }
    if let Some(panicked) = panicked {
        resume_unwind(panicked);
    }
    result
}

/// The timer fired.
pub fn timeout<E: Env>(env: &Arc<E>) {
    let now = env.now();
    run(env, |inner| {
        let now = inner.fired(now);
        inner.state.handle_timeout(now);
    });
}

/// The timer that this origin had is lost; whoever uses the origin next arms another.
pub(super) fn disarm<E: Env>(env: &Arc<E>) {
    run(env, Inner::forget_timer);
}

/// When the timer is to fire, by the state's time, and the latest time that the state has seen.
///
/// A runtime's clock may be behind that, if another one's was paused and ran ahead (P36). The state's time stands still
/// then, until a timer fires as much later as it is to.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    due: Instant,
    latest: Instant,
}

impl Deadline {
    /// The same by a clock that shows `now`.
    fn on_clock(self, now: Instant) -> Instant {
        let left = self.due.saturating_duration_since(self.latest);
        match now < self.latest {
            true => now.checked_add(left).unwrap_or(self.due),
            false => self.due,
        }
    }
}

/// Done after the unlock.
enum Effect<H> {
    Wake(Waker),
    Dial(DialOrder),
    Retire(H),
    Close(H, Reason),
    Kill(H, Reason),
    Probe(H, SessionId),
    Wasted,
    Arm(Deadline),
    /// The same for a caller on another runtime than the one that keeps the deadline now, and that may stand still.
    ArmHere(Deadline, RuntimeId),
}

impl<H: Handle> Effect<H> {
    fn carry_out<E: Env<Handle = H>>(self, env: &Arc<E>) {
        match self {
            // Foreign, and whoever runs this is not its owner: it may be the task of a session that others use, or the timer.
            Self::Wake(waker) => drop(catch_unwind(AssertUnwindSafe(|| waker.wake()))),
            Self::Dial(order) => E::dial(env, order),
            Self::Retire(handle) => handle.retire(),
            Self::Close(handle, reason) => handle.close(reason),
            Self::Kill(handle, reason) => handle.kill(reason),
            Self::Probe(handle, id) => {
                if !handle.probe() {
                    let now = env.now();
                    run(env, |inner| inner.state.handle_sign_of_life(id, now));
                }
            }
            Self::Wasted => env.wasted(),
            Self::ArmHere(_, keeper) if !env.is_elsewhere(keeper) => {}
            Self::Arm(deadline) | Self::ArmHere(deadline, _) => {
                let at = deadline.on_clock(env.now());
                let keeper = E::arm(env, at);
                env.shared().inner.lock().set_keeper(keeper, deadline.due, at);
            }
        }
    }
}

/// The first effect inline, the others in a vector that most operations never need.
struct Effects<H> {
    first: Option<Effect<H>>,
    rest: Vec<Effect<H>>,
}

impl<H: Handle> Effects<H> {
    #[inline]
    fn carry_out<E: Env<Handle = H>>(self, env: &Arc<E>) -> Option<Box<dyn std::any::Any + Send>> {
        // Whatever panics, what else was decided is done all the same, or a right to dial were lost.
        let mut panicked = None;
        for effect in self.first.into_iter().chain(self.rest) {
            let done = catch_unwind(AssertUnwindSafe(|| effect.carry_out(env)));
            panicked = panicked.or(done.err());
        }
        panicked
    }
}

impl<H> Effects<H> {
    fn new() -> Self {
        Self {
            first: None,
            rest: Vec::new(),
        }
    }

    fn push(&mut self, effect: Effect<H>) {
        if self.first.is_none() {
            self.first = Some(effect);
        } else {
            self.rest.push(effect);
        }
    }

    fn extend(&mut self, effect: Option<Effect<H>>) {
        if let Some(effect) = effect {
            self.push(effect);
        }
    }
}

fn place<T>(table: &mut Vec<Option<T>>, slot: u32) -> &mut Option<T> {
    let slot = slot as usize;
    if table.len() <= slot {
        table.resize_with(slot + 1, || None);
    }
    &mut table[slot]
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
