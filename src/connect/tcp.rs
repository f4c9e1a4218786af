//! TCP on hyper-util's `HttpConnector`: happy eyeballs (RFC 8305) and socket options are its work; name look-ups go
//! through a resolver of ours, which keeps blocking ones on a bounded number of threads.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tower::ServiceExt;
use tower_service::Service;

use super::blocking::{BlockingPool, DEFAULT_BLOCKING_THREADS};
use super::resolve::{Lookup, Resolver};
use super::{Connect, Connection, Offer};
use crate::error::{Error, Kind};
use crate::origin::{Key, Origin};

/// RFC 8305 §5 recommends this much between two attempts.
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The default of the pool's `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens TCP connections for `http://` origins, and under [`TlsConnector`] for `https://` ones.
///
/// IPv6 and IPv4 addresses race as RFC 8305 describes; the name's addresses are tried in the resolver's order. Plain
/// `http://` speaks HTTP/1.1 unless [`http2_prior_knowledge`](Self::http2_prior_knowledge) says otherwise. Alone, it
/// refuses `https://` origins with an error whose `is_config()` is true: nothing meant for TLS leaves in plain text.
///
/// ```
/// use std::time::Duration;
/// use h2pool::connect::TcpConnector;
///
/// let tcp = TcpConnector::new()
///     .keepalive(Some(Duration::from_secs(60)))
///     .blocking_threads(16);
/// # fn check(_: impl h2pool::Connect<h2pool::Origin>) {}
/// # check(tcp);
/// ```
///
#[cfg_attr(feature = "tls-no-provider", doc = "[`TlsConnector`]: super::TlsConnector")]
#[cfg_attr(not(feature = "tls-no-provider"), doc = "[`TlsConnector`]: crate#features")]
#[derive(Clone)]
pub struct TcpConnector {
    lookup: Lookup,
    pool: BlockingPool,
    nodelay: bool,
    keepalive: Option<Duration>,
    happy_eyeballs: Option<Duration>,
    connect_timeout: Option<Duration>,
    local_address: Option<IpAddr>,
    prior_knowledge: bool,
    under_tls: bool,
}

impl TcpConnector {
    /// A connector with the defaults that the setters name.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lookup: Lookup::system(),
            pool: BlockingPool::new(DEFAULT_BLOCKING_THREADS),
            nodelay: true,
            keepalive: None,
            happy_eyeballs: Some(CONNECTION_ATTEMPT_DELAY),
            connect_timeout: Some(CONNECT_TIMEOUT),
            local_address: None,
            prior_knowledge: false,
            under_tls: false,
        }
    }

    /// `TCP_NODELAY`: small frames leave at once. Default: true.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// TCP keep-alive probes after this much silence. Default: `None`, no probes (the pool has its own PING).
    #[must_use]
    pub fn keepalive(mut self, idle: Option<Duration>) -> Self {
        self.keepalive = idle;
        self
    }

    /// How long the first address family has before the other is tried beside it (RFC 8305 §5). `None` tries all
    /// addresses in turn. Default: 250 ms.
    #[must_use]
    pub fn happy_eyeballs(mut self, delay: Option<Duration>) -> Self {
        self.happy_eyeballs = delay;
        self
    }

    /// How long the addresses of one family have together, in equal shares: one that swallows packets leaves time for
    /// those after it. `None`: the first one may take all the time there is. Default: 10 s (the pool's own connector: its
    /// `connect_timeout`).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The local address to connect from; it decides the address family too. Default: `None`, the system chooses.
    #[must_use]
    pub fn local_address(mut self, address: Option<IpAddr>) -> Self {
        self.local_address = address;
        self
    }

    /// How many blocking name look-ups run at once; further ones wait their turn, within `connect_timeout`.
    /// Default: 200, at least 1.
    ///
    /// A look-up whose caller has given up keeps its place until it ends. The threads are tokio's
    /// (`runtime::Builder::max_blocking_threads`, default 512, shared with file IO and `spawn_blocking`): a runtime
    /// built with fewer lets fewer look-ups run at once.
    #[must_use]
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.pool = BlockingPool::new(threads);
        self
    }

    /// Resolves names by a function that may block; it runs on the threads that
    /// [`blocking_threads`](Self::blocking_threads) bounds. Ports in its answer are ignored: the origin's is used.
    /// Default: the system's `getaddrinfo`.
    ///
    /// ```
    /// use h2pool::connect::TcpConnector;
    ///
    /// let pinned = TcpConnector::new().resolver(|name| match name {
    ///     "api.internal" => Ok(vec![([10, 0, 0, 7], 0).into()]),
    ///     _ => Err(std::io::ErrorKind::NotFound.into()),
    /// });
    /// ```
    #[must_use]
    pub fn resolver(
        mut self,
        resolver: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.lookup = Lookup::Blocking(Arc::new(resolver));
        self
    }

    /// Resolves names by an async service, as hyper-util's connector takes it (hickory's resolver fits by
    /// `tower::service_fn`). Ports in its answer are ignored: the origin's is used.
    #[must_use]
    pub fn resolver_service<S>(mut self, service: S) -> Self
    where
        S: Service<Name> + Clone + Send + Sync + 'static,
        S::Response: IntoIterator<Item = SocketAddr>,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        S::Future: Send + 'static,
    {
        self.lookup = Lookup::service(service);
        self
    }

    /// `http://` origins speak HTTP/2 by prior knowledge (RFC 9113 §3.3), save when the pool asks for
    /// [`Offer::H1`]. Default: false.
    #[must_use]
    pub fn http2_prior_knowledge(mut self, prior_knowledge: bool) -> Self {
        self.prior_knowledge = prior_knowledge;
        self
    }

    /// Serves `https` origins with the bare stream, for TLS on top.
    #[cfg(feature = "tls-no-provider")]
    pub(super) fn under_tls(mut self) -> Self {
        self.under_tls = true;
        self
    }

    /// What is spoken on the bare stream.
    fn version(&self, origin: &Origin, offer: Offer) -> Result<Version, Error> {
        if origin.is_https() && !self.under_tls {
            let error = Error::config("https needs TLS: use `TlsConnector` (feature `tls`)");
            return Err(error.with_origin(origin));
        }
        if self.prior_knowledge && offer != Offer::H1 {
            return Ok(Version::HTTP_2);
        }
        Ok(Version::HTTP_11)
    }

    fn http_connector(&self) -> HttpConnector<Resolver> {
        let Self {
            lookup,
            pool,
            nodelay,
            keepalive,
            happy_eyeballs,
            connect_timeout,
            local_address,
            prior_knowledge: _,
            under_tls: _,
        } = self.clone();
        let mut http = HttpConnector::new_with_resolver(Resolver { lookup, pool });
        http.enforce_http(false);
        http.set_nodelay(nodelay);
        http.set_keepalive(keepalive);
        http.set_happy_eyeballs_timeout(happy_eyeballs);
        http.set_connect_timeout(connect_timeout);
        http.set_local_address(local_address);
        http
    }
}

impl<O: Key> Connect<O> for TcpConnector {
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
        let origin = key.origin().clone();
        let version = self.version(&origin, offer);
        let http = self.http_connector();
        async move {
            let version = version?;
            let stream = http
                .oneshot(origin.uri())
                .await
                .map_err(|error| dial_error(error, &origin))?;
            let stream = stream.into_inner();
            let (peer, local) = (stream.peer_addr().ok(), stream.local_addr().ok());
            let mut connection = Connection::new(stream, version);
            connection.peer_addr = peer;
            connection.local_addr = local;
            Ok(connection)
        }
    }

    fn http2_in_plain_text(&self) -> bool {
        self.prior_knowledge
    }
}

impl Default for TcpConnector {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TcpConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpConnector")
            .field("nodelay", &self.nodelay)
            .field("keepalive", &self.keepalive)
            .field("happy_eyeballs", &self.happy_eyeballs)
            .field("prior_knowledge", &self.prior_knowledge)
            .finish_non_exhaustive()
    }
}

/// A name that led nowhere says so; an attempt that the system timed out is a timeout.
fn dial_error(error: impl std::error::Error + Send + Sync + 'static, origin: &Origin) -> Error {
    let timed_out = super::timed_out(&error);
    let mut lookup = None;
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = next {
        if let Some(failed) = cause.downcast_ref::<super::resolve::LookupError>() {
            lookup = Some(failed.meaning());
        }
        next = cause.source();
    }
    let dial = match lookup {
        Some(message) => Error::new(Kind::Connect, message),
        None => Error::new(Kind::Connect, "the TCP connection could not be opened"),
    };
    let dial = if timed_out { dial.with_timeout() } else { dial };
    dial.with_source(error).with_origin(origin)
}
