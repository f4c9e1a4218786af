//! How connections are made: the [`Connect`] trait and the connectors that come with the crate.
//!
//! A connector turns a key into one [`Connection`]: a byte stream on which the protocol is settled already (by ALPN,
//! RFC 7301, or by prior knowledge, RFC 9113 §3.3). The pool tells it which protocols to offer, runs it in a task of
//! its own on the runtime of the caller that needs the session, bounds it by `connect_timeout`, and survives its panic.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Error;

/// Opens connections for keys of type `O`.
///
/// Implement it for a transport of your own; the returned future must not borrow from the connector.
///
/// ```
/// use h2pool::connect::{Connect, Connection, Offer};
/// use h2pool::{Error, Origin};
///
/// /// HTTP/2 by prior knowledge over an in-memory pipe.
/// struct Pipe;
///
/// impl Connect<Origin> for Pipe {
///     fn connect(
///         &self,
///         _key: &Origin,
///         _offer: Offer,
///     ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
///         async {
///             let (ours, _theirs) = tokio::io::duplex(64 * 1024);
///             Ok(Connection::new(ours, http::Version::HTTP_2))
///         }
///     }
/// }
/// ```
pub trait Connect<O>: Send + Sync + 'static {
    /// Opens one connection.
    ///
    /// # Errors
    /// [`Error::connect`] wraps any cause; [`Error::certificate`] marks what trying again cannot mend.
    ///
    /// # Cancel safety
    /// The future is dropped when `connect_timeout` passes; it must then leave nothing behind.
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static;
}

/// Which protocols the pool wants on the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Offer {
    /// Offer `h2`, then `http/1.1`; the server chooses.
    Any,
    /// Offer only `h2`.
    H2,
    /// Offer only `http/1.1`: the origin is known to speak nothing else.
    H1,
}

impl Offer {
    /// The ALPN protocol names in order of preference (RFC 7301, RFC 9113 §3.2).
    #[must_use]
    pub fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Any => &[b"h2", b"http/1.1"],
            Self::H2 => &[b"h2"],
            Self::H1 => &[b"http/1.1"],
        }
    }
}

/// The byte stream under a session: what tokio reads and writes.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A fresh connection, with what is known about it.
pub struct Connection {
    pub(crate) io: Box<dyn Io>,
    pub(crate) version: Version,
    pub(crate) authenticated: bool,
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) local_addr: Option<SocketAddr>,
}

impl Connection {
    /// A connection on which `version` was settled: [`Version::HTTP_2`], or any other for HTTP/1.1.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, version: Version) -> Self {
        Self {
            io: Box::new(io),
            version,
            authenticated: false,
            peer_addr: None,
            local_addr: None,
        }
    }

    /// Says that the protocol was settled by the authenticated server (ALPN over verified TLS). Only then does an
    /// HTTP/1.1 answer enter the negative cache. Default: false.
    #[must_use]
    pub fn authenticated(mut self, authenticated: bool) -> Self {
        self.authenticated = authenticated;
        self
    }

    /// Names the peer's address; it appears in response extensions and in the sessions' snapshot.
    #[must_use]
    pub fn peer_addr(mut self, addr: SocketAddr) -> Self {
        self.peer_addr = Some(addr);
        self
    }

    /// Names the local address.
    #[must_use]
    pub fn local_addr(mut self, addr: SocketAddr) -> Self {
        self.local_addr = Some(addr);
        self
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("version", &self.version)
            .field("authenticated", &self.authenticated)
            .field("peer_addr", &self.peer_addr)
            .finish_non_exhaustive()
    }
}
