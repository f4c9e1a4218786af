//! One origin of a pool: what surrounds its state ([`Env`]), and what its sessions report to ([`Observer`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::core::Core;
use super::dial;
use super::registry::Resident;
use super::runtime::{Mourner, Timed};
use super::shared::{Env, Handle, Keeper, Shared, disarm, run, timeout};
use crate::clock;
use crate::error::{Chain, Error, Kind};
use crate::origin::Key;
#[cfg(feature = "http1")]
use crate::session::H1;
use crate::session::link::{Address, Observer};
use crate::session::{H2, H2Control, killed};
use crate::state::{DialOrder, OriginState, Reason, RuntimeId, SessionId};
use crate::stats::{CloseReason, SessionTally, Tally};

/// An origin with its pool.
pub(crate) struct Entry<O: Key> {
    pub(super) key: O,
    pub(super) core: Arc<Core<O>>,
    pub(super) tally: Tally,
    shared: Shared<Arc<Session>, Error>,
    touched: AtomicBool,
}

/// A session of either kind.
pub(crate) struct Session {
    pub(super) wire: Wire,
    pub(super) tally: Arc<SessionTally>,
    pub(super) opened_at: Instant,
}

/// What it speaks.
#[derive(Clone)]
pub(crate) enum Wire {
    H2(Arc<H2>),
    /// Told to close: nothing is sent on it any more.
    H2Ending(Arc<H2Control>),
    #[cfg(feature = "http1")]
    H1(Arc<H1>),
}

impl Session {
    pub(super) fn address(&self) -> &Arc<Address> {
        match &self.wire {
            Wire::H2(session) => session.control().address(),
            Wire::H2Ending(control) => control.address(),
            #[cfg(feature = "http1")]
            Wire::H1(session) => session.control().address(),
        }
    }

    /// Why it ended, once it has.
    fn cause(&self) -> Option<&Error> {
        match &self.wire {
            Wire::H2(session) => session.control().cause(),
            Wire::H2Ending(control) => control.cause(),
            #[cfg(feature = "http1")]
            Wire::H1(session) => session.control().cause(),
        }
    }

    /// The reason that counts: the first.
    fn ended(&self, reason: CloseReason) -> CloseReason {
        self.tally
            .closed(reason, clock::now().saturating_duration_since(self.opened_at))
    }
}

impl Handle for Arc<Session> {
    fn remnant(&self) -> Self {
        let wire = match &self.wire {
            Wire::H2(session) => Wire::H2Ending(session.control().clone()),
            other => other.clone(),
        };
        Self::new(Session {
            wire,
            tally: self.tally.clone(),
            opened_at: self.opened_at,
        })
    }

    fn retire(&self) {
        match &self.wire {
            Wire::H2(session) => session.control().set_draining(),
            Wire::H2Ending(control) => control.set_draining(),
            #[cfg(feature = "http1")]
            Wire::H1(session) => session.control().close(),
        }
    }

    fn close(&self, reason: Reason) {
        // Its last stream may be over before the end of the session is reported.
        self.ended(self.cause().and_then(told_by).unwrap_or_else(|| reason.into()));
        match &self.wire {
            Wire::H2(session) => session.control().close(),
            Wire::H2Ending(control) => control.close(),
            #[cfg(feature = "http1")]
            Wire::H1(session) => session.control().close(),
        }
    }

    fn kill(&self, reason: Reason) {
        self.ended(reason.into());
        match &self.wire {
            Wire::H2(session) => session.control().kill(killed(reason)),
            Wire::H2Ending(control) => control.kill(killed(reason)),
            #[cfg(feature = "http1")]
            Wire::H1(session) => session.control().kill(killed(reason)),
        }
    }

    fn probe(&self) -> bool {
        let Wire::H2(session) = &self.wire else {
            return true;
        };
        let asked = session.control().probe();
        if asked {
            self.tally.tally().probed();
        }
        asked
    }
}

/// Why a session ended that did so for this cause, where that says more than its phase.
fn told_by(cause: &Error) -> Option<CloseReason> {
    match cause.kind() {
        Kind::Protocol => Some(CloseReason::Protocol),
        Kind::KeepAlive => Some(CloseReason::KeepAlive),
        _ => None,
    }
}

impl<O: Key> Entry<O> {
    pub(super) fn new(core: Arc<Core<O>>, key: O) -> Arc<Self> {
        let now = clock::now();
        let mut state = OriginState::new(core.limits.clone(), now, core.random_bits());
        let h1_only = core.h1_only.lock().get(&key, now);
        state.set_h1_only(h1_only, now);
        let tally = Tally::new(&core.counters, key.origin());
        Arc::new(Self {
            key,
            core,
            tally,
            shared: Shared::new(state),
            touched: AtomicBool::new(true),
        })
    }

    /// A session was counted as closed, which is told, too (P43).
    pub(super) fn tell_ended(&self, session: &Session, reason: CloseReason, cause: &Error) {
        tracing::debug!(
            target: "h2pool",
            origin = %self.key.origin(),
            session = session.address().session,
            reason = reason.as_str(),
            error = %Chain(cause),
            kind = cause.kind_name(),
            "session ended"
        );
    }

    /// Whether its requests are a fallback's business, or nobody's: it is known to speak only HTTP/1.1, and the pool
    /// does not (P27).
    pub(super) fn goes_elsewhere(&self) -> bool {
        let core = &self.core;
        if core.speaks_h1() {
            return false;
        }
        // Plain text speaks HTTP/1.1 unless it was asked for h2 (P28); nobody has to look.
        let plain = core.fallback.is_some()
            && !self.key.origin().is_https()
            && !core.config.http2_prior_knowledge
            && !core.connector.http2_in_plain_text();
        plain || core.h1_only.lock().get(&self.key, clock::now()).is_some()
    }

    /// Refuses new work; running streams may go on for `grace`.
    pub(super) fn close(self: &Arc<Self>, grace: Option<Duration>) {
        let now = clock::now();
        let deadline = grace.and_then(|grace| now.checked_add(grace));
        run(self, |inner| inner.state.close(now, deadline));
    }

    /// Closes it to make room for another; it is idle.
    pub(super) fn evict(self: &Arc<Self>) {
        let now = clock::now();
        run(self, |inner| inner.state.evict(now));
    }

    /// Looks at the state and the handles without changing anything.
    pub(super) fn shared(&self) -> &Shared<Arc<Session>, Error> {
        &self.shared
    }

    /// Names the origin in an error.
    pub(super) fn name(&self, error: Error) -> Error {
        error.with_origin(self.key.origin())
    }
}

impl<O: Key> Resident for Entry<O> {
    type Key = O;

    fn key(&self) -> &O {
        &self.key
    }

    fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    fn was_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }

    /// It has neither streams nor waiters nor dials: forgetting it loses nothing but idle sessions.
    fn is_idle(&self) -> bool {
        self.shared.read(|inner| inner.state.is_idle())
    }
}

impl<O: Key> Env for Entry<O> {
    type Handle = Arc<Session>;
    type Cause = Error;

    fn shared(&self) -> &Shared<Arc<Session>, Error> {
        &self.shared
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn dial(this: &Arc<Self>, order: DialOrder) {
        dial::start(this, order);
    }

    fn arm(this: &Arc<Self>, at: Instant) -> Keeper {
        let runtimes = &this.core.runtimes;
        loop {
            // The caller's own runtime runs for sure; a single-thread one only as long as the caller blocks on it.
            let here = runtimes.known();
            let keeper = match here {
                Some(runtime) if !runtime.is_private() => Some(runtime),
                here => runtimes.shared().or(here).or_else(|| runtimes.any()),
            };
            let Some(keeper) = keeper else {
                return Keeper::Nobody;
            };
            if keeper.arm(at, this) {
                return match keeper.is_private() {
                    true => Keeper::Private(keeper.id()),
                    false => Keeper::Shared,
                };
            }
            // It ended just now; this takes it off the list.
            this.core.clone().runtime_ended(keeper.id());
        }
    }

    fn is_elsewhere(&self, runtime: RuntimeId) -> bool {
        let here = self.core.runtimes.known();
        here.is_some_and(|here| here.id() != runtime)
    }

    fn wasted(&self) {
        self.tally.dial_failed(CloseReason::Unused.as_str());
    }
}

impl<O: Key> Drop for Entry<O> {
    fn drop(&mut self) {
        self.core.runtimes.disarm(std::ptr::from_ref(self) as usize);
    }
}

impl<O: Key> Timed for Entry<O> {
    fn fire(self: Arc<Self>) {
        timeout(&self);
    }

    fn lost(self: Arc<Self>) {
        disarm(&self);
    }
}

impl<O: Key> Observer for Entry<O> {
    fn settings(self: Arc<Self>, id: SessionId, control: &H2Control) {
        let now = clock::now();
        run(&self, |inner| {
            inner.state.handle_settings(id, control.limit(), now)
        });
    }

    fn answered(self: Arc<Self>, id: SessionId) {
        let now = clock::now();
        run(&self, |inner| inner.state.handle_answered(id, now));
    }

    fn given_up(self: Arc<Self>, id: SessionId) {
        run(&self, |inner| inner.state.handle_given_up(id));
    }

    fn refused(self: Arc<Self>, id: SessionId) {
        let now = clock::now();
        run(&self, |inner| inner.state.handle_refused(id, now));
    }

    fn needs_h1(self: Arc<Self>, id: SessionId) {
        let session = self.shared.read(|inner| inner.handle(id));
        let authenticated = session.is_some_and(|session| session.address().authenticated);
        self.core.wants_h1(&self.key, authenticated);
    }

    fn goaway(self: Arc<Self>, id: SessionId, cause: Error) {
        let (now, cause) = (clock::now(), self.name(cause));
        run(&self, |inner| inner.state.handle_goaway(id, cause, now));
    }

    fn failing(self: Arc<Self>, id: SessionId, cause: Error) {
        let (now, cause) = (clock::now(), self.name(cause));
        run(&self, |inner| inner.state.handle_failing(id, cause, now));
    }

    fn alive(self: Arc<Self>, id: SessionId) {
        let now = clock::now();
        run(&self, |inner| inner.state.handle_sign_of_life(id, now));
    }

    fn silent(self: Arc<Self>, id: SessionId) {
        let now = clock::now();
        run(&self, |inner| inner.state.handle_silent(id, now));
    }

    fn stalled(self: Arc<Self>, id: SessionId, stalled: bool) {
        let now = clock::now();
        run(&self, |inner| inner.state.handle_stalled(id, stalled, now));
    }

    fn worn(self: Arc<Self>, id: SessionId) {
        let now = clock::now();
        run(&self, |inner| inner.state.handle_worn(id, now));
    }

    fn closed(self: Arc<Self>, id: SessionId, cause: Error) {
        let (now, cause) = (clock::now(), self.name(cause));
        let known = told_by(&cause);
        let (ended, session) = run(&self, |inner| {
            let session = inner.take_handle(id);
            let ended = match cause.kind() {
                Kind::Runtime => inner.state.handle_abandoned(id, cause.clone(), now),
                _ => inner.state.handle_closed(id, cause.clone(), now),
            };
            (ended, session)
        });
        if let (Some(reason), Some(session)) = (ended, session) {
            let reason = session.ended(known.unwrap_or_else(|| reason.into()));
            self.tell_ended(&session, reason, &cause);
        }
    }

    fn release(self: Arc<Self>, id: SessionId) {
        run(&self, |inner| inner.state.release(id, clock::now));
    }

    fn park(self: Arc<Self>, id: SessionId) {
        let now = clock::now();
        run(&self, |inner| inner.state.park(id, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use crate::session::H2Driver;
    use crate::stats::{Counters, SessionProtocol};

    #[tokio::test(start_paused = true)]
    async fn what_ended_a_session_is_counted_though_its_last_stream_is_over_before_that_is_reported() {
        // P40, P43
        let origin: Origin = "https://a".parse().unwrap();
        for (kind, counted) in [
            (Kind::KeepAlive, CloseReason::KeepAlive),
            (Kind::Protocol, CloseReason::Protocol),
            (Kind::Io, CloseReason::Io),
        ] {
            let (ours, _theirs) = tokio::io::duplex(4096);
            let (h2, _driver) = H2Driver::narrow(ours, &origin).await;
            h2.control().kill(Error::new(kind, "it ended"));
            let tally = Tally::new(&Arc::new(Counters::new()), &origin).session_opened(SessionProtocol::H2);
            let session = Arc::new(Session {
                wire: Wire::H2(h2),
                tally: Arc::new(tally),
                opened_at: clock::now(),
            });
            Handle::close(&session, Reason::Lost);
            assert_eq!(session.ended(CloseReason::Unused), counted);
        }
    }
}
