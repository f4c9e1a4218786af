//! A shell made of vectors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::sim::epoch;
use super::super::{
    Acquired, Action, Caller, Claim, DialEnd, DialId, DialOrder, Limits, OriginState, Protocol, Reason,
    RuntimeId, SessionId, WaiterId,
};

/// The shared, multi-thread runtime of the tests.
pub(super) const MAIN: RuntimeId = RuntimeId(0);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A caller on the shared runtime whose request has no body.
pub(super) fn caller() -> Caller {
    Caller {
        runtime: MAIN,
        private: false,
        empty: true,
        soft: false,
    }
}

/// A caller whose request has a body.
pub(super) fn with_body() -> Caller {
    Caller {
        empty: false,
        ..caller()
    }
}

/// A service that wants to be ready.
pub(super) fn soft() -> Caller {
    Caller {
        soft: true,
        ..caller()
    }
}

/// A caller on a single-thread runtime.
pub(super) fn on(runtime: u32) -> Caller {
    Caller {
        runtime: RuntimeId(runtime),
        private: true,
        ..caller()
    }
}

/// The state, its clock, and what it asked for.
pub(super) struct Bench {
    pub(super) state: OriginState<&'static str>,
    pub(super) now: Instant,
    /// Dials ordered and not ended yet.
    pub(super) dials: Vec<DialOrder>,
    pub(super) woken: Vec<WaiterId>,
    pub(super) closed: Vec<(SessionId, Reason)>,
    pub(super) killed: Vec<(SessionId, Reason)>,
    pub(super) probed: Vec<SessionId>,
    /// Sessions that counted as failed dials.
    pub(super) wasted: usize,
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        Self {
            state: OriginState::new(Arc::new(limits), epoch(), 7),
            now: epoch(),
            dials: Vec::new(),
            woken: Vec::new(),
            closed: Vec::new(),
            killed: Vec::new(),
            probed: Vec::new(),
            wasted: 0,
        }
    }

    /// Calls the state, drains its actions and audits its books.
    pub(super) fn run<R>(&mut self, call: impl FnOnce(&mut OriginState<&'static str>, Instant) -> R) -> R {
        let result = call(&mut self.state, self.now);
        while let Some(action) = self.state.poll_action() {
            match action {
                Action::Wake(waiter) => self.woken.push(waiter),
                Action::Dial(order) => self.dials.push(order),
                Action::Retire(_) => {}
                Action::Close(session, reason) => self.closed.push((session, reason)),
                Action::Kill(session, reason) => self.killed.push((session, reason)),
                Action::Probe(session) => self.probed.push(session),
                Action::Wasted => self.wasted += 1,
            }
        }
        self.state.audit();
        result
    }

    /// Lets time pass, and the timer fire whenever it is due.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.state.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.run(|state, now| state.handle_timeout(now));
            let next = self.state.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "the timer would spin");
        }
        self.now = end;
    }

    pub(super) fn acquire(&mut self, caller: Caller) -> Acquired {
        self.run(|state, now| state.acquire(caller, || now))
    }

    /// Takes a slot that must be free.
    pub(super) fn take(&mut self) -> SessionId {
        self.take_as(caller())
    }

    pub(super) fn take_as(&mut self, caller: Caller) -> SessionId {
        match self.acquire(caller) {
            Acquired::Granted(session) => session,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// Queues, which it must.
    pub(super) fn queue(&mut self) -> WaiterId {
        self.queue_as(caller())
    }

    pub(super) fn queue_as(&mut self, caller: Caller) -> WaiterId {
        match self.acquire(caller) {
            Acquired::Queued(waiter) => waiter,
            other => panic!("not queued: {other:?}"),
        }
    }

    /// Queues as one who had its turn already.
    pub(super) fn queue_first(&mut self, caller: Caller) -> WaiterId {
        match self.run(|state, now| state.acquire_first(caller, || now)) {
            Acquired::Queued(waiter) => waiter,
            other => panic!("not queued: {other:?}"),
        }
    }

    /// Asks for a session of its own, which it may.
    pub(super) fn queue_own(&mut self, caller: Caller) -> WaiterId {
        self.run(|state, now| state.acquire_own(caller, now))
            .expect("there is a place")
    }

    pub(super) fn queue_many(&mut self, count: usize) -> Vec<WaiterId> {
        (0..count).map(|_| self.queue()).collect()
    }

    pub(super) fn claim(&mut self, waiter: WaiterId) -> Claim<&'static str> {
        self.run(|state, _| state.claim(waiter))
    }

    /// Claims a slot that must be there.
    pub(super) fn granted(&mut self, waiter: WaiterId) -> SessionId {
        match self.claim(waiter) {
            Claim::Granted(session) => session,
            other => panic!("not granted: {other:?}"),
        }
    }

    pub(super) fn cancel(&mut self, waiter: WaiterId) {
        self.run(|state, now| state.cancel(waiter, || now));
    }

    pub(super) fn release(&mut self, session: SessionId) {
        self.run(|state, now| state.release(session, || now));
    }

    /// A lease ends that carried no stream.
    pub(super) fn give_back(&mut self, session: SessionId) {
        self.run(|state, now| state.give_back(session, || now));
    }

    /// The oldest dial that is under way.
    pub(super) fn dial(&mut self) -> DialId {
        assert!(!self.dials.is_empty(), "no dial is under way");
        self.dials.remove(0).id
    }

    /// The oldest dial succeeds; SETTINGS are still to come.
    pub(super) fn connect(&mut self) -> SessionId {
        self.connect_as(Protocol::H2)
    }

    pub(super) fn connect_as(&mut self, protocol: Protocol) -> SessionId {
        let dial = self.dial();
        self.run(|state, now| state.handle_dialed(dial, protocol, now))
            .expect("the session is wanted")
    }

    /// The oldest dial succeeds and the server allows so many streams.
    pub(super) fn open(&mut self, streams: u32) -> SessionId {
        let session = self.connect();
        self.settings(session, streams);
        session
    }

    /// An origin that is known and well: one session that has served something.
    pub(super) fn serving(&mut self, streams: u32) -> SessionId {
        let waiter = self.queue();
        let session = self.open(streams);
        assert_eq!(self.granted(waiter), session);
        self.run(|state, now| state.handle_answered(session, now));
        self.release(session);
        self.woken.clear();
        session
    }

    /// A session that did not answer in time when one of its two requests was given up; the other runs on.
    pub(super) fn unanswered(&mut self) -> SessionId {
        let session = self.serving(5);
        self.take();
        self.take();
        self.run(|state, now| state.park(session, now));
        self.pass(secs(1));
        session
    }

    pub(super) fn settings(&mut self, session: SessionId, streams: u32) {
        self.run(|state, now| state.handle_settings(session, streams, now));
    }

    /// The oldest dial fails.
    pub(super) fn fail(&mut self, cause: &'static str) {
        self.end(DialEnd::Failed(cause));
    }

    pub(super) fn end(&mut self, end: DialEnd<&'static str>) {
        let dial = self.dial();
        self.run(|state, now| state.handle_dial_ended(dial, end, now));
    }

    pub(super) fn goaway(&mut self, session: SessionId) {
        self.run(|state, now| state.handle_goaway(session, "goaway", now));
    }

    pub(super) fn lose(&mut self, session: SessionId) {
        self.run(|state, now| state.handle_closed(session, "lost", now));
    }

    /// Whom the state woke since this was asked last.
    pub(super) fn wakes(&mut self) -> Vec<WaiterId> {
        std::mem::take(&mut self.woken)
    }
}
