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
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::{Request, Response};
use tokio::sync::futures::OwnedNotified;
use tower_service::Service;

use super::acquire::{Waited, Waiting, failed};
use super::core::closed;
use super::entry::Entry;
use super::handle::Lifeline;
use super::lease::{Queue, Refusal};
use super::request::{Exchange, Ticket};
use super::running::Running;
use super::runtime::Runtime;
use super::service::ResponseFuture;
use crate::error::{BoxError, Error};
use crate::origin::{Key, Origin};
use crate::session::Body;
use crate::state::{Caller, Failure};
use crate::stats::{Left, Tally};

/// A service for one origin, made by [`H2Pool::origin`](crate::H2Pool::origin).
///
/// `poll_ready` waits for a slot, so that tower's `load_shed`, `buffer`, `concurrency_limit` and `balance` work as they
/// should; [`Load`](tower::load::Load) is the number of streams in use and callers waiting. Requests go to this origin
/// whatever authority their URI names; a URI without one gets the origin's.
///
/// (`load_shed` refuses whatever would have to wait, the first request of an origin too, which waits for a connection:
/// [`warm`](crate::H2Pool::warm) it.)
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
    Waiting(Wait<O>),
    Held(Queue<Entry<O>>),
    /// The origin speaks only HTTP/1.1, which a fallback takes.
    Elsewhere,
    /// To be returned by the next call.
    Failed(Error),
}

/// A place in the queue, and what may end the wait before its turn comes.
struct Wait<O: Key> {
    queue: Queue<Entry<O>>,
    /// Where it was polled last.
    runtime: Arc<Runtime>,
    caller: Caller,
    /// `None` until it really waits.
    waited: Option<Pin<Box<Waited>>>,
    /// The same.
    counted: Option<Waiting<Tally>>,
    /// The handle is closed, which the origin does not tell where other handles share it.
    closing: Option<Pin<Box<OwnedNotified>>>,
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

    /// Waits until the service is ready: what `tower::ServiceExt::ready` does, without naming the type of the body. So
    /// `service.ready().await?.call(request).await` can be spawned also where the body's error is a
    /// `Box<dyn Error + Send + Sync>`, and `oneshot` cannot.
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
            if let Readiness::Waiting(wait) = &mut self.ready {
                wait.leave(Left::Failed);
            }
            self.ready = Readiness::Idle;
            return Poll::Ready(Err(closed().with_origin(self.key.origin())));
        }
        if let Readiness::Idle = self.ready {
            match self.ask() {
                Ok(Some(wait)) => self.ready = Readiness::Waiting(wait),
                Ok(None) => self.ready = Readiness::Elsewhere,
                Err(error) => self.ready = Readiness::Failed(error),
            }
        }
        let Readiness::Waiting(wait) = &mut self.ready else {
            return Poll::Ready(Ok(()));
        };
        let entry = wait.queue.env().clone();
        match wait.poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ended::Again) => {
                self.ready = Readiness::Idle;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Ended::Held) => {
                if let Readiness::Waiting(wait) = std::mem::replace(&mut self.ready, Readiness::Idle) {
                    self.ready = Readiness::Held(wait.queue);
                }
            }
            Poll::Ready(Ended::Failed(error)) if error.is_h1_only() && entry.core.fallback.is_some() => {
                self.ready = Readiness::Elsewhere;
            }
            Poll::Ready(Ended::Failed(error)) => self.ready = Readiness::Failed(error),
        }
        Poll::Ready(Ok(()))
    }

    /// `entry` is where readiness found its slot.
    fn exchange<B>(&self, request: Request<B>, entry: Option<Arc<Entry<O>>>) -> Result<Exchange<O>, Error>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<BoxError>,
    {
        let entry = match entry.filter(|_| !self.lifeline.is_closed()) {
            Some(entry) => entry,
            None => self.lifeline.entry(&self.key)?,
        };
        let (parts, body) = request.into_parts();
        Exchange::new(self.lifeline.clone(), entry, parts, body)
    }

    /// A place in the queue, unless no slot is needed.
    fn ask(&self) -> Result<Option<Wait<O>>, Error> {
        // Before the handle is found open, so that no closing is missed.
        let closing = self.lifeline.closing().map(Box::pin);
        let entry = self.lifeline.entry(&self.key)?;
        if entry.goes_elsewhere() {
            return Ok(None);
        }
        let (runtime, caller) = entry.caller(true, true)?;
        Ok(Some(Wait {
            queue: Queue::last(entry, caller),
            runtime,
            caller,
            waited: None,
            counted: None,
            closing,
        }))
    }
}

/// How a wait ended.
enum Ended {
    /// With a slot, softly held.
    Held,
    /// The origin was forgotten for want of use, or the handle was closed: a fresh look tells which.
    Again,
    Failed(Error),
}

impl Ended {
    fn outcome(&self) -> Left {
        match self {
            Self::Held => Left::Served,
            Self::Again => Left::Failed,
            Self::Failed(error) => failed(error),
        }
    }
}

impl<O: Key> Wait<O> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let ended = ready!(self.poll_end(cx));
        self.leave(ended.outcome());
        Poll::Ready(ended)
    }

    fn leave(&mut self, outcome: Left) {
        if let Some(waiting) = self.counted.take() {
            waiting.end(outcome);
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let entry = self.queue.env().clone();
        if !self.runtime.is_current() {
            match entry.caller(true, true) {
                Ok(here) => (self.runtime, self.caller) = here,
                Err(error) => return Poll::Ready(Ended::Failed(error)),
            }
        }
        match self.queue.poll_ready(cx, self.caller) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ended::Held),
            Poll::Ready(Err(Refusal::Closed | Refusal::Failed(Failure::Closed))) => {
                return Poll::Ready(Ended::Again);
            }
            Poll::Ready(Err(refusal)) => return Poll::Ready(Ended::Failed(entry.refused(refusal))),
            Poll::Pending => {}
        }
        let waited = self.waited.get_or_insert_with(|| Box::pin(Waited::default()));
        if waited.as_mut().let_in() {
            self.counted = Some(Waiting::start(entry.tally.clone()));
            entry.arm_here(&self.runtime);
        }
        waited.as_mut().resume(&entry);
        if let Some(closing) = &mut self.closing {
            if closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ended::Again);
            }
        }
        let here = Some(self.runtime.handle().id());
        let late = waited.as_mut().poll_timeout(&entry, here, cx);
        late.map(|()| Ended::Failed(entry.timed_out("a slot")))
    }
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
        // Now: from here on the slot is the call's, polled or not.
        let (entry, ticket) = match ready {
            Readiness::Held(queue) => {
                let entry = queue.env().clone();
                let slot = queue.firm_up(entry.caller_here());
                // One that was taken back: first in the queue.
                (Some(entry), slot.map_or(Ticket::Returning, Ticket::Slot))
            }
            _ => (None, Ticket::Nothing),
        };
        match self.exchange(request, entry) {
            Ok(exchange) => ResponseFuture::new(Running::new(exchange, ticket)),
            Err(error) => ResponseFuture::new(std::future::ready(Err(error))),
        }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio_test::task::spawn;

    use super::super::core::Core;
    use super::super::members::Members;
    use super::*;
    use crate::Builder;
    use crate::connect::memory::pair;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_when_its_handle_is_closed_and_others_wait_on() {
        // P29, P35
        static POOLS: Members<Arc<Core<Origin>>> = Members::new();
        let (connector, mut listener) = pair::<Origin>();
        let core = Builder::new().connector(connector).core().unwrap();
        let closing = Lifeline::join_in(&POOLS, core.clone(), true).unwrap();
        let staying = Lifeline::join_in(&POOLS, core, true).unwrap();
        let key: Origin = "https://a".parse().unwrap();
        let mut one = OriginPool::new(closing.clone(), key.clone());
        let mut two = OriginPool::new(staying, key);
        let mut one = spawn(poll_fn(|cx| one.poll_slot(cx)));
        let mut two = spawn(poll_fn(|cx| two.poll_slot(cx)));
        assert!(one.poll().is_pending() && two.poll().is_pending());
        let _dial = listener.accept().await.unwrap();
        assert!(!one.is_woken());
        closing.close();
        assert!(one.is_woken() && !two.is_woken());
        assert!(matches!(one.poll(), Poll::Ready(Err(error)) if error.is_closed()));
        assert!(two.poll().is_pending());
    }

    fn get() -> Request<http_body_util::Empty<bytes::Bytes>> {
        Request::get("https://a/")
            .body(http_body_util::Empty::new())
            .unwrap()
    }

    /// A server that answers with 421 as often as it says, and then not any more.
    async fn serve(io: tokio::io::DuplexStream, misdirected: usize) {
        let mut server = h2::server::handshake(io).await.unwrap();
        let mut kept = Vec::new();
        while let Some(Ok((_, mut respond))) = server.accept().await {
            if kept.len() < misdirected {
                let response = Response::builder().status(421).body(()).unwrap();
                respond.send_response(response, true).unwrap();
            }
            kept.push(respond);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_its_permit_ends_when_its_handle_is_closed() {
        // P15, P20, P35
        static POOLS: Members<Arc<Core<Origin>>> = Members::new();
        let (connector, mut listener) = pair::<Origin>();
        let builder = Builder::new().connector(connector).limit_concurrency(1);
        let core = builder.core().unwrap();
        let closing = Lifeline::join_in(&POOLS, core.clone(), true).unwrap();
        let staying = Lifeline::join_in(&POOLS, core, true).unwrap();
        let key: Origin = "https://a".parse().unwrap();
        let mut holder = OriginPool::new(staying, key.clone());
        let mut running = spawn(holder.call(get()));
        assert!(running.poll().is_pending());
        let io = listener.accept().await.unwrap().accept(http::Version::HTTP_2);
        tokio::spawn(serve(io, 0));
        let mut service = OriginPool::new(closing.clone(), key);
        service.ready().await.unwrap();
        assert!(running.poll().is_pending());
        let mut call = spawn(service.call(get()));
        assert!(call.poll().is_pending());
        closing.close();
        assert!(call.is_woken());
        assert!(matches!(call.poll(), Poll::Ready(Err(error)) if error.is_closed()));
        assert!(running.poll().is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_misdirected_call_is_answered_as_it_is_when_its_handle_is_closed() {
        // P20, P23, P35: a session of its own is not waited for any more.
        static POOLS: Members<Arc<Core<Origin>>> = Members::new();
        let (connector, mut listener) = pair::<Origin>();
        let core = Builder::new().connector(connector).core().unwrap();
        let closing = Lifeline::join_in(&POOLS, core.clone(), true).unwrap();
        let _staying = Lifeline::join_in(&POOLS, core, true).unwrap();
        let mut service = OriginPool::new(closing.clone(), "https://a".parse().unwrap());
        let call = tokio::spawn(service.call(get()));
        let io = listener.accept().await.unwrap().accept(http::Version::HTTP_2);
        tokio::spawn(serve(io, 1));
        let _never_answered = listener.accept().await.unwrap();
        let before = crate::clock::now();
        closing.close();
        assert_eq!(call.await.unwrap().unwrap().status(), 421);
        assert_eq!(crate::clock::now(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_outlives_an_origin_that_was_forgotten_as_somebody_came() {
        // P29, P39: it was found idle; who had looked it up by then waits at its successor, whatever came first.
        let (connector, _listener) = pair::<Origin>();
        let core = Builder::new().connector(connector).core().unwrap();
        let lifeline = Lifeline::new(core.clone());
        let key: Origin = "https://a".parse().unwrap();
        for queued in [false, true] {
            let mut service = OriginPool::new(lifeline.clone(), key.clone());
            let entry = core.entry(&key).unwrap();
            let wait = service.ask().unwrap().unwrap();
            service.ready = Readiness::Waiting(wait);
            let mut poll = spawn(poll_fn(|cx| service.poll_slot(cx)));
            assert!(!queued || poll.poll().is_pending());
            core.origins.clear();
            entry.evict();
            assert!(poll.poll().is_pending() && poll.is_woken());
            assert!(poll.poll().is_pending());
            drop(poll);
            assert_eq!(tower::load::Load::load(&service), 1, "it waits there");
        }
    }
}
