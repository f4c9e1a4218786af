//! What happens to sessions: opened, SETTINGS, served, refused, cancelled, GOAWAY, retired, closed.

use std::time::Instant;

use super::session::{Phase, Protocol, Reason, Session, SessionId};
use super::{Action, DialEnd, DialId, Failure, OriginState, after, limits::UNKNOWN_STREAMS, reserve_first};

impl<C: Clone> OriginState<C> {
    /// A dial succeeded; the connection speaks `protocol`. `None`: nobody wants it any more, drop it.
    pub fn handle_dialed(&mut self, id: DialId, protocol: Protocol, now: Instant) -> Option<SessionId> {
        let now = self.advance(now);
        if self.is_orphaned(id) {
            self.handle_dial_ended(id, DialEnd::Aborted, now);
            return None;
        }
        let mut dial = self.take_dial(id)?;
        let group = dial.group;
        // Whoever wanted it for itself may be gone: then it serves the next, where the bound allows (P8).
        let gone = dial.own.is_some_and(|waiter| self.waiters.get(waiter).is_none());
        let unwanted = gone && !self.has_room_for_dial(group);
        if gone {
            self.dial_own(now);
        }
        if self.closed || unwanted {
            self.tidy_group(group);
            return None;
        }
        dial.own = dial.own.filter(|_| !gone);
        // It was ordered before the origin was found to speak only HTTP/1.1: what it says is no news (P25).
        let stale = protocol == Protocol::H2 && !dial.h1_only && self.plan.h1_only_until.is_some();
        if stale && dial.own.is_none() {
            self.replan(now);
            return None;
        }
        if !stale {
            self.learn_protocol(protocol, now);
        }
        if dial.own.is_none() {
            // More were dialed than this protocol may have: HTTP/1.1 was expected, and h2 is spoken (P5).
            if self.groups[group].active >= self.bound() {
                self.replan(now);
                return None;
            }
        }
        let slot = self.insert_session(&dial, protocol, now);
        if dial.own.is_none() {
            if self.sessions[slot].allowed {
                self.drain_replaced(group, now);
            }
            self.serve(group);
        }
        self.replan(now);
        Some(self.session_id(slot))
    }

    /// SETTINGS arrived, for the first time or again; `advertised` is the server's limit on streams.
    pub fn handle_settings(&mut self, id: SessionId, advertised: u32, now: Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let now = self.advance(now);
        let limit = advertised.min(self.limits.streams_per_session);
        let useful_by = after(now, Some(self.limits.connect_timeout));
        let session = &mut self.sessions[slot];
        let group = session.group;
        session.limit = limit;
        let useful = limit > 0 && !session.allowed;
        session.allowed |= useful;
        let replaces = useful && session.phase == Phase::Active && session.retiring.is_none();
        if !session.ready {
            session.ready = true;
            if session.phase == Phase::Active && session.retiring.is_none() {
                self.groups[group].fresh -= 1;
            }
        }
        let session = &mut self.sessions[slot];
        match (limit, session.useful_by) {
            (0, None) => session.useful_by = useful_by,
            (0, Some(_)) => {}
            _ => session.useful_by = None,
        }
        let dues = [session.useful_by, session.expires_at];
        dues.into_iter().for_each(|due| self.arm(due));
        if !self.plan.h1 {
            self.plan.learned = Some(limit);
        }
        if limit > 0 {
            self.grant_own(slot);
        }
        self.revoke_excess(slot);
        #[cfg(not(h2pool_seed = "limit_not_refiled"))]
        self.refile(slot);
        if replaces {
            self.drain_replaced(group, now);
        }
        self.serve(group);
        self.replan(now);
    }

    /// The first response headers on a session: it is of use, and the origin is well.
    pub fn handle_answered(&mut self, id: SessionId, now: Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let now = self.advance(now);
        self.sessions[slot].served = true;
        self.sessions[slot].refusals = 0;
        if self.plan.healthy() {
            self.dial_own(now);
            self.replan(now);
        }
    }

    /// The server refused a stream that was opened after its SETTINGS: the second time in a row the session gets no
    /// new work for a while (P21).
    pub fn handle_refused(&mut self, id: SessionId, now: Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let now = self.advance(now);
        let until = after(now, Some(self.limits.refusal_pause));
        let session = &mut self.sessions[slot];
        session.refusals += 1;
        if session.refusals >= 2 {
            session.held_until = until;
            self.arm(until);
            self.revoke_excess(slot);
            self.refile(slot);
            self.replan(now);
        }
    }

    /// A stream was cancelled and nothing was heard since its HEADERS: the slot stays taken, and the session is last
    /// choice, until a sign of life (P19, P44). In place of [`release`](Self::release). On a session that takes no more
    /// work there is nothing to be careful with, and the slot is just given back.
    pub fn park(&mut self, id: SessionId, now: Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let now = self.advance(now);
        if self.sessions[slot].phase == Phase::Draining {
            return self.release(id, || now);
        }
        let probe_by = after(now, Some(self.limits.probe_timeout));
        let session = &mut self.sessions[slot];
        session.parked += 1;
        session.unused_since = None;
        if session.probe_by.is_none() {
            session.probe_by = probe_by;
            self.arm(probe_by);
            self.actions.push_back(Action::Probe(id));
        }
        self.refile(slot);
    }

    /// A frame or a PING answer arrived on a session that had parked slots.
    pub fn handle_sign_of_life(&mut self, id: SessionId, now: Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let now = self.advance(now);
        let session = &mut self.sessions[slot];
        session.probe_by = None;
        session.in_use -= std::mem::take(&mut session.parked);
        self.slot_freed(slot, || now);
    }

    /// Unread bodies hold the session's window, or no longer do (P30).
    pub fn handle_stalled(&mut self, id: SessionId, stalled: bool, now: Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let now = self.advance(now);
        let group = self.sessions[slot].group;
        self.sessions[slot].stalled = stalled;
        self.revoke_excess(slot);
        self.refile(slot);
        self.serve(group);
        self.replan(now);
    }

    /// The server said GOAWAY: no new stream on this session (P18).
    pub fn handle_goaway(&mut self, id: SessionId, cause: C, now: Instant) {
        self.ends_by_itself(id, Reason::Goaway, cause, now);
    }

    /// The connection failed and is about to end: no new stream on this session.
    pub fn handle_failing(&mut self, id: SessionId, cause: C, now: Instant) {
        self.ends_by_itself(id, Reason::Lost, cause, now);
    }

    fn ends_by_itself(&mut self, id: SessionId, reason: Reason, cause: C, now: Instant) {
        let Some(slot) = self.session_slot(id) else {
            return;
        };
        let now = self.advance(now);
        if self.sessions[slot].phase == Phase::Active {
            let (group, served) = (self.sessions[slot].group, self.sessions[slot].served);
            // What runs on it may still be answered: then it is judged when it is gone.
            let judged = !served && self.sessions[slot].firm() == 0;
            self.drain(slot, reason, now);
            if judged {
                self.sessions[slot].judged = true;
                self.ended_early(id, group, &Failure::Dial(cause), now);
            }
            self.replan(now);
        } else if reason == Reason::Goaway {
            // It took no more work already, and may have had no deadline: this is one (P18).
            self.bound_draining(slot, now);
        }
    }

    /// The session is near the end of what it can carry: a replacement is opened, then it drains (P17).
    pub fn handle_worn(&mut self, id: SessionId, now: Instant) {
        if let Some(slot) = self.session_slot(id) {
            let now = self.advance(now);
            self.retire(slot, Reason::Worn, now);
        }
    }

    /// The connection is gone. Leases on it are stale from now on. Returns why it ended.
    pub fn handle_closed(&mut self, id: SessionId, cause: C, now: Instant) -> Option<Reason> {
        let slot = self.session_slot(id)?;
        let now = self.advance(now);
        let session = &self.sessions[slot];
        let by_itself = matches!(session.reason, None | Some(Reason::Goaway | Reason::Lost));
        let early = by_itself && !session.served && !session.judged;
        let group = self.sessions[slot].group;
        // It needs no telling.
        self.sessions[slot].told = true;
        if self.sessions[slot].phase == Phase::Active {
            self.drain(slot, Reason::Lost, now);
        }
        let session = self.sessions.remove(slot);
        let counts = &mut self.groups[group];
        counts.draining -= 1;
        if session.streams > 0 {
            counts.last_use = counts.last_use.max(Some(session.idle_since().unwrap_or(now)));
        }
        if let Some(waiter) = session.own {
            self.fail_one(waiter.slot, Failure::Dial(cause.clone()));
        }
        if early {
            self.ended_early(id, group, &Failure::Dial(cause), now);
        }
        self.dial_own(now);
        self.replan(now);
        Some(session.reason.unwrap_or(Reason::Lost))
    }

    /// The same where nobody drives it any more, since its runtime ended: that says nothing about the server.
    pub fn handle_abandoned(&mut self, id: SessionId, cause: C, now: Instant) -> Option<Reason> {
        self.handle_given_up(id);
        self.handle_closed(id, cause, now)
    }

    /// A caller gave up a request that the connection cannot outlive (HTTP/1.1): that it ends says nothing about the
    /// server.
    pub fn handle_given_up(&mut self, id: SessionId) {
        if let Some(slot) = self.session_slot(id) {
            self.sessions[slot].judged = true;
        }
    }

    /// The session takes no more work.
    pub(super) fn drain(&mut self, slot: usize, reason: Reason, now: Instant) {
        let drain_by = after(now, self.limits.drain_timeout);
        let session = &mut self.sessions[slot];
        let group = &mut self.groups[session.group];
        match session.retiring {
            Some(_) => group.retiring -= 1,
            None => {
                group.active -= 1;
                group.draining += 1;
                if !session.ready {
                    group.fresh -= 1;
                }
            }
        }
        if session.ready {
            session.useful_by = None;
        }
        session.phase = Phase::Draining;
        session.reason = Some(session.retiring.take().unwrap_or(reason));
        session.drains_since = Some(now);
        session.drain_by = drain_by;
        session.probe_by = None;
        session.in_use -= std::mem::take(&mut session.parked);
        self.revoke_excess(slot);
        self.arm(drain_by);
        self.refile(slot);
        if self.sessions[slot].in_use == 0 {
            self.tell_close(slot);
        } else {
            let id = self.session_id(slot);
            self.actions.push_back(Action::Retire(id));
        }
    }

    /// The session is to be replaced: as soon as the replacement is open while it is in use, at once where it is idle.
    pub(super) fn retire(&mut self, slot: usize, reason: Reason, now: Instant) {
        let session = &self.sessions[slot];
        if session.phase != Phase::Active || session.retiring.is_some() {
            return;
        }
        let lull = self.lull_until(slot);
        if self.queued == 0 && lull.is_some_and(|until| until <= now) {
            return self.drain(slot, reason, now);
        }
        self.arm(lull);
        let session = &mut self.sessions[slot];
        session.retiring = Some(reason);
        let (ready, runtime) = (session.ready, session.runtime);
        let group = &mut self.groups[session.group];
        group.active -= 1;
        group.draining += 1;
        group.retiring += 1;
        group.runtime_hint = Some(runtime);
        if !ready {
            group.fresh -= 1;
        }
        self.replan(now);
    }

    /// Until when a session without streams still counts as in use for its replacement: traffic has its lulls. `None`: it
    /// has streams.
    pub(super) fn lull_until(&self, slot: usize) -> Option<Instant> {
        let session = &self.sessions[slot];
        let since = session.idle_since()?;
        if session.streams == 0 {
            return Some(since);
        }
        after(since, Some(self.limits.lull()))
    }

    /// Tells a session without streams to end.
    pub(super) fn tell_close(&mut self, slot: usize) {
        let id = self.session_id(slot);
        let session = &mut self.sessions[slot];
        if !session.told {
            session.told = true;
            let reason = session.reason.unwrap_or(Reason::Closed);
            self.actions.push_back(Action::Close(id, reason));
        }
    }

    /// Ends a session with all that runs on it.
    pub(super) fn tell_kill(&mut self, slot: usize, reason: Reason) {
        let id = self.session_id(slot);
        let session = &mut self.sessions[slot];
        (session.told, session.killed) = (true, true);
        self.actions.push_back(Action::Kill(id, reason));
    }

    /// The origin turned to HTTP/1.1: its h2 sessions take no more work.
    pub(super) fn retire_h2(&mut self, now: Instant) {
        self.retire_protocol(Protocol::H2, now);
    }

    fn retire_protocol(&mut self, protocol: Protocol, now: Instant) {
        for slot in self.session_slots() {
            if self.sessions[slot].protocol == protocol && self.sessions[slot].phase == Phase::Active {
                self.drain(slot, Reason::Protocol, now);
            }
        }
    }

    fn learn_protocol(&mut self, protocol: Protocol, now: Instant) {
        match protocol {
            Protocol::H1 => {
                self.plan.h1 = true;
                self.plan.learned = Some(1);
            }
            Protocol::H2 => {
                if std::mem::take(&mut self.plan.h1) {
                    self.plan.h1_only_until = None;
                    self.plan.learned = None;
                    self.retire_protocol(Protocol::H1, now);
                }
            }
        }
    }

    /// A session is open and may be used: one that waited for its replacement makes way (P17).
    fn drain_replaced(&mut self, group: usize, now: Instant) {
        let retiring = self.sessions.iter().find(|(_, session)| {
            session.group == group && session.retiring.is_some() && session.phase == Phase::Active
        });
        if let Some((slot, session)) = retiring {
            let reason = session.retiring.unwrap_or(Reason::Age);
            self.drain(slot, reason, now);
        }
    }

    fn insert_session(&mut self, dial: &super::Dial, protocol: Protocol, now: Instant) -> usize {
        let session = self.fresh_session(dial, protocol, now);
        let dues = [
            session.useful_by,
            session.expires_at,
            after(now, self.limits.idle_timeout),
        ];
        let ready = session.ready;
        reserve_first(&mut self.sessions);
        let slot = self.sessions.insert(session);
        dues.into_iter().for_each(|due| self.arm(due));
        match dial.own {
            Some(waiter) => self.give_own(slot, waiter),
            None => {
                self.groups[dial.group].active += 1;
                if !ready {
                    self.groups[dial.group].fresh += 1;
                }
                self.refile(slot);
            }
        }
        slot
    }

    fn fresh_session(&mut self, dial: &super::Dial, protocol: Protocol, now: Instant) -> Session {
        let ready = protocol == Protocol::H1;
        let age = self.limits.max_age.map(|age| self.jittered(age));
        let settings_by = after(dial.started, Some(self.limits.connect_timeout));
        Session {
            generation: self.next_generation(),
            group: dial.group,
            runtime: dial.runtime,
            protocol,
            phase: Phase::Active,
            reason: None,
            limit: self.first_limit(protocol),
            in_use: 0,
            holders: super::waiters::Fifo::default(),
            parked: 0,
            own: None,
            ready,
            allowed: ready,
            served: false,
            judged: false,
            retiring: None,
            stalled: false,
            told: false,
            killed: false,
            streams: 0,
            refusals: 0,
            opened_at: now,
            unused_since: Some(now),
            held_until: None,
            useful_by: settings_by.filter(|_| !ready),
            probe_by: None,
            expires_at: after(now, age),
            drains_since: None,
            drain_by: None,
            link: None,
            class: None,
        }
    }

    /// The limit of a session before its SETTINGS (P3).
    fn first_limit(&self, protocol: Protocol) -> u32 {
        if protocol == Protocol::H1 {
            return 1;
        }
        let learned = self.plan.learned.filter(|_| !self.plan.h1);
        learned
            .unwrap_or(UNKNOWN_STREAMS)
            .min(self.limits.streams_per_session)
    }
}
