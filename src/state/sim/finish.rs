//! How a simulated life ends: everything that is under way is settled, and everybody goes home.

use std::time::Duration;

use super::super::waiters::Status;
use super::super::{SessionId, WaiterId};
use super::Op;
use super::shell::Sim;

impl Sim {
    /// Settles everything that is under way, again and again, with time in between. Then everybody who waited must
    /// have an answer, and once all is given back nothing may be left.
    pub fn finish(mut self, well: bool) {
        self.settle(well);
        self.leave();
    }

    pub(super) fn settle(&mut self, well: bool) {
        let patience = 20 + 3 * self.waiters.len() as u64;
        for round in 0..patience {
            if round > 2 && !self.anybody_waits() {
                break;
            }
            for waiter in self.waiters.clone() {
                let there = self.caller(0);
                self.perform(false, |sim| sim.move_to(waiter, there));
            }
            if well {
                self.settle_well();
            } else {
                self.settle_badly();
            }
            self.step(Op::Pass(Duration::from_secs(1 + round % 6)));
        }
        assert!(
            !self.anybody_waits(),
            "somebody waits for ever: {:#?}",
            self.state
        );
    }

    fn anybody_waits(&self) -> bool {
        let waits = |waiter: &WaiterId| matches!(self.state.claim_peek(*waiter), Some(Status::Queued));
        self.waiters.iter().any(waits)
    }

    /// Every dial opens a session, which serves everybody who is granted a slot.
    pub(super) fn settle_well(&mut self) {
        for session in std::mem::take(&mut self.told) {
            self.perform(false, |sim| sim.lose(session));
        }
        while !self.dials.is_empty() {
            self.step(Op::Connected { dial: 0, h1: false });
        }
        for id in self.sessions.clone() {
            let now = self.now;
            self.perform(false, |sim| {
                sim.state.handle_sign_of_life(id, now);
                sim.model.alive(id);
            });
            self.perform(false, |sim| {
                sim.state.handle_stalled(id, false, now);
                sim.model.stalled(id, false);
            });
            if !self.model.is_h1(id) {
                self.perform(false, |sim| {
                    sim.state.handle_settings(id, 7, now);
                    sim.model.settings(id, 7);
                });
            }
            self.perform(false, |sim| {
                sim.state.handle_answered(id, now);
                sim.model.answered(id);
            });
        }
        let waiters = self.waiters.len();
        for place in (0..waiters).rev() {
            self.perform(false, |sim| sim.claim(place));
        }
        while !self.leases.is_empty() {
            self.step(Op::Release(0));
        }
    }

    /// Every dial fails, and every session ends.
    fn settle_badly(&mut self) {
        self.told.clear();
        while !self.dials.is_empty() {
            self.step(Op::Failed(0));
        }
        for session in self.sessions.clone() {
            self.perform(false, |sim| sim.lose(session));
        }
    }

    fn lose(&mut self, session: SessionId) {
        self.state.handle_closed(session, 0, self.now);
        self.sessions.retain(|id| *id != session);
    }

    /// Nobody waits any more, and nobody holds anything.
    pub(super) fn give_back_all(&mut self) {
        while !self.waiters.is_empty() {
            self.step(Op::Cancel(0));
        }
        while !self.leases.is_empty() {
            self.step(Op::Release(0));
        }
        while self.permits > 0 {
            self.step(Op::PermitSettled);
        }
    }

    /// Everybody goes home.
    fn leave(mut self) {
        self.give_back_all();
        for session in self.sessions.clone() {
            let now = self.now;
            self.perform(false, |sim| {
                sim.state.handle_sign_of_life(session, now);
                sim.model.alive(session);
            });
        }
        let leaked = self.state.snapshot().any(|session| session.in_use > 0);
        assert!(!leaked, "a slot leaked: {:#?}", self.state);
        self.step(Op::Close(0));
        while !self.dials.is_empty() {
            self.step(Op::Connected { dial: 0, h1: false });
        }
        for session in self.sessions.clone() {
            self.perform(false, |sim| sim.lose(session));
        }
        assert!(self.state.is_unused(), "something is left: {:#?}", self.state);
        self.step(Op::Pass(Duration::from_secs(600)));
        assert_eq!(
            self.state.poll_timeout(),
            None,
            "no timer runs for an empty origin"
        );
    }
}
