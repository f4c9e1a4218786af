//! Building a pool: [`Builder`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};

use crate::config::{Balance, PoolConfig};
use crate::connect::{Connect, Defaults, ErasedConnect, default_connector, erase};
use crate::error::Error;
use crate::origin::{Key, Origin};
use crate::pool::{Core, Fallback, H2Pool, RequestBody};

/// Builds a pool: its configuration, and how it connects.
///
/// Setters take and return the builder. The numbers are those of [`PoolConfig`], which says their units and ranges.
///
/// ```
/// use std::time::Duration;
/// use h2pool::H2Pool;
/// # fn build() -> Result<(), h2pool::Error> {
///
/// let pool = H2Pool::builder()
///     .max_sessions(8)
///     .acquire_timeout(Duration::from_secs(5))
///     .keep_alive_interval(Duration::from_secs(30))
///     .build()?;
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<O = Origin> {
    config: PoolConfig,
    connector: Option<Arc<dyn ErasedConnect<O>>>,
    #[cfg(feature = "tls-no-provider")]
    tls: Option<Arc<rustls::ClientConfig>>,
    fallback: Option<Fallback>,
}

impl<O> Builder<O> {
    /// All defaults. [`H2Pool::builder`] is the same for pools whose key is the [`Origin`].
    pub fn new() -> Self {
        Self {
            config: PoolConfig::default(),
            connector: None,
            #[cfg(feature = "tls-no-provider")]
            tls: None,
            fallback: None,
        }
    }

    /// Replaces the whole configuration; setters called later change it. Default: [`PoolConfig::default`].
    pub fn config(mut self, config: PoolConfig) -> Self {
        self.config = config;
        self
    }

    /// How connections are made, in place of TCP and TLS.
    pub fn connector(mut self, connector: impl Connect<O>) -> Self {
        self.connector = Some(erase(connector));
        self
    }

    /// The TLS configuration for `https` origins; its ALPN list is set by the pool. Default: verification by the
    /// platform, no client certificate. Without effect where [`connector`](Self::connector) is used.
    #[cfg(feature = "tls-no-provider")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-no-provider")))]
    pub fn tls_config(mut self, tls: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        self.tls = Some(tls.into());
        self
    }

    /// A service of your own for origins that speak only HTTP/1.1; it takes their requests straight away while the
    /// origin is remembered, and the pool opens no HTTP/1.1 connection. `http://` origins are among them, unless
    /// [`http2_prior_knowledge`](Self::http2_prior_knowledge) or the [connector](Connect::http2_in_plain_text) says
    /// otherwise. Default: none; with the feature `http1` the pool speaks HTTP/1.1 itself, without it such requests fail
    /// with `is_h1_only()`.
    ///
    /// An [`Error`] of another pool is passed on as it is, with this request's origin if it names none. Of hyper-util's
    /// client, found among the causes, "no connection" is `is_connect()`, and `is_certificate()` where a certificate was
    /// refused (features `http1` and `tcp`). Whatever else it fails with is ambiguous: `is_unprocessed()` is false.
    pub fn fallback<S, B>(mut self, service: S) -> Self
    where
        S: tower_service::Service<Request<RequestBody>, Response = Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        S::Future: Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.fallback = Some(Fallback::new(service));
        self
    }
}

impl<O> Default for Builder<O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: Key> Builder<O> {
    /// Builds the pool. Nothing is started, resolved or loaded before the first request.
    ///
    /// # Errors
    /// `is_config()` names the field that is out of range, or the feature that a connector needs.
    pub fn build(self) -> Result<H2Pool<O>, Error> {
        self.core().map(H2Pool::of)
    }

    pub(crate) fn core(self) -> Result<Arc<Core<O>>, Error> {
        self.config.validate()?;
        let connector = match self.connector {
            Some(connector) => connector,
            None => default_connector(Defaults {
                #[cfg(feature = "tls-no-provider")]
                tls: self.tls,
                prior_knowledge: self.config.http2_prior_knowledge,
                blocking_threads: self.config.blocking_threads,
                connect_timeout: self.config.connect_timeout,
            })?,
        };
        Ok(Core::new(self.config, connector, self.fallback))
    }
}

/// The fields of [`PoolConfig`], one by one.
impl<O> Builder<O> {
    /// How many sessions one origin may have. Default 4.
    pub fn max_sessions(mut self, max_sessions: usize) -> Self {
        self.config.max_sessions = max_sessions;
        self
    }

    /// How many streams one HTTP/2 session may carry at a time. Default 256.
    pub fn streams_per_session(mut self, streams_per_session: usize) -> Self {
        self.config.streams_per_session = streams_per_session;
        self
    }

    /// How many HTTP/1.1 connections one origin may have. Default 16.
    pub fn max_h1_connections(mut self, max_h1_connections: usize) -> Self {
        self.config.max_h1_connections = max_h1_connections;
        self
    }

    /// How many sessions are kept open while their origin is in use; at most `max_sessions`. Default 0; 0
    /// means none.
    pub fn min_sessions(mut self, min_sessions: usize) -> Self {
        self.config.min_sessions = min_sessions;
        self
    }

    /// Which of the sessions that have room takes the next request. Default `LeastLoaded`.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.config.balance = balance;
        self
    }

    /// How many callers may wait for one origin. Default 2048; 0 means unlimited.
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.config.max_waiters = max_waiters;
        self
    }

    /// How many requests may be in flight over the whole pool. Default 0; 0 means off.
    pub fn limit_concurrency(mut self, limit_concurrency: usize) -> Self {
        self.config.limit_concurrency = limit_concurrency;
        self
    }

    /// How many origins the pool remembers; idle ones leave first. Default 1024.
    pub fn max_origins(mut self, max_origins: usize) -> Self {
        self.config.max_origins = max_origins;
        self
    }

    /// How many threads serve name look-ups. Without effect where [`connector`](Self::connector) is used. Default 200.
    pub fn blocking_threads(mut self, blocking_threads: usize) -> Self {
        self.config.blocking_threads = blocking_threads;
        self
    }

    /// Time for one dial: name look-up, TCP, TLS and the first SETTINGS. Default 10s.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.config.connect_timeout = connect_timeout;
        self
    }

    /// Time that a caller waits for a slot. Default 30s; 0 means off.
    pub fn acquire_timeout(mut self, acquire_timeout: Duration) -> Self {
        self.config.acquire_timeout = acquire_timeout;
        self
    }

    /// Time until a session without streams is closed. Default 90s; 0 means never.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.config.idle_timeout = idle_timeout;
        self
    }

    /// Age at which a session is replaced and drained. Default 0s; 0 means off.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.config.max_age = max_age;
        self
    }

    /// Streams after which a session is replaced and drained. Default 0; 0 means off.
    pub fn max_streams_per_session(mut self, max_streams_per_session: usize) -> Self {
        self.config.max_streams_per_session = max_streams_per_session;
        self
    }

    /// Time that streams have to finish once their session drains. Default 30s; 0 means no limit.
    pub fn drain_timeout(mut self, drain_timeout: Duration) -> Self {
        self.config.drain_timeout = drain_timeout;
        self
    }

    /// Time without a frame from the server after which it is pinged. Default 0s; 0 means off.
    pub fn keep_alive_interval(mut self, keep_alive_interval: Duration) -> Self {
        self.config.keep_alive_interval = keep_alive_interval;
        self
    }

    /// Time that the answer to a keep-alive PING may take. Default 20s.
    pub fn keep_alive_timeout(mut self, keep_alive_timeout: Duration) -> Self {
        self.config.keep_alive_timeout = keep_alive_timeout;
        self
    }

    /// Whether sessions without streams are pinged too. Default false.
    pub fn keep_alive_while_idle(mut self, keep_alive_while_idle: bool) -> Self {
        self.config.keep_alive_while_idle = keep_alive_while_idle;
        self
    }

    /// Time to answer the PING that follows a request cancelled unanswered. Default 1s.
    pub fn probe_timeout(mut self, probe_timeout: Duration) -> Self {
        self.config.probe_timeout = probe_timeout;
        self
    }

    /// How often a request that the server did not process is sent again. Default 3; 0 means off.
    pub fn max_replays(mut self, max_replays: usize) -> Self {
        self.config.max_replays = max_replays;
        self
    }

    /// Bytes of a request's body that are kept for a replay. Default 65536; 0 means off.
    pub fn replay_buffer(mut self, replay_buffer: usize) -> Self {
        self.config.replay_buffer = replay_buffer;
        self
    }

    /// Time for which an origin that speaks only HTTP/1.1 is remembered. Default 5m; 0 means no cache.
    pub fn h1_only_ttl(mut self, h1_only_ttl: Duration) -> Self {
        self.config.h1_only_ttl = h1_only_ttl;
        self
    }

    /// How many origins are remembered to speak only HTTP/1.1. Default 1024.
    pub fn h1_only_capacity(mut self, h1_only_capacity: usize) -> Self {
        self.config.h1_only_capacity = h1_only_capacity;
        self
    }

    /// Whether `http://` origins speak HTTP/2 by prior knowledge; a [`connector`](Self::connector) decides by itself
    /// ([`Connect::http2_in_plain_text`]). Default false.
    pub fn http2_prior_knowledge(mut self, http2_prior_knowledge: bool) -> Self {
        self.config.http2_prior_knowledge = http2_prior_knowledge;
        self
    }

    /// Flow-control window of a stream in bytes; at most `connection_window`. Default 2097152.
    pub fn stream_window(mut self, stream_window: u32) -> Self {
        self.config.stream_window = stream_window;
        self
    }

    /// Flow-control window of a session in bytes; at least `stream_window`, twice which is taken if it is more. Default
    /// 5242880.
    pub fn connection_window(mut self, connection_window: u32) -> Self {
        self.config.connection_window = connection_window;
        self
    }

    /// Whether windows grow with the measured bandwidth × delay. Default true.
    pub fn adaptive_window(mut self, adaptive_window: bool) -> Self {
        self.config.adaptive_window = adaptive_window;
        self
    }

    /// Bytes to which a stream's window may grow. Default 16777216.
    pub fn max_stream_window(mut self, max_stream_window: u32) -> Self {
        self.config.max_stream_window = max_stream_window;
        self
    }

    /// Bytes to which a session's window may grow. Default 16777216.
    pub fn max_connection_window(mut self, max_connection_window: u32) -> Self {
        self.config.max_connection_window = max_connection_window;
        self
    }

    /// Bytes of the largest frame that the server may send. Default 65536.
    pub fn max_frame_size(mut self, max_frame_size: u32) -> Self {
        self.config.max_frame_size = max_frame_size;
        self
    }

    /// Bytes of a request's body buffered before they are written. Default 409600.
    pub fn max_send_buffer(mut self, max_send_buffer: usize) -> Self {
        self.config.max_send_buffer = max_send_buffer;
        self
    }

    /// Bytes of a response's headers, and of its trailers. Default 65536.
    pub fn max_header_list_size(mut self, max_header_list_size: u32) -> Self {
        self.config.max_header_list_size = max_header_list_size;
        self
    }

    /// How many informational (1xx) responses one request accepts. Default 32.
    pub fn max_informational(mut self, max_informational: usize) -> Self {
        self.config.max_informational = max_informational;
        self
    }

    /// How many control frames one session accepts in a second. Default 1000.
    pub fn control_frames_per_second(mut self, control_frames_per_second: usize) -> Self {
        self.config.control_frames_per_second = control_frames_per_second;
        self
    }

    /// Time from the end of a request to the response's headers. Default 0s; 0 means off.
    pub fn header_timeout(mut self, header_timeout: Duration) -> Self {
        self.config.header_timeout = header_timeout;
        self
    }

    /// Time within a response's body in which nothing of it arrives or is read. Default 0s; 0 means off.
    pub fn body_idle_timeout(mut self, body_idle_timeout: Duration) -> Self {
        self.config.body_idle_timeout = body_idle_timeout;
        self
    }

    /// Time in which a write must make progress. Default 0s; 0 means off.
    pub fn write_timeout(mut self, write_timeout: Duration) -> Self {
        self.config.write_timeout = write_timeout;
        self
    }
}

impl<O> Clone for Builder<O> {
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
            connector: self.connector.clone(),
            #[cfg(feature = "tls-no-provider")]
            tls: self.tls.clone(),
            fallback: self.fallback.clone(),
        }
    }
}

impl<O> fmt::Debug for Builder<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Builder");
        out.field("config", &self.config)
            .field("connector", &self.connector.is_some());
        #[cfg(feature = "tls-no-provider")]
        out.field("tls", &self.tls.is_some());
        out.field("fallback", &self.fallback.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PoolConfig {
        PoolConfig::default()
            .max_sessions(9)
            .streams_per_session(65_535)
            .max_h1_connections(1)
            .min_sessions(2)
            .balance(Balance::Pack)
            .max_waiters(0)
            .limit_concurrency(7)
            .max_origins(1)
            .blocking_threads(3)
            .connect_timeout(Duration::from_millis(1))
            .acquire_timeout(Duration::ZERO)
            .idle_timeout(Duration::from_micros(1_500))
            .max_age(Duration::from_secs(365 * 24 * 3600))
            .max_streams_per_session(1_000_000)
            .drain_timeout(Duration::from_secs(90))
            .keep_alive_interval(Duration::from_nanos(1_000_000_001))
            .keep_alive_timeout(Duration::from_secs(3600))
            .keep_alive_while_idle(true)
            .probe_timeout(Duration::from_millis(250))
            .max_replays(0)
            .replay_buffer(0)
            .h1_only_ttl(Duration::ZERO)
            .h1_only_capacity(1)
            .http2_prior_knowledge(true)
            .stream_window(1024)
            .connection_window(65_535)
            .adaptive_window(false)
            .max_stream_window(2_147_483_647)
            .max_connection_window(65_536)
            .max_frame_size(16_384)
            .max_send_buffer(1024)
            .max_header_list_size(1024)
            .max_informational(1)
            .control_frames_per_second(10)
            .header_timeout(Duration::from_secs(1))
            .body_idle_timeout(Duration::from_secs(2))
            .write_timeout(Duration::from_secs(3))
    }

    fn builder() -> Builder {
        Builder::new()
            .max_sessions(9)
            .streams_per_session(65_535)
            .max_h1_connections(1)
            .min_sessions(2)
            .balance(Balance::Pack)
            .max_waiters(0)
            .limit_concurrency(7)
            .max_origins(1)
            .blocking_threads(3)
            .connect_timeout(Duration::from_millis(1))
            .acquire_timeout(Duration::ZERO)
            .idle_timeout(Duration::from_micros(1_500))
            .max_age(Duration::from_secs(365 * 24 * 3600))
            .max_streams_per_session(1_000_000)
            .drain_timeout(Duration::from_secs(90))
            .keep_alive_interval(Duration::from_nanos(1_000_000_001))
            .keep_alive_timeout(Duration::from_secs(3600))
            .keep_alive_while_idle(true)
            .probe_timeout(Duration::from_millis(250))
            .max_replays(0)
            .replay_buffer(0)
            .h1_only_ttl(Duration::ZERO)
            .h1_only_capacity(1)
            .http2_prior_knowledge(true)
            .stream_window(1024)
            .connection_window(65_535)
            .adaptive_window(false)
            .max_stream_window(2_147_483_647)
            .max_connection_window(65_536)
            .max_frame_size(16_384)
            .max_send_buffer(1024)
            .max_header_list_size(1024)
            .max_informational(1)
            .control_frames_per_second(10)
            .header_timeout(Duration::from_secs(1))
            .body_idle_timeout(Duration::from_secs(2))
            .write_timeout(Duration::from_secs(3))
    }

    #[test]
    fn every_setter_sets_the_field_of_its_name() {
        // P42. The setters of `PoolConfig` are held against a file in `tests/config_files.rs`.
        assert_ne!(config(), PoolConfig::default());
        assert_eq!(builder().config, config());
    }

    #[test]
    fn a_whole_configuration_is_taken_and_changed() {
        // P42
        let builder = Builder::<Origin>::new()
            .max_sessions(9)
            .config(PoolConfig::default())
            .max_waiters(0);
        assert_eq!(builder.config, PoolConfig::default().max_waiters(0));
    }
}
