//! What failed, whom it fails, and how long nobody tries again (P9).
//!
//! A failed dial fails the waiters that it covered: all who wait where it went alone, as many as one session serves where
//! others are under way too. Nobody fails while a live session can still serve them. Those behind share one redial after an
//! exponential back-off, jittered between half and the whole of it. A session that ends before it served anything counts
//! as a failed dial; since its callers had their slots already, they are tried again [`EARLY_ENDS`] times before they fail.
//! A runtime that ends with its dials and sessions is nobody's failure.

use std::time::Instant;

use super::waiters::Status;
use super::{Action, Caller, DialEnd, DialId, Failure, OriginState, Reason, SHARED, Session, WaiterId};

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
        match (dial.own, end) {
            (Some(waiter), end) => self.end_own(waiter, end, now),
            (None, DialEnd::Failed(cause)) => {
                let count = if dial.lone { None } else { Some(self.per_session()) };
                self.dial_failed(group, count, cause, now);
            }
            (None, DialEnd::H1Only(cause)) => self.dial_failed(group, None, cause, now),
            (None, DialEnd::Aborted) => {}
        }
        #[cfg(not(h2pool_seed = "dial_right_lost"))]
        self.replan(now);
    }

    fn dial_failed(&mut self, group: usize, count: Option<u32>, cause: C, now: Instant) {
        self.groups[group].warm = 0;
        self.note_failure(now);
        self.fail_covered(group, count, &Failure::Dial(cause));
    }

    /// A session ended or said GOAWAY before it served anything.
    pub(super) fn ended_early(&mut self, group: usize, failure: &Failure<C>, now: Instant) {
        self.wasted(group, now);
        if self.plan.failures >= EARLY_ENDS {
            self.fail_covered(group, None, failure);
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

    fn end_own(&mut self, waiter: WaiterId, end: DialEnd<C>, now: Instant) {
        let Some(node) = self.waiters.get(waiter).filter(|_| !self.closed) else {
            return;
        };
        let failure = match end {
            DialEnd::Failed(cause) | DialEnd::H1Only(cause) => Failure::Dial(cause),
            DialEnd::Aborted => Failure::Useless(Reason::Lost),
        };
        // Where the waiter has moved on to a runtime that lives, the dial is made again there.
        let moved = node.runtime.filter(|_| matches!(failure, Failure::Useless(_)));
        if let Some(runtime) = moved {
            let (private, empty, soft) = (node.private, node.empty, node.soft);
            let group = self.group_of(Caller {
                runtime,
                private,
                empty,
                soft,
            });
            if self.has_room_for_own(group) {
                return self.start_dial(group, runtime, Some(waiter), now);
            }
        }
        self.fail_one(waiter.slot, failure);
    }

    /// Those who wait for a session of their own fail with the pool's closing.
    pub(super) fn fail_own_waiters(&mut self) {
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

    fn note_failure(&mut self, now: Instant) {
        self.plan.failures = self.plan.failures.saturating_add(1);
        let doublings = (self.plan.failures - 1).min(16);
        let full = (self.limits.backoff_base * (1 << doublings)).min(self.limits.backoff_max);
        let pause = full.mul_f64(0.5 + 0.5 * self.plan.random());
        self.plan.retry_at = super::after(now, Some(pause));
    }

    /// Fails waiters that hung on what failed, unless a live session can still serve them.
    fn fail_covered(&mut self, group: usize, count: Option<u32>, failure: &Failure<C>) {
        let alive = |(_, session): (usize, &Session)| {
            (session.group == group || session.group == SHARED) && session.can_serve()
        };
        if !self.sessions.iter().any(alive) {
            self.fail_waiters(Some(group), count, failure);
        }
    }
}
