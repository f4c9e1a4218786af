//! The async shell: [`H2Pool`] and what it is made of.
//!
//! It decides nothing: every decision is `crate::state`'s, made under the one mutex of an origin (`shared.rs`). The
//! shell dials (`dial.rs`), keeps runtimes and timers (`runtime.rs`), finds origins (`registry.rs`), waits for slots
//! (`lease.rs`, `acquire.rs`), sends requests (`request.rs`, `misdirected.rs`) and shows what there is (`sight.rs`).

mod acquire;
mod core;
mod dial;
mod entry;
mod fallback;
mod handle;
#[allow(unreachable_pub, reason = "the model checker sees it from outside")]
mod lease;
#[allow(unreachable_pub, reason = "the model checker sees it from outside")]
mod members;
mod misdirected;
mod origin_pool;
#[allow(unreachable_pub, reason = "the model checker sees it from outside")]
mod registry;
mod replay;
mod request;
mod running;
mod runtime;
mod service;
mod settings;
#[allow(unreachable_pub, reason = "the model checker sees it from outside")]
mod shared;
mod sight;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use bytes::Buf;
use http::{Request, Response};

use self::acquire::{Held, Permit, Waited, Want};
use self::entry::Entry;
use self::handle::Lifeline;
use self::lease::Right;
use self::request::{Exchange, Ticket};
use self::running::Running;
use self::shared::run;
use crate::builder::Builder;
use crate::clock;
use crate::config::PoolConfig;
use crate::error::{BoxError, Error};
use crate::origin::{Key, Origin};
use crate::session::Body;

pub(crate) use self::core::Core;
pub(crate) use self::fallback::Fallback;
pub use self::fallback::RequestBody;
pub use self::origin_pool::OriginPool;
pub use self::service::ResponseFuture;

/// A pool of HTTP/2 sessions, with HTTP/1.1 where an origin speaks nothing else.
///
/// A handle: clones share the sessions. It is a [`tower::Service`](tower_service::Service) of requests with any body,
/// is safe in a `static` and on several tokio runtimes at once, and starts nothing before its first request. When the
/// last handle goes, idle sessions end at once and the others with their last stream.
///
/// ```no_run
/// use http_body_util::{BodyExt, Empty};
///
/// # async fn get() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = h2pool::H2Pool::builder().max_sessions(8).build()?;
/// let request = http::Request::get("https://example.com/").body(Empty::<bytes::Bytes>::new())?;
/// let response = pool.request(request).await?;
/// let body = response.into_body().collect().await?.to_bytes();
/// # Ok(())
/// # }
/// ```
pub struct H2Pool<O: Key = Origin> {
    lifeline: Arc<Lifeline<O>>,
}

impl H2Pool<Origin> {
    /// Builds a pool whose sessions are shared by origin. For another key: `Builder::<MyKey>::new()`.
    pub fn builder() -> Builder<Origin> {
        Builder::new()
    }

    /// A pool with all defaults: TCP with TLS verified by the platform.
    ///
    /// # Errors
    /// `is_config()` when the crate was built without the features `tcp` and `tls`, since it then has no connector.
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// A handle of the process-wide pool, which is made with the default configuration if there is none.
    ///
    /// Each call is a handle of its own: its [`close`](Self::close) and [`is_closed`](Self::is_closed) are shared with
    /// its clones and nobody else. The last handle to close, or to go, ends the sessions; the next call starts afresh. So
    /// keep the handle: one that is taken for a single request, where nobody else holds one, opens a connection for it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn shared() -> Result<Self, Error> {
        Self::join(PoolConfig::default(), true)
    }

    /// The same with a configuration.
    ///
    /// # Errors
    /// `is_config()` when the process-wide pool exists with another configuration, or when this one is not valid.
    pub fn shared_with(config: PoolConfig) -> Result<Self, Error> {
        Self::join(config, false)
    }

    fn join(config: PoolConfig, any: bool) -> Result<Self, Error> {
        let fresh = Self::builder().config(config).core()?;
        Ok(Self {
            lifeline: Lifeline::join(fresh, any)?,
        })
    }
}

impl<O: Key> H2Pool<O> {
    pub(crate) fn of(core: Arc<Core<O>>) -> Self {
        Self {
            lifeline: Lifeline::new(core),
        }
    }

    fn core(&self) -> &Arc<Core<O>> {
        self.lifeline.core()
    }

    /// A service for one origin, with readiness that holds a slot.
    #[must_use]
    pub fn origin(&self, key: O) -> OriginPool<O> {
        OriginPool::new(self.lifeline.clone(), key)
    }

    /// The right to open one stream, for those who write their own client.
    ///
    /// # Errors
    /// `is_saturated()` when `max_waiters` callers wait already, or when all of `max_origins` are busy with others;
    /// `is_timeout()` after `acquire_timeout`; `is_connect()` when the dial that the caller depended on failed;
    /// `is_h1_only()` where requests go to a `fallback`, or nowhere, because the origin speaks only HTTP/1.1;
    /// `is_closed()`; and `is_config()` outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped, the wait leaves the queue at once; a slot on its way goes to the next caller.
    pub async fn acquire(&self, key: &O) -> Result<Lease<O>, Error> {
        let entry = self.lifeline.entry(key)?;
        if entry.goes_elsewhere() {
            return Err(entry.name(self.core().only_h1()));
        }
        let want = Want {
            empty: true,
            first: false,
        };
        let (right, permit) = match entry.try_lease(want) {
            Ok(right) => (right, None),
            Err(mut entry) => {
                let waited = pin!(Waited::default());
                let Held { slot, permit } =
                    self.lifeline.acquire(&mut entry, want, waited, &mut None).await?;
                (slot.into_right(), permit)
            }
        };
        Ok(Lease {
            right,
            permit,
            lifeline: self.lifeline.clone(),
        })
    }

    /// Opens sessions ahead of need: at least `count`, within `max_sessions`. Returns at once; the dials run in the
    /// background. Does nothing for an origin that a `fallback` serves.
    ///
    /// # Errors
    /// `is_closed()`, and `is_config()` outside a tokio runtime. A dial that fails is no error: a request that needs
    /// it will tell.
    pub fn warm(&self, key: &O, count: usize) -> Result<(), Error> {
        let entry = self.lifeline.entry(key)?;
        let (_, caller) = entry.caller(true, false)?;
        if entry.goes_elsewhere() {
            return Ok(());
        }
        let (count, now) = (u32::try_from(count).unwrap_or(u32::MAX), clock::now());
        run(&entry, |inner| inner.state.warm(caller, count, now));
        Ok(())
    }

    /// Whether the origin is remembered to speak only HTTP/1.1.
    #[must_use]
    pub fn is_h1_only(&self, key: &O) -> bool {
        self.core().h1_only.lock().get(key, clock::now()).is_some()
    }

    /// Remembers that the origin speaks only HTTP/1.1, for `h1_only_ttl` from now; where that is 0, nothing changes.
    pub fn mark_h1_only(&self, key: &O) {
        let now = clock::now();
        if let Some(until) = self.core().mark_h1_only(key, now) {
            self.core().set_h1_only(key, Some(until), now);
        }
    }

    /// Forgets it: the next dial offers h2 again. Returns whether it was remembered.
    pub fn clear_h1_only(&self, key: &O) -> bool {
        self.core().clear_h1_only(key)
    }

    /// Closes the pool: new work is refused and waiters fail, both with `is_closed()`; connections being opened are given
    /// up; running streams may finish within `drain_timeout`, then they are ended. Twice is harmless.
    pub fn close(&self) {
        self.lifeline.close();
    }

    /// Whether the pool was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lifeline.is_closed()
    }

    /// Resolves once a closed pool has no session and no dial left; never, while it is open. (The process-wide pool is
    /// open as long as one of its handles is.)
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) {
        self.core().wait_ended().await;
    }
}

impl<O: Key> Clone for H2Pool<O> {
    fn clone(&self) -> Self {
        Self {
            lifeline: self.lifeline.clone(),
        }
    }
}

impl<O: Key> fmt::Debug for H2Pool<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Pool")
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// The right to open exactly one stream on one session. Dropped unused, it gives its slot to the next caller. While it is
/// out its session does not idle out.
///
/// A lease that was taken on a single-thread runtime may be one on a session that this runtime drives: used elsewhere, it
/// stands still whenever nobody blocks on that runtime.
///
/// ```
/// use http_body_util::Empty;
///
/// # async fn send(pool: h2pool::H2Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let lease = pool.acquire(&"https://example.com".parse()?).await?;
/// let request = http::Request::get("https://example.com/").body(Empty::<bytes::Bytes>::new())?;
/// let response = lease.send(request).await?;
/// # Ok(())
/// # }
/// ```
pub struct Lease<O: Key = Origin> {
    right: Right<Entry<O>>,
    permit: Option<Permit>,
    lifeline: Arc<Lifeline<O>>,
}

impl<O: Key> Lease<O> {
    /// Sends a request on the leased session, whatever origin its URI names. A session that was lost in the meantime, or
    /// takes no more requests, is exchanged for another, at the front of the queue; replays are the same as of
    /// [`H2Pool::request`].
    ///
    /// # Errors
    /// The same as of [`H2Pool::request`].
    ///
    /// # Cancel safety
    /// Dropped, the stream is reset.
    pub async fn send<B>(self, request: Request<B>) -> Result<Response<Body>, Error>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<BoxError>,
    {
        let entry = self.right.env().clone();
        if self.lifeline.is_closed() {
            return Err(entry.name(self::core::closed()));
        }
        let (parts, body) = request.into_parts();
        let mut exchange = Exchange::new(self.lifeline, entry, parts, body)?;
        let (right, permit) = (self.right, self.permit);
        let ticket = match right.claim() {
            Some(slot) => Ticket::Held(Held { slot, permit }),
            None => {
                exchange.keep(permit);
                Ticket::Returning
            }
        };
        Running::new(exchange, ticket).await
    }
}

impl<O: Key> fmt::Debug for Lease<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("origin", self.right.env().key.origin())
            .finish_non_exhaustive()
    }
}
