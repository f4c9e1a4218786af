//! TLS by rustls over any other connector: ALPN follows the pool's [`Offer`], the name is the origin's host.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::Version;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_rustls::client::TlsStream;

use super::{Connect, Connection, Fault, Io, Offer, TcpConnector, tls_error};
use crate::error::{Error, Kind};
use crate::origin::{Key, Origin};
use crate::sync::Mutex;

/// Opens TLS connections for `https://` origins, and lets `http://` ones through to the transport below.
///
/// The protocol is settled by ALPN (RFC 7301): what the pool offers replaces the configuration's own
/// `alpn_protocols`, and a server without ALPN speaks HTTP/1.1. SNI and verification use the origin's host, name or
/// address. Sessions are resumed within one configuration; rustls resumes none under another verifier or another
/// client certificate, and settles ALPN anew each time. Early data (0-RTT) is never sent.
///
/// What a server says over TLS counts as authenticated. A verifier of your own that accepts anything therefore lets
/// anybody on the path mark an origin as h1-only; that is one of its dangers, and the least.
///
/// ```
/// use std::sync::Arc;
/// use h2pool::connect::{TcpConnector, TlsConnector};
///
/// # fn config() -> rustls::ClientConfig { unreachable!() }
/// # fn check(_: impl h2pool::Connect<h2pool::Origin>) {}
/// # fn example() {
/// let tls = TlsConnector::new(config()).tcp(TcpConnector::new().nodelay(false));
/// # check(tls);
/// # }
/// ```
pub struct TlsConnector<O = Origin, C = TcpConnector> {
    configs: Configs<O>,
    transport: C,
}

/// Chooses the configuration for a key.
type Choose<O> = dyn Fn(&O) -> Arc<ClientConfig> + Send + Sync;

/// Where the configuration of a connection comes from.
enum Configs<O> {
    Platform(Arc<Platform>),
    Fixed(Arc<ClientConfig>),
    PerKey(Arc<Choose<O>>),
}

impl<O> TlsConnector<O> {
    /// TLS with this configuration, over TCP.
    #[must_use]
    pub fn new(config: impl Into<Arc<ClientConfig>>) -> Self {
        Self::with(Configs::Fixed(config.into()))
    }

    /// TLS as the platform verifies it: its trust store, and its own verifier where it has one, with the process's
    /// default crypto provider, or ring (without the feature `tls` there must be a default one).
    ///
    /// The trust store is loaded at the first `https` dial, on a blocking thread; if that fails, the dial fails with
    /// an error whose `is_config()` is true, and the next one tries again.
    #[must_use]
    pub fn platform() -> Self {
        Self::with(Configs::Platform(Arc::default()))
    }

    /// TLS with the configuration that `choose` gives for each key, over TCP: tenants with certificates of their own.
    ///
    /// `choose` is called once per dial, within the dial's task, and must not block. Let it return the same `Arc` for
    /// the same key (keep them in a map), so that TLS sessions are resumed. Connections are never shared across keys,
    /// nor TLS sessions across client certificates or verifiers.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use std::sync::Arc;
    /// # use h2pool::connect::TlsConnector;
    /// # use h2pool::{Error, Key, Origin};
    /// # #[derive(Clone, PartialEq, Eq, Hash)]
    /// # struct TenantKey { origin: Origin, tenant: String }
    /// # impl Key for TenantKey {
    /// #     fn from_parts(_: &http::request::Parts) -> Result<Self, Error> { unreachable!() }
    /// #     fn origin(&self) -> &Origin { &self.origin }
    /// # }
    /// fn connector(
    ///     tenants: HashMap<String, Arc<rustls::ClientConfig>>,
    ///     anonymous: Arc<rustls::ClientConfig>,
    /// ) -> TlsConnector<TenantKey> {
    ///     TlsConnector::per_key(move |key: &TenantKey| {
    ///         tenants.get(&key.tenant).unwrap_or(&anonymous).clone()
    ///     })
    /// }
    /// ```
    #[must_use]
    pub fn per_key(choose: impl Fn(&O) -> Arc<ClientConfig> + Send + Sync + 'static) -> Self {
        Self::with(Configs::PerKey(Arc::new(choose)))
    }

    fn with(configs: Configs<O>) -> Self {
        Self {
            configs,
            transport: TcpConnector::new().under_tls(),
        }
    }

    /// Uses this TCP connector. Default: `TcpConnector::new()`.
    #[must_use]
    pub fn tcp(mut self, tcp: TcpConnector) -> Self {
        self.transport = tcp.under_tls();
        self
    }

    /// Uses another transport below: a proxy tunnel by [`HyperConnector`](super::HyperConnector), a Unix socket by
    /// [`from_fn`](super::from_fn), a pipe by [`memory`](super::memory).
    ///
    /// For an `https` origin the transport's bytes go to the TLS server and the version that it names is ignored; for
    /// an `http` one its connection is passed on as it is. For TCP use [`tcp`](TlsConnector::tcp): a [`TcpConnector`]
    /// given here refuses `https` origins, as it does alone.
    #[must_use]
    pub fn over<C: Connect<O>>(self, transport: C) -> TlsConnector<O, C> {
        TlsConnector {
            configs: self.configs,
            transport,
        }
    }
}

impl<O: Key, C: Connect<O>> Connect<O> for TlsConnector<O, C> {
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
        let transport = self.transport.connect(key, offer);
        let origin = key.origin().clone();
        let config = origin.is_https().then(|| self.configs.choose(key));
        async move {
            let Some(config) = config else {
                return transport.await;
            };
            let name = server_name(&origin)?;
            let config = config.load().await.map_err(|error| error.with_origin(&origin))?;
            let plain = transport.await?;
            secure(plain, name, config, offer)
                .await
                .map_err(|error| error.with_origin(&origin))
        }
    }

    fn http2_in_plain_text(&self) -> bool {
        self.transport.http2_in_plain_text()
    }
}

impl<O, C: Clone> Clone for TlsConnector<O, C> {
    fn clone(&self) -> Self {
        let configs = match &self.configs {
            Configs::Platform(cell) => Configs::Platform(cell.clone()),
            Configs::Fixed(config) => Configs::Fixed(config.clone()),
            Configs::PerKey(choose) => Configs::PerKey(choose.clone()),
        };
        Self {
            configs,
            transport: self.transport.clone(),
        }
    }
}

impl<O, C> fmt::Debug for TlsConnector<O, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.configs {
            Configs::Platform(_) => "platform",
            Configs::Fixed(_) => "given",
            Configs::PerKey(_) => "per key",
        };
        f.debug_struct("TlsConnector")
            .field("config", &source)
            .finish_non_exhaustive()
    }
}

impl<O> Configs<O> {
    fn choose(&self, key: &O) -> Chosen {
        match self {
            Self::Platform(cell) => Chosen::Platform(cell.clone()),
            Self::Fixed(config) => Chosen::Ready(config.clone()),
            Self::PerKey(choose) => Chosen::Ready(choose(key)),
        }
    }
}

/// A configuration, there or still to be loaded.
enum Chosen {
    Ready(Arc<ClientConfig>),
    Platform(Arc<Platform>),
}

/// The platform's configuration. It is loaded on a blocking thread from beginning to end: a runtime that stands still while
/// one of its dials waits for that keeps no other from it (P36).
#[derive(Default)]
struct Platform {
    /// One loads it, the others wait, and hold no thread.
    loading: Mutex<Option<Loading>>,
}

type Loaded = Result<Arc<ClientConfig>, rustls::Error>;
type Loading = watch::Receiver<Option<Loaded>>;

impl Platform {
    /// What was loaded, or is being loaded; begun anew where that failed, or ended with its runtime.
    fn load(&self) -> Loading {
        let mut place = self.loading.lock();
        if let Some(loading) = &*place {
            let of_use = match &*loading.borrow() {
                Some(loaded) => loaded.is_ok(),
                None => loading.has_changed().is_ok(),
            };
            if of_use {
                return loading.clone();
            }
        }
        let (report, loading) = watch::channel(None);
        drop(spawn_blocking(move || {
            report.send_replace(Some(platform_config().map(Arc::new)));
        }));
        place.insert(loading).clone()
    }

    /// `None` where whoever loaded it ended before.
    async fn loaded(&self) -> Option<Loaded> {
        let mut loading = self.load();
        let loaded = loading.wait_for(Option::is_some).await.ok()?;
        loaded.clone()
    }
}

impl Chosen {
    async fn load(self) -> Result<Arc<ClientConfig>, Error> {
        let platform = match self {
            Self::Ready(config) => return Ok(config),
            Self::Platform(platform) => platform,
        };
        let mut loaded = platform.loaded().await;
        if loaded.is_none() {
            // It ended with the runtime of another.
            loaded = platform.loaded().await;
        }
        let ended = "the runtime that loaded the platform's certificate verifier has ended";
        let loaded = loaded.ok_or_else(|| Error::connect(ended))?;
        loaded.map_err(|error| {
            let message = "the platform's certificate verifier could not be set up: install its trust store \
                           or give a `tls_config`";
            Error::config(message).with_source(error)
        })
    }
}

fn platform_config() -> Result<ClientConfig, rustls::Error> {
    let provider = CryptoProvider::get_default().cloned().or_else(own_provider);
    let provider = provider.ok_or_else(|| {
        rustls::Error::General(
            "no crypto provider: install one (`CryptoProvider::install_default`) or enable h2pool's feature `tls`".to_owned(),
        )
    })?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(config)
}

#[cfg(feature = "tls")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature `tls` there is none")]
fn own_provider() -> Option<Arc<CryptoProvider>> {
    Some(Arc::new(rustls::crypto::ring::default_provider()))
}

#[cfg(not(feature = "tls"))]
fn own_provider() -> Option<Arc<CryptoProvider>> {
    None
}

fn server_name(origin: &Origin) -> Result<ServerName<'static>, Error> {
    let host = origin.host();
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|error| {
        let error = Error::config(format!("`{host}` is not a name that TLS can verify")).with_source(error);
        error.with_origin(origin)
    })
}

async fn secure(
    plain: Connection,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    offer: Offer,
) -> Result<Connection, Error> {
    let Connection {
        io,
        peer_addr,
        local_addr,
        version: _,
        authenticated: _,
        proxied: _,
        fault: _,
    } = plain;
    let writes = Arc::new(AtomicU64::new(0));
    let counted = Counted {
        io,
        writes: writes.clone(),
    };
    let alpn = offer.alpn().iter().map(|protocol| protocol.to_vec()).collect();
    let stream = tokio_rustls::TlsConnector::from(config)
        .with_alpn(alpn)
        .connect(name, Box::new(counted) as Box<dyn Io>)
        .await
        .map_err(|error| tls_error::handshake(error, offer))?;
    let version = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let fault = Fault::default();
    let stream = Watched {
        stream,
        fault: fault.clone(),
        writes,
    };
    let mut connection = Connection::new(stream, version).authenticated(true);
    connection.peer_addr = peer_addr;
    connection.local_addr = local_addr;
    connection.fault = fault;
    Ok(connection)
}

/// Leaves a note when the server refuses our certificate after the handshake.
struct Watched {
    stream: TlsStream<Box<dyn Io>>,
    fault: Fault,
    /// Of the transport below.
    writes: Arc<AtomicU64>,
}

/// The transport below: how many of its writes went through.
struct Counted {
    io: Box<dyn Io>,
    writes: Arc<AtomicU64>,
}

impl Counted {
    fn note(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(result, Poll::Ready(Ok(1..))) {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(result)
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

impl Watched {
    /// rustls sends record by record; a write that fails after one of them has sent that.
    fn wrote(&self, before: u64, result: io::Result<usize>) -> io::Result<usize> {
        if result.is_err() && self.writes.load(Ordering::Relaxed) != before {
            self.fault.tear();
        }
        self.note(result)
    }

    /// Makes a certificate error of it, for those who read, and for those who ask later.
    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let Some(message) = tls_error::refused_certificate(&error) else {
                return error;
            };
            let kind = error.kind();
            let refused = Error::new(Kind::Certificate, message).with_source(error);
            self.fault.set(refused.clone());
            io::Error::new(kind, refused)
        })
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        Poll::Ready(self.note(result))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let before = self.writes.load(Ordering::Relaxed);
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.wrote(before, result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let before = self.writes.load(Ordering::Relaxed);
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(self.wrote(before, result))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.note(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
