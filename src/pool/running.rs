//! A request as a future: the quick way by hand, everything else boxed.
//!
//! On a warm pool a request finds a slot, is handed to the session and waits for its response. That way is a plain state
//! machine, so that the future of a request is small and is moved rarely. Waiting for a slot, replays and fallbacks happen
//! in [`Exchange::run`], in a box of their own:
//!
//! ```text
//!   Ready ── slot, head ──▶ Sent ── response ──▶ done
//!     └── no slot, .. ────────┴── failure, 421 ──▶ Slow: Exchange::run
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use http::{Response, StatusCode};

use super::request::{Exchange, Sending, Standing, Ticket};
use crate::error::Error;
use crate::origin::Key;
use crate::session::Body;

/// See the module's text.
pub(super) struct Running<O: Key> {
    /// `None` once the slow way has it.
    exchange: Option<Exchange<O>>,
    stage: Stage<O>,
}

enum Stage<O: Key> {
    Ready(Ticket<O>),
    Sent(Sending),
    Slow(Slow),
}

impl<O: Key> Running<O> {
    pub(super) fn new(exchange: Exchange<O>, ticket: Ticket<O>) -> Self {
        Self {
            exchange: Some(exchange),
            stage: Stage::Ready(ticket),
        }
    }

    /// The first attempt.
    fn start(exchange: &mut Option<Exchange<O>>, ticket: Ticket<O>) -> Stage<O> {
        let begun = exchange.as_mut().map(|exchange| exchange.begin(ticket));
        match begun {
            Some(Ok(sending)) => Stage::Sent(sending),
            Some(Err(standing)) => run_on(exchange, *standing),
            None => never(),
        }
    }
}

type Slow = BoxFuture<'static, Result<Response<Body>, Error>>;

/// Hands the exchange over.
fn run_on<O: Key>(exchange: &mut Option<Exchange<O>>, standing: Standing<O>) -> Stage<O> {
    exchange.take().map_or_else(never, |mut exchange| {
        Stage::Slow(Box::pin(async move { exchange.run(standing).await }))
    })
}

/// Polled after its end, as futures may not be.
fn never<O: Key>() -> Stage<O> {
    Stage::Slow(Box::pin(std::future::pending()))
}

impl<O: Key> Future for Running<O> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.stage {
                Stage::Ready(ticket) => {
                    let ticket = std::mem::replace(ticket, Ticket::Nothing);
                    this.stage = Self::start(&mut this.exchange, ticket);
                }
                Stage::Sent(sending) => {
                    let Some(exchange) = &mut this.exchange else {
                        return Poll::Pending;
                    };
                    match ready!(sending.poll(&mut exchange.body, cx)) {
                        Ok(response) if response.status() != StatusCode::MISDIRECTED_REQUEST => {
                            exchange.let_go();
                            return Poll::Ready(Ok(response));
                        }
                        sent => {
                            this.stage = run_on(&mut this.exchange, Standing::after(sent));
                        }
                    }
                }
                Stage::Slow(future) => return future.as_mut().poll(cx),
            }
        }
    }
}
