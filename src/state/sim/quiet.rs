//! Life goes on after whatever happened: a long quiet use of the origin, and then none.

use std::time::Duration;

use super::super::{Phase, SHARED, Session};
use super::Op;
use super::shell::Sim;

/// The time between two requests.
const PAUSE: Duration = Duration::from_secs(1);

/// How many requests there are, one after the other.
const REQUESTS: u32 = 120;

/// From which of them on nothing of what happened before may be left to see.
const CALM: u32 = 75;

/// The most dials for them, where no session has to be replaced.
const FEW: usize = 40;

impl Sim {
    /// Settles everything that is under way. Then each request is served at once, by sessions of which enough are kept, and
    /// none too old or too worn; and when no more requests come, nothing is left.
    pub fn live_on(mut self) {
        self.settle(true);
        self.give_back_all();
        let mut dials = 0;
        for nth in 0..REQUESTS {
            dials += self.request(nth);
            if nth >= CALM {
                self.check_kept();
                self.check_rotated();
            }
        }
        assert!(self.rotates() || dials <= FEW, "{dials} dials: {:#?}", self.state);
        if let Some(timeout) = self.limits.idle_timeout {
            self.idle_out(timeout);
        }
    }

    /// One request after a pause; returns how many dials there were for it.
    fn request(&mut self, nth: u32) -> usize {
        self.step(Op::Pass(PAUSE));
        let mut dials = self.serve_well();
        self.step(Op::Acquire {
            runtime: u8::from(nth % 2 == 0),
            empty: nth % 3 > 0,
            soft: false,
            first: false,
        });
        // Whoever waits for a dial has its slot when that is there.
        dials += self.serve_well() + self.serve_well();
        let served = self.waiters.is_empty() && self.leases.is_empty();
        assert!(served, "it is served: {:#?}", self.state);
        dials
    }

    fn serve_well(&mut self) -> usize {
        let dials = self.dials.len();
        self.settle_well();
        dials
    }

    /// Whether sessions are replaced now and then.
    fn rotates(&self) -> bool {
        self.limits.max_age.is_some() || self.limits.max_streams_per_session.is_some()
    }

    fn active(&self) -> impl Iterator<Item = &Session> {
        let sessions = self.state.sessions.iter().map(|(_, session)| session);
        sessions.filter(|session| session.group == SHARED && session.phase == Phase::Active)
    }

    /// As many sessions as are to be kept, but for those that are being replaced.
    fn check_kept(&self) {
        let kept = self.limits.min_sessions.min(self.state.bound()).max(1) as usize;
        let (retiring, working): (Vec<_>, Vec<_>) =
            self.active().partition(|session| session.retiring.is_some());
        let replaced = self.rotates() && !retiring.is_empty();
        assert!(
            working.len() >= kept || replaced,
            "{kept} are kept: {:#?}",
            self.state
        );
    }

    /// No session is older, or has carried more, than it takes to replace it.
    fn check_rotated(&self) {
        for session in self.active() {
            let age = self.now - session.opened_at;
            let old = self
                .limits
                .max_age
                .is_some_and(|max| age > max + Duration::from_secs(2));
            assert!(!old, "replaced by its age: {session:#?} {:#?}", self.state);
            let max = self.limits.max_streams_per_session;
            let worn = max.is_some_and(|max| session.streams > max + 3);
            assert!(!worn, "replaced by its use: {session:#?} {:#?}", self.state);
        }
    }

    /// Nobody comes any more.
    fn idle_out(&mut self, timeout: Duration) {
        for _ in 0..40 {
            self.step(Op::Pass(timeout / 4));
            self.settle_well();
        }
        assert!(
            self.state.sessions.is_empty() && self.state.dials.is_empty(),
            "all idle out: {:#?}",
            self.state
        );
        self.step(Op::Pass(Duration::from_secs(600)));
        assert_eq!(self.state.poll_timeout(), None, "{:#?}", self.state);
    }
}
