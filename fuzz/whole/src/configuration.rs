//! Configurations from text and from setters (P42).

use std::time::Duration;

use h2pool::connect::memory;
use h2pool::{Balance, H2Pool, Origin, PoolConfig};

use crate::input::Input;

/// The first byte chooses TOML, JSON or the setters. Panics where a promise is broken.
pub fn run(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else {
        return;
    };
    match how % 3 {
        0 => text(rest, |text| {
            toml::from_str(text).map_err(|error| error.to_string())
        }),
        1 => text(rest, |text| {
            serde_json::from_str(text).map_err(|error| error.to_string())
        }),
        _ => setters(&mut Input::new(rest)),
    }
}

fn text(bytes: &[u8], read: impl FnOnce(&str) -> Result<PoolConfig, String>) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match read(text) {
        Ok(config) => {
            config.validate().expect("what was read is valid");
            accepted(&config);
        }
        Err(error) => assert!(!error.is_empty()),
    }
}

/// What is accepted builds a pool, and survives being written and read.
fn accepted(config: &PoolConfig) {
    let (connector, _listener) = memory::pair::<Origin>();
    let built = H2Pool::builder()
        .config(config.clone())
        .connector(connector)
        .build();
    built.expect("a valid configuration builds a pool");
    let written = toml::to_string(config).expect("TOML can hold it");
    let read: PoolConfig = toml::from_str(&written).expect("what was written can be read");
    assert_eq!(&read, config, "{written}");
    let written = serde_json::to_string(config).expect("JSON can hold it");
    let read: PoolConfig = serde_json::from_str(&written).expect("what was written can be read");
    assert_eq!(&read, config, "{written}");
}

fn setters(input: &mut Input<'_>) {
    let mut config = PoolConfig::default();
    while !input.is_empty() {
        config = set(config, input);
    }
    let (connector, _listener) = memory::pair::<Origin>();
    let built = H2Pool::builder()
        .config(config.clone())
        .connector(connector)
        .build();
    match config.validate() {
        Ok(()) => accepted(&config),
        Err(error) => {
            assert!(error.is_config());
            assert!(error.to_string().starts_with('`'), "names the field: {error}");
            let refused = built.expect_err("what is not valid builds nothing");
            assert_eq!(refused.to_string(), error.to_string());
            let written = serde_json::to_string(&config).expect("JSON can hold it");
            serde_json::from_str::<PoolConfig>(&written).expect_err("what is not valid cannot be read");
        }
    }
}

/// One setter with one value, small ones and huge ones alike.
fn set(config: PoolConfig, input: &mut Input<'_>) -> PoolConfig {
    match input.byte() % 37 {
        0 => config.max_sessions(size(input)),
        1 => config.streams_per_session(size(input)),
        2 => config.max_h1_connections(size(input)),
        3 => config.min_sessions(size(input)),
        4 => config.balance(if input.flag() {
            Balance::Pack
        } else {
            Balance::LeastLoaded
        }),
        5 => config.max_waiters(size(input)),
        6 => config.limit_concurrency(size(input)),
        7 => config.max_origins(size(input)),
        8 => config.blocking_threads(size(input)),
        9 => config.connect_timeout(duration(input)),
        10 => config.acquire_timeout(duration(input)),
        11 => config.idle_timeout(duration(input)),
        12 => config.max_age(duration(input)),
        13 => config.max_streams_per_session(size(input)),
        14 => config.drain_timeout(duration(input)),
        15 => config.keep_alive_interval(duration(input)),
        16 => config.keep_alive_timeout(duration(input)),
        17 => config.keep_alive_while_idle(input.flag()),
        18 => config.probe_timeout(duration(input)),
        19 => config.max_replays(size(input)),
        20 => config.replay_buffer(size(input)),
        21 => config.h1_only_ttl(duration(input)),
        22 => config.h1_only_capacity(size(input)),
        23 => config.http2_prior_knowledge(input.flag()),
        24 => config.stream_window(input.u32()),
        25 => config.connection_window(input.u32()),
        26 => config.adaptive_window(input.flag()),
        27 => config.max_stream_window(input.u32()),
        28 => config.max_connection_window(input.u32()),
        29 => config.max_frame_size(input.u32()),
        30 => config.max_send_buffer(size(input)),
        31 => config.max_header_list_size(input.u32()),
        32 => config.max_informational(size(input)),
        33 => config.control_frames_per_second(size(input)),
        34 => config.header_timeout(duration(input)),
        35 => config.body_idle_timeout(duration(input)),
        _ => config.write_timeout(duration(input)),
    }
}

fn size(input: &mut Input<'_>) -> usize {
    let value = input.u32();
    let value = usize::try_from(value).unwrap_or(usize::MAX);
    // The top bits choose the size of it, so that every range is met.
    match value >> 30 {
        0 => value & 0xff,
        1 => value & 0xf_ffff,
        2 => value,
        _ => usize::MAX - (value & 0xff),
    }
}

fn duration(input: &mut Input<'_>) -> Duration {
    let (seconds, nanos) = (input.u32(), input.u32());
    match seconds >> 30 {
        0 => Duration::from_nanos(nanos.into()),
        1 => Duration::from_secs((seconds & 0xfff).into()),
        2 => Duration::new((seconds & 0x3ff_ffff).into(), nanos % 1_000_000_000),
        _ => Duration::MAX - Duration::from_nanos(nanos.into()),
    }
}
