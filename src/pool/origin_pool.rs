//! One origin of a pool as a service of its own, with readiness that means something (P29).
//!
//! Readiness holds a slot softly: the state may give it to somebody who needs it now, and `call` then acquires again,
//! ahead of newer callers. An error from readiness would kill a `Buffer` and drop a `balance` endpoint for good, so
//! there is only one: the handle is closed. Whatever else goes wrong makes the service ready and is returned by the
//! next `call`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use http::{Request, Response};
use tokio::time::Sleep;
use tower_service::Service;

use super::core::{closed, some};
use super::entry::Entry;
use super::handle::Lifeline;
use super::lease::{Queue, Refusal};
use super::request::Exchange;
use super::service::ResponseFuture;
use crate::error::{BoxError, Error};
use crate::origin::{Key, Origin};
use crate::session::{Body, Outgoing};

/// A service for one origin, made by [`H2Pool::origin`](crate::H2Pool::origin).
///
/// `poll_ready` waits for a slot, so that tower's `load_shed`, `buffer`, `concurrency_limit` and `balance` work as they
/// should; [`Load`](tower::load::Load) is the number of streams in use and callers waiting. Requests go to this origin
/// whatever authority their URI names; a URI without one gets the origin's.
///
/// A clone has no slot and no place in the queue. The slot that readiness holds is given to others when somebody waits
/// and nothing is free; `call` then acquires again inside its future, ahead of newer callers. It does not keep a session
/// from idling out.
///
/// # Errors
/// `poll_ready` fails only once the handle is closed. Saturation, `acquire_timeout` and failed dials are returned by
/// the next `call`.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Empty;
/// use tower::Service;
///
/// # async fn send(pool: h2pool::H2Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let mut service = pool.origin("https://example.com".parse()?);
/// let request = Request::get("https://example.com/").body(Empty::<Bytes>::new())?;
/// let response = service.ready().await?.call(request).await?;
/// # Ok(())
/// # }
/// ```
pub struct OriginPool<O: Key = Origin> {
    lifeline: Arc<Lifeline<O>>,
    key: O,
    ready: Readiness<O>,
}

enum Readiness<O: Key> {
    /// Nothing was asked for.
    Idle,
    Waiting(Queue<Entry<O>>, Option<Pin<Box<Sleep>>>),
    Held(Queue<Entry<O>>),
    /// The origin speaks only HTTP/1.1, which a fallback takes.
    Elsewhere,
    /// To be returned by the next call.
    Failed(Error),
}

impl<O: Key> OriginPool<O> {
    pub(super) fn new(lifeline: Arc<Lifeline<O>>, key: O) -> Self {
        Self {
            lifeline,
            key,
            ready: Readiness::Idle,
        }
    }

    /// The key that all requests go to.
    #[must_use]
    pub fn key(&self) -> &O {
        &self.key
    }

    /// Waits until the service is ready: what `tower::ServiceExt::ready` does, without naming the type of the body.
    ///
    /// # Errors
    /// Only once the handle is closed; its `is_closed()` is true.
    ///
    /// # Cancel safety
    /// Dropped, the service keeps its place in the queue until it is polled again, called or dropped.
    pub async fn ready(&mut self) -> Result<&mut Self, Error> {
        std::future::poll_fn(|cx| self.poll_slot(cx)).await?;
        Ok(self)
    }

    fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.lifeline.is_closed() {
            self.ready = Readiness::Idle;
            return Poll::Ready(Err(closed().with_origin(self.key.origin())));
        }
        if let Readiness::Idle = self.ready {
            match self.ask() {
                Ok(Some(queue)) => self.ready = Readiness::Waiting(queue, None),
                Ok(None) => self.ready = Readiness::Elsewhere,
                Err(error) => self.ready = Readiness::Failed(error),
            }
        }
        let Readiness::Waiting(queue, sleep) = &mut self.ready else {
            return Poll::Ready(Ok(()));
        };
        let entry = queue.env().clone();
        let next = match entry.caller(true, true) {
            Err(error) => Err(error),
            Ok((_, caller)) => match queue.poll_ready(cx, caller) {
                Poll::Ready(Ok(())) => Ok(true),
                Poll::Ready(Err(Refusal::Closed)) => {
                    // The origin was forgotten for want of use, or the handle was closed: the next poll tells.
                    self.ready = Readiness::Idle;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Err(refusal)) => Err(entry.refused(refusal)),
                Poll::Pending => match poll_timeout(sleep, &entry, cx) {
                    Poll::Ready(error) => Err(error),
                    Poll::Pending => Ok(false),
                },
            },
        };
        match next {
            Ok(false) => return Poll::Pending,
            Ok(true) => {
                if let Readiness::Waiting(queue, _) = std::mem::replace(&mut self.ready, Readiness::Idle) {
                    self.ready = Readiness::Held(queue);
                }
            }
            Err(error) if error.is_h1_only() && entry.core.fallback.is_some() => {
                self.ready = Readiness::Elsewhere;
            }
            Err(error) => self.ready = Readiness::Failed(error),
        }
        Poll::Ready(Ok(()))
    }

    /// A place in the queue, unless no slot is needed.
    fn ask(&self) -> Result<Option<Queue<Entry<O>>>, Error> {
        let entry = self.lifeline.entry(&self.key)?;
        if entry.goes_elsewhere() {
            return Ok(None);
        }
        let (_, caller) = entry.caller(true, true)?;
        Ok(Some(Queue::last(entry, caller)))
    }
}

fn poll_timeout<O: Key>(
    sleep: &mut Option<Pin<Box<Sleep>>>,
    entry: &Entry<O>,
    cx: &mut Context<'_>,
) -> Poll<Error> {
    let Some(timeout) = some(entry.core.config.acquire_timeout) else {
        return Poll::Pending;
    };
    let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
    sleep.as_mut().poll(cx).map(|()| entry.timed_out("a slot"))
}

impl<O, B> Service<Request<B>> for OriginPool<O>
where
    O: Key,
    B: http_body::Body + Send + 'static,
    B::Data: Buf + Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_slot(cx)
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let ready = std::mem::replace(&mut self.ready, Readiness::Idle);
        if let Readiness::Failed(error) = ready {
            return ResponseFuture::new(async { Err(error) });
        }
        let (lifeline, key) = (self.lifeline.clone(), self.key.clone());
        let (mut parts, body) = request.into_parts();
        ResponseFuture::new(async move {
            let entry = lifeline.entry(&key)?;
            let body = Outgoing::new(body, entry.core.config.replay_buffer);
            super::service::complete(&mut parts, key.origin())?;
            let mut exchange = Exchange::new(lifeline, entry, parts, body);
            match ready {
                Readiness::Held(queue) => match queue.firm_up() {
                    Some(slot) => {
                        let held = exchange.entry.with_permit(slot, None).await?;
                        exchange.run(Some(held), true).await
                    }
                    None => exchange.run(None, true).await,
                },
                _ => exchange.run(None, false).await,
            }
        })
    }
}

impl<O: Key> tower::load::Load for OriginPool<O> {
    type Metric = usize;

    /// Streams in use and callers waiting at this origin.
    fn load(&self) -> usize {
        self.lifeline
            .core()
            .origins
            .get(&self.key)
            .map_or(0, |entry| entry.shared().read(|inner| inner.state.load()))
    }
}

impl<O: Key> Clone for OriginPool<O> {
    fn clone(&self) -> Self {
        Self::new(self.lifeline.clone(), self.key.clone())
    }
}

impl<O: Key> fmt::Debug for OriginPool<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginPool")
            .field("origin", self.key.origin())
            .finish_non_exhaustive()
    }
}
