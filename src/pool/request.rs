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

use bytes::Buf;
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};

use super::acquire::{Held, Permit, Waited, Want};
use super::entry::{Entry, Wire};
use super::fallback::RequestBody;
use super::handle::Lifeline;
use super::lease::Slot;
use super::misdirected::Redirected;
use super::service::complete;
use crate::error::{BoxError, Error, Kind};
use crate::origin::Key;
#[cfg(feature = "http1")]
use crate::session::H1Sending;
use crate::session::link::{Failure, Occupied};
use crate::session::{Body, H2Sending, Outgoing, needs_settings};

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
    pub(super) authenticated: bool,
    /// Replays that did not count, of what a GOAWAY excluded.
    pub(super) spared: usize,
    /// The same of what was refused before SETTINGS.
    pub(super) spared_early: usize,
    /// Replays that were counted and told.
    pub(super) told: usize,
    /// It was sent again though the server may have processed it (P36): no error is certain of the contrary any more.
    pub(super) ambiguous: bool,
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
            told: 0,
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
