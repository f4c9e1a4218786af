//! Sessions for one caller alone, who was misdirected on a shared one (P23).
//!
//! They drain from the start and count among those that do, which are bounded: who finds no room waits in a list of its
//! own until one of those has ended. Nor is anybody dialed for before the origin's back-off has passed (P9). A request with
//! a body waits for SETTINGS that allow it, too.
//!
//! ```text
//!   Pending ── room ──▶ Dialing ── connected (with a body: SETTINGS) ──▶ granted
//! ```

use std::time::Instant;

use super::waiters::{Own, Status};
use super::{Action, Caller, DialEnd, Failure, OriginState, Phase, Reason, RuntimeId, WaiterId, after};

impl<C: Clone> OriginState<C> {
    /// Asks for a session that serves this caller alone and ends with it. The id must be claimed or cancelled. `None`: the
    /// origin is closed, or the list is full.
    pub fn acquire_own(&mut self, caller: Caller, now: Instant) -> Option<WaiterId> {
        let now = self.advance(now);
        if self.closed || self.limits.max_waiters.is_some_and(|max| self.pending() >= max) {
            return None;
        }
        self.forget_h1_only(now);
        let group = self.group_of(caller);
        let waiter = self.waiters.insert(caller, group, Status::Queued);
        self.await_room(waiter);
        self.dial_own(now);
        self.make_room(group, now);
        Some(waiter)
    }

    fn await_room(&mut self, waiter: WaiterId) {
        self.waiters.at_mut(waiter.slot).own = Own::Pending;
        let pending = self.pending_own.get_or_insert_default();
        self.waiters.push_back(pending, waiter.slot);
    }

    /// Those for whom there is no room, or not yet, the oldest first.
    pub(super) fn pending_own(&self) -> impl Iterator<Item = u32> + '_ {
        let pending = self.pending_own.as_deref().copied().unwrap_or_default();
        self.waiters.iter(pending)
    }

    /// How many they are.
    pub(super) fn pending(&self) -> u32 {
        self.pending_own.as_ref().map_or(0, |pending| pending.len())
    }

    fn leave_pending(&mut self, slot: u32) {
        if let Some(pending) = &mut self.pending_own {
            self.waiters.unlink(pending, slot);
            if pending.is_empty() {
                self.pending_own = None;
            }
        }
    }

    /// Dials for those for whom there is room, the oldest first: called where a dial or a session has made some, or the
    /// back-off is over. Looks at all who wait for it, as their groups differ.
    pub(super) fn dial_own(&mut self, now: Instant) {
        let mut next = self.pending_own.as_ref().and_then(|pending| pending.head());
        if next.is_some() {
            if let Some(retry_at) = self.plan.retry_at.filter(|at| *at > now) {
                return self.arm(Some(retry_at));
            }
        }
        while let Some(slot) = next {
            next = self.waiters.after(slot);
            let Some(caller) = self.waiters.caller(slot) else {
                continue;
            };
            let group = self.group_of(caller);
            if self.groups[group].draining < self.limits.max_sessions {
                self.leave_pending(slot);
                self.waiters.at_mut(slot).own = Own::Dialing;
                let waiter = self.waiters.id_at(slot);
                self.start_dial(group, caller.runtime, Some(waiter), now);
            }
        }
    }

    /// Whether sessions that drain for as long as they like take all the room that somebody of this group waits for.
    pub(super) fn wants_room_of_its_own(&self, group: usize, now: Instant) -> bool {
        let due = self.plan.retry_at.is_none_or(|at| at <= now);
        if !due || !self.pending_own().any(|slot| self.home_of(slot) == group) {
            return false;
        }
        let sessions = self.sessions.iter();
        let endless = sessions.filter(|(_, session)| session.group == group && session.drains_for_ever());
        super::slot_of(endless.count()) >= self.limits.max_sessions
    }

    /// Its dial ended without a session.
    pub(super) fn end_own(&mut self, waiter: WaiterId, group: usize, end: DialEnd<C>) {
        let node = self.waiters.get(waiter).filter(|_| !self.closed);
        let here = node.map(|node| node.runtime.is_some());
        let failure = match end {
            // Where the waiter has moved on to a runtime that lives, the dial is made again there.
            DialEnd::Aborted if here == Some(true) => return self.await_room(waiter),
            DialEnd::Aborted => Failure::Useless(Reason::Lost),
            DialEnd::Failed(cause) | DialEnd::H1Only(cause) => {
                // Those who wait for room fail with it: not each with a dial of its own (P9).
                let failure = Failure::Dial(cause);
                let behind: Vec<u32> = self
                    .pending_own()
                    .filter(|slot| self.home_of(*slot) == group)
                    .collect();
                for slot in behind {
                    self.leave_pending(slot);
                    self.fail_one(slot, failure.clone());
                }
                failure
            }
        };
        if here.is_some() {
            self.fail_one(waiter.slot, failure);
        }
    }

    /// The session is open.
    pub(super) fn give_own(&mut self, slot: usize, waiter: WaiterId) {
        let session = &mut self.sessions[slot];
        session.phase = Phase::Draining;
        session.reason = Some(Reason::Worn);
        session.streams = 1;
        session.unused_since = None;
        session.own = Some(waiter);
        let settled = session.ready || self.waiters.at(waiter.slot).empty;
        self.groups[session.group].draining += 1;
        if settled {
            self.grant_own(slot);
        }
    }

    pub(super) fn grant_own(&mut self, slot: usize) {
        let id = self.session_id(slot);
        let session = &mut self.sessions[slot];
        if let Some(waiter) = session.own.take() {
            session.in_use = 1;
            self.waiters.at_mut(waiter.slot).status = Status::Granted(id);
            self.actions.push_back(Action::Wake(waiter));
        }
    }

    /// The waiter goes away before it was granted.
    pub(super) fn leave_own(&mut self, id: WaiterId) {
        if self.waiters.at(id.slot).own == Own::Pending {
            self.leave_pending(id.slot);
        }
        self.waiters.remove(id);
        let own = self.sessions.iter().find(|(_, session)| session.own == Some(id));
        if let Some((slot, _)) = own {
            let drain_by = after(self.now, self.limits.drain_timeout);
            self.sessions[slot].own = None;
            self.sessions[slot].drain_by = drain_by;
            self.arm(drain_by);
            self.tell_close(slot);
        }
    }

    /// Nobody dials on this runtime any more.
    pub(super) fn strand_own(&mut self, runtime: RuntimeId) {
        let dialing = self.dials.iter().filter_map(|(_, dial)| dial.own);
        let all: Vec<WaiterId> = self
            .pending_own()
            .map(|slot| self.waiters.id_at(slot))
            .chain(dialing)
            .collect();
        for waiter in all {
            if let Some(node) = self.waiters.get_mut(waiter) {
                node.runtime = node.runtime.filter(|there| *there != runtime);
            }
        }
    }

    /// They fail with the pool's closing.
    pub(super) fn fail_own_waiters(&mut self) {
        let pending: Vec<u32> = self.pending_own().collect();
        for slot in pending {
            self.leave_pending(slot);
            self.fail_one(slot, Failure::Closed);
        }
        let waiting: Vec<WaiterId> = self.dials.iter().filter_map(|(_, dial)| dial.own).collect();
        for waiter in waiting {
            let node = self.waiters.get(waiter);
            if node.is_some_and(|node| matches!(node.status, Status::Queued)) {
                self.fail_one(waiter.slot, Failure::Closed);
            }
        }
        for slot in self.session_slots() {
            if let Some(waiter) = self.sessions[slot].own.take() {
                self.fail_one(waiter.slot, Failure::Closed);
                self.tell_close(slot);
            }
        }
    }
}
