//! Who gets which slot: choosing a session, serving those who wait, failing them.

use std::time::Instant;

use super::session::Class;
use super::waiters::Status;
use super::{Action, Failure, OriginState, Phase, SHARED, SessionId, after};

/// Which sessions a caller may use now, so that it overtakes nobody (P11).
#[derive(Clone, Copy)]
pub(super) struct Open {
    /// Those of its own group: nobody in the group is before it.
    pub(super) own: bool,
    /// The shared ones: nobody at all is before it.
    pub(super) shared: bool,
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
    /// A session with room, among those that are open to the caller. Where none has room, but a slot of one is held
    /// only by readiness, that is taken back (P29).
    pub(super) fn slot_for(&mut self, group: usize, empty: bool, open: Open) -> Option<usize> {
        if let Some(slot) = self.room_for(group, empty, open) {
            return Some(slot);
        }
        let slot = self.pick_open(group, empty, open, &Class::YIELDING)?;
        self.revoke(slot);
        Some(slot)
    }

    /// A session with room, among those that are open to the caller.
    pub(super) fn room_for(&self, group: usize, empty: bool, open: Open) -> Option<usize> {
        let pick = |classes| self.pick_open(group, empty, open, classes);
        pick(&Class::SOUND).or_else(|| pick(&Class::SUSPECT))
    }

    fn pick_open(&self, group: usize, empty: bool, open: Open, classes: &[Class; 2]) -> Option<usize> {
        let mut groups = open.groups(group).into_iter().flatten();
        groups.find_map(|group| self.pick(group, empty, classes))
    }

    /// The session of a group that the policy prefers, among these classes.
    pub(super) fn pick(&self, group: usize, empty: bool, classes: &[Class; 2]) -> Option<usize> {
        let index = &self.groups[group].index;
        let usable = classes.iter().filter(|class| class.takes(empty));
        let mut found = usable.map(|class| {
            let index = &index[*class as usize];
            if self.limits.pack {
                index.busiest()
            } else {
                index.least()
            }
        });
        found.find_map(|slot| slot.map(|slot| slot as usize))
    }

    /// Takes a slot of a session that has room.
    pub(super) fn grant(&mut self, slot: usize) -> SessionId {
        self.sessions[slot].in_use += 1;
        self.count_stream(slot)
    }

    /// A slot is going to carry a stream. Since grants read no clock, a session that is worn by it is retired by the
    /// timer, which is due at once.
    pub(super) fn count_stream(&mut self, slot: usize) -> SessionId {
        let session = &mut self.sessions[slot];
        session.streams += 1;
        let worn = self.limits.is_worn(session.streams) && session.retiring.is_none();
        if worn {
            session.expires_at = Some(self.now);
        }
        // The origin is in use from its first stream on.
        let first = session.streams == 1 && self.limits.min_sessions > 0;
        if worn || first {
            self.arm(Some(self.now));
        }
        self.refile(slot);
        self.session_id(slot)
    }

    /// Puts a session where its load and its state say.
    pub(super) fn refile(&mut self, slot: usize) {
        let session = &self.sessions[slot];
        let wanted = session.wanted_class();
        if session.class != wanted {
            return self.reclass(slot, wanted);
        }
        if let Some(class) = wanted {
            let index = &mut self.groups[session.group].index[class as usize];
            index.reload(&mut self.sessions, super::slot_of(slot));
        }
    }

    #[cold]
    fn reclass(&mut self, slot: usize, wanted: Option<Class>) {
        let session = &mut self.sessions[slot];
        let group = session.group;
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
            if self.sessions[slot].in_use == 0 && !cfg!(h2pool_seed = "last_stream_tells_nobody") {
                self.last_stream_over(slot, clock);
            }
            return;
        }
        self.refile(slot);
        #[cfg(not(h2pool_seed = "release_serves_nobody"))]
        if self.queued > 0 {
            self.serve(self.sessions[slot].group);
        }
        let idles = self.sessions[slot].unused_since.is_none() && self.sessions[slot].firm() == 0;
        // Those of other groups who were served may have taken what covered some who still wait.
        let uncovered = self.queued > 0 && self.groups[SHARED].fresh > 0;
        if !idles && !uncovered {
            return;
        }
        let now = clock();
        let now = self.advance(now);
        if idles {
            self.sessions[slot].unused_since = Some(now);
            self.arm(after(now, self.limits.idle_timeout));
            if self.sessions[slot].retiring.is_some() {
                self.arm(self.lull_until(slot));
            }
        }
        if uncovered {
            self.replan(now);
        }
    }

    /// A draining session that could take as long as its streams did has none left; its end is bounded again.
    fn last_stream_over(&mut self, slot: usize, clock: impl FnOnce() -> Instant) {
        if self.sessions[slot].drain_by.is_none() {
            let now = clock();
            let now = self.advance(now);
            self.bound_draining(slot, now);
        }
        self.tell_close(slot);
    }

    /// What drains for as long as its streams take ends within `drain_timeout` from now.
    pub(super) fn bound_draining(&mut self, slot: usize, now: Instant) {
        if self.sessions[slot].drain_by.is_none() {
            let drain_by = after(now, self.limits.drain_timeout);
            self.sessions[slot].drain_by = drain_by;
            self.arm(drain_by);
        }
    }

    /// Serves the oldest waiters that sessions of this group can serve, first come first served. Whoever is served may
    /// have stood before others, whom another session can serve now.
    pub(super) fn serve(&mut self, group: usize) {
        if group != SHARED {
            self.serve_private(group);
        }
        while let Some(waiter) = self.oldest(SHARED) {
            let own = self.waiters.at(waiter).group;
            let open = Open {
                own: true,
                shared: true,
            };
            let Some(slot) = self.slot_for(own, self.waiters.at(waiter).empty, open) else {
                return;
            };
            self.settle_granted(waiter, slot);
            if own != SHARED {
                self.serve_private(own);
            }
        }
    }

    /// The same for all sessions.
    pub(super) fn serve_all(&mut self) {
        if self.queued > 0 {
            let groups: Vec<usize> = self.groups.iter().map(|(slot, _)| slot).collect();
            groups.into_iter().for_each(|group| self.serve(group));
        }
    }

    fn serve_private(&mut self, group: usize) {
        while let Some(waiter) = self.oldest(group) {
            let open = Open {
                own: true,
                shared: self.oldest(SHARED) == Some(waiter),
            };
            let Some(slot) = self.slot_for(group, self.waiters.at(waiter).empty, open) else {
                return;
            };
            self.settle_granted(waiter, slot);
        }
    }

    fn settle_granted(&mut self, waiter: u32, slot: usize) {
        let group = self.waiters.at(waiter).group;
        self.waiters.dequeue(&mut self.groups[group].queue, waiter);
        self.queued -= 1;
        if self.waiters.at(waiter).soft {
            self.hold(slot, waiter);
        } else {
            let session = self.grant(slot);
            self.waiters.at_mut(waiter).status = Status::Granted(session);
        }
        let id = self.waiters.id_at(waiter);
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
        #[cfg(not(h2pool_seed = "failure_wakes_nobody"))]
        self.actions.push_back(Action::Wake(id));
    }
}
