//! Dials: opening a connection and running its session, in one task.
//!
//! A dial belongs to the pool (P8): no caller can abort it. It runs on the runtime that the state chose, that of a
//! waiter that it is for. The [`Dial`] guard tells the state how it ended, whatever happens: an error, a timeout, a
//! panicking connector, or a runtime that ended underneath.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::Version;
use tracing::Instrument;

use super::core::AliveGuard;
use super::entry::{Entry, Session, Wire};
use super::runtime::Mourner;
use super::shared::run;
use crate::clock;
use crate::connect::{Connection, Offer};
use crate::error::{Chain, Error, Kind};
use crate::origin::{Key, Origin};
use crate::session::link::Address;
#[cfg(feature = "http1")]
use crate::session::{drive_h1, handshake_h1};
use crate::session::{drive_h2, handshake_h2};
use crate::state::{DialEnd, DialOrder, Protocol, SessionId};
use crate::stats::{CloseReason, SessionProtocol};

/// Starts a dial on the runtime that is to run it.
pub(super) fn start<O: Key>(entry: &Arc<Entry<O>>, order: DialOrder) {
    let alive = entry.core.one_more();
    let dial = Dial {
        entry: entry.clone(),
        order,
        open: true,
        _alive: alive,
    };
    match entry.core.runtimes.get(order.runtime) {
        // A runtime that has ended drops the future, and the guard in it says so.
        Some(runtime) => {
            // Of no caller's span: it would stay open as long as the session.
            let span = tracing::debug_span!(
                target: "h2pool",
                parent: None,
                "session",
                origin = %entry.key.origin()
            );
            drop(runtime.handle().spawn(dial.run().instrument(span)));
        }
        None => drop(dial),
    }
}

/// The right to dial, and the duty to say how it ended.
struct Dial<O: Key> {
    entry: Arc<Entry<O>>,
    order: DialOrder,
    open: bool,
    _alive: AliveGuard<O>,
}

impl<O: Key> Dial<O> {
    async fn run(mut self) {
        let core = self.entry.core.clone();
        let entry = self.entry.clone();
        // In a box that goes when the session begins, whose task lasts.
        // Caught here, a panic of the connector, or of what it leaves behind, is told from that of a thread whose runtime
        // goes with it.
        let connected = AssertUnwindSafe(Box::pin(self.connect())).catch_unwind().await;
        let opened = match connected {
            Ok(Some(opened)) => opened,
            // Nobody wants it any more; the guard says so.
            Ok(None) => return,
            Err(_) => Err(Error::new(Kind::Connect, "the connector panicked")),
        };
        match opened {
            Ok(Opened::H2(session, driver)) => {
                if self.order.h1_only {
                    core.h1_only.lock().clear(&entry.key);
                }
                if let Some(id) = self.install(Protocol::H2, Wire::H2(session), false) {
                    drive_h2(*driver, entry, id).await;
                }
            }
            #[cfg(feature = "http1")]
            Ok(Opened::H1(session, driver, authenticated)) => {
                if let Some(id) = self.install(Protocol::H1, Wire::H1(session), authenticated) {
                    drive_h1(driver, entry, id).await;
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Connects within `connect_timeout`; `None`: the pool was closed meanwhile.
    async fn connect(&self) -> Option<Result<Opened, Error>> {
        let core = &self.entry.core;
        let dial = tokio::time::timeout(core.config.connect_timeout, open(&self.entry, self.order));
        let opened = tokio::select! {
            biased;
            opened = dial => opened,
            () = core.wait_closing() => return None,
        };
        Some(opened.unwrap_or_else(|elapsed| {
            let message = "no connection could be opened within `connect_timeout`";
            Err(Error::new(Kind::Connect, message)
                .with_timeout()
                .with_source(elapsed))
        }))
    }

    /// The session is there: it takes work from now on.
    fn install(&mut self, protocol: Protocol, wire: Wire, h1_only: bool) -> Option<SessionId> {
        self.open = false;
        let entry = &self.entry;
        let now = clock::now();
        // Where nothing else was offered, the answer proves nothing: what is remembered lasts no longer for it.
        let until = if h1_only && !self.order.h1_only {
            entry.core.mark_h1_only(&entry.key, now)
        } else {
            None
        };
        let tally = Arc::new(entry.tally.session_opened(protocol.into()));
        let session = Arc::new(Session {
            wire,
            tally,
            opened_at: now,
        });
        let (order, handle) = (self.order, session.clone());
        let id = run(entry, |inner| {
            // First, so that the dials that follow from it offer nothing else.
            if until.is_some() {
                inner.state.set_h1_only(until, now);
            }
            let id = inner.state.handle_dialed(order.id, protocol, now)?;
            let before = inner.set_handle(id, handle);
            debug_assert!(before.is_none(), "the slot of a session was free");
            Some(id)
        });
        tracing::debug!(
            target: "h2pool",
            origin = %entry.key.origin(),
            session = session.address().session,
            protocol = %SessionProtocol::from(protocol),
            "session opened"
        );
        if id.is_none() {
            // One that nobody wants any more; the end of a pool is the pool's own.
            let (reason, cause) = match entry.core.is_closed() {
                true => (CloseReason::Closed, super::core::closed()),
                false => {
                    let message = "the origin speaks HTTP/1.1, has enough sessions, or the caller left";
                    (CloseReason::Unused, Error::new(Kind::Io, message))
                }
            };
            let reason = session.tally.closed(reason, Duration::ZERO);
            entry.tell_ended(&session, reason, &entry.name(cause));
        }
        id
    }

    fn fail(&mut self, error: Error) {
        self.open = false;
        let error = self.entry.name(error);
        let now = clock::now();
        tracing::debug!(
            target: "h2pool",
            origin = %self.entry.key.origin(),
            error = %Chain(&error),
            kind = error.kind_name(),
            "dial failed"
        );
        let end = if error.is_h1_only() {
            DialEnd::H1Only(error)
        } else {
            DialEnd::Failed(error)
        };
        if let DialEnd::Failed(error) = &end {
            self.entry.tally.dial_failed(error.kind_name());
        }
        let id = self.order.id;
        // Its causes are the connector's: the last reference never goes under the lock.
        let _kept = match &end {
            DialEnd::Failed(error) | DialEnd::H1Only(error) => Some(error.clone()),
            DialEnd::Aborted => None,
        };
        run(&self.entry, |inner| inner.state.handle_dial_ended(id, end, now));
    }
}

impl<O: Key> Drop for Dial<O> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (entry, order, now) = (&self.entry, self.order, clock::now());
        let closed = entry.core.is_closed();
        if !closed {
            entry.core.clone().runtime_ended(order.runtime);
        }
        run(entry, |inner| {
            if !closed {
                inner.state.handle_runtime_ended(order.runtime, now);
            }
            inner.state.handle_dial_ended(order.id, DialEnd::Aborted, now);
        });
    }
}

enum Opened {
    H2(Arc<crate::session::H2>, Box<crate::session::H2Driver>),
    #[cfg(feature = "http1")]
    H1(Arc<crate::session::H1>, crate::session::H1Driver, bool),
}

/// Connects, and shakes hands in the protocol that was agreed on.
async fn open<O: Key>(entry: &Entry<O>, order: DialOrder) -> Result<Opened, Error> {
    let core = &entry.core;
    let offer = if order.h1_only {
        entry.tally.h1_only_hit();
        // It is used, and not the first to be forgotten.
        core.h1_only.lock().get(&entry.key, clock::now());
        Offer::H1
    } else {
        Offer::Any
    };
    let connected = core.connector.connect(&entry.key, offer).await;
    let connection = connected.map_err(|error| of_connector(error, entry.key.origin()))?;
    let address = address(&connection, entry.key.origin());
    if connection.version == Version::HTTP_2 {
        let (session, driver) = handshake_h2(connection, &core.tuning, address).await?;
        return Ok(Opened::H2(session, Box::new(driver)));
    }
    open_h1(entry, connection, address).await
}

/// A connector may be built on a pool, and pass on errors that say nothing about this one: of its streams, or of another
/// origin, a proxy's.
fn of_connector(error: Error, origin: &Origin) -> Error {
    let elsewhere = error.origin().is_some_and(|named| named != origin.to_string());
    if !elsewhere && (error.is_connect() || error.is_config() || error.is_h1_only()) {
        return error;
    }
    let kind = match error.kind() {
        lasting @ (Kind::Certificate | Kind::Config) => lasting,
        _ => Kind::Connect,
    };
    let late = error.is_timeout();
    let failed = Error::new(kind, "the connector failed").with_source(error);
    if late { failed.with_timeout() } else { failed }
}

#[cfg(feature = "http1")]
async fn open_h1<O: Key>(
    entry: &Entry<O>,
    connection: Connection,
    address: Arc<Address>,
) -> Result<Opened, Error> {
    if entry.core.fallback.is_some() {
        return Err(h1_elsewhere(entry, &connection));
    }
    let authenticated = connection.authenticated;
    let (session, driver) = handshake_h1(connection, &entry.core.tuning, address).await?;
    Ok(Opened::H1(session, driver, authenticated))
}

#[cfg(not(feature = "http1"))]
async fn open_h1<O: Key>(
    entry: &Entry<O>,
    connection: Connection,
    _address: Arc<Address>,
) -> Result<Opened, Error> {
    Err(h1_elsewhere(entry, &connection))
}

/// HTTP/1.1 is the fallback's business, or nobody's.
fn h1_elsewhere<O: Key>(entry: &Entry<O>, connection: &Connection) -> Error {
    if connection.authenticated {
        entry.core.mark_h1_only(&entry.key, clock::now());
    }
    entry.core.only_h1()
}

fn address(connection: &Connection, origin: &Origin) -> Arc<Address> {
    static SESSIONS: AtomicU64 = AtomicU64::new(1);
    let version = if connection.version == Version::HTTP_2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    Arc::new(Address {
        session: SESSIONS.fetch_add(1, Ordering::Relaxed),
        origin: origin.clone(),
        version,
        peer: connection.peer_addr,
        local: connection.local_addr,
        authenticated: connection.authenticated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connector_says_of_another_origin_is_not_said_of_this_one() {
        // P27, P41: its proxy's HTTP/1.1 would send the requests past the proxy, to the fallback.
        let origin: Origin = "https://a".parse().unwrap();
        let error = |kind| Error::new(kind, "said");
        let own = of_connector(error(Kind::H1Only).with_origin(&origin), &origin);
        assert!(own.is_h1_only(), "{own:?}");
        let proxys = |kind| of_connector(error(kind).with_origin("http://proxy:80"), &origin);
        let h1 = proxys(Kind::H1Only);
        assert!(h1.is_connect() && h1.is_transient() && !h1.is_h1_only(), "{h1:?}");
        assert!(proxys(Kind::Config).is_config());
        assert!(proxys(Kind::Certificate).is_certificate());
        for error in [&h1, &proxys(Kind::Config)] {
            assert_eq!(error.origin(), None, "the dial names its own");
            let cause = std::error::Error::source(error).unwrap();
            assert!(cause.to_string().contains("said"), "{cause}");
        }
        let late = of_connector(
            error(Kind::Connect).with_timeout().with_origin("http://proxy:80"),
            &origin,
        );
        assert!(late.is_connect() && late.is_timeout(), "{late:?}");
    }
}
