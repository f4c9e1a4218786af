//! What a session tells the pool, and what it holds of it.
//!
//! Sessions know nothing of pools: they report to an [`Observer`], and their streams carry an [`Occupied`], the erased
//! form of a slot. The generic key of the pool ends here.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Extensions, Version};
use tokio::sync::OwnedSemaphorePermit;

use super::h2::Control;
use crate::error::Error;
use crate::origin::Origin;
use crate::state::SessionId;
use crate::stats::StreamTally;

/// The origin that a session belongs to, as the session sees it. Calls for a session that is gone do nothing.
pub(crate) trait Observer: Send + Sync + 'static {
    /// SETTINGS were applied. Whoever meets the new limit before the driver has told of it does; which limit is the last is
    /// looked at under the origin's lock.
    fn settings(self: Arc<Self>, id: SessionId, control: &Control);
    /// The first response on this session.
    fn answered(self: Arc<Self>, id: SessionId);
    /// A caller gave up a request that the connection cannot outlive: how it ends says nothing about the server.
    fn given_up(self: Arc<Self>, id: SessionId);
    /// The server refused a stream that was opened under its SETTINGS.
    fn refused(self: Arc<Self>, id: SessionId);
    /// The server wants HTTP/1.1.
    fn needs_h1(self: Arc<Self>, id: SessionId);
    /// The server said GOAWAY.
    fn goaway(self: Arc<Self>, id: SessionId, cause: Error);
    /// The connection failed and is about to end: it takes no more streams.
    fn failing(self: Arc<Self>, id: SessionId, cause: Error);
    /// Something was heard after a slot was parked.
    fn alive(self: Arc<Self>, id: SessionId);
    /// Requests are given up, nothing is heard, and it must not be asked again: it is taken for one that does not answer.
    fn silent(self: Arc<Self>, id: SessionId);
    /// Unread bodies hold the session's window, or no longer do.
    fn stalled(self: Arc<Self>, id: SessionId, stalled: bool);
    /// The session nears the end of what it can carry.
    fn worn(self: Arc<Self>, id: SessionId);
    /// The connection ended.
    fn closed(self: Arc<Self>, id: SessionId, cause: Error);
    /// A slot comes back.
    fn release(self: Arc<Self>, id: SessionId);
    /// A slot stays taken until a sign of life.
    fn park(self: Arc<Self>, id: SessionId);
}

/// A slot of a session, its origin's type erased. Dropped, it gives the slot back.
pub(crate) struct Occupied {
    observer: Option<Arc<dyn Observer>>,
    id: SessionId,
    /// The permit of `limit_concurrency`, where that is on.
    permit: Option<Arc<OwnedSemaphorePermit>>,
    _tally: StreamTally,
}

impl Occupied {
    pub(crate) fn new(
        observer: Arc<dyn Observer>,
        id: SessionId,
        tally: StreamTally,
        permit: Option<Arc<OwnedSemaphorePermit>>,
    ) -> Self {
        Self {
            observer: Some(observer),
            id,
            permit,
            _tally: tally,
        }
    }

    /// Tells the origin something about the session.
    pub(crate) fn report(&self, tell: impl FnOnce(Arc<dyn Observer>, SessionId)) {
        if let Some(observer) = &self.observer {
            tell(observer.clone(), self.id);
        }
    }

    /// Keeps the slot taken until a sign of life.
    pub(crate) fn park(mut self) {
        self.permit = None;
        if let Some(observer) = self.observer.take() {
            observer.park(self.id);
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            observer.release(self.id);
        }
    }
}

/// Which connection answered; an extension of every response but those of a [`fallback`](crate::Builder::fallback).
///
/// ```
/// # fn show(response: http::Response<h2pool::Body>) {
/// if let Some(info) = response.extensions().get::<h2pool::ConnectionInfo>() {
///     println!("session {} to {:?} over {:?}", info.session(), info.peer_addr(), info.version());
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    pub(crate) shared: Arc<Address>,
    pub(crate) reused: bool,
}

/// What is the same for every response of a session.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) session: u64,
    /// Errors name it.
    pub(crate) origin: Origin,
    pub(crate) version: Version,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    /// The server proved who it is: what it says about protocols may be remembered.
    pub(crate) authenticated: bool,
}

/// Adds to responses what they say about their connection.
pub(super) struct Informant {
    address: Arc<Address>,
    /// The extensions of every response but the first: to clone them costs less than to make them.
    usual: Extensions,
}

impl Informant {
    pub(super) fn new(address: Arc<Address>) -> Self {
        let mut usual = Extensions::new();
        usual.insert(ConnectionInfo {
            shared: address.clone(),
            reused: true,
        });
        Self { address, usual }
    }

    pub(super) fn address(&self) -> &Arc<Address> {
        &self.address
    }

    /// `reused`: the session has answered before.
    pub(super) fn inform(&self, extensions: &mut Extensions, reused: bool) {
        if reused && extensions.is_empty() {
            extensions.clone_from(&self.usual);
            return;
        }
        extensions.insert(ConnectionInfo {
            shared: self.address.clone(),
            reused,
        });
    }
}

impl ConnectionInfo {
    /// The session's number, unique in this process, as in [`SessionInfo`](crate::SessionInfo).
    #[must_use]
    pub fn session(&self) -> u64 {
        self.shared.session
    }

    /// HTTP/2 or HTTP/1.1.
    #[must_use]
    pub fn version(&self) -> Version {
        self.shared.version
    }

    /// The peer's address, where the connector told it.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.shared.peer
    }

    /// The local address, where the connector told it.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.local
    }

    /// Whether the session had answered a request before this one.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }
}

/// How one attempt to send a request failed.
pub(crate) enum Failure {
    /// Nothing was handed to the connection: another slot, as if nothing had been.
    NotSent(Error),
    /// The server did nothing with it: it may be sent again.
    Unprocessed {
        /// What the server said.
        error: Error,
        /// Nobody's fault: it was sent before the server's SETTINGS were known and refused, or excluded by a GOAWAY that
        /// covers others.
        blameless: bool,
    },
    /// The server wants HTTP/1.1 for it.
    NeedsH1(Error),
    /// Nothing more is to be done.
    Failed(Error),
}
