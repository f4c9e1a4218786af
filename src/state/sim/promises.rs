//! What must hold after every step, in the words of the contract.

use std::time::Instant;

use super::super::waiters::{Own, Status};
use super::super::{Group, Phase, RuntimeId, SessionId};
use super::model::Seen;
use super::shell::Sim;

/// What is remembered from before a step.
#[derive(Debug)]
pub(super) struct Before {
    in_use: Vec<(SessionId, u32)>,
    /// Waiting, and sessions to be opened ahead of need, by group.
    groups: Vec<(Option<RuntimeId>, usize, u32)>,
    alone: bool,
    retry_at: Option<Instant>,
}

impl Sim {
    pub(super) fn observe(&self) -> Before {
        let groups = self.state.groups.iter();
        Before {
            in_use: self
                .state
                .snapshot()
                .map(|session| (session.id, session.in_use))
                .collect(),
            groups: groups
                .map(|(_, group)| (group.runtime, self.model.waiting(group.runtime), group.warm))
                .collect(),
            alone: self.state.goes_alone(),
            retry_at: self.state.plan.retry_at,
        }
    }

    /// `timed`: the timer fired.
    pub(super) fn check(&mut self, before: &Before, timed: bool) {
        self.state.audit();
        self.check_model();
        self.check_limits(before);
        self.check_leases();
        self.check_wakes();
        for (slot, group) in &self.state.groups {
            self.check_bounds(group);
            self.check_plan(slot, group, before, timed);
        }
        if timed {
            let due = self.state.poll_timeout();
            assert!(
                due.is_none_or(|due| due > self.state.now),
                "what is due was done (P16)"
            );
        }
    }

    /// The same grants, in the same order, as the model would have made (P1, P6, P11, P29).
    fn check_model(&mut self) {
        let group = |slot: usize| self.state.groups[slot].runtime;
        let seen: Vec<Seen> = self
            .state
            .sessions
            .iter()
            .map(|(slot, session)| Seen {
                id: self.state.session_id(slot),
                group: group(session.group),
                protocol: session.protocol,
                limit: session.limit,
                ready: session.ready,
                phase: session.phase,
                in_use: session.in_use,
            })
            .collect();
        self.model.sync(&seen);
        for waiter in &self.woken {
            match self.state.claim_peek(*waiter) {
                Some(Status::Granted(session) | Status::Held(session) | Status::Revoked(session)) => {
                    self.model.granted(*waiter, *session);
                }
                Some(Status::Failed(_)) => self.model.failed(*waiter),
                other => panic!("{waiter:?} was woken for {other:?}"),
            }
        }
        self.model.check_service();
        for seen in &seen {
            let (in_use, holders) = self.model.slots(seen.id).expect("the model knows it");
            assert_eq!(seen.in_use, in_use, "slots in use of {seen:?}: {:#?}", self.model);
            let session = &self.state.sessions[seen.id.slot as usize];
            let held = self.state.waiters.iter(session.holders);
            let held: Vec<_> = held.map(|slot| self.state.waiters.id_at(slot)).collect();
            assert_eq!(held, holders, "soft slots of {seen:?}");
        }
    }

    /// Nothing is granted beyond the limit (P3, P4).
    fn check_limits(&self, before: &Before) {
        for session in self
            .state
            .snapshot()
            .filter(|session| session.phase == Phase::Active)
        {
            let known = before.in_use.iter().find(|(id, _)| *id == session.id);
            let earlier = known.map_or(0, |(_, in_use)| *in_use);
            assert!(
                session.in_use <= session.limit.max(earlier),
                "over the limit: {session:?}"
            );
        }
    }

    /// Each slot in use is a lease, a grant on its way, held softly, or parked: none leaks, none is given twice (P2).
    fn check_leases(&self) {
        for (slot, session) in &self.state.sessions {
            let id = self.state.session_id(slot);
            let leases = self.leases.iter().filter(|lease| **lease == id).count();
            let granted = |status: &Status<u8>| matches!(status, Status::Granted(session) if *session == id);
            let granted = self
                .state
                .waiters
                .all()
                .filter(|node| granted(&node.status))
                .count();
            assert_eq!(session.firm() as usize, leases + granted, "slots of {session:?}");
        }
    }

    /// Whoever fails, fails for a reason (P9): the origin is closed, or no session can serve it.
    fn check_wakes(&self) {
        for waiter in &self.woken {
            let Some(node) = self.state.waiters.get(*waiter).filter(|node| node.own == Own::No) else {
                continue;
            };
            let failed = matches!(node.status, Status::Failed(_));
            if !failed || self.state.closed {
                continue;
            }
            let private = node.private.then_some(node.runtime).flatten();
            let serves = |session: &super::super::Session| {
                let group = self.state.groups[session.group].runtime;
                session.can_serve() && (group.is_none() || group == private)
            };
            let alive = self.state.sessions.iter().any(|(_, session)| serves(session));
            assert!(!alive, "{waiter:?} failed while a session could serve it");
        }
    }

    /// Sessions and dials are bounded, per group (P5).
    fn check_bounds(&self, group: &Group) {
        // Both bounds count, since sessions of both protocols may be there for a while.
        let bound = self.limits.max_sessions.max(self.limits.max_h1_connections);
        let open = group.active + group.dialing;
        assert!(open <= bound, "{group:?}");
        assert!(open + group.draining <= 2 * bound, "{group:?}");
    }

    /// Dials are as many as demand justifies, and no fewer (P7, P14). The timer may also replace a session that did not
    /// answer.
    fn check_plan(&self, slot: usize, group: &Group, before: &Before, timed: bool) {
        let state = &self.state;
        let waiting = self.model.waiting(group.runtime);
        let earlier = before.groups.iter().find(|known| known.0 == group.runtime);
        let (earlier, warm) = earlier.map_or((0, 0), |known| (known.1, known.2));
        let most = waiting.max(earlier);
        let per = state.per_session() as usize;
        let coming = (group.dialing + group.fresh) as usize;
        let ordered = |order: &&super::super::DialOrder| {
            let dial = state.dials.iter().find(|(_, dial)| dial.is(order.id));
            dial.is_some_and(|(_, dial)| dial.group == slot && dial.own.is_none())
        };
        let ordered = self.ordered.iter().filter(ordered).count();
        let covered = self.covered_by_fresh(slot);
        if ordered > 0 {
            let needed = (most - covered.min(most)).div_ceil(per) + group.retiring as usize;
            let kept = self.limits.min_sessions.max(warm).max(self.warmed);
            let kept = timed || group.active + group.dialing <= kept;
            let justified = group.dialing as usize <= needed || kept;
            assert!(justified, "{ordered} dials that nobody needs: {group:?}");
            let pausing = |at: Option<Instant>| at.is_some_and(|at| at > self.now);
            let paused = pausing(before.retry_at) && pausing(state.plan.retry_at);
            assert!(!paused, "no dial before the back-off has passed: {group:?}");
            if before.alone && state.goes_alone() {
                assert_eq!(coming, 1, "it goes alone: {group:?}");
            }
        }
        let can_dial = state
            .waiters
            .queue(group.queue)
            .any(|waiter| state.waiters.at(waiter).runtime.is_some());
        let dialing = group.dialing as usize * per;
        let uncovered = waiting > dialing + covered && !(state.goes_alone() && coming > 0);
        if !state.closed && can_dial && uncovered && state.has_room_for_dial(slot) {
            let retry_at = state.plan.retry_at.expect("nobody dials");
            assert!(retry_at > self.now, "nobody dials: {state:#?}");
            let due = state.poll_timeout().expect("a timer");
            assert!(due <= retry_at, "the timer fires when the pause is over");
        }
    }
    /// Those whom sessions of a group will serve when their SETTINGS come, if not before.
    fn covered_by_fresh(&self, slot: usize) -> usize {
        let sessions = self.state.sessions.iter().map(|(_, session)| session);
        let fresh = sessions.filter(|session| session.group == slot && !session.ready);
        let open = fresh.filter(|session| session.takes_work() && session.retiring.is_none());
        open.map(|session| (session.limit.max(1) - session.in_use) as usize)
            .sum()
    }
}
