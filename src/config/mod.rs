//! What a pool can be told: [`PoolConfig`].
//!
//! Every value is checked in one place, [`PoolConfig::validate`], which the builder calls; after that the pool takes
//! its numbers as they are. `fields` lists each field with its range; checking and (feature `serde`) reading and
//! writing all go by that list.

mod fields;
#[cfg(feature = "serde")]
mod file;
mod setters;

use std::time::Duration;

use crate::error::Error;
use fields::FIELDS;

const MIB: u32 = 1 << 20;

/// The configuration of a pool: plain values, compared, copied and stored at will.
///
/// Durations are [`Duration`]s, sizes are in bytes. Zero means off (or what the field says instead) where a field says
/// so, and is refused elsewhere. Made by [`Default`] and the setters, given to
/// [`Builder::config`](crate::Builder::config):
///
/// ```
/// use std::time::Duration;
/// use h2pool::PoolConfig;
///
/// let config = PoolConfig::default().max_sessions(8).idle_timeout(Duration::from_secs(30));
/// assert_eq!(config.max_sessions, 8);
/// config.validate()?;
/// # Ok::<(), h2pool::Error>(())
/// ```
///
/// # Files
///
/// With the feature `serde` it is read from TOML, JSON or another self-describing format, and written to it. Durations
/// are written as `"90s"` (or `"1m 30s"`, `"250ms"`, …; plain `0` is understood too), sizes as integers. A missing
/// field has its default. An unknown or repeated field, a value of the wrong type or out of range, and fields that
/// contradict each other are errors that name the field and what it allows. The pool never reads the environment.
#[cfg_attr(
    feature = "serde",
    doc = r#"
```
let config: h2pool::PoolConfig = toml::from_str(r"
    max_sessions = 8
    idle_timeout = '30s'
")?;
assert_eq!(config.idle_timeout.as_secs(), 30);

let error = toml::from_str::<h2pool::PoolConfig>("max_sessions = 0").unwrap_err();
assert!(error.message().ends_with("expected an integer in 1..=1024 for `max_sessions`"));
# Ok::<(), toml::de::Error>(())
```
"#
)]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    // Capacity
    /// Sessions (connections) that one origin may have, dialing and active ones together. Draining ones do
    /// not count, but together there are never more than twice as many: beyond that dials wait until one has
    /// drained (see `drain_timeout`). Where callers use several current-thread runtimes, the bound holds for
    /// each of them.
    ///
    /// Default 4, allowed 1..=1024.
    pub max_sessions: usize,
    /// Streams (requests in flight) on one HTTP/2 session. The server's SETTINGS_MAX_CONCURRENT_STREAMS
    /// (RFC 9113 §6.5.2) may lower it, never raise it.
    ///
    /// Default 256, allowed 1..=65535.
    pub streams_per_session: usize,
    /// Connections that one origin may have while it speaks HTTP/1.1, where a connection carries one
    /// request at a time: as many requests run at once. Takes the place of `max_sessions` there.
    ///
    /// Default 16, allowed 1..=4096.
    pub max_h1_connections: usize,
    /// Sessions that are kept open while their origin is in use, whatever `idle_timeout` says. At most
    /// `max_sessions`.
    ///
    /// Default 0, allowed 0..=1024; 0 means none.
    pub min_sessions: usize,
    /// Which of the sessions that have room takes the next request.
    ///
    /// Default `LeastLoaded`.
    pub balance: Balance,
    /// Callers that may wait for a slot of one origin. One more is refused at once; its error's
    /// `is_saturated()` is true.
    ///
    /// Default 2048, allowed 0..=4294967295; 0 means unlimited.
    pub max_waiters: usize,
    /// Requests in flight over the whole pool, all origins together. While it is off no shared lock is
    /// touched.
    ///
    /// Default 0, allowed 0..=4294967295; 0 means off.
    pub limit_concurrency: usize,
    /// Origins that the pool remembers. One more makes an idle one leave, of those the ones that were not used lately
    /// first; where none is idle it is refused, and its error's `is_saturated()` is true.
    ///
    /// Default 1024, allowed 1..=1048576.
    pub max_origins: usize,
    /// Threads for name look-ups of the pool's own connector: how many run at once. They are tokio's
    /// (`max_blocking_threads` of the runtime, default 512). Without effect where the pool was given a `connector`, which has
    /// a number of its own.
    ///
    /// Default 200, allowed 1..=10000.
    pub blocking_threads: usize,

    // Time to a slot
    /// Time for one dial: name look-up, TCP, TLS and the server's first SETTINGS together.
    ///
    /// Default 10s, allowed 1ms..=1h.
    pub connect_timeout: Duration,
    /// Time that a caller waits for a slot, the wait for `limit_concurrency` included.
    ///
    /// Default 30s, allowed 0s..=365days; 0 means off.
    pub acquire_timeout: Duration,

    // Life of a session
    /// Time after the end of a session's last stream until it is closed. A [`Lease`](crate::Lease) that carries no
    /// stream prolongs it only if it is out when that stream ends, or when the time has come: for as long from its own end.
    ///
    /// Default 90s, allowed 0s..=365days; 0 means never.
    pub idle_timeout: Duration,
    /// Age at which a session is replaced and drained. Each session's own age is made shorter by up to a
    /// tenth at random, so that sessions opened together do not end together.
    ///
    /// Default 0s, allowed 0s..=365days; 0 means off.
    pub max_age: Duration,
    /// Streams after which a session is replaced and drained; until its replacement is open it takes more.
    /// Sessions are replaced before stream ids run out (RFC 9113 §5.1.1) in any case.
    ///
    /// Default 0, allowed 0..=1000000000; 0 means off.
    pub max_streams_per_session: usize,
    /// Time that streams have to finish once their session drains: after GOAWAY, rotation or `close()`.
    /// Without a limit the session ends with its last stream, however late; only where twice `max_sessions` are open or
    /// drain, and somebody waits, or `max_sessions` drain so and a misdirected request (421) waits for one of its own, the one
    /// that began to drain first ends, 2 s after that or later.
    ///
    /// Default 30s, allowed 0s..=365days; 0 means no limit.
    pub drain_timeout: Duration,
    /// Time without a frame from the server after which a PING (RFC 9113 §6.7) asks whether it is still
    /// there.
    ///
    /// Default 0s, allowed 0s..=365days; 0 means off.
    pub keep_alive_interval: Duration,
    /// Time that the answer to a keep-alive PING may take. Without one the session is dead and its streams
    /// fail; their error's `is_keep_alive_timeout()` is true.
    ///
    /// Default 20s, allowed 1ms..=1h.
    pub keep_alive_timeout: Duration,
    /// Whether sessions without streams are pinged too. Matters only with `keep_alive_interval`.
    ///
    /// Default false.
    pub keep_alive_while_idle: bool,
    /// Time that a session has to answer the PING sent after a request on it was cancelled unanswered.
    /// Without an answer it gets no new work and a replacement is opened; its streams are left alone, since it may only
    /// be slow: as without a limit in `drain_timeout`, unless the server says GOAWAY. `keep_alive_interval` ends those of a
    /// server that is gone.
    ///
    /// Default 1s, allowed 1ms..=1h.
    pub probe_timeout: Duration,

    // Replays of what the server did not process
    /// How often the pool sends one request again after the server provably did nothing with it (RFC 9113
    /// §8.7). What is nobody's fault does not count: a GOAWAY that covers other requests (up to 1,000 times),
    /// and a refusal before the server's SETTINGS were known (up to 4 times). A session that refuses twice in
    /// a row gets no new work for a second.
    ///
    /// Default 3, allowed 0..=100; 0 means off.
    pub max_replays: usize,
    /// Bytes of a request's body that are kept (shared, not copied) until response headers arrive, so that
    /// it can be sent again; many small frames are kept as one, so that only their bytes count. Over it, or while
    /// it is off, only requests without a body, or with one that was never polled, are replayed.
    ///
    /// Default 65536, allowed 0..=1073741824; 0 means off.
    pub replay_buffer: usize,

    // HTTP/1.1 and plain text
    /// Time for which an origin that speaks only HTTP/1.1 is remembered. After it the next dial offers h2
    /// again.
    ///
    /// Default 5m, allowed 0s..=365days; 0 means no cache.
    pub h1_only_ttl: Duration,
    /// Origins that are remembered to speak only HTTP/1.1. One more makes the one not used for longest
    /// leave.
    ///
    /// Default 1024, allowed 1..=1048576.
    pub h1_only_capacity: usize,
    /// Whether `http://` origins speak HTTP/2 by prior knowledge (RFC 9113 §3.3) instead of HTTP/1.1. Where the pool was
    /// given a `connector`, that decides what is spoken; this only keeps such requests from a `fallback`.
    ///
    /// Default false.
    pub http2_prior_knowledge: bool,

    // HTTP/2 flow control and frames
    /// Bytes that the server may send on one stream before they are read (RFC 9113 §6.9). At most
    /// `connection_window`; over half of it, the session's window is made twice this.
    ///
    /// Default 2097152, allowed 1024..=2147483647.
    pub stream_window: u32,
    /// Bytes that the server may send on one session before they are read, all streams together. At least
    /// `stream_window`; where it is less than twice that, twice `stream_window` is taken (at most 2147483647), so
    /// that one unread body leaves room for others.
    ///
    /// Default 5242880, allowed 65535..=2147483647.
    pub connection_window: u32,
    /// Whether windows grow with the measured bandwidth × delay, up to `max_stream_window` and
    /// `max_connection_window`.
    ///
    /// Default true.
    pub adaptive_window: bool,
    /// Bytes to which a stream's window may grow; not beyond half of `max_connection_window`, so that
    /// one unread body leaves room for others. With `adaptive_window`, at least `stream_window` and at most
    /// `max_connection_window`.
    ///
    /// Default 16777216, allowed 1024..=2147483647.
    pub max_stream_window: u32,
    /// Bytes to which a session's window may grow: what unread responses of one session can hold in memory. A frame of less
    /// than 8 KiB may hold up to that much more, where other responses come between: it keeps the buffer it was read into.
    /// With `adaptive_window`, at least `connection_window` and `max_stream_window`. Never less than the
    /// session's window was from the start (see `connection_window`).
    ///
    /// Default 16777216, allowed 65535..=2147483647.
    pub max_connection_window: u32,
    /// Bytes of the largest frame that the server may send (RFC 9113 §6.5.2). With a `max_header_list_size` over 65536
    /// it is 16384.
    ///
    /// Default 65536, allowed 16384..=16777215.
    pub max_frame_size: u32,
    /// Bytes of a request's body that one stream may hand over before they are written to the socket.
    ///
    /// Default 409600, allowed 1024..=1073741824.
    pub max_send_buffer: usize,

    // Bounds on what a server may do
    /// Bytes of a response's headers, and of its trailers, decoded, counted as in RFC 9113 §6.5.2. Holds
    /// for all its 1xx responses together, too. Over HTTP/2, headers that come in many pieces far smaller than 16 KiB
    /// (CONTINUATION frames, RFC 9113 §6.10) end the session before that.
    ///
    /// Default 65536, allowed 1024..=16777216.
    pub max_header_list_size: u32,
    /// Informational (1xx) responses that one request accepts.
    ///
    /// Default 32, allowed 1..=10000.
    pub max_informational: usize,
    /// SETTINGS, PING, PRIORITY and unknown frames that one session accepts in a second; WINDOW_UPDATE has
    /// the same allowance again, and one more for each KiB of DATA sent. Over it the session ends. Every session
    /// begins with two or three such frames, and answers to PINGs count, too.
    ///
    /// Default 1000, allowed 10..=1000000.
    pub control_frames_per_second: usize,
    /// Time from the end of a request to the response's headers. 1xx responses do not end it.
    ///
    /// Default 0s, allowed 0s..=365days; 0 means off.
    pub header_timeout: Duration,
    /// Time within a response's body without a frame of it being read: because none came, or because the body
    /// is held and not polled. Then the stream is reset (over HTTP/1.1 the connection is closed), and its window
    /// and slot come back.
    ///
    /// Default 0s, allowed 0s..=365days; 0 means off.
    pub body_idle_timeout: Duration,
    /// Time in which a write must make progress: on the socket, or for a body that waits for flow control.
    ///
    /// Default 0s, allowed 0s..=365days; 0 means off.
    pub write_timeout: Duration,
}

/// Which of the sessions that have room takes the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Balance {
    /// The session with the fewest streams: load is spread. In files `"least_loaded"`. The default: with 8 to 128 requests in
    /// flight on four sessions, alone and beside two large downloads, it served 1.3 to 2.5 times as many requests as `Pack`,
    /// and as many with 512 (`docs/performance.md`).
    #[default]
    LeastLoaded,
    /// The busiest session with room: spare sessions idle out. In files `"pack"`.
    Pack,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_sessions: 4,
            streams_per_session: 256,
            max_h1_connections: 16,
            min_sessions: 0,
            balance: Balance::LeastLoaded,
            max_waiters: 2048,
            limit_concurrency: 0,
            max_origins: 1024,
            blocking_threads: 200,
            connect_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            max_age: Duration::ZERO,
            max_streams_per_session: 0,
            drain_timeout: Duration::from_secs(30),
            keep_alive_interval: Duration::ZERO,
            keep_alive_timeout: Duration::from_secs(20),
            keep_alive_while_idle: false,
            probe_timeout: Duration::from_secs(1),
            max_replays: 3,
            replay_buffer: 64 * 1024,
            h1_only_ttl: Duration::from_secs(300),
            h1_only_capacity: 1024,
            http2_prior_knowledge: false,
            stream_window: 2 * MIB,
            connection_window: 5 * MIB,
            adaptive_window: true,
            max_stream_window: 16 * MIB,
            max_connection_window: 16 * MIB,
            max_frame_size: 64 * 1024,
            max_send_buffer: 400 * 1024,
            max_header_list_size: 64 * 1024,
            max_informational: 32,
            control_frames_per_second: 1000,
            header_timeout: Duration::ZERO,
            body_idle_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
        }
    }
}

impl PoolConfig {
    /// Checks every field against its range, then the fields against each other. [`Builder::build`] does it too.
    ///
    /// [`Builder::build`]: crate::Builder
    ///
    /// # Errors
    /// `is_config()`; the text names the field, its value and what is allowed.
    ///
    /// ```
    /// let error = h2pool::PoolConfig::default().max_sessions(0).validate().unwrap_err();
    /// assert!(error.is_config());
    /// assert_eq!(error.to_string(), "`max_sessions` is 0: expected an integer in 1..=1024");
    /// ```
    pub fn validate(&self) -> Result<(), Error> {
        FIELDS.iter().try_for_each(|field| field.check(self))?;
        at_most(
            "min_sessions",
            self.min_sessions,
            "max_sessions",
            self.max_sessions,
        )?;
        at_most(
            "stream_window",
            self.stream_window,
            "connection_window",
            self.connection_window,
        )?;
        if !self.adaptive_window {
            return Ok(());
        }
        let (stream, connection) = (self.max_stream_window, self.max_connection_window);
        at_most("stream_window", self.stream_window, "max_stream_window", stream)?;
        at_most(
            "connection_window",
            self.connection_window,
            "max_connection_window",
            connection,
        )?;
        at_most("max_stream_window", stream, "max_connection_window", connection)
    }
}

fn at_most<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: T,
    bound: &str,
    most: T,
) -> Result<(), Error> {
    if value <= most {
        return Ok(());
    }
    Err(Error::config(format!(
        "`{name}` is {value}: expected at most `{bound}`, which is {most}"
    )))
}
