//! Slots: asking, claiming, giving up, giving back.

use std::time::Instant;

use super::session::Class;
use super::waiters::{Lane, Status};
use super::{
    Acquired, Action, Caller, Claim, Failure, OriginState, Phase, Reason, RuntimeId, SHARED, SessionId,
    WaiterId, after,
};

/// Which sessions a caller may use now, so that it overtakes nobody (P11).
#[derive(Clone, Copy)]
struct Open {
    /// Those of its own group: nobody in the group is before it.
    own: bool,
    /// The shared ones: nobody at all is before it.
    shared: bool,
}

impl Open {
    /// The groups whose sessions a caller of this group may use, in the order in which they are tried.
    fn groups(self, own: usize) -> [Option<usize>; 2] {
        [
            (self.own && own != SHARED).then_some(own),
            self.shared.then_some(SHARED),
        ]
    }
}

impl<C: Clone> OriginState<C> {
    /// A slot on a shared session, if there is one and nobody waits. Needs no clock and no knowledge of the caller's
    /// runtime: the path of a request on a warm pool.
    pub fn try_acquire(&mut self, empty: bool) -> Option<SessionId> {
        if self.queued > 0 || self.closed {
            return None;
        }
        let slot = self.pick(SHARED, empty)?;
        Some(self.grant(slot, false))
    }

    /// A slot, or a place in the queue. A soft caller may queue behind a full queue: that is what readiness is for.
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
        match waiter.status {
            Status::Queued => Claim::Pending,
            Status::Held(_) | Status::Revoked => Claim::Ready,
            Status::Granted(_) | Status::Failed(_) => match self.waiters.remove(id) {
                Status::Granted(session) => Claim::Granted(session),
                Status::Failed(failure) => Claim::Failed(failure),
                _ => Claim::Gone,
            },
        }
    }

    /// Notes on which runtime a waiter is polled; one that was stranded can dial again.
    pub fn moved(&mut self, id: WaiterId, runtime: RuntimeId, clock: impl FnOnce() -> Instant) {
        let stranded = match self.waiters.get_mut(id) {
            Some(waiter) if waiter.runtime != Some(runtime) => waiter.runtime.replace(runtime).is_none(),
            _ => false,
        };
        if stranded {
            let now = clock();
            let now = self.advance(now);
            self.replan(now);
        }
    }

    /// Turns a soft slot into a lease; `None` when it was taken back. Either way the waiter is gone.
    pub fn firm_up(&mut self, id: WaiterId) -> Option<SessionId> {
        let waiter = self.waiters.get(id)?;
        let group = waiter.group;
        match waiter.status {
            Status::Held(session) => {
                self.waiters.unlink(&mut self.groups[group].soft, id.slot);
                self.waiters.remove(id);
                let slot = self.session_slot(session)?;
                self.sessions[slot].soft -= 1;
                self.sessions[slot].idle_since = None;
                Some(session)
            }
            Status::Revoked => {
                self.waiters.remove(id);
                None
            }
            _ => None,
        }
    }

    /// A waiter goes away: it leaves the queue, and a grant on its way to it goes to the next (P12).
    pub fn cancel(&mut self, id: WaiterId, clock: impl FnOnce() -> Instant) {
        let Some(waiter) = self.waiters.get(id) else {
            return;
        };
        let group = waiter.group;
        match waiter.status {
            Status::Queued if !waiter.own => self.leave_queue(id, clock),
            Status::Held(session) => {
                self.waiters.unlink(&mut self.groups[group].soft, id.slot);
                if let Some(slot) = self.session_slot(session) {
                    self.sessions[slot].soft -= 1;
                }
                self.waiters.remove(id);
                self.release(session, clock);
            }
            Status::Granted(session) => {
                self.waiters.remove(id);
                self.release(session, clock);
            }
            Status::Queued | Status::Revoked | Status::Failed(_) => {
                self.waiters.remove(id);
            }
        }
        self.tidy_group(group);
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

    /// A lease ends: its slot serves the oldest waiter.
    pub fn release(&mut self, id: SessionId, clock: impl FnOnce() -> Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        self.sessions[slot].in_use -= 1;
        self.slot_freed(slot, clock);
    }

    /// A caller waits for the pool-wide permit, its slot in hand (P15). False: the queue is full.
    pub fn await_permit(&mut self) -> bool {
        if self.is_saturated() {
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
        let group = self.group_of(caller);
        self.groups[group].runtime_hint = Some(caller.runtime);
        let open = Open {
            own: !self.groups[group].queue.is_ahead_of(first),
            shared: self.queued == 0 || (first && self.nobody_returned()),
        };
        let slot = self.pick_direct(group, caller.empty, open);
        let slot = slot.or_else(|| self.revoke_soft(group, caller.empty, open));
        if let Some(slot) = slot {
            let session = self.grant(slot, caller.soft);
            if !caller.soft {
                return Acquired::Granted(session);
            }
            let waiter = self.waiters.insert(caller, group, Status::Held(session));
            self.waiters.push_back(&mut self.groups[group].soft, waiter.slot);
            return Acquired::Queued(waiter);
        }
        if !first && !caller.soft && self.is_saturated() {
            self.tidy_group(group);
            return Acquired::Saturated;
        }
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

    fn is_saturated(&self) -> bool {
        self.limits.max_waiters.is_some_and(|max| self.waiting() >= max)
    }

    /// Nobody queues who had a turn already.
    fn nobody_returned(&self) -> bool {
        !self.groups.iter().any(|(_, group)| group.queue.is_ahead_of(true))
    }

    /// A session with room, among those that are open to the caller.
    fn pick_direct(&self, group: usize, empty: bool, open: Open) -> Option<usize> {
        open.groups(group)
            .into_iter()
            .flatten()
            .find_map(|group| self.pick(group, empty))
    }

    /// The session of a group that the policy prefers.
    fn pick(&self, group: usize, empty: bool) -> Option<usize> {
        for class in [Class::Ready, Class::Fresh, Class::Suspect] {
            if class == Class::Fresh && !empty {
                continue;
            }
            let index = &self.groups[group].index[class as usize];
            let slot = if self.limits.pack {
                index.busiest()
            } else {
                index.least()
            };
            if let Some(slot) = slot {
                return Some(slot as usize);
            }
        }
        None
    }

    /// Takes the oldest soft slot back that a caller of this group could use; its session has room then.
    fn revoke_soft(&mut self, group: usize, empty: bool, open: Open) -> Option<usize> {
        for holders in open.groups(group).into_iter().flatten() {
            let usable = |slot: &u32| match self.waiters.at(*slot).status {
                Status::Held(session) => self.session_slot(session).is_some_and(|slot| {
                    let session = &self.sessions[slot];
                    (session.group == group || session.group == SHARED) && (session.ready || empty)
                }),
                _ => false,
            };
            let held = self.waiters.iter(self.groups[holders].soft).find(usable);
            if let Some(waiter) = held {
                return self.revoke(waiter);
            }
        }
        None
    }

    /// Takes one soft slot back.
    fn revoke(&mut self, waiter: u32) -> Option<usize> {
        let group = self.waiters.at(waiter).group;
        self.waiters.unlink(&mut self.groups[group].soft, waiter);
        let status = std::mem::replace(&mut self.waiters.at_mut(waiter).status, Status::Revoked);
        let Status::Held(session) = status else {
            return None;
        };
        let slot = self.session_slot(session)?;
        let session = &mut self.sessions[slot];
        session.soft -= 1;
        session.in_use -= 1;
        self.refile(slot);
        Some(slot)
    }

    /// Takes back all soft slots on a session that retires.
    pub(super) fn revoke_all(&mut self, slot: usize) {
        let id = self.session_id(slot);
        for group in [self.sessions[slot].group]
            .into_iter()
            .chain(self.other_groups(slot))
        {
            let held: Vec<u32> = self
                .waiters
                .iter(self.groups[group].soft)
                .filter(|waiter| matches!(self.waiters.at(*waiter).status, Status::Held(session) if session == id))
                .collect();
            for waiter in held {
                self.revoke(waiter);
            }
        }
    }

    /// The groups other than its own whose callers may hold slots on a session.
    fn other_groups(&self, slot: usize) -> Vec<usize> {
        let own = self.sessions[slot].group;
        if own != SHARED || self.sessions[slot].soft == 0 {
            return Vec::new();
        }
        self.groups
            .iter()
            .map(|(group, _)| group)
            .filter(|group| *group != own)
            .collect()
    }

    /// Takes a slot of a session that has one.
    pub(super) fn grant(&mut self, slot: usize, soft: bool) -> SessionId {
        let session = &mut self.sessions[slot];
        session.in_use += 1;
        session.streams += 1;
        if soft {
            session.soft += 1;
        } else {
            session.idle_since = None;
        }
        let worn = self
            .limits
            .max_streams_per_session
            .is_some_and(|max| session.streams >= max);
        self.refile(slot);
        if worn && self.sessions[slot].retiring.is_none() {
            let now = self.now;
            self.retire(slot, Reason::Worn, now);
        }
        self.session_id(slot)
    }

    /// Puts a session where its load and its state say.
    pub(super) fn refile(&mut self, slot: usize) {
        let session = &mut self.sessions[slot];
        let group = session.group;
        let wanted = session.wanted_class();
        let key = super::slot_of(slot);
        if let Some(class) = session.class.take() {
            self.groups[group].index[class as usize].remove(&mut self.sessions, key);
        }
        if let Some(class) = wanted {
            self.groups[group].index[class as usize].insert(&mut self.sessions, key);
            self.sessions[slot].class = wanted;
        }
    }

    /// A slot of a session came free.
    pub(super) fn slot_freed(&mut self, slot: usize, clock: impl FnOnce() -> Instant) {
        if self.sessions[slot].phase == Phase::Draining {
            if self.sessions[slot].in_use == 0 {
                self.tell_close(slot);
            }
            return;
        }
        self.refile(slot);
        if self.queued > 0 {
            self.serve(self.sessions[slot].group);
        }
        if self.sessions[slot].firm() == 0 && self.sessions[slot].idle_since.is_none() {
            let now = clock();
            let now = self.advance(now);
            self.sessions[slot].idle_since = Some(now);
            self.arm(after(now, self.limits.idle_timeout));
        }
    }

    /// Serves the oldest waiters that sessions of this group can serve, first come first served.
    pub(super) fn serve(&mut self, group: usize) {
        while let Some(waiter) = self.oldest(group) {
            let (own, empty) = (self.waiters.at(waiter).group, self.waiters.at(waiter).empty);
            let open = Open {
                own: true,
                shared: group == SHARED || self.oldest(SHARED) == Some(waiter),
            };
            let slot = self.pick_direct(own, empty, open);
            let slot = slot.or_else(|| self.revoke_soft(own, empty, open));
            let Some(slot) = slot else {
                return;
            };
            self.settle_granted(waiter, slot);
        }
    }

    fn settle_granted(&mut self, waiter: u32, slot: usize) {
        let group = self.waiters.at(waiter).group;
        let soft = self.waiters.at(waiter).soft;
        self.waiters.dequeue(&mut self.groups[group].queue, waiter);
        self.queued -= 1;
        let session = self.grant(slot, soft);
        let id = self.waiters.id_at(waiter);
        if soft {
            self.waiters.at_mut(waiter).status = Status::Held(session);
            self.waiters.push_back(&mut self.groups[group].soft, waiter);
        } else {
            self.waiters.at_mut(waiter).status = Status::Granted(session);
        }
        self.actions.push_back(Action::Wake(id));
    }

    /// The oldest waiter that a session of this group may serve.
    pub(super) fn oldest(&self, group: usize) -> Option<u32> {
        if group != SHARED {
            return self.groups[group].queue.head();
        }
        let heads = self.groups.iter().filter_map(|(_, group)| group.queue.head());
        heads.min_by_key(|waiter| self.waiters.at(*waiter).order)
    }

    /// Fails the oldest `count` waiters of a group; `None` is all groups, or all waiters.
    pub(super) fn fail_waiters(&mut self, group: Option<usize>, count: Option<u32>, failure: &Failure<C>) {
        let groups: Vec<usize> = match group {
            Some(group) => vec![group],
            None => self.groups.iter().map(|(slot, _)| slot).collect(),
        };
        for group in groups {
            let mut left = count.unwrap_or(u32::MAX);
            while left > 0 {
                let Some(waiter) = self.groups[group].queue.head() else {
                    break;
                };
                self.waiters.dequeue(&mut self.groups[group].queue, waiter);
                self.queued -= 1;
                self.fail_one(waiter, failure.clone());
                left -= 1;
            }
        }
    }

    pub(super) fn fail_one(&mut self, waiter: u32, failure: Failure<C>) {
        self.waiters.at_mut(waiter).status = Status::Failed(failure);
        let id = self.waiters.id_at(waiter);
        self.actions.push_back(Action::Wake(id));
    }
}
