//! One connection as a connector hands it over.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::Error;

/// The byte stream under a session: what tokio reads and writes.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A fresh connection, with what is known about it.
///
/// It reads and writes as a stream itself. Connectors that build on others wrap it with [`wrap`](Self::wrap), which
/// keeps what is known:
///
/// ```
/// use h2pool::connect::{Connect, from_fn};
/// use h2pool::Origin;
/// use tokio::io::BufStream;
///
/// fn buffered(inner: impl Connect<Origin> + Clone) -> impl Connect<Origin> {
///     from_fn(move |key: &Origin, offer| {
///         let (inner, key) = (inner.clone(), key.clone());
///         async move { Ok(inner.connect(&key, offer).await?.wrap(BufStream::new)) }
///     })
/// }
/// ```
pub struct Connection {
    pub(crate) io: Box<dyn Io>,
    pub(crate) version: Version,
    pub(crate) authenticated: bool,
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) local_addr: Option<SocketAddr>,
    /// It leads to a forward proxy, which takes the absolute form (RFC 9112 §3.2.2).
    pub(crate) proxied: bool,
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
            proxied: false,
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

impl Connection {
    /// The protocol settled: [`Version::HTTP_2`], or any other for HTTP/1.1.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the authenticated server settled the protocol; see [`authenticated`](Self::authenticated).
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// The peer's address, where there is one.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer_addr
    }

    /// The local address, where there is one.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// Puts another stream around this one (a meter, a throttle) and keeps what is known about the connection.
    #[must_use]
    pub fn wrap<T>(self, around: impl FnOnce(Self) -> T) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self {
            version,
            authenticated,
            peer_addr,
            local_addr,
            proxied,
            ref fault,
            ..
        } = self;
        let fault = fault.clone();
        let io = Box::new(around(self));
        Self {
            io,
            version,
            authenticated,
            peer_addr,
            local_addr,
            proxied,
            fault,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What the transport learns about its failure after it was handed over.
///
/// In TLS 1.3 a server refuses our certificate after the handshake, with an alert that the first read meets
/// (RFC 8446 §4.4.2.4), and the `h2` crate keeps only the text of an IO error. So the transport leaves the classified
/// error here; a session that ends before it served anything asks for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault {
    found: Arc<Found>,
}

#[derive(Debug, Default)]
struct Found {
    error: OnceLock<Error>,
    /// A write may fail though a part of it was sent.
    torn: AtomicBool,
}

impl Fault {
    /// The classified error, if the transport has met one that says more than "the connection failed".
    pub(crate) fn get(&self) -> Option<Error> {
        self.found.error.get().cloned()
    }

    /// A write may fail though a part of it was sent.
    #[cfg(feature = "tcp")]
    pub(crate) fn tear(&self) {
        self.found.torn.store(true, Ordering::Release);
    }

    /// Whether a write that failed may have sent something.
    pub(crate) fn is_torn(&self) -> bool {
        self.found.torn.load(Ordering::Acquire)
    }

    /// Leaves an error; the first one stays.
    #[cfg(feature = "tls-no-provider")]
    pub(crate) fn set(&self, error: Error) {
        let _ = self.found.error.set(error);
    }
}

#[cfg(all(test, feature = "tls-no-provider"))]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_through_wrappers_and_the_first_one_stays() {
        // P41
        let mut inner = Connection::new(tokio::io::empty(), Version::HTTP_2);
        let fault = Fault::default();
        inner.fault = fault.clone();
        let outer = inner.wrap(tokio::io::BufStream::new);
        assert!(outer.fault.get().is_none());
        fault.set(Error::certificate("refused"));
        fault.set(Error::connect("a consequence"));
        assert!(outer.fault.get().unwrap().is_certificate());
    }
}
