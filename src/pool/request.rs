//! A request from its first attempt to its response: slots exchanged, replays, HTTP/1.1, fallback.
//!
//! ```text
//!            ┌──────────── not sent: another slot, at the front (P4) ───────────┐
//!            ▼                                                                  │
//!   acquire ─┴─▶ send ──▶ response                                              │
//!            ▲      ├───▶ not sent ─────────────────────────────────────────────┘
//!            │      ├───▶ unprocessed: rewind the body, at most `max_replays` (P21) ──┐
//!            └──────┼─────────────────────────────────────────────────────────────────┘
//!                   ├───▶ the session's runtime ended, and the method is safe (P36): the same ──────┤
//!                   ├───▶ HTTP/1.1 required: the origin is marked, then the same (P26), or the fallback (P27)
//!                   └───▶ failed
//! ```

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};

use super::acquire::{Held, Permit, Waited, Want, pause};
use super::entry::{Entry, Wire};
use super::fallback::RequestBody;
use super::handle::Lifeline;
use super::lease::Slot;
use super::misdirected::Redirected;
use super::service::complete;
use crate::error::{BoxError, Chain, Error, Kind};
use crate::origin::Key;
#[cfg(feature = "http1")]
use crate::session::H1Sending;
use crate::session::link::{Failure, Occupied};
use crate::session::{Body, H2Sending, Outgoing, needs_settings};

/// The pause before the second replay; doubled from one to the next, jittered between half and the whole.
const REPLAY_PAUSE: Duration = Duration::from_millis(50);

/// How many replays that are nobody's fault do not count as replays: streams excluded by a GOAWAY that covers others ..
const SPARED: usize = 1_000;

/// .. and streams sent before SETTINGS and refused, the price of not waiting for them: once on a session, and a server that
/// refuses more sessions than this, one after the other, is of no use.
const SPARED_EARLY: usize = 4;

/// A request, and what is known of its attempts.
pub(super) struct Exchange<O: Key> {
    pub(super) lifeline: Arc<Lifeline<O>>,
    pub(super) entry: Arc<Entry<O>>,
    pub(super) parts: Parts,
    pub(super) body: Option<Outgoing>,
    /// That of the last attempt, as long as there is no response: the next one goes on with it.
    pub(super) permit: Option<Permit>,
    /// It had none from the start.
    empty: bool,
    /// It was answered with 421 on a shared session, and goes to sessions of its own.
    pub(super) misdirected: bool,
    /// The server of the last attempt proved who it is.
    authenticated: bool,
    /// Replays that did not count, of what a GOAWAY excluded.
    spared: usize,
    /// The same of what was refused before SETTINGS.
    spared_early: usize,
    /// It was sent again though the server may have processed it (P36): no error is certain of the contrary any more.
    ambiguous: bool,
}

/// What a caller comes with.
pub(super) enum Ticket<O: Key> {
    Nothing,
    /// It had its turn.
    Returning,
    /// A slot, without the permit of `limit_concurrency`.
    Slot(Slot<Entry<O>>),
    Held(Held<O>),
}

/// Where a request stands that is not at its beginning.
pub(super) struct Standing<O: Key> {
    ticket: Ticket<O>,
    /// What the first attempt came to.
    sent: Option<Result<Response<Body>, Failure>>,
}

impl<O: Key> Standing<O> {
    fn with(ticket: Ticket<O>) -> Self {
        Self { ticket, sent: None }
    }

    /// The first attempt was made.
    pub(super) fn after(sent: Result<Response<Body>, Failure>) -> Self {
        Self {
            ticket: Ticket::Returning,
            sent: Some(sent),
        }
    }
}

/// A request whose response has not come.
pub(super) enum Sending {
    H2(H2Sending),
    #[cfg(feature = "http1")]
    H1(H1Sending),
}

impl Sending {
    pub(super) fn poll(
        &mut self,
        body: &mut Option<Outgoing>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Body>, Failure>> {
        match self {
            Self::H2(sending) => sending.poll(body, cx),
            #[cfg(feature = "http1")]
            Self::H1(sending) => sending.poll(body, cx),
        }
    }
}

impl<O: Key> Exchange<O> {
    /// Of a request to the origin of `entry`, whatever its URI names.
    pub(super) fn new<B>(
        lifeline: Arc<Lifeline<O>>,
        entry: Arc<Entry<O>>,
        mut parts: Parts,
        body: B,
    ) -> Result<Self, Error>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<BoxError>,
    {
        complete(&mut parts, entry.key.origin())?;
        let body = Outgoing::new(body, entry.core.config.replay_buffer);
        Ok(Self {
            lifeline,
            entry,
            parts,
            empty: body.is_none(),
            body,
            permit: None,
            misdirected: false,
            authenticated: false,
            spared: 0,
            spared_early: 0,
            ambiguous: false,
        })
    }
}

impl<O: Key> Exchange<O> {
    /// A permit from before the first attempt.
    pub(super) fn keep(&mut self, permit: Option<Permit>) {
        self.permit = permit;
    }

    /// The response is there: nothing follows, and the permit is the stream's alone.
    pub(super) fn let_go(&mut self) {
        self.permit = None;
    }

    /// The first attempt, as far as it goes without waiting; what else is to be done, [`run`](Self::run) does.
    pub(super) fn begin(&mut self, ticket: Ticket<O>) -> Result<Sending, Box<Standing<O>>> {
        match self.at_once(ticket) {
            Ok(held) => self
                .start(held)
                .map_err(|failure| Box::new(Standing::after(Err(failure)))),
            Err(ticket) => Err(Box::new(Standing::with(ticket))),
        }
    }

    /// A slot, and its permit, that are there for the taking.
    fn at_once(&self, ticket: Ticket<O>) -> Result<Held<O>, Ticket<O>> {
        match ticket {
            Ticket::Held(held) => Ok(held),
            Ticket::Slot(slot) if self.entry.core.permits.is_none() && self.entry.serves_here(&slot) => {
                Ok(Held { slot, permit: None })
            }
            Ticket::Nothing if !self.lifeline.is_closed() && !self.entry.goes_elsewhere() => {
                let acquired = self.entry.clone().try_acquire(self.want(false));
                acquired.map_err(|_| Ticket::Nothing)
            }
            ticket => Err(ticket),
        }
    }

    fn want(&self, first: bool) -> Want {
        Want {
            empty: self.empty && !needs_settings(&self.parts),
            first,
        }
    }

    /// Sends the request, from where it stands to its response.
    pub(super) async fn run(&mut self, standing: Standing<O>) -> Result<Response<Body>, Error> {
        let result = self.attempts(standing).await;
        result.map_err(|error| {
            if self.ambiguous {
                error.with_unprocessed(false)
            } else {
                error
            }
        })
    }

    async fn attempts(&mut self, standing: Standing<O>) -> Result<Response<Body>, Error> {
        let Standing { mut ticket, mut sent } = standing;
        if sent.is_none() && matches!(ticket, Ticket::Nothing | Ticket::Returning) {
            if self.lifeline.is_closed() {
                return Err(self.entry.name(super::core::closed()));
            }
            if self.entry.goes_elsewhere() {
                return Box::pin(self.fall_back()).await;
            }
        }
        let mut want = self.want(!matches!(ticket, Ticket::Nothing));
        let mut waited = pin!(Waited::new(want.first));
        let mut replays = 0;
        loop {
            let answer = match sent.take() {
                Some(answer) => answer,
                None => match Box::pin(self.acquire(ticket, want, waited.as_mut())).await {
                    Ok(held) => self.send(held).await,
                    Err(error) if error.is_h1_only() && self.entry.core.fallback.is_some() => {
                        return Box::pin(self.fall_back()).await;
                    }
                    Err(error) => return Err(error),
                },
            };
            ticket = Ticket::Returning;
            want.first = true;
            let failure = match answer {
                Ok(response) if response.status() == StatusCode::MISDIRECTED_REQUEST && !self.misdirected => {
                    match Box::pin(self.redirect(response, want)).await? {
                        Redirected::To(own) => ticket = Ticket::Held(own),
                        Redirected::Not(response) => return Ok(*response),
                    }
                    continue;
                }
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            if !matches!(failure, Failure::NotSent(_)) {
                // It was on its way meanwhile, and did not wait.
                waited.set(Waited::new(true));
            }
            if self.follow(failure, want, &mut replays).await? {
                return Box::pin(self.fall_back()).await;
            }
        }
    }

    /// A slot with its permit, for a request that comes with less.
    async fn acquire(
        &mut self,
        ticket: Ticket<O>,
        want: Want,
        mut waited: Pin<&mut Waited>,
    ) -> Result<Held<O>, Error> {
        match ticket {
            Ticket::Held(held) => return Ok(held),
            Ticket::Slot(slot) => {
                let held = self.lifeline.with_permit(slot, waited.as_mut(), &mut self.permit);
                if let Some(held) = held.await? {
                    return Ok(held);
                }
            }
            Ticket::Nothing | Ticket::Returning => {}
        }
        if self.misdirected {
            return Box::pin(self.acquire_own(want, waited)).await;
        }
        let acquired = self
            .lifeline
            .acquire(&mut self.entry, want, waited, &mut self.permit);
        acquired.await
    }

    /// What follows a failed attempt: another one, or the fallback (true), or the error.
    async fn follow(&mut self, failure: Failure, want: Want, replays: &mut usize) -> Result<bool, Error> {
        match failure {
            // Each of its own sessions costs a dial.
            Failure::NotSent(error) if self.misdirected => {
                Box::pin(self.replay(error, false, replays)).await?;
            }
            Failure::NotSent(error) => {
                tracing::trace!(target: "h2pool", error = %error, "slot lost before use");
                return Ok(self.entry.goes_elsewhere());
            }
            Failure::Unprocessed { error, blameless } => {
                // Not one of which nothing was written when the connection failed.
                if error.is_goaway() || error.is_reset() {
                    self.entry.tally.stream_refused();
                }
                Box::pin(self.replay(error, blameless, replays)).await?;
            }
            Failure::NeedsH1(error) => {
                self.entry.core.wants_h1(&self.entry.key, self.authenticated);
                Box::pin(self.turn_to_h1(error, replays)).await?;
                return Ok(self.entry.core.fallback.is_some());
            }
            Failure::Failed(error) if self.may_repeat(&error, want) => {
                self.ambiguous = true;
                Box::pin(self.replay(error, false, replays)).await?;
            }
            Failure::Failed(error) => return Err(self.entry.name(error)),
        }
        Ok(false)
    }

    /// Whether a request that the server may have processed is sent again all the same: its session ended with the
    /// runtime of somebody else, and its method is safe (RFC 9110 §9.2.2). Over HTTP/1.1 a body went with the request.
    fn may_repeat(&self, error: &Error, want: Want) -> bool {
        let there = want.empty || self.body.is_some();
        error.kind() == Kind::Runtime && self.parts.method.is_safe() && there
    }

    /// Turns a slot into a stream's.
    fn occupy(&mut self, held: Held<O>) -> Occupied {
        let (entry, id, session) = held.slot.into_parts();
        self.authenticated = session.address().authenticated;
        let tally = session.tally.stream_started();
        self.permit.clone_from(&held.permit);
        Occupied::new(entry, id, tally, held.permit)
    }

    async fn send(&mut self, held: Held<O>) -> Result<Response<Body>, Failure> {
        let mut sending = self.start(held)?;
        poll_fn(|cx| sending.poll(&mut self.body, cx)).await
    }

    /// One attempt, handed to the session.
    fn start(&mut self, held: Held<O>) -> Result<Sending, Failure> {
        let wire = held.slot.handle().wire.clone();
        let slot = self.occupy(held);
        let patience = self.entry.core.patience;
        match wire {
            Wire::H2(session) => {
                let sending = H2Sending::start(session, slot, &self.parts, self.body.as_ref(), patience);
                sending.map(Sending::H2)
            }
            Wire::H2Ending(_) => {
                let ending = Error::new(Kind::Goaway, "the session is ending");
                Err(Failure::NotSent(ending.with_unprocessed(true)))
            }
            #[cfg(feature = "http1")]
            Wire::H1(session) => {
                let sending = H1Sending::start(session, slot, &self.parts, &mut self.body, patience);
                sending.map(Sending::H1)
            }
        }
    }

    /// Makes the request ready to be sent again, or says why it cannot be.
    async fn replay(&mut self, error: Error, blameless: bool, replays: &mut usize) -> Result<(), Error> {
        let error = self.rewind_or(error)?;
        let max = self.entry.core.config.max_replays;
        let early = !error.is_goaway();
        let (spared, most) = match early {
            true => (&mut self.spared_early, SPARED_EARLY),
            false => (&mut self.spared, SPARED),
        };
        if blameless && *spared < most && (max > 0 || early) {
            *spared += 1;
            if !early {
                self.entry.tally.replayed();
            }
            return Ok(());
        }
        if *replays >= max {
            return Err(error);
        }
        self.again(&error, replays).await
    }

    /// The server wants HTTP/1.1 for the request (P26). That is no replay that `max_replays` could forbid; it bounds how
    /// often a connector may answer in HTTP/2 all the same.
    async fn turn_to_h1(&mut self, error: Error, replays: &mut usize) -> Result<(), Error> {
        let core = self.entry.core.clone();
        if !core.speaks_h1() && core.fallback.is_none() {
            let error = self.entry.name(error);
            return Err(self.entry.name(core.only_h1().with_source(error)));
        }
        let error = self.rewind_or(error)?;
        if *replays >= core.config.max_replays.max(1) {
            let message = "the server wants HTTP/1.1 for the request, and the connector has none";
            let error = Error::new(Kind::H1Only, message).with_source(error);
            return Err(self.entry.name(error));
        }
        self.again(&error, replays).await
    }

    /// The error with its origin's name, or as a failure where the body was consumed.
    fn rewind_or(&mut self, error: Error) -> Result<Error, Error> {
        let error = self.entry.name(error);
        if self.rewind() {
            return Ok(error);
        }
        tracing::debug!(target: "h2pool", error = %Chain(&error), kind = error.kind_name(), "not replayed: the body was consumed");
        Err(error)
    }

    /// One more replay, after a pause from the second one on.
    async fn again(&mut self, error: &Error, replays: &mut usize) -> Result<(), Error> {
        *replays += 1;
        self.entry.tally.replayed();
        tracing::debug!(
            target: "h2pool",
            origin = %self.entry.key.origin(),
            replay = *replays,
            error = %Chain(error),
            kind = error.kind_name(),
            "replayed"
        );
        if *replays < 2 {
            return Ok(());
        }
        let doublings = u32::try_from(*replays - 2).unwrap_or(u32::MAX).min(6);
        let jitter = 0.5 + 0.5 * self.entry.core.random();
        let paused = pause((REPLAY_PAUSE * (1 << doublings)).mul_f64(jitter)).await;
        paused.map_err(|error| self.entry.name(error))
    }

    pub(super) fn rewind(&mut self) -> bool {
        self.body.as_mut().is_none_or(Outgoing::rewind)
    }

    async fn fall_back(&mut self) -> Result<Response<Body>, Error> {
        let Some(fallback) = &self.entry.core.fallback else {
            return Err(self.entry.name(self.entry.core.only_h1()));
        };
        self.permit = None;
        self.entry.tally.h1_only_hit();
        let (nothing, ()) = Request::new(()).into_parts();
        let mut parts = std::mem::replace(&mut self.parts, nothing);
        // What the caller wrote says nothing about the connection, and clients of HTTP/1.1 refuse HTTP/2.
        if parts.version == Version::HTTP_2 {
            parts.version = Version::HTTP_11;
        }
        let request = Request::from_parts(parts, RequestBody::new(self.body.take()));
        fallback
            .call(request, self.entry.key.origin())
            .await
            .map_err(|error| self.entry.name(error))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use tokio_test::task::spawn;

    use super::*;
    use crate::connect::memory::pair;
    use crate::{Builder, Origin};

    fn exchange(builder: Builder) -> Exchange<Origin> {
        let (connector, _) = pair::<Origin>();
        let core = builder.connector(connector).core().unwrap();
        let entry = core.entry(&"https://a".parse().unwrap()).unwrap();
        let (parts, ()) = Request::get("https://a/").body(()).unwrap().into_parts();
        Exchange::new(Lifeline::new(core), entry, parts, Empty::<Bytes>::new()).unwrap()
    }

    #[test]
    fn the_pause_before_a_replay_outlives_the_runtime_where_it_began() {
        // P21, P36
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().start_paused(true).build().unwrap()
        };
        let mut exchange = exchange(Builder::new());
        let refused = Error::new(Kind::Reset, "refused");
        let mut replays = 1;
        let mut again = spawn(Box::pin(exchange.again(&refused, &mut replays)));
        let first = runtime();
        assert!(first.block_on(async { again.poll() }).is_pending());
        drop(first);
        runtime().block_on(again.into_inner()).unwrap();
        assert_eq!(replays, 2);
    }

    #[cfg(not(feature = "http1"))]
    #[tokio::test]
    async fn an_origin_that_wants_http1_is_called_so_whatever_became_of_the_body() {
        // P26, P27, P41
        let mut body = Outgoing::new(http_body_util::Full::<Bytes>::from("x"), 0).unwrap();
        poll_fn(|cx| body.poll_frame(cx)).await.unwrap().unwrap();
        let mut exchange = exchange(Builder::new());
        exchange.body = Some(body);
        let required = Error::new(Kind::Reset, "HTTP_1_1_REQUIRED").with_unprocessed(true);
        let error = exchange.turn_to_h1(required, &mut 0).await.unwrap_err();
        assert!(error.is_h1_only() && error.is_unprocessed(), "{error:?}");
    }
}
