//! The configuration, divided among those who go by it.
//!
//! [`Settings::of`] takes the configuration apart field by field, so that a new field does not compile until it has a
//! place here, or is named as somebody's own business.

use std::time::Duration;

use crate::config::{Balance, PoolConfig};
use crate::session::meter::Bounds;
use crate::session::{KeepAlive, Patience, Sizes, Tuning};
use crate::state::Limits;

/// The first and the longest pause between dials to an origin that fails.
const DIAL_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a session that refused twice gets no work.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// What follows from a configuration that was found valid.
#[derive(Debug)]
pub(super) struct Settings {
    /// What an origin's state decides by.
    pub(super) limits: Limits,
    /// How sessions are set up.
    pub(super) tuning: Tuning,
    /// How long requests wait for their server.
    pub(super) patience: Patience,
}

impl Settings {
    pub(super) fn of(config: &PoolConfig) -> Self {
        Self {
            limits: limits(config),
            tuning: tuning(config),
            patience: patience(config),
        }
    }
}

/// Names every field. Those that are not for the state (`_`) are for the others below, or read where they are used: the
/// pool's own bounds in `core.rs`, replays in `request.rs`, the connectors' in `builder.rs`.
fn limits(config: &PoolConfig) -> Limits {
    let PoolConfig {
        max_sessions,
        streams_per_session,
        max_h1_connections,
        min_sessions,
        balance,
        max_waiters,
        limit_concurrency: _,
        max_origins: _,
        blocking_threads: _,
        connect_timeout,
        acquire_timeout: _,
        idle_timeout,
        max_age,
        max_streams_per_session,
        drain_timeout,
        keep_alive_interval: _,
        keep_alive_timeout: _,
        keep_alive_while_idle: _,
        probe_timeout,
        max_replays: _,
        replay_buffer: _,
        h1_only_ttl: _,
        h1_only_capacity: _,
        http2_prior_knowledge: _,
        stream_window: _,
        connection_window: _,
        adaptive_window: _,
        max_stream_window: _,
        max_connection_window: _,
        max_frame_size: _,
        max_send_buffer: _,
        max_header_list_size: _,
        max_informational: _,
        control_frames_per_second: _,
        header_timeout: _,
        body_idle_timeout: _,
        write_timeout: _,
    } = *config;
    Limits {
        max_sessions: bound(max_sessions),
        max_h1_connections: bound(max_h1_connections),
        min_sessions: bound(min_sessions),
        streams_per_session: bound(streams_per_session),
        pack: balance == Balance::Pack,
        max_waiters: (max_waiters > 0).then(|| bound(max_waiters)),
        connect_timeout,
        idle_timeout: some(idle_timeout),
        max_age: some(max_age),
        max_streams_per_session: (max_streams_per_session > 0).then_some(max_streams_per_session as u64),
        drain_timeout: some(drain_timeout),
        probe_timeout,
        refusal_pause: REFUSAL_PAUSE,
        backoff_base: DIAL_BACKOFF.0,
        backoff_max: DIAL_BACKOFF.1,
    }
}

fn tuning(config: &PoolConfig) -> Tuning {
    Tuning {
        windows: Sizes::new(config.stream_window, config.connection_window),
        most_windows: config.adaptive_window.then_some(Sizes {
            stream: config.max_stream_window,
            connection: config.max_connection_window,
        }),
        max_frame_size: config.max_frame_size,
        max_header_list_size: config.max_header_list_size,
        max_send_buffer: config.max_send_buffer,
        streams: config.streams_per_session,
        keep_alive: some(config.keep_alive_interval).map(|interval| KeepAlive {
            interval,
            timeout: config.keep_alive_timeout,
            while_idle: config.keep_alive_while_idle,
        }),
        write_timeout: some(config.write_timeout),
        body_idle_timeout: some(config.body_idle_timeout),
        bounds: Bounds {
            control_per_second: bound(config.control_frames_per_second),
            window_updates_per_second: bound(config.control_frames_per_second),
            informational: bound(config.max_informational),
            informational_bytes: u64::from(config.max_header_list_size),
            header_block_bytes: u64::from(config.max_header_list_size),
            stream_window: u64::from(largest_window(config)),
            ..Bounds::default()
        },
    }
}

fn patience(config: &PoolConfig) -> Patience {
    Patience {
        header: some(config.header_timeout),
        write: some(config.write_timeout),
    }
}

/// Zero means off.
pub(super) fn some(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// The largest window that a stream is ever given.
fn largest_window(config: &PoolConfig) -> u32 {
    if config.adaptive_window {
        config.stream_window.max(config.max_stream_window)
    } else {
        config.stream_window
    }
}

/// Validated to fit.
fn bound(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
