//! Everything that happens because time passed.
//!
//! One deadline for the whole origin: [`poll_timeout`](super::OriginState::poll_timeout) is never later than the first
//! thing due, and may be earlier, since requests only ever move it earlier. When it fires every session is looked at,
//! what is due is done, and the next deadline is found.

use std::time::Instant;

use super::session::{Phase, Reason};
use super::{Failure, OriginState, after};

impl<C: Clone> OriginState<C> {
    /// Does what is due. Calls that come early, or for nothing, do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        if self.next_timeout.is_none_or(|due| due > now) {
            return;
        }
        let slots = self.session_slots();
        for slot in &slots {
            self.session_timeouts(*slot, now);
        }
        self.serve_all();
        for slot in &slots {
            self.expire(*slot, now);
        }
        self.next_timeout = None;
        for slot in slots {
            self.arm_session(slot);
        }
        self.dial_own(now);
        self.replan(now);
    }

    /// Its age has come, or it is worn.
    fn expire(&mut self, slot: usize, now: Instant) {
        let session = &mut self.sessions[slot];
        let worn = self.limits.is_worn(session.streams);
        if is_due(session.due_to_expire(), now) || (worn && is_due(session.expires_at, now)) {
            session.expires_at = None;
            let reason = if worn { Reason::Worn } else { Reason::Age };
            self.retire(slot, reason, now);
        }
    }

    fn session_timeouts(&mut self, slot: usize, now: Instant) {
        if self.sessions[slot].phase == Phase::Draining {
            return self.draining_timeouts(slot, now);
        }
        if is_due(self.sessions[slot].held_until, now) {
            self.sessions[slot].held_until = None;
            self.sessions[slot].refusals = 0;
            self.refile(slot);
        }
        if is_due(self.sessions[slot].probe_by, now) {
            self.unanswered(slot, now);
        } else if is_due(self.sessions[slot].useful_by, now) {
            self.check_useful(slot, now);
        } else if self.is_idle_too_long(slot, now) {
            self.drain(slot, Reason::Idle, now);
        }
        if self.sessions[slot].phase == Phase::Draining {
            self.draining_timeouts(slot, now);
        }
    }

    /// Its time is up, or its server never said a word, or never allowed the one stream that it is for.
    fn draining_timeouts(&mut self, slot: usize, now: Instant) {
        let session = &mut self.sessions[slot];
        let late = is_due(session.drain_by, now);
        let silent = (!session.ready || session.own.is_some()) && is_due(session.useful_by, now);
        if late {
            session.drain_by = None;
        }
        if is_due(session.useful_by, now) {
            session.useful_by = None;
        }
        if late || silent {
            let reason = session.reason.unwrap_or(Reason::Closed);
            self.tell_kill(slot, if silent { Reason::Useless } else { reason });
        }
    }

    /// No SETTINGS in time, or a limit of zero all the time. One that never allowed or served anything ends with whatever
    /// runs on it; on one that did, what runs may finish within `drain_timeout`.
    fn check_useful(&mut self, slot: usize, now: Instant) {
        let session = &mut self.sessions[slot];
        let (group, useless) = (session.group, !session.allowed && !session.served);
        session.useful_by = None;
        self.drain(slot, Reason::Useless, now);
        if useless {
            self.tell_kill(slot, Reason::Useless);
        }
        self.proved_useless(group, &Failure::Useless(Reason::Useless), now);
    }

    /// Nothing is heard of a session that must not be probed again.
    pub fn handle_silent(&mut self, id: super::SessionId, now: Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let now = self.advance(now);
        if self.sessions[slot].phase == Phase::Active {
            self.unanswered(slot, now);
            self.replan(now);
        }
    }

    /// A probe was not answered: no new work, and a replacement; its streams may still finish (P19), since it may be alive.
    fn unanswered(&mut self, slot: usize, now: Instant) {
        let session = &mut self.sessions[slot];
        session.probe_by = None;
        let (group, runtime) = (session.group, session.runtime);
        self.drain(slot, Reason::Unanswered, now);
        let session = &mut self.sessions[slot];
        if session.firm() > 0 {
            session.drain_by = None;
        }
        let group = &mut self.groups[group];
        group.runtime_hint = Some(runtime);
        group.warm = group
            .warm
            .max((group.active + group.dialing + 1).min(self.limits.max_sessions));
    }

    fn is_idle_too_long(&self, slot: usize, now: Instant) -> bool {
        let session = &self.sessions[slot];
        let group = &self.groups[session.group];
        let kept = self.limits.min_sessions >= group.active && self.in_use(session.group);
        let due = session
            .idle_since()
            .and_then(|since| after(since, self.limits.idle_timeout));
        let replaced = session.retiring.is_some() && self.queued == 0;
        let past = replaced && is_due(self.lull_until(slot), now);
        // While it is busy it is not idle, and neither is due; while slots are parked it is being probed, and while it has
        // to become useful it has a time limit of its own.
        let unused = session.parked == 0 && session.useful_by.is_none();
        (unused && (past || (is_due(due, now) && !kept))) || cfg!(h2pool_seed = "idle_unchecked")
    }

    /// Finds when the session is next to be looked at.
    fn arm_session(&mut self, slot: usize) {
        let session = &mut self.sessions[slot];
        if session.firm() > 0 {
            // Looked at while a lease is out: the end of that counts, used or not, and arms the timer.
            session.unused_since = None;
        }
        let session = &self.sessions[slot];
        let dues = match session.phase {
            Phase::Draining => [session.drain_by, session.useful_by, None, None, None],
            Phase::Active => [
                session.held_until,
                session.useful_by,
                session.probe_by,
                session.due_to_expire(),
                self.idle_check(slot),
            ],
        };
        dues.into_iter().for_each(|due| self.arm(due));
    }

    /// When to see whether a session has idled out, or has nothing left to be replaced for. One that is kept is looked at
    /// again after as long.
    fn idle_check(&self, slot: usize) -> Option<Instant> {
        let session = &self.sessions[slot];
        let (timeout, due) = match session.retiring {
            Some(_) => (Some(self.limits.lull()), self.lull_until(slot)?),
            None => {
                let timeout = self.limits.idle_timeout;
                (timeout, after(session.idle_since()?, timeout)?)
            }
        };
        if due > self.now {
            Some(due)
        } else {
            after(self.now, timeout)
        }
    }
}

fn is_due(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}
