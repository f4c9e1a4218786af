//! One setter for each field, by value and named like it.

use std::time::Duration;

use super::{Balance, PoolConfig};

/// Setters. They take any value; [`validate`](Self::validate) checks it.
impl PoolConfig {
    /// How many sessions one origin may have. Default 4, allowed 1..=1024.
    #[must_use]
    pub fn max_sessions(mut self, max_sessions: usize) -> Self {
        self.max_sessions = max_sessions;
        self
    }

    /// How many streams one HTTP/2 session may carry at a time. Default 256, allowed 1..=65535.
    #[must_use]
    pub fn streams_per_session(mut self, streams_per_session: usize) -> Self {
        self.streams_per_session = streams_per_session;
        self
    }

    /// How many HTTP/1.1 connections one origin may have. Default 16, allowed 1..=4096.
    #[must_use]
    pub fn max_h1_connections(mut self, max_h1_connections: usize) -> Self {
        self.max_h1_connections = max_h1_connections;
        self
    }

    /// How many sessions are kept open while their origin is in use; at most `max_sessions`. Default 0,
    /// allowed 0..=1024; 0 means none.
    #[must_use]
    pub fn min_sessions(mut self, min_sessions: usize) -> Self {
        self.min_sessions = min_sessions;
        self
    }

    /// Which of the sessions that have room takes the next request. Default `LeastLoaded`.
    #[must_use]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// How many callers may wait for one origin. Default 2048, allowed 0..=4294967295; 0 means unlimited.
    #[must_use]
    pub fn max_waiters(mut self, max_waiters: usize) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// How many requests may be in flight over the whole pool. Default 0, allowed 0..=4294967295; 0 means
    /// off.
    #[must_use]
    pub fn limit_concurrency(mut self, limit_concurrency: usize) -> Self {
        self.limit_concurrency = limit_concurrency;
        self
    }

    /// How many origins the pool remembers; idle ones leave first. Default 1024, allowed 1..=1048576.
    #[must_use]
    pub fn max_origins(mut self, max_origins: usize) -> Self {
        self.max_origins = max_origins;
        self
    }

    /// How many threads serve name look-ups, unless a [`connector`](crate::Builder::connector) is given. Default 200,
    /// allowed 1..=10000.
    #[must_use]
    pub fn blocking_threads(mut self, blocking_threads: usize) -> Self {
        self.blocking_threads = blocking_threads;
        self
    }

    /// Time for one dial: name look-up, TCP, TLS and the first SETTINGS. Default 10s, allowed 1ms..=1h.
    #[must_use]
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Time that a caller waits for a slot. Default 30s, allowed 0s..=365days; 0 means off.
    #[must_use]
    pub fn acquire_timeout(mut self, acquire_timeout: Duration) -> Self {
        self.acquire_timeout = acquire_timeout;
        self
    }

    /// Time until a session without streams is closed. Default 90s, allowed 0s..=365days; 0 means never.
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = idle_timeout;
        self
    }

    /// Age at which a session is replaced and drained. Default 0s, allowed 0s..=365days; 0 means off.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Streams after which a session is replaced and drained. Default 0, allowed 0..=1000000000; 0 means
    /// off.
    #[must_use]
    pub fn max_streams_per_session(mut self, max_streams_per_session: usize) -> Self {
        self.max_streams_per_session = max_streams_per_session;
        self
    }

    /// Time that streams have to finish once their session drains. Default 30s, allowed 0s..=365days; 0
    /// means no limit.
    #[must_use]
    pub fn drain_timeout(mut self, drain_timeout: Duration) -> Self {
        self.drain_timeout = drain_timeout;
        self
    }

    /// Time without a frame from the server after which it is pinged. Default 0s, allowed 0s..=365days; 0
    /// means off.
    #[must_use]
    pub fn keep_alive_interval(mut self, keep_alive_interval: Duration) -> Self {
        self.keep_alive_interval = keep_alive_interval;
        self
    }

    /// Time that the answer to a keep-alive PING may take. Default 20s, allowed 1ms..=1h.
    #[must_use]
    pub fn keep_alive_timeout(mut self, keep_alive_timeout: Duration) -> Self {
        self.keep_alive_timeout = keep_alive_timeout;
        self
    }

    /// Whether sessions without streams are pinged too. Default false.
    #[must_use]
    pub fn keep_alive_while_idle(mut self, keep_alive_while_idle: bool) -> Self {
        self.keep_alive_while_idle = keep_alive_while_idle;
        self
    }

    /// Time to answer the PING that follows a request cancelled unanswered. Default 1s, allowed 1ms..=1h.
    #[must_use]
    pub fn probe_timeout(mut self, probe_timeout: Duration) -> Self {
        self.probe_timeout = probe_timeout;
        self
    }

    /// How often a request that the server did not process is sent again. Default 3, allowed 0..=100; 0
    /// means off.
    #[must_use]
    pub fn max_replays(mut self, max_replays: usize) -> Self {
        self.max_replays = max_replays;
        self
    }

    /// Bytes of a request's body that are kept for a replay. Default 65536, allowed 0..=1073741824; 0 means
    /// off.
    #[must_use]
    pub fn replay_buffer(mut self, replay_buffer: usize) -> Self {
        self.replay_buffer = replay_buffer;
        self
    }

    /// Time for which an origin that speaks only HTTP/1.1 is remembered. Default 5m, allowed 0s..=365days;
    /// 0 means no cache.
    #[must_use]
    pub fn h1_only_ttl(mut self, h1_only_ttl: Duration) -> Self {
        self.h1_only_ttl = h1_only_ttl;
        self
    }

    /// How many origins are remembered to speak only HTTP/1.1. Default 1024, allowed 1..=1048576.
    #[must_use]
    pub fn h1_only_capacity(mut self, h1_only_capacity: usize) -> Self {
        self.h1_only_capacity = h1_only_capacity;
        self
    }

    /// Whether `http://` origins speak HTTP/2 by prior knowledge; a [`connector`](crate::Builder::connector) decides by
    /// itself. Default false.
    #[must_use]
    pub fn http2_prior_knowledge(mut self, http2_prior_knowledge: bool) -> Self {
        self.http2_prior_knowledge = http2_prior_knowledge;
        self
    }

    /// Flow-control window of a stream in bytes; at most `connection_window`. Default 2097152, allowed
    /// 1024..=2147483647.
    #[must_use]
    pub fn stream_window(mut self, stream_window: u32) -> Self {
        self.stream_window = stream_window;
        self
    }

    /// Flow-control window of a session in bytes; at least `stream_window`, twice which is taken if it is more.
    /// Default 5242880, allowed 65535..=2147483647.
    #[must_use]
    pub fn connection_window(mut self, connection_window: u32) -> Self {
        self.connection_window = connection_window;
        self
    }

    /// Whether windows grow with the measured bandwidth × delay. Default true.
    #[must_use]
    pub fn adaptive_window(mut self, adaptive_window: bool) -> Self {
        self.adaptive_window = adaptive_window;
        self
    }

    /// Bytes to which a stream's window may grow. Default 16777216, allowed 1024..=2147483647.
    #[must_use]
    pub fn max_stream_window(mut self, max_stream_window: u32) -> Self {
        self.max_stream_window = max_stream_window;
        self
    }

    /// Bytes to which a session's window may grow. Default 16777216, allowed 65535..=2147483647.
    #[must_use]
    pub fn max_connection_window(mut self, max_connection_window: u32) -> Self {
        self.max_connection_window = max_connection_window;
        self
    }

    /// Bytes of the largest frame that the server may send. Default 65536, allowed 16384..=16777215.
    #[must_use]
    pub fn max_frame_size(mut self, max_frame_size: u32) -> Self {
        self.max_frame_size = max_frame_size;
        self
    }

    /// Bytes of a request's body buffered before they are written. Default 409600, allowed
    /// 1024..=1073741824.
    #[must_use]
    pub fn max_send_buffer(mut self, max_send_buffer: usize) -> Self {
        self.max_send_buffer = max_send_buffer;
        self
    }

    /// Bytes of a response's headers, and of its trailers. Default 65536, allowed 1024..=16777216.
    #[must_use]
    pub fn max_header_list_size(mut self, max_header_list_size: u32) -> Self {
        self.max_header_list_size = max_header_list_size;
        self
    }

    /// How many informational (1xx) responses one request accepts. Default 32, allowed 1..=10000.
    #[must_use]
    pub fn max_informational(mut self, max_informational: usize) -> Self {
        self.max_informational = max_informational;
        self
    }

    /// How many control frames one session accepts in a second; the handshake takes some. Default 1000, allowed
    /// 10..=1000000.
    #[must_use]
    pub fn control_frames_per_second(mut self, control_frames_per_second: usize) -> Self {
        self.control_frames_per_second = control_frames_per_second;
        self
    }

    /// Time from the end of a request to the response's headers. Default 0s, allowed 0s..=365days; 0 means
    /// off.
    #[must_use]
    pub fn header_timeout(mut self, header_timeout: Duration) -> Self {
        self.header_timeout = header_timeout;
        self
    }

    /// Time within a response's body in which nothing of it arrives or is read. Default 0s, allowed
    /// 0s..=365days; 0 means off.
    #[must_use]
    pub fn body_idle_timeout(mut self, body_idle_timeout: Duration) -> Self {
        self.body_idle_timeout = body_idle_timeout;
        self
    }

    /// Time in which a write must make progress. Default 0s, allowed 0s..=365days; 0 means off.
    #[must_use]
    pub fn write_timeout(mut self, write_timeout: Duration) -> Self {
        self.write_timeout = write_timeout;
        self
    }
}
