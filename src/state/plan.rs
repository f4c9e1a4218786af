//! When to dial: demand and coverage.
//!
//! The plan is made anew after every event that can change it (P7):
//!
//! ```text
//!   dials wanted = min(free session slots, ceil(waiters not covered / streams per session))
//! ```
//!
//! A dial under way covers as many waiters as this origin's server last allowed per session, and a session whose SETTINGS
//! are not here yet as many as it has slots left. Some dials go **alone**, and cover everybody: the first to an origin of
//! which nothing is known, and every dial after a failure (`failures.rs`) until a session has served something again. How
//! many a dial covers is settled when it is made: those fail with it.

use std::time::{Duration, Instant};

use super::limits::UNKNOWN_STREAMS;
use super::{Action, Caller, Failure, OriginState, Phase, Reason, RuntimeId, SHARED, Session, WaiterId};

/// A dial, never confused with another that later uses the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DialId {
    slot: u32,
    generation: u32,
}

/// The order to open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialOrder {
    /// To be told when it ends.
    pub id: DialId,
    /// Where it is to run.
    pub runtime: RuntimeId,
    /// Offer only `http/1.1`.
    pub h1_only: bool,
}

/// How a dial ended without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialEnd<C> {
    /// It failed or timed out.
    Failed(C),
    /// The origin speaks only HTTP/1.1, which cannot be spoken here.
    H1Only(C),
    /// It never came to an end, since its runtime did, or the pool was closed.
    Aborted,
}

#[derive(Debug)]
pub(super) struct Dial {
    generation: u32,
    pub(super) group: usize,
    pub(super) runtime: RuntimeId,
    pub(super) started: Instant,
    /// So many of those who wait fail with it; `None`, as it goes alone: all of them.
    pub(super) covers: Option<u32>,
    /// It offers only `http/1.1`.
    pub(super) h1_only: bool,
    /// The session is for this waiter alone (P23).
    pub(super) own: Option<WaiterId>,
    /// Its runtime has ended; it cannot come to anything.
    orphaned: bool,
}

#[cfg(any(test, h2pool_sim))]
impl Dial {
    /// Whether it has this generation; enough among the dials of one origin.
    pub(super) fn is(&self, id: DialId) -> bool {
        self.generation == id.generation
    }
}

/// What is known of the origin and of its failures.
#[derive(Debug)]
pub(super) struct Plan {
    /// Streams per session that the server last allowed.
    pub(super) learned: Option<u32>,
    /// Its last session spoke HTTP/1.1.
    pub(super) h1: bool,
    /// Until then it is known to speak nothing else (P25).
    pub(super) h1_only_until: Option<Instant>,
    /// Dials failed, and sessions ended before they served, in a row.
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
    seed: u64,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            learned: None,
            h1: false,
            h1_only_until: None,
            failures: 0,
            retry_at: None,
            seed: seed | 1,
        }
    }

    /// Something was served: the origin is well.
    pub(super) fn healthy(&mut self) -> bool {
        self.retry_at = None;
        std::mem::take(&mut self.failures) > 0
    }

    /// A number in `0.0..1.0` (xorshift64*).
    pub(super) fn random(&mut self) -> f64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        let bits = self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40;
        bits as f64 / (1_u64 << 24) as f64
    }
}

impl<C: Clone> OriginState<C> {
    /// Opens sessions ahead of need: at least `count` in the caller's group, within the bound (P10).
    pub fn warm(&mut self, caller: Caller, count: u32, now: Instant) {
        if self.closed {
            return;
        }
        let now = self.advance(now);
        let group = self.group_of(caller);
        let group = &mut self.groups[group];
        group.runtime_hint = Some(caller.runtime);
        group.warm = group.warm.max(count.min(self.limits.max_sessions));
        self.replan(now);
    }

    /// Until when the origin is known to speak only HTTP/1.1; `None`: it is not. Its h2 sessions take no more work,
    /// and dials offer only `http/1.1` and go in parallel (P25, P26).
    pub fn set_h1_only(&mut self, until: Option<Instant>, now: Instant) {
        let now = self.advance(now);
        if until.is_none() && self.plan.h1_only_until.is_none() {
            return;
        }
        self.plan.h1_only_until = until;
        self.plan.learned = until.map(|_| 1);
        if until.is_some() {
            self.plan.h1 = true;
            self.retire_h2(now);
        }
        self.replan(now);
    }

    /// The origin speaks only HTTP/1.1, which is spoken elsewhere: nobody waits for it here, and its h2 sessions take no
    /// more work (P26, P27).
    pub fn turn_away(&mut self, cause: C, now: Instant) {
        let now = self.advance(now);
        self.fail_waiters(None, None, &Failure::Dial(cause));
        self.retire_h2(now);
    }

    /// After the TTL the next dial offers h2 again, alone. Until an h2 session opens the bound stays that of HTTP/1.1.
    pub(super) fn forget_h1_only(&mut self, now: Instant) {
        if self.plan.h1_only_until.is_some_and(|until| until <= now) {
            (self.plan.h1_only_until, self.plan.learned) = (None, None);
        }
    }

    /// Failures in a row are those that follow each other: one that nobody dialed after for long says nothing any more.
    pub(super) fn forget_failures(&mut self, now: Instant) {
        let quiet = self.limits.connect_timeout + self.limits.backoff_max;
        let busy = self
            .groups
            .iter()
            .any(|(_, group)| group.dialing + group.fresh > 0);
        if !busy && self.plan.retry_at.is_some_and(|at| at + quiet <= now) {
            (self.plan.failures, self.plan.retry_at) = (0, None);
        }
    }

    /// A runtime ended: its sessions are never handed out again, its waiters cannot dial until they are polled
    /// elsewhere.
    pub fn handle_runtime_ended(&mut self, runtime: RuntimeId, now: Instant) {
        let now = self.advance(now);
        self.strand(runtime);
        for slot in self.session_slots() {
            if self.sessions[slot].runtime == runtime {
                // Its end says nothing about the server.
                self.sessions[slot].judged = true;
                if self.sessions[slot].phase == Phase::Active {
                    self.drain(slot, Reason::Lost, now);
                }
            }
        }
        self.replan(now);
    }

    /// Nobody dials on this runtime any more.
    pub(super) fn strand(&mut self, runtime: RuntimeId) {
        for (_, dial) in &mut self.dials {
            dial.orphaned |= dial.runtime == runtime;
        }
        self.strand_own(runtime);
        let groups: Vec<usize> = self.groups.iter().map(|(slot, _)| slot).collect();
        for group in groups {
            let counts = &mut self.groups[group];
            counts.runtime_hint = counts.runtime_hint.filter(|hint| *hint != runtime);
            if counts.runtime == Some(runtime) {
                counts.warm = 0;
            }
            let stranded: Vec<u32> = self
                .waiters
                .queue(self.groups[group].queue)
                .filter(|waiter| self.waiters.at(*waiter).runtime == Some(runtime))
                .collect();
            for waiter in stranded {
                self.waiters.at_mut(waiter).runtime = None;
            }
        }
    }

    /// Makes the plan anew and orders what it wants.
    pub(super) fn replan(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        self.forget_h1_only(now);
        self.forget_failures(now);
        if self.groups.len() == 1 {
            return self.replan_group(SHARED, now);
        }
        let groups: Vec<usize> = self.groups.iter().map(|(slot, _)| slot).collect();
        for group in groups {
            self.replan_group(group, now);
            self.tidy_group(group);
        }
    }

    fn replan_group(&mut self, group: usize, now: Instant) {
        while let Some(runtime) = self.wanted_dial(group) {
            if let Some(retry_at) = self.plan.retry_at.filter(|at| *at > now) {
                return self.arm(Some(retry_at));
            }
            self.start_dial(group, runtime, None, now);
        }
        self.make_room(group, now);
        let bound = self.bound();
        let group = &mut self.groups[group];
        if group.active + group.dialing >= group.warm.min(bound) {
            group.warm = 0;
        }
    }

    /// Whether the group wants one more dial, and where it would run.
    pub(super) fn wanted_dial(&self, slot: usize) -> Option<RuntimeId> {
        let group = &self.groups[slot];
        if !self.has_room_for_dial(slot) {
            return None;
        }
        if self.goes_alone() && group.dialing + group.fresh > 0 {
            return None;
        }
        let needed = self.needed_dials(slot);
        if needed > group.dialing {
            let runtimes = self
                .waiters
                .queue(group.queue)
                .map(|waiter| self.waiters.at(waiter).runtime);
            if let Some(runtime) = runtimes.flatten().next() {
                return Some(runtime);
            }
        }
        // Where the runtime of the last who waited is gone, those that drive sessions live.
        let runtime = group.runtime_hint.or_else(|| self.runtime_of_sessions(slot))?;
        // Each dial that is more than the waiters need replaces a session that retires.
        let replaced = group.dialing + self.replacements(slot) >= needed + group.retiring;
        let kept = if self.in_use(slot) {
            self.limits.min_sessions
        } else {
            0
        };
        let enough = replaced && group.active + group.dialing >= group.warm.max(kept);
        (!enough).then_some(runtime)
    }

    /// A runtime that drives a session of the group.
    fn runtime_of_sessions(&self, slot: usize) -> Option<RuntimeId> {
        let mut sessions = self.sessions.iter().map(|(_, session)| session);
        let session = sessions.find(|session| session.group == slot && session.phase == Phase::Active);
        session.map(|session| session.runtime)
    }

    /// Sessions that are open and whose servers have still to allow streams: then each replaces one that retires.
    fn replacements(&self, slot: usize) -> u32 {
        if self.groups[slot].retiring == 0 {
            return 0;
        }
        let counts = |session: &&Session| {
            session.group == slot
                && session.phase == Phase::Active
                && session.retiring.is_none()
                && !session.allowed
        };
        let sessions = self.sessions.iter().map(|(_, session)| session);
        super::slot_of(sessions.filter(counts).count())
    }

    /// Dials, those under way included, for those who wait and whom no session before its SETTINGS will serve.
    pub(super) fn needed_dials(&self, slot: usize) -> u32 {
        let group = &self.groups[slot];
        let waiting = group.queue.len();
        if waiting == 0 || group.fresh == 0 {
            return waiting.div_ceil(self.per_session());
        }
        // One that may send nothing at all before its SETTINGS still covers somebody.
        let slots_left = |(_, session): (usize, &Session)| {
            let covers = session.group == slot && session.is_fresh();
            covers.then(|| session.limit.max(1) - session.in_use)
        };
        let covered: u32 = self.sessions.iter().filter_map(slots_left).sum();
        (waiting - covered.min(waiting)).div_ceil(self.per_session())
    }

    /// Whether the bound allows one more session. Those that drain do not count, but with them there are never more
    /// than twice as many (P5): beyond that dials wait until one has ended, for `drain_timeout` at most.
    pub(super) fn has_room_for_dial(&self, group: usize) -> bool {
        self.is_below_bound(group) && !self.is_crowded(group)
    }

    fn is_below_bound(&self, group: usize) -> bool {
        let group = &self.groups[group];
        group.active + group.dialing < self.bound()
    }

    /// Those that drain leave no room.
    fn is_crowded(&self, group: usize) -> bool {
        let group = &self.groups[group];
        group.active + group.dialing + group.draining >= self.bound().saturating_mul(2)
    }

    /// Where sessions that drain for as long as they like leave no room for those who wait, one of them is killed, at the
    /// earliest [`backoff_max`](super::Limits::backoff_max) after it began to drain: one that has no streams and was told to
    /// end, but does not, before the one that began first (P5, P14).
    pub(super) fn make_room(&mut self, slot: usize, now: Instant) {
        let full = self.is_below_bound(slot) && self.is_crowded(slot);
        let wanted = full && self.needed_dials(slot) > self.groups[slot].dialing;
        if !wanted && !self.wants_room_of_its_own(slot, now) {
            return;
        }
        // The others end by themselves.
        let endless = |(_, session): &(usize, &Session)| session.group == slot && session.drains_for_ever();
        let first = self.sessions.iter().filter(endless);
        let first = first.min_by_key(|(_, session)| (!session.killed, !session.told, session.drains_since));
        // One that was killed already makes room.
        let Some((first, session)) = first.filter(|(_, session)| !session.killed) else {
            return;
        };
        let due = session
            .drains_since
            .and_then(|since| super::after(since, Some(self.limits.backoff_max)));
        match due {
            Some(due) if due > now => self.arm(Some(due)),
            _ => self.tell_kill(first, session.reason.unwrap_or(Reason::Closed)),
        }
    }

    /// How many sessions a group may have.
    pub(super) fn bound(&self) -> u32 {
        if self.plan.h1 {
            self.limits.max_h1_connections
        } else {
            self.limits.max_sessions
        }
    }

    /// Whether requests have run in the group lately, so that `min_sessions` applies.
    pub(super) fn in_use(&self, group: usize) -> bool {
        if self.limits.min_sessions == 0 {
            return false;
        }
        let lately = |since: Instant| {
            self.limits
                .idle_timeout
                .is_none_or(|timeout| self.now.saturating_duration_since(since) < timeout)
        };
        let mut sessions = self.sessions.iter();
        self.groups[group].last_use.is_some_and(lately)
            || sessions.any(|(_, session)| {
                session.group == group && session.streams > 0 && session.idle_since().is_none_or(lately)
            })
    }

    pub(super) fn goes_alone(&self) -> bool {
        self.plan.learned.is_none() || self.plan.failures > 0
    }

    pub(super) fn per_session(&self) -> u32 {
        let learned = self.plan.learned.unwrap_or(UNKNOWN_STREAMS);
        learned.min(self.limits.streams_per_session).max(1)
    }

    pub(super) fn start_dial(
        &mut self,
        group: usize,
        runtime: RuntimeId,
        own: Option<WaiterId>,
        now: Instant,
    ) {
        let generation = self.next_generation();
        let covers = (!self.goes_alone()).then(|| self.per_session());
        let h1_only = self.plan.h1_only_until.is_some();
        let counts = &mut self.groups[group];
        if own.is_some() {
            counts.draining += 1;
        } else {
            counts.dialing += 1;
        }
        let dial = Dial {
            generation,
            group,
            runtime,
            started: now,
            covers,
            h1_only,
            own,
            orphaned: false,
        };
        super::reserve_first(&mut self.dials);
        let slot = super::slot_of(self.dials.insert(dial));
        let id = DialId { slot, generation };
        self.actions
            .push_back(Action::Dial(DialOrder { id, runtime, h1_only }));
    }

    pub(super) fn dial_runtime(&self, id: DialId) -> Option<RuntimeId> {
        let dial = self.dials.get(id.slot as usize);
        dial.filter(|dial| dial.generation == id.generation)
            .map(|dial| dial.runtime)
    }

    /// Whether the dial's runtime has ended.
    pub(super) fn is_orphaned(&self, id: DialId) -> bool {
        let dial = self.dials.get(id.slot as usize);
        dial.is_some_and(|dial| dial.generation == id.generation && dial.orphaned)
    }

    /// The dial is over, however it ended.
    pub(super) fn take_dial(&mut self, id: DialId) -> Option<Dial> {
        let slot = id.slot as usize;
        self.dials
            .get(slot)
            .filter(|dial| dial.generation == id.generation)?;
        let dial = self.dials.remove(slot);
        let counts = &mut self.groups[dial.group];
        if dial.own.is_some() {
            counts.draining -= 1;
        } else {
            counts.dialing -= 1;
        }
        Some(dial)
    }

    /// A time between nine tenths of `age` and the whole, so that sessions opened together do not end together.
    pub(super) fn jittered(&mut self, age: Duration) -> Duration {
        age.mul_f64(0.9 + 0.1 * self.plan.random())
    }
}
