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
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use http::{Response, StatusCode};

use super::acquire::{Held, Waited};
use super::entry::Entry;
use super::lease::Slot;
use super::request::{Exchange, Sending, Standing};
use crate::error::Error;
use crate::origin::Key;
use crate::session::Body;

/// What a caller comes with.
pub(super) enum Ticket<O: Key> {
    Nothing,
    /// It had its turn.
    Returning,
    /// A slot, without the permit of `limit_concurrency`.
    Slot(Slot<Entry<O>>),
    Held(Held<O>),
}

/// See the module's text.
pub(super) struct Running<O: Key> {
    /// `None` once the slow way has it.
    exchange: Option<Exchange<O>>,
    stage: Stage<O>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the future is boxed as a whole, and this is its usual state"
)]
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
        let (held, first) = match ticket {
            Ticket::Nothing => (None, false),
            Ticket::Returning => (None, true),
            Ticket::Held(held) => (Some(held), true),
            Ticket::Slot(slot) if slot.env().core.permits.is_none() => {
                (Some(Held { slot, permit: None }), true)
            }
            Ticket::Slot(slot) => {
                return slow(exchange, |mut exchange| {
                    Box::pin(async move {
                        let held = exchange
                            .lifeline
                            .with_permit(slot, pin!(Waited::new(true)))
                            .await?;
                        exchange.run(Standing::with(Some(held), true)).await
                    })
                });
            }
        };
        let begun = exchange.as_mut().map(|exchange| exchange.begin(held, first));
        match begun {
            Some(Ok(sending)) => Stage::Sent(sending),
            Some(Err(standing)) => run_on(exchange, *standing),
            None => never(),
        }
    }
}

type Slow = BoxFuture<'static, Result<Response<Body>, Error>>;

/// Hands the exchange over.
fn slow<O: Key>(exchange: &mut Option<Exchange<O>>, run: impl FnOnce(Exchange<O>) -> Slow) -> Stage<O> {
    exchange
        .take()
        .map_or_else(never, |exchange| Stage::Slow(run(exchange)))
}

fn run_on<O: Key>(exchange: &mut Option<Exchange<O>>, standing: Standing<O>) -> Stage<O> {
    slow(exchange, |mut exchange| {
        Box::pin(async move { exchange.run(standing).await })
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
                            return Poll::Ready(Ok(response));
                        }
                        sent => {
                            let standing = Standing {
                                held: None,
                                first: true,
                                sent: Some(sent),
                            };
                            this.stage = run_on(&mut this.exchange, standing);
                        }
                    }
                }
                Stage::Slow(future) => return future.as_mut().poll(cx),
            }
        }
    }
}
