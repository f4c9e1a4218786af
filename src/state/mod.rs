//! The core of the pool: everything that is decided about one origin, and nothing that is done.
//!
//! Pure: no async, no clock, no lock, no I/O; only std and slab. Time is an argument, randomness a seed. The shell
//! (`crate::pool`) holds one [`OriginState`] per origin under one mutex and does what it says:
//!
//! * It calls a `handle_*`, `acquire*`, `claim`, `cancel` or `release` method with what happened.
//! * Then it **drains** [`poll_action`](OriginState::poll_action) until `None`, and carries the actions out after the
//!   unlock. An action left in the queue is a lost wake-up.
//! * Then it makes sure that [`handle_timeout`](OriginState::handle_timeout) is called at
//!   [`poll_timeout`](OriginState::poll_timeout) or later; earlier or spurious calls do nothing.
//!
//! # The rules
//!
//! A caller is granted a slot at once when a session has room and nobody queues before it (P1, P11). Otherwise it
//! queues, and the plan is made anew (`plan.rs`, P7). A slot that comes free serves the oldest waiter. Sessions with
//! room are found in constant time (`load.rs`, P6), waiters enter, leave and are served in constant time
//! (`waiters.rs`, P12).
//!
//! Sessions, dials and waiters belong to **groups** (P36): the shared group of all multi-thread runtimes, and one
//! group for each single-thread runtime. A shared session serves everybody, a private one only its own runtime, and
//! the bound on sessions counts per group.
//!
//! Ids carry generations; a stale id is a no-op everywhere. Time never runs backwards: it is clamped to the latest
//! seen.

mod acquire;
mod failures;
pub mod h1_only;
mod lifecycle;
mod limits;
mod load;
mod own;
mod plan;
mod serve;
mod session;
#[cfg(any(test, h2pool_sim))]
pub mod sim;
mod soft;
#[cfg(test)]
mod tests;
mod timeouts;
mod waiters;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use load::LoadIndex;
use plan::{Dial, Plan};
use session::{Class, Session};
use waiters::{Fifo, Queue, Waiters};

pub use limits::Limits;
pub use plan::{DialEnd, DialId, DialOrder};
pub use session::{Phase, Protocol, Reason, SessionId, Snapshot};
pub use waiters::{Caller, RuntimeId, WaiterId};

/// What the shell is told to do, after the unlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wake the waiter: its outcome is there to be claimed.
    Wake(WaiterId),
    /// Open a connection.
    Dial(DialOrder),
    /// The session takes no more requests, and slots of it are out: those that were not used are to be exchanged (P4).
    Retire(SessionId),
    /// The session has no streams left and takes no more: let it end.
    Close(SessionId, Reason),
    /// End the session now, whatever runs on it.
    Kill(SessionId, Reason),
    /// Ask the session for a sign of life (PING).
    Probe(SessionId),
    /// A session that was opened came to nothing, and counts as a failed dial (P3): to be shown as one.
    Wasted,
}

/// The answer to a caller that wants a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// A slot on this session is the caller's.
    Granted(SessionId),
    /// The caller queues, or holds a slot softly; the id must be claimed or cancelled.
    Queued(WaiterId),
    /// The queue is full.
    Saturated,
    /// The origin is closed.
    Closed,
}

/// What became of a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim<C> {
    /// Still queued; it will be woken.
    Pending,
    /// A slot on this session is the caller's; the waiter is gone.
    Granted(SessionId),
    /// A soft slot is held, or was held and taken back; the waiter stays until it is firmed up or cancelled.
    Ready,
    /// No slot; the waiter is gone.
    Failed(Failure<C>),
    /// There is no such waiter.
    Gone,
}

/// Why a waiter got no slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure<C> {
    /// The dial that it depended on failed.
    Dial(C),
    /// Sessions were opened and proved useless.
    Useless(Reason),
    /// The pool was closed.
    Closed,
}

/// Sessions, dials and waiters that serve each other.
#[derive(Debug, Default)]
struct Group {
    /// `None`: the shared group.
    runtime: Option<RuntimeId>,
    index: [LoadIndex; Class::COUNT],
    queue: Queue,
    /// Sessions that take work and count against the bound.
    active: u32,
    /// Of those, the ones whose SETTINGS are not here yet.
    fresh: u32,
    /// Dials under way that count against the bound.
    dialing: u32,
    /// Sessions that drain, are being replaced, or serve one caller only.
    draining: u32,
    /// Of those, the ones that still take work until their replacement is open.
    retiring: u32,
    /// Open at least this many, once.
    warm: u32,
    /// When the last stream ended on a session that is gone.
    last_use: Option<Instant>,
    /// Where dials without a waiter run.
    runtime_hint: Option<RuntimeId>,
}

impl Group {
    fn is_unused(&self) -> bool {
        self.active + self.dialing + self.draining + self.warm == 0 && self.queue.is_empty()
    }
}

/// The shared group is always the first.
const SHARED: usize = 0;

/// All that is decided about one origin. `C` is the cause of a failed dial, cloned to each waiter that it fails.
#[derive(Debug)]
pub struct OriginState<C> {
    limits: Arc<Limits>,
    /// The latest time seen.
    now: Instant,
    groups: Slab<Group>,
    sessions: Slab<Session>,
    waiters: Waiters<C>,
    dials: Slab<Dial>,
    /// Waiters in queues, over all groups.
    queued: u32,
    /// Waiters for sessions of their own for which no dial is under way yet. One word, as there are rarely any (P39).
    pending_own: Option<Box<Fifo>>,
    /// Callers that have a slot and wait for the pool-wide permit.
    permits_awaited: u32,
    /// For the ids of sessions and dials.
    generation: u32,
    plan: Plan,
    actions: VecDeque<Action>,
    next_timeout: Option<Instant>,
    /// Something was armed since that was asked.
    armed: bool,
    closed: bool,
}

impl<C: Clone> OriginState<C> {
    /// An origin that was never used. `seed` feeds the jitter.
    pub fn new(limits: Arc<Limits>, now: Instant, seed: u64) -> Self {
        let mut groups = Slab::with_capacity(1);
        groups.insert(Group::default());
        Self {
            limits,
            now,
            groups,
            sessions: Slab::new(),
            waiters: Waiters::new(),
            dials: Slab::new(),
            queued: 0,
            pending_own: None,
            permits_awaited: 0,
            generation: 0,
            plan: Plan::new(seed),
            actions: VecDeque::new(),
            next_timeout: None,
            armed: false,
            closed: false,
        }
    }

    /// The next thing to do. To be drained after every other call.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether there is nothing to do, and no memory to give back.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.actions.is_empty() && !self.sessions.is_empty()
    }

    /// Gives back what a past burst has left, once [`is_unused`](Self::is_unused): an idle origin costs little (P39).
    pub fn release_memory(&mut self) {
        debug_assert!(self.is_unused() && self.actions.is_empty());
        (self.sessions, self.dials) = (Slab::new(), Slab::new());
        self.waiters.release_memory();
        self.actions = VecDeque::new();
        for (_, group) in &mut self.groups {
            group.index.iter_mut().for_each(LoadIndex::release_memory);
        }
        if self.groups.capacity() > self.groups.len() {
            self.groups.shrink_to_fit();
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_timeout
    }

    /// The latest time seen.
    pub fn latest(&self) -> Instant {
        self.now
    }

    /// Whether something has been armed since [`take_armed`](Self::take_armed), be it later than what is due first.
    #[inline]
    pub fn has_armed(&self) -> bool {
        self.armed
    }

    /// The same, and forgets it.
    pub fn take_armed(&mut self) -> bool {
        std::mem::take(&mut self.armed)
    }

    /// Callers in the queue, those who wait for room for a session of their own, and for the pool-wide permit.
    pub fn waiting(&self) -> u32 {
        self.queued + self.pending() + self.permits_awaited
    }

    /// Whether nothing is here that would be lost if the origin were forgotten.
    pub fn is_unused(&self) -> bool {
        self.sessions.is_empty()
            && self.dials.is_empty()
            && self.waiters.count() == 0
            && self.permits_awaited == 0
    }

    /// Whether it takes no more work.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether this session is still there.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.session_slot(id).is_some()
    }

    /// Whether this waiter is still there.
    pub fn is_waiting(&self, id: WaiterId) -> bool {
        self.waiters.get(id).is_some()
    }

    /// Whether nothing runs, waits or is being opened: at most idle sessions are here.
    pub fn is_idle(&self) -> bool {
        let mut sessions = self.sessions.iter();
        let idle = sessions.all(|(_, session)| session.firm() == 0 && session.own.is_none());
        idle && self.dials.is_empty() && self.waiting() == 0
    }

    /// Streams in use and callers waiting: the load that a balancer compares.
    pub fn load(&self) -> usize {
        let streams: u32 = self.sessions.iter().map(|(_, session)| session.firm()).sum();
        (streams + self.waiting()) as usize
    }

    /// Connections being opened: when each dial began.
    pub fn dials(&self) -> impl Iterator<Item = Instant> + '_ {
        self.dials.iter().map(|(_, dial)| dial.started)
    }

    /// The sessions as they are now.
    pub fn snapshot(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.sessions.iter().map(|(slot, session)| Snapshot {
            id: SessionId {
                slot: slot_of(slot),
                generation: session.generation,
            },
            protocol: session.protocol,
            phase: if session.retiring.is_some() {
                Phase::Draining
            } else {
                session.phase
            },
            in_use: session.in_use,
            limit: session.limit,
            streams: session.streams,
            opened_at: session.opened_at,
            idle_since: session.idle_since(),
        })
    }

    /// Refuses new work, fails those who wait, lets running streams finish until `deadline`, or for as long as they take.
    /// Twice is harmless.
    pub fn close(&mut self, now: Instant, deadline: Option<Instant>) {
        self.end(Reason::Closed, now, deadline);
    }

    /// The same for an origin that is forgotten to make room for another.
    pub fn evict(&mut self, now: Instant) {
        self.end(Reason::Evicted, now, None);
    }

    fn end(&mut self, reason: Reason, now: Instant, deadline: Option<Instant>) {
        let now = self.advance(now);
        self.closed = true;
        #[cfg(not(h2pool_seed = "close_forgets_waiters"))]
        self.fail_waiters(None, None, &Failure::Closed);
        self.fail_own_waiters();
        for slot in self.session_slots() {
            if self.sessions[slot].phase == Phase::Active {
                self.drain(slot, reason, now);
                if self.sessions[slot].in_use > 0 {
                    self.sessions[slot].drain_by = None;
                }
            }
            let session = &mut self.sessions[slot];
            session.drain_by = earliest(session.drain_by, deadline);
            let drain_by = session.drain_by;
            self.arm(drain_by);
        }
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    /// What was armed is lost: it is to be told again.
    pub fn rearm(&mut self) {
        self.armed = true;
    }

    fn arm(&mut self, at: Option<Instant>) {
        self.armed |= at.is_some();
        self.next_timeout = earliest(self.next_timeout, at);
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    fn session_slots(&self) -> Vec<usize> {
        self.sessions.iter().map(|(slot, _)| slot).collect()
    }

    fn session_slot(&self, id: SessionId) -> Option<usize> {
        let slot = id.slot as usize;
        self.sessions
            .get(slot)
            .filter(|session| session.generation == id.generation || cfg!(h2pool_seed = "no_generation"))
            .map(|_| slot)
    }

    fn session_id(&self, slot: usize) -> SessionId {
        SessionId {
            slot: slot_of(slot),
            generation: self.sessions[slot].generation,
        }
    }

    /// The group of a caller, if it is there.
    fn known_group(&self, caller: Caller) -> Option<usize> {
        if !caller.private {
            return Some(SHARED);
        }
        let runtime = Some(caller.runtime);
        let mut groups = self.groups.iter();
        groups
            .find(|(_, group)| group.runtime == runtime)
            .map(|(slot, _)| slot)
    }

    /// The group of a caller; made when it is the first of its runtime.
    fn group_of(&mut self, caller: Caller) -> usize {
        let known = self.known_group(caller);
        known.unwrap_or_else(|| {
            self.groups.reserve_exact(1);
            self.groups.insert(Group {
                runtime: Some(caller.runtime),
                ..Group::default()
            })
        })
    }

    /// Forgets a private group that nothing belongs to any more.
    fn tidy_group(&mut self, group: usize) {
        if group != SHARED && self.groups.get(group).is_some_and(Group::is_unused) {
            self.groups.remove(group);
        }
    }
}

/// Makes room for the first of what most origins have one of (P39).
fn reserve_first<T>(slab: &mut Slab<T>) {
    if slab.capacity() == 0 {
        slab.reserve_exact(1);
    }
}

#[inline]
fn slot_of(slot: usize) -> u32 {
    u32::try_from(slot).expect("fewer than 2^32 of anything per origin")
}

#[inline]
fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// `now + timeout`, where `None` is never.
#[inline]
fn after(now: Instant, timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| now.checked_add(timeout))
}
