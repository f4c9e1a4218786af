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
#![cfg_attr(not(feature = "tls-no-provider"), doc = "[`TlsConnector`]: crate#features")]
#![cfg_attr(
    not(feature = "tcp"),
    doc = "[`TcpConnector`]: crate#features\n[`HyperConnector`]: crate#features"
)]

// Inside the crate, the pool holds an `Arc<dyn ErasedConnect<O>>`, made by `erase(connector)` or by
// `default_connector(Defaults { .. })`; its `connect` returns a boxed future. A session that dies before it served
// anything asks its connection's `Fault`: a refused client certificate shows only then.

mod blocking;
mod connection;
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
#[cfg(feature = "tls-no-provider")]
mod tls;
#[cfg(feature = "tls-no-provider")]
mod tls_error;

use std::future::Future;
use std::sync::Arc;

use crate::error::Error;

pub use blocking::{Blocking, blocking};
pub use connection::Connection;
pub(crate) use connection::{Fault, Io};
pub(crate) use defaults::{Defaults, default_connector};
pub(crate) use erased::{ErasedConnect, erase};
pub use from_fn::{FromFn, from_fn};
#[cfg(feature = "tcp")]
pub use hyper::HyperConnector;
#[cfg(feature = "tcp")]
pub use tcp::TcpConnector;
#[cfg(feature = "tls-no-provider")]
pub use tls::TlsConnector;
#[cfg(feature = "tls-no-provider")]
pub(crate) use tls_error::refused_certificate;

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
    /// [`Error::connect`] wraps any cause; [`Error::certificate`] and [`Error::config`] mark what trying again cannot mend.
    ///
    /// # Cancel safety
    /// The future is dropped when `connect_timeout` passes; it must then leave nothing behind.
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static;

    /// Whether `http://` origins may speak HTTP/2 (by prior knowledge, RFC 9113 §3.3). Default: false.
    ///
    /// Asked only where the pool has a [`fallback`](crate::Builder::fallback): where this is false, and
    /// [`http2_prior_knowledge`](crate::Builder::http2_prior_knowledge) too, it takes the requests of `http://` origins
    /// straight away, and nothing is dialed.
    fn http2_in_plain_text(&self) -> bool {
        false
    }
}

impl<O, C: Connect<O>> Connect<O> for Arc<C> {
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
        self.as_ref().connect(key, offer)
    }

    fn http2_in_plain_text(&self) -> bool {
        self.as_ref().http2_in_plain_text()
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

/// Without TLS of ours nothing is known of certificates.
#[cfg(not(feature = "tls-no-provider"))]
pub(crate) fn refused_certificate(_: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    None
}

/// Whether something in the chain of `error` was given up by the system, or by a time limit within the connector.
#[cfg(feature = "tcp")]
fn timed_out(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
            return true;
        }
        // An `io::Error` hides what it wraps from `source()`.
        next = match io.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => cause.source(),
        };
    }
    false
}
