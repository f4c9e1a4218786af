//! The books of an origin, counted again from scratch and compared with what the state believes.

use super::super::load::NONE;
use super::super::session::Class;
use super::super::waiters::{Own, Status};
use super::super::{OriginState, Phase, SHARED, WaiterId, after};

impl<C: Clone + std::fmt::Debug> OriginState<C> {
    /// Panics when a count, an index or a list disagrees with what is really there, or when somebody waits for what is
    /// free. To be called between operations, with all actions drained.
    pub fn audit(&self) {
        assert!(
            self.actions.is_empty(),
            "actions left in the queue are lost wake-ups"
        );
        self.audit_sessions();
        self.audit_groups();
        self.audit_waiters();
        self.audit_service();
    }

    /// Waiters that are there, settled or not.
    #[cfg(h2pool_loom)]
    pub fn unclaimed(&self) -> usize {
        self.waiters.count()
    }

    /// Where a waiter stands, without claiming it.
    pub(super) fn claim_peek(&self, id: WaiterId) -> Option<&Status<C>> {
        self.waiters.get(id).map(|waiter| &waiter.status)
    }

    fn audit_sessions(&self) {
        for (slot, session) in &self.sessions {
            let id = self.session_id(slot);
            assert!(session.soft() + session.parked <= session.in_use, "{session:?}");
            assert!(
                session.in_use <= session.limit || session.soft() == 0,
                "over its limit nothing is held softly"
            );
            let waiters = |wanted: fn(&Status<C>) -> bool| {
                let on_it = |status: &Status<C>| match status {
                    Status::Held(held) | Status::Granted(held) => *held == id,
                    _ => false,
                };
                self.waiters
                    .all()
                    .filter(|node| on_it(&node.status) && wanted(&node.status))
                    .count()
            };
            let held = waiters(|status| matches!(status, Status::Held(_)));
            assert_eq!(held, session.soft() as usize, "soft slots of {id:?}");
            let granted = waiters(|status| matches!(status, Status::Granted(_)));
            assert!(
                granted <= session.firm() as usize,
                "grants on their way hold slots"
            );
            assert_eq!(
                session.class,
                session.wanted_class(),
                "filed where it belongs: {session:?}"
            );
            assert_eq!(session.class.is_some(), session.link.is_some());
            if session.phase == Phase::Draining {
                assert!(session.retiring.is_none() && session.parked == 0 && session.probe_by.is_none());
                assert!(
                    session.told || session.in_use > 0 || session.own.is_some(),
                    "a drained session was told to end"
                );
            }
            let idle_by = session
                .unused_since
                .and_then(|since| after(since, self.limits.idle_timeout));
            let may_idle_out = session.phase == Phase::Active && session.retiring.is_none();
            if let Some(due) = idle_by.filter(|due| may_idle_out && *due > self.now) {
                let armed = self.poll_timeout().is_some_and(|armed| armed <= due);
                assert!(armed, "somebody looks whether it is idle then: {session:?}");
            }
        }
    }

    fn audit_groups(&self) {
        let count = |test: &dyn Fn(&super::super::Session) -> bool| {
            u32::try_from(self.sessions.iter().filter(|(_, session)| test(session)).count()).expect("few")
        };
        let dials = |test: &dyn Fn(&super::super::Dial) -> bool| {
            u32::try_from(self.dials.iter().filter(|(_, dial)| test(dial)).count()).expect("few")
        };
        for (slot, group) in &self.groups {
            let active = |s: &super::super::Session| {
                s.group == slot && s.phase == Phase::Active && s.retiring.is_none()
            };
            assert_eq!(group.active, count(&active), "active");
            assert_eq!(group.fresh, count(&|s| active(s) && !s.ready), "fresh");
            let retiring = count(&|s| s.group == slot && s.retiring.is_some());
            assert_eq!(group.retiring, retiring, "retiring");
            let own = dials(&|d| d.group == slot && d.own.is_some());
            let not_active = count(&|s| s.group == slot && !active(s));
            assert_eq!(group.draining, not_active + own, "draining");
            assert_eq!(
                group.dialing,
                dials(&|d| d.group == slot && d.own.is_none()),
                "dialing"
            );
            self.audit_index(slot);
        }
        for (_, session) in &self.sessions {
            assert!(self.groups.contains(session.group), "a session's group is there");
        }
        for (_, dial) in &self.dials {
            assert!(self.groups.contains(dial.group), "a dial's group is there");
        }
    }

    fn audit_index(&self, group: usize) {
        for class in [Class::SOUND, Class::SUSPECT, Class::YIELDING]
            .into_iter()
            .flatten()
        {
            let filed = self
                .sessions
                .iter()
                .filter(|(_, session)| session.group == group && session.class == Some(class));
            let loads: Vec<(u32, u32)> = filed
                .map(|(slot, session)| (session.in_use, super::super::slot_of(slot)))
                .collect();
            let index = &self.groups[group].index[class as usize];
            assert_eq!(index.len() as usize, loads.len(), "filed");
            let load_at = |slot: Option<u32>| slot.map(|slot| self.sessions[slot as usize].in_use);
            let (least, most) = (loads.iter().min(), loads.iter().max());
            assert_eq!(load_at(index.least()), least.map(|(load, _)| *load), "least");
            assert_eq!(load_at(index.busiest()), most.map(|(load, _)| *load), "busiest");
        }
    }

    fn audit_waiters(&self) {
        let mut queued = 0;
        for (slot, group) in &self.groups {
            let mut last = None;
            let mut len = 0;
            for waiter in self.waiters.queue(group.queue) {
                let node = self.waiters.at(waiter);
                assert!(matches!(node.status, Status::Queued) && node.group == slot && node.own == Own::No);
                assert!(last.is_none_or(|last| last < node.order), "first in, first out");
                last = Some(node.order);
                len += 1;
            }
            assert_eq!(len, group.queue.len());
            assert_eq!(group.queue.head().is_none(), len == 0);
            queued += len;
        }
        assert_eq!(queued, self.queued, "queued");
        let own = |node: &&super::super::waiters::Waiter<C>| {
            matches!(node.status, Status::Queued) && node.own != Own::No
        };
        let in_queues = self
            .waiters
            .all()
            .filter(|node| matches!(node.status, Status::Queued));
        let own = self.waiters.all().filter(own).count();
        assert_eq!(
            in_queues.count(),
            self.queued as usize + own,
            "whoever waits is in a queue"
        );
        let own_dials = self.dials.iter().filter_map(|(_, dial)| dial.own);
        let wanted = own_dials
            .filter(|waiter| self.waiters.get(*waiter).is_some())
            .count();
        let fresh = self
            .sessions
            .iter()
            .filter(|(_, session)| session.own.is_some())
            .count();
        let pending = self.pending_own().count();
        assert!(
            own <= wanted + fresh + pending,
            "each session of a caller's own is being dialed, waits for SETTINGS, or for room"
        );
        for waiter in self.pending_own() {
            assert_eq!(self.waiters.at(waiter).own, Own::Pending);
            let Some(caller) = self.waiters.caller(waiter) else {
                continue;
            };
            let group = self.known_group(caller).map(|group| &self.groups[group]);
            let draining = group.map_or(0, |group| group.draining);
            let paused = self
                .plan
                .retry_at
                .is_some_and(|at| at > self.now && self.poll_timeout().is_some_and(|due| due <= at));
            assert!(
                draining >= self.limits.max_sessions || paused,
                "whoever waits for room finds none, or waits for the back-off"
            );
        }
    }

    /// Nobody waits for what is free: the oldest in each queue cannot be served, softly held slots included.
    fn audit_service(&self) {
        let Some(oldest) = self.oldest(SHARED) else {
            return;
        };
        for (group, waiting) in self
            .groups
            .iter()
            .filter_map(|(slot, group)| Some((slot, group.queue.head()?)))
        {
            let node = self.waiters.at(waiting);
            for (_, session) in &self.sessions {
                let may_use = match session.group {
                    SHARED => waiting == oldest,
                    own => own == group,
                };
                let room = session.in_use - session.soft() < session.limit;
                assert!(
                    !(may_use && session.takes_work() && room && (session.ready || node.empty)),
                    "{node:?} waits while {session:?} has room"
                );
            }
        }
        assert_ne!(oldest, NONE);
    }
}
