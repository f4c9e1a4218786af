//! Slots: asking, claiming, giving up, giving back.

use std::time::Instant;

use super::serve::Open;
use super::session::Class;
use super::waiters::{Lane, Own, Status};
use super::{Acquired, Caller, Claim, Failure, OriginState, SHARED, SessionId, WaiterId};

impl<C: Clone> OriginState<C> {
    /// A slot on a shared session, if there is one and nobody waits. Needs no clock and no knowledge of the caller's
    /// runtime: the path of a request on a warm pool.
    pub fn try_acquire(&mut self, empty: bool) -> Option<SessionId> {
        if self.queued > 0 || self.closed {
            return None;
        }
        let slot = self.pick(SHARED, empty, &Class::SOUND);
        let slot = slot.or_else(|| self.pick(SHARED, empty, &Class::SUSPECT))?;
        Some(self.grant(slot))
    }

    /// The same for a caller on a single-thread runtime, on a session of that runtime or a shared one.
    pub fn try_acquire_private(&mut self, caller: Caller) -> Option<SessionId> {
        let own = self.known_group(caller);
        let open = Open {
            own: own.is_some_and(|group| self.groups[group].queue.is_empty()),
            shared: self.queued == 0,
        };
        let slot = self.room_for(own.unwrap_or(SHARED), caller.empty, open)?;
        (!self.closed).then(|| self.grant(slot))
    }

    /// A slot, or a place in the queue. Readiness is never refused a place: a full queue is pending to it (P29).
    pub fn acquire(&mut self, caller: Caller, clock: impl FnOnce() -> Instant) -> Acquired {
        self.enter(caller, clock, false)
    }

    /// The same for a caller that had its turn already: a lease of it was lost before use, or its soft slot was taken
    /// back. It goes before everybody who waits, and `max_waiters` does not stop it (P4, P29).
    pub fn acquire_first(&mut self, caller: Caller, clock: impl FnOnce() -> Instant) -> Acquired {
        self.enter(caller, clock, true)
    }

    /// What became of a waiter; anything but `Pending` and `Ready` ends it.
    pub fn claim(&mut self, id: WaiterId) -> Claim<C> {
        let Some(waiter) = self.waiters.get(id) else {
            return Claim::Gone;
        };
        let settled = match &waiter.status {
            Status::Queued => return Claim::Pending,
            Status::Held(_) | Status::Revoked(_) => return Claim::Ready,
            Status::Granted(session) => Claim::Granted(*session),
            Status::Failed(failure) => Claim::Failed(failure.clone()),
        };
        self.waiters.remove(id);
        settled
    }

    /// Whether this caller may use the session: a private one serves its own runtime alone (P36).
    pub fn serves(&self, id: SessionId, caller: Caller) -> bool {
        let group = self.session_slot(id).map(|slot| self.sessions[slot].group);
        let home = group.and_then(|group| self.groups[group].runtime);
        home.is_none_or(|home| caller.private && home == caller.runtime)
    }

    /// Notes on which runtime a waiter is polled. One that was stranded can dial again; one that moved to another group
    /// keeps its place there.
    pub fn moved(&mut self, id: WaiterId, caller: Caller, clock: impl FnOnce() -> Instant) {
        let Some(waiter) = self.waiters.get_mut(id) else {
            return;
        };
        let runtime = waiter.runtime.replace(caller.runtime);
        let regrouped =
            waiter.private != caller.private || (caller.private && runtime != Some(caller.runtime));
        waiter.private = caller.private;
        let queued = matches!(waiter.status, Status::Queued) && waiter.own != Own::Dialing;
        if !queued || (runtime.is_some() && !regrouped) {
            return;
        }
        let now = clock();
        let now = self.advance(now);
        if self.waiters.at(id.slot).own == Own::Pending {
            return self.dial_own(now);
        }
        if regrouped {
            self.regroup(id.slot, caller);
        }
        self.replan(now);
    }

    fn regroup(&mut self, waiter: u32, caller: Caller) {
        let (old, new) = (self.waiters.at(waiter).group, self.group_of(caller));
        if old != new {
            self.waiters.dequeue(&mut self.groups[old].queue, waiter);
            self.waiters.at_mut(waiter).group = new;
            self.waiters.insert_in_order(&mut self.groups[new].queue, waiter);
        }
        self.groups[new].runtime_hint = Some(caller.runtime);
        self.serve(new);
        self.serve(old);
        self.serve(SHARED);
    }

    /// A waiter goes away: it leaves the queue, and a grant on its way to it goes to the next (P12). Returns the failure
    /// that it did not look at, which is to be dropped after the unlock: its cause is foreign.
    #[must_use]
    pub fn cancel(&mut self, id: WaiterId, clock: impl FnOnce() -> Instant) -> Option<Failure<C>> {
        let waiter = self.waiters.get(id)?;
        let group = waiter.group;
        let mut unseen = None;
        match waiter.status {
            Status::Queued if waiter.own == Own::No => self.leave_queue(id, clock),
            Status::Held(session) => {
                self.let_go(id, session);
                self.give_back(session, clock);
            }
            Status::Granted(session) => {
                self.waiters.remove(id);
                self.give_back(session, clock);
            }
            Status::Queued => self.leave_own(id),
            Status::Revoked(_) | Status::Failed(_) => {
                if let Status::Failed(failure) = self.waiters.remove(id) {
                    unseen = Some(failure);
                }
            }
        }
        self.tidy_group(group);
        unseen
    }

    /// Only the oldest can stand in the way of others: one with a body, while only sessions without SETTINGS have room.
    fn leave_queue(&mut self, id: WaiterId, clock: impl FnOnce() -> Instant) {
        let group = self.waiters.at(id.slot).group;
        let queue = &mut self.groups[group].queue;
        let stood_first = queue.head() == Some(id.slot);
        self.waiters.dequeue(queue, id.slot);
        self.queued -= 1;
        self.waiters.remove(id);
        if stood_first && self.queued > 0 {
            let now = clock();
            let now = self.advance(now);
            self.serve(group);
            self.serve(SHARED);
            self.replan(now);
        }
    }

    /// A stream ends: its slot serves the oldest waiter.
    pub fn release(&mut self, id: SessionId, clock: impl FnOnce() -> Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let session = &mut self.sessions[slot];
        session.in_use -= 1;
        session.unused_since = None;
        self.slot_freed(slot, clock);
    }

    /// A lease that carried no stream ends: its slot serves the oldest waiter. The session has been idle since its last
    /// stream, unless the lease was out when that was looked at (P16).
    pub fn give_back(&mut self, id: SessionId, clock: impl FnOnce() -> Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let session = &mut self.sessions[slot];
        session.in_use -= 1;
        if session.retiring.is_some() {
            // Its lull may not have been armed while the lease was out.
            session.unused_since = None;
        }
        self.slot_freed(slot, clock);
    }

    /// A caller waits for the pool-wide permit, its slot in hand (P15). False: the queue is full. Whoever `waited` for
    /// the slot already, or had one before, was let in and is not turned away any more (P4, P13).
    pub fn await_permit(&mut self, waited: bool) -> bool {
        if !waited && self.is_saturated() {
            return false;
        }
        self.permits_awaited += 1;
        true
    }

    /// It got the permit, or gave up.
    pub fn permit_settled(&mut self) {
        self.permits_awaited -= 1;
    }

    fn enter(&mut self, caller: Caller, clock: impl FnOnce() -> Instant, first: bool) -> Acquired {
        if self.closed {
            return Acquired::Closed;
        }
        let known = self.known_group(caller);
        if let Some(group) = known {
            self.groups[group].runtime_hint = Some(caller.runtime);
        }
        let group = known.unwrap_or(SHARED);
        let open = Open {
            own: !self.groups[group].queue.is_ahead_of(first),
            shared: self.queued == 0 || (first && self.nobody_returned()),
        };
        if let Some(slot) = self.slot_for(group, caller.empty, open) {
            let acquired = self.serve_at_once(caller, group, slot);
            if self.queued > 0 {
                // Where it went ahead of others, the session may have covered them.
                let now = clock();
                let now = self.advance(now);
                self.replan(now);
            }
            return acquired;
        }
        if !first && !caller.soft && self.is_saturated() {
            return Acquired::Saturated;
        }
        let group = self.group_of(caller);
        self.groups[group].runtime_hint = Some(caller.runtime);
        let waiter = self.waiters.insert(caller, group, Status::Queued);
        let lane = if first { Lane::Returning } else { Lane::Newcomer };
        self.waiters
            .enqueue(&mut self.groups[group].queue, waiter.slot, lane);
        self.queued += 1;
        let now = clock();
        let now = self.advance(now);
        self.replan(now);
        Acquired::Queued(waiter)
    }

    fn serve_at_once(&mut self, caller: Caller, group: usize, slot: usize) -> Acquired {
        if !caller.soft {
            return Acquired::Granted(self.grant(slot));
        }
        let waiter = self.waiters.insert(caller, group, Status::Queued);
        self.hold(slot, waiter.slot);
        Acquired::Queued(waiter)
    }

    fn is_saturated(&self) -> bool {
        self.limits.max_waiters.is_some_and(|max| self.waiting() >= max)
    }

    /// Nobody queues who had a turn already.
    fn nobody_returned(&self) -> bool {
        !self.groups.iter().any(|(_, group)| group.queue.is_ahead_of(true))
    }
}
