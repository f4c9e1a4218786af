//! What failed, whom it fails, and how long nobody tries again (P9).
//!
//! A failed dial fails the waiters that it covered when it was made: all who wait where it went alone, as many as one
//! session serves where others may be under way too. Nobody fails while a live session can still serve them. Those behind
//! share one redial after an exponential back-off, jittered between half and the whole of it; sessions of a caller's own
//! (`own.rs`) wait for it too, and their failed dials lengthen it. A session that ends before it served anything counts as
//! a failed dial; since its callers had their slots already, they are tried again [`EARLY_ENDS`] times before they fail.
//! An answer in HTTP/1.1 that cannot be spoken here fails those who wait, but is no failure of the server: whoever comes
//! next dials at once. A runtime that ends with its dials and sessions is nobody's failure.

use std::time::Instant;

use super::{Action, DialEnd, DialId, Failure, OriginState, SHARED, Session, SessionId};

/// Sessions in a row that may end before serving anything until their callers fail.
const EARLY_ENDS: u32 = 3;

impl<C: Clone> OriginState<C> {
    /// A dial ended without a session.
    pub fn handle_dial_ended(&mut self, id: DialId, end: DialEnd<C>, now: Instant) {
        let now = self.advance(now);
        if matches!(end, DialEnd::Aborted) {
            self.dial_runtime(id)
                .into_iter()
                .for_each(|runtime| self.strand(runtime));
        }
        let Some(dial) = self.take_dial(id) else {
            return;
        };
        let group = dial.group;
        if matches!(end, DialEnd::Failed(_)) {
            self.note_failure(now);
        }
        match (dial.own, end) {
            (Some(waiter), end) => self.end_own(waiter, group, end),
            (None, DialEnd::Failed(cause)) => self.dial_failed(group, dial.covers, cause),
            (None, DialEnd::H1Only(cause)) => {
                self.dial_failed(group, None, cause);
                // Whoever comes next may look again at once; but nobody goes on looking.
                if self.wanted_dial(group).is_some() {
                    self.note_failure(now);
                }
            }
            (None, DialEnd::Aborted) => {}
        }
        self.dial_own(now);
        #[cfg(not(h2pool_seed = "dial_right_lost"))]
        self.replan(now);
    }

    fn dial_failed(&mut self, group: usize, covers: Option<u32>, cause: C) {
        self.groups[group].warm = 0;
        self.fail_covered(group, covers, &Failure::Dial(cause));
    }

    /// A session ended or said GOAWAY before it served anything. Those who have not claimed their slots on it hung on it
    /// like those who queue.
    pub(super) fn ended_early(&mut self, id: SessionId, group: usize, failure: &Failure<C>, now: Instant) {
        self.wasted(group, now);
        if self.plan.failures < EARLY_ENDS {
            return;
        }
        self.fail_covered(group, None, failure);
        if !self.is_live(id) {
            for waiter in self.waiters.granted_on(id) {
                if !self.can_serve(self.home_of(waiter)) {
                    self.fail_one(waiter, failure.clone());
                }
            }
        }
    }

    /// A session proved useless, after its callers had waited for it as long as for a dial.
    pub(super) fn proved_useless(&mut self, group: usize, failure: &Failure<C>, now: Instant) {
        self.wasted(group, now);
        self.fail_covered(group, None, failure);
    }

    fn wasted(&mut self, group: usize, now: Instant) {
        self.groups[group].warm = 0;
        self.note_failure(now);
        self.actions.push_back(Action::Wasted);
    }

    fn note_failure(&mut self, now: Instant) {
        self.plan.failures = self.plan.failures.saturating_add(1);
        let doublings = (self.plan.failures - 1).min(16);
        let full = (self.limits.backoff_base * (1 << doublings)).min(self.limits.backoff_max);
        let pause = full.mul_f64(0.5 + 0.5 * self.plan.random());
        self.plan.retry_at = super::after(now, Some(pause));
    }

    /// Fails waiters that hung on what failed, unless a live session can still serve them.
    fn fail_covered(&mut self, group: usize, count: Option<u32>, failure: &Failure<C>) {
        if !self.can_serve(group) {
            self.fail_waiters(Some(group), count, failure);
        }
    }

    /// The group of one who was granted a slot, and may have moved since.
    pub(super) fn home_of(&self, waiter: u32) -> usize {
        let caller = self.waiters.caller(waiter);
        caller
            .and_then(|caller| self.known_group(caller))
            .unwrap_or(SHARED)
    }

    /// Whether a live session may still serve those who wait in the group.
    fn can_serve(&self, group: usize) -> bool {
        let alive = |(_, session): (usize, &Session)| {
            (session.group == group || session.group == SHARED) && session.can_serve()
        };
        self.sessions.iter().any(alive)
    }
}
