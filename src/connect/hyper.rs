//! Connectors made for hyper: any `tower::Service<Uri>` whose answer is hyper IO.

use std::fmt;

use http::{Extensions, Uri, Version};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::{Connection as HyperConnection, HttpInfo};
use hyper_util::rt::TokioIo;
use tower::ServiceExt;
use tower_service::Service;

use super::{Connect, Connection, Offer, refused_certificate};
use crate::error::{BoxError, Error, Kind};
use crate::origin::{Key, Origin};

/// Adapts a connector made for hyper: hyper-util's `HttpConnector`, `Tunnel` and SOCKS proxies, hyper-rustls's and
/// hyper-tls's `HttpsConnector`, or one of your own.
///
/// The protocol is what the connection says (`Connected::is_negotiated_h2`). Such a connector cannot narrow ALPN: give
/// it both protocols to offer, and, with [`h1`](Self::h1), a second one that offers only HTTP/1.1, which serves dials
/// to origins known to speak nothing else. Without it an h2 answer is obeyed there too.
///
/// A connection that says that it leads to a forward proxy (`Connected::proxy`) gets the requests of `http://` origins in
/// absolute form (RFC 9112 §3.2.2); a tunnel or a SOCKS proxy must not say so. An h2pool [`Error`](crate::Error) of the
/// service is passed on as it is; any other is a connect error, with `is_certificate()` and `is_timeout()` where its
/// causes say so.
///
/// A proxy tunnel under TLS of this crate narrows ALPN by itself:
/// `TlsConnector::new(config).over(HyperConnector::new(tunnel))`.
///
/// ```
/// use h2pool::connect::HyperConnector;
/// use hyper_util::client::legacy::connect::HttpConnector;
///
/// let connector = HyperConnector::new(HttpConnector::new()).http2_prior_knowledge(true);
/// # fn check(_: impl h2pool::Connect<h2pool::Origin>) {}
/// # check(connector);
/// ```
#[derive(Clone)]
pub struct HyperConnector<S, H = S> {
    service: S,
    h1: Option<H>,
    prior_knowledge: bool,
}

impl<S> HyperConnector<S> {
    /// Opens connections by `service`. Each dial clones it, waits until the clone is ready, and calls it.
    pub fn new(service: S) -> Self {
        Self {
            service,
            h1: None,
            prior_knowledge: false,
        }
    }
}

impl<S, H> HyperConnector<S, H> {
    /// Uses `service` where only HTTP/1.1 is wanted ([`Offer::H1`]); it should offer nothing else by ALPN.
    /// Default: none, the first service serves all dials.
    #[must_use]
    pub fn h1<N>(self, service: N) -> HyperConnector<S, N> {
        HyperConnector {
            service: self.service,
            h1: Some(service),
            prior_knowledge: self.prior_knowledge,
        }
    }

    /// `http://` origins speak HTTP/2 by prior knowledge (RFC 9113 §3.3), save when the pool asks for
    /// [`Offer::H1`]. Default: false.
    #[must_use]
    pub fn http2_prior_knowledge(mut self, prior_knowledge: bool) -> Self {
        self.prior_knowledge = prior_knowledge;
        self
    }
}

impl<O, S, H> Connect<O> for HyperConnector<S, H>
where
    O: Key,
    S: Service<Uri> + Clone + Send + Sync + 'static,
    S::Response: Read + Write + HyperConnection + Send + Unpin + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    H: Service<Uri> + Clone + Send + Sync + 'static,
    H::Response: Read + Write + HyperConnection + Send + Unpin + 'static,
    H::Error: Into<BoxError>,
    H::Future: Send,
{
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
        let origin = key.origin().clone();
        let prior_knowledge = self.prior_knowledge && offer != Offer::H1;
        let service = self.service.clone();
        let h1 = self.h1.as_ref().filter(|_| offer == Offer::H1).cloned();
        async move {
            match h1 {
                Some(h1) => open(h1, &origin, prior_knowledge).await,
                None => open(service, &origin, prior_knowledge).await,
            }
        }
    }

    fn http2_in_plain_text(&self) -> bool {
        self.prior_knowledge
    }
}

impl<S, H> fmt::Debug for HyperConnector<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HyperConnector")
            .field("h1", &self.h1.is_some())
            .field("prior_knowledge", &self.prior_knowledge)
            .finish_non_exhaustive()
    }
}

async fn open<S>(service: S, origin: &Origin, prior_knowledge: bool) -> Result<Connection, Error>
where
    S: Service<Uri>,
    S::Response: Read + Write + HyperConnection + Send + Unpin + 'static,
    S::Error: Into<BoxError>,
{
    let io = service
        .oneshot(origin.uri())
        .await
        .map_err(|error| dial_error(error.into()).with_origin(origin))?;
    let connected = io.connected();
    let h2 = connected.is_negotiated_h2() || (prior_knowledge && !origin.is_https());
    let version = if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let mut connection = Connection::new(TokioIo::new(io), version).authenticated(origin.is_https());
    if origin.is_https() {
        // TLS of somebody else's, of which nothing is known.
        connection.fault.tear();
    }
    // To the origin's own TLS a proxy is a tunnel.
    connection.proxied = connected.is_proxied() && !origin.is_https();
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    if let Some(info) = extras.get::<HttpInfo>() {
        connection.peer_addr = Some(info.remote_addr());
        connection.local_addr = Some(info.local_addr());
    }
    Ok(connection)
}

fn dial_error(error: BoxError) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(ours) => return *ours,
        Err(error) => error,
    };
    let dial = match refused_certificate(error.as_ref()) {
        Some(message) => Error::new(Kind::Certificate, message),
        None => Error::new(Kind::Connect, "the connector failed"),
    };
    let late = super::timed_out(error.as_ref());
    let dial = dial.with_source(error);
    if late { dial.with_timeout() } else { dial }
}
