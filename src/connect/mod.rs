//! How connections are made: the [`Connect`] trait and the connectors that come with the crate.
//!
//! A connector turns a key into one [`Connection`]: a byte stream on which the protocol is settled already (by ALPN,
//! RFC 7301, or by prior knowledge, RFC 9113 §3.3). The pool tells it which protocols to offer, runs it in a task of
//! its own on the runtime of the caller that needs the session, bounds it by `connect_timeout`, and survives its panic.
//!
//! | connector | what it gives | feature |
//! | --- | --- | --- |
//! | [`TlsConnector`] | TLS by rustls over any other connector; the default, over TCP | `tls` |
//! | [`TcpConnector`] | TCP with happy eyeballs; name look-ups on a bounded pool of threads | `tcp` |
//! | [`HyperConnector`] | any `tower::Service<Uri>` made for hyper (proxies, hyper-rustls) | `tcp` |
//! | [`memory::pair`] | pipes within the process, each dial answered by the test | – |
//! | [`from_fn`], [`blocking`] | a function, async or blocking | – |
//!
//! Inside the crate, the pool holds an `Arc<dyn ErasedConnect<O>>`, made by `erase(connector)` or by
//! `default_connector(Defaults { .. })`; its `connect` returns a boxed future.

mod blocking;
mod defaults;
mod erased;
mod from_fn;
#[cfg(feature = "tcp")]
mod hyper;
pub mod memory;
#[cfg(feature = "tcp")]
mod resolve;
#[cfg(feature = "tcp")]
mod tcp;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_error;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Error;

pub use blocking::{Blocking, blocking};
pub(crate) use defaults::{Defaults, default_connector};
pub(crate) use erased::{ErasedConnect, erase};
pub use from_fn::{FromFn, from_fn};
#[cfg(feature = "tcp")]
pub use hyper::HyperConnector;
#[cfg(feature = "tcp")]
pub use tcp::TcpConnector;
#[cfg(feature = "tls")]
pub use tls::TlsConnector;

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

impl<O, C: Connect<O>> Connect<O> for Arc<C> {
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
        self.as_ref().connect(key, offer)
    }
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
    pub(crate) fault: Fault,
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
            fault: Fault::default(),
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

/// What the transport learns about its failure after it was handed over.
///
/// In TLS 1.3 a server refuses our certificate after the handshake, with an alert that the first read meets
/// (RFC 8446 §4.4.2.4), and the `h2` crate keeps only the text of an IO error. So the transport leaves the classified
/// error here; a session that ends before it served anything asks for it.
#[derive(Clone, Default)]
pub(crate) struct Fault(Arc<OnceLock<Error>>);

impl Fault {
    /// The classified error, if the transport has met one that says more than "the connection failed".
    pub(crate) fn get(&self) -> Option<Error> {
        self.0.get().cloned()
    }

    /// Leaves an error; the first one stays.
    #[cfg(feature = "tls")]
    pub(crate) fn set(&self, error: Error) {
        let _ = self.0.set(error);
    }
}
