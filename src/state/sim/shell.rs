//! The shell of the simulation: it owns the clock and whatever the callers hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::waiters::Status;
use super::super::{
    Acquired, Action, Caller, Claim, DialEnd, DialOrder, Limits, OriginState, Protocol, Reason, RuntimeId,
    SessionId, WaiterId,
};
use super::model::Model;
use super::{Op, epoch};

/// Runtimes 0 and 1 are shared, 2 and 3 single-threaded.
const RUNTIMES: u32 = 4;

/// A state, its shell, and the model beside it.
#[derive(Debug)]
pub struct Sim {
    pub(super) state: OriginState<u8>,
    pub(super) now: Instant,
    pub(super) limits: Arc<Limits>,
    pub(super) model: Model,
    /// Slots that callers hold; some may be stale.
    pub(super) leases: Vec<SessionId>,
    /// Ids that callers hold; those that were claimed leave.
    pub(super) waiters: Vec<WaiterId>,
    pub(super) dials: Vec<DialOrder>,
    /// Sessions that the shell was told of and that have not ended; a few stale ids stay.
    pub(super) sessions: Vec<SessionId>,
    /// Sessions to be opened ahead of need, asked for in this step.
    pub(super) warmed: u32,
    /// Sessions that were told to end.
    pub(super) told: Vec<SessionId>,
    /// Woken in this step, in order.
    pub(super) woken: Vec<WaiterId>,
    /// Dials ordered in this step.
    pub(super) ordered: Vec<DialOrder>,
    /// How often each runtime was replaced by another.
    lives: [u32; RUNTIMES as usize],
    pub(super) permits: u32,
}

impl Sim {
    /// An origin that was never used.
    pub fn new(limits: Limits) -> Self {
        let limits = Arc::new(limits);
        Self {
            state: OriginState::new(limits.clone(), epoch(), 42),
            now: epoch(),
            model: Model::new(limits.clone()),
            limits,
            leases: Vec::new(),
            waiters: Vec::new(),
            dials: Vec::new(),
            sessions: Vec::new(),
            warmed: 0,
            told: Vec::new(),
            woken: Vec::new(),
            ordered: Vec::new(),
            lives: [0; RUNTIMES as usize],
            permits: 0,
        }
    }

    /// Lets one thing happen, and checks everything.
    pub fn step(&mut self, op: Op) {
        if let Op::Pass(time) = op {
            return self.pass(time);
        }
        self.perform(matches!(op, Op::Spurious | Op::Backwards), |sim| sim.apply(op));
    }

    /// `timed`: the timer fired.
    pub(super) fn perform(&mut self, timed: bool, act: impl FnOnce(&mut Self)) {
        let before = self.observe();
        self.woken.clear();
        self.ordered.clear();
        self.warmed = 0;
        act(self);
        self.drain();
        self.check(&before, timed);
    }

    /// Lets time pass; the timer fires whenever it is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.state.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.perform(true, Self::fire);
            let next = self.state.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "the timer would spin");
        }
        self.now = end;
    }

    fn fire(&mut self) {
        self.state.handle_timeout(self.now);
        self.model.timeout(self.now);
    }

    fn drain(&mut self) {
        while let Some(action) = self.state.poll_action() {
            match action {
                Action::Wake(waiter) => self.woken.push(waiter),
                Action::Dial(order) => {
                    assert!(self.is_alive(order.runtime), "a runtime that ended cannot dial");
                    self.dials.push(order);
                    self.ordered.push(order);
                }
                Action::Close(session, reason) => {
                    self.check_close(session, reason);
                    self.told.push(session);
                }
                Action::Kill(session, _) => self.told.push(session),
                Action::Retire(_) | Action::Probe(_) | Action::Wasted => {}
            }
        }
    }

    fn check_close(&self, session: SessionId, reason: Reason) {
        if reason == Reason::Idle {
            assert!(
                self.model.is_unused(session),
                "an idle session has no stream: {session:?}"
            );
            assert!(
                self.model.is_idle_long_enough(session, self.now),
                "it has had none for the whole timeout: {session:?}"
            );
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Acquire { .. } | Op::TryAcquire { .. } | Op::AcquireOwn { .. } => self.ask(op),
            Op::Claim(_) | Op::Cancel(_) | Op::FirmUp(_) | Op::Moved(..) => self.waiter_op(op),
            Op::Release(_) | Op::GiveBack(_) | Op::Park(_) => self.lease_op(op),
            Op::Connected { .. } | Op::Failed(_) | Op::H1Only(_) | Op::Aborted(_) => self.dial_op(op),
            Op::Warm { .. } | Op::MarkH1Only(_) | Op::RuntimeEnded(_) | Op::Close(_) => self.origin_op(op),
            Op::AwaitPermit => self.permits += u32::from(self.state.await_permit(false)),
            Op::PermitSettled if self.permits > 0 => {
                self.permits -= 1;
                self.state.permit_settled();
            }
            Op::PermitSettled | Op::Pass(_) => {}
            Op::Spurious => self.fire(),
            Op::Backwards => {
                self.state.handle_timeout(epoch());
                self.model.timeout(self.state.now);
            }
            _ => self.session_op(op),
        }
    }

    fn ask(&mut self, op: Op) {
        let now = self.now;
        match op {
            Op::Acquire {
                runtime,
                empty,
                soft,
                first,
            } => {
                let caller = Caller {
                    empty,
                    soft,
                    ..self.caller(runtime)
                };
                let acquired = if first {
                    self.state.acquire_first(caller, || now)
                } else {
                    self.state.acquire(caller, || now)
                };
                match acquired {
                    Acquired::Granted(session) => {
                        self.model.granted_at_once(caller, first, session);
                        self.leases.push(session);
                    }
                    Acquired::Queued(waiter) => {
                        self.waiters.push(waiter);
                        let held = self.holds(waiter);
                        self.model.entered(waiter, caller, first, held);
                    }
                    Acquired::Saturated => {
                        let others = self.permits + self.state.pending();
                        self.model.refused(caller, first, others);
                    }
                    Acquired::Closed => assert!(self.state.closed),
                }
            }
            Op::TryAcquire { runtime, empty } => {
                let caller = Caller {
                    empty,
                    ..self.caller(runtime)
                };
                let session = if caller.private {
                    self.state.try_acquire_private(caller)
                } else {
                    self.state.try_acquire(empty)
                };
                match session {
                    Some(session) => {
                        self.model.granted_at_once(caller, false, session);
                        self.leases.push(session);
                    }
                    None => self.model.declined(caller),
                }
            }
            Op::AcquireOwn { runtime, empty } => {
                let caller = Caller {
                    empty,
                    ..self.caller(runtime)
                };
                let waiter = self.state.acquire_own(caller, now);
                self.waiters.extend(waiter);
            }
            _ => {}
        }
    }

    fn waiter_op(&mut self, op: Op) {
        let now = self.now;
        let (Op::Claim(which) | Op::Cancel(which) | Op::FirmUp(which) | Op::Moved(which, _)) = op else {
            return;
        };
        let Some(place) = place(which, &self.waiters) else {
            return;
        };
        let waiter = self.waiters[place];
        match op {
            Op::Claim(_) => return self.claim(place),
            Op::Cancel(_) => {
                let returned = self.has_slot(waiter);
                let _failure = self.state.cancel(waiter, || now);
                self.model.left(waiter, returned);
            }
            Op::FirmUp(_) => {
                let held = self.holds(waiter);
                let ready = matches!(
                    self.state.claim_peek(waiter),
                    Some(Status::Held(_) | Status::Revoked(_))
                );
                let slot = held.and_then(|session| self.state.session_slot(session));
                let suspect = slot.is_some_and(|slot| self.state.sessions[slot].probe_by.is_some());
                let firm = self.state.firm_up(waiter);
                if firm.is_none() && suspect {
                    // Others have room, and it has still to answer (P19).
                    self.model.left(waiter, held);
                } else {
                    assert_eq!(firm, held, "what is held becomes a lease");
                    self.model.firmed_up(waiter);
                }
                self.leases.extend(firm);
                if !ready {
                    return;
                }
            }
            Op::Moved(_, runtime) => {
                let there = self.caller(runtime);
                return self.move_to(waiter, there);
            }
            _ => return,
        }
        self.waiters.swap_remove(place);
    }

    pub(super) fn claim(&mut self, place: usize) {
        match self.state.claim(self.waiters[place]) {
            Claim::Pending | Claim::Ready => return,
            Claim::Granted(session) => self.leases.push(session),
            Claim::Failed(_) => {}
            Claim::Gone => panic!("a waiter that was not claimed is there"),
        }
        self.waiters.swap_remove(place);
    }

    pub(super) fn move_to(&mut self, waiter: WaiterId, there: Caller) {
        let now = self.now;
        self.state.moved(waiter, there, || now);
        self.model.moved(waiter, there);
    }

    fn lease_op(&mut self, op: Op) {
        let now = self.now;
        let (Op::Release(which) | Op::GiveBack(which) | Op::Park(which)) = op else {
            return;
        };
        let Some(place) = place(which, &self.leases) else {
            return;
        };
        let session = self.leases.swap_remove(place);
        match op {
            Op::Park(_) => {
                self.state.park(session, now);
                self.model.parked(session);
            }
            Op::GiveBack(_) => {
                self.state.give_back(session, || now);
                self.model.returned(session);
            }
            _ => {
                self.state.release(session, || now);
                self.model.returned(session);
                self.model.stream_over(session, now);
            }
        }
    }

    fn dial_op(&mut self, op: Op) {
        let now = self.now;
        let (Op::Connected { dial: which, .. } | Op::Failed(which) | Op::H1Only(which) | Op::Aborted(which)) =
            op
        else {
            return;
        };
        let Some(place) = place(which, &self.dials) else {
            return;
        };
        let order = self.dials.swap_remove(place);
        let end = match op {
            Op::Connected { h1, .. } => {
                // Now and then the answer is not the one that was expected.
                let protocol = if h1 == order.h1_only {
                    Protocol::H2
                } else {
                    Protocol::H1
                };
                let session = self.state.handle_dialed(order.id, protocol, now);
                self.sessions.extend(session);
                return;
            }
            Op::Failed(_) => DialEnd::Failed(which),
            Op::H1Only(_) => DialEnd::H1Only(which),
            _ => DialEnd::Aborted,
        };
        if end == DialEnd::Aborted {
            self.end_runtime(order.runtime);
        }
        self.state.handle_dial_ended(order.id, end, now);
    }

    fn session_op(&mut self, op: Op) {
        let now = self.now;
        let (Op::Settings(which, _)
        | Op::Answered(which)
        | Op::Refused(which)
        | Op::SignOfLife(which)
        | Op::Stalled(which, _)
        | Op::Goaway(which)
        | Op::Failing(which)
        | Op::Worn(which)
        | Op::GivenUp(which)
        | Op::Lost(which)) = op
        else {
            return;
        };
        let Some(place) = place(which, &self.sessions) else {
            return;
        };
        let id = self.sessions[place];
        match op {
            // HTTP/1.1 has no SETTINGS.
            Op::Settings(..) if self.model.is_h1(id) => {}
            Op::Settings(_, limit) => {
                self.state.handle_settings(id, u32::from(limit % 8), now);
                self.model.settings(id, u32::from(limit % 8));
            }
            Op::Answered(_) => {
                self.state.handle_answered(id, now);
                self.model.answered(id);
            }
            Op::Refused(_) => {
                self.state.handle_refused(id, now);
                self.model.refused_stream(id, now);
            }
            Op::SignOfLife(_) => {
                self.state.handle_sign_of_life(id, now);
                self.model.alive(id);
            }
            Op::Stalled(_, stalled) => {
                self.state.handle_stalled(id, stalled, now);
                self.model.stalled(id, stalled);
            }
            Op::Goaway(_) => self.state.handle_goaway(id, which, now),
            Op::Failing(_) => self.state.handle_failing(id, which, now),
            Op::Worn(_) => self.state.handle_worn(id, now),
            Op::GivenUp(_) => self.state.handle_given_up(id),
            _ => {
                self.state.handle_closed(id, which, now);
                // Now and then a stale id is kept, to be used again.
                if which & 64 == 0 {
                    self.sessions.swap_remove(place);
                }
            }
        }
    }

    fn origin_op(&mut self, op: Op) {
        let now = self.now;
        match op {
            Op::Warm { runtime, count } => {
                let caller = self.caller(runtime);
                self.warmed = u32::from(count);
                self.state.warm(caller, u32::from(count), now);
            }
            Op::MarkH1Only(mark) => {
                let until = mark.then_some(now + Duration::from_secs(20));
                self.state.set_h1_only(until, now);
            }
            Op::RuntimeEnded(runtime) => {
                let runtime = self.caller(runtime).runtime;
                self.end_runtime(runtime);
            }
            Op::Close(1) => self.state.evict(now),
            Op::Close(2) => self.state.close(now, None),
            Op::Close(grace) => {
                self.state
                    .close(now, Some(now + Duration::from_secs(u64::from(grace))));
            }
            _ => {}
        }
    }

    /// A runtime ends, and another takes its place.
    fn end_runtime(&mut self, runtime: RuntimeId) {
        if self.is_alive(runtime) {
            self.lives[(runtime.0 % RUNTIMES) as usize] += 1;
        }
        self.state.handle_runtime_ended(runtime, self.now);
    }

    fn is_alive(&self, runtime: RuntimeId) -> bool {
        self.lives[(runtime.0 % RUNTIMES) as usize] == runtime.0 / RUNTIMES
    }

    /// A caller on one of the runtimes that are there now.
    pub(super) fn caller(&self, runtime: u8) -> Caller {
        let runtime = u32::from(runtime) % RUNTIMES;
        Caller {
            runtime: RuntimeId(runtime + RUNTIMES * self.lives[runtime as usize]),
            private: runtime >= 2,
            empty: true,
            soft: false,
        }
    }

    /// The session on which a waiter holds a slot softly.
    pub(super) fn holds(&self, waiter: WaiterId) -> Option<SessionId> {
        match self.state.claim_peek(waiter) {
            Some(Status::Held(session)) => Some(*session),
            _ => None,
        }
    }

    /// The session on which a waiter has a slot of either kind.
    fn has_slot(&self, waiter: WaiterId) -> Option<SessionId> {
        match self.state.claim_peek(waiter) {
            Some(Status::Held(session) | Status::Granted(session)) => Some(*session),
            _ => None,
        }
    }
}

/// Chooses among what is there.
fn place<T>(which: u8, there: &[T]) -> Option<usize> {
    (!there.is_empty()).then(|| which as usize % there.len())
}
