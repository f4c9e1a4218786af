//! The configuration and its setters, without files.

use std::time::Duration;

use h2pool::{Balance, PoolConfig};

#[test]
fn defaults_are_those_of_the_contract_and_valid() {
    let config = PoolConfig::default();
    config.validate().unwrap();
    assert_eq!((config.max_sessions, config.streams_per_session), (4, 256)); // P3, P5
    assert_eq!(config.balance, Balance::LeastLoaded); // P6
    assert_eq!(
        (config.acquire_timeout, config.max_waiters),
        (Duration::from_secs(30), 2048)
    ); // P13
    assert_eq!(config.limit_concurrency, 0); // P15
    assert_eq!(config.idle_timeout, Duration::from_secs(90)); // P16
    assert_eq!(
        (config.max_age, config.max_streams_per_session),
        (Duration::ZERO, 0)
    ); // P17
    let (interval, timeout) = (config.keep_alive_interval, config.keep_alive_timeout);
    assert_eq!((interval, timeout), (Duration::ZERO, Duration::from_secs(20))); // P19
    assert!(!config.keep_alive_while_idle); // P19
    assert_eq!(config.probe_timeout, Duration::from_secs(1)); // P19
    assert_eq!((config.max_replays, config.replay_buffer), (3, 64 * 1024)); // P21
    assert_eq!(config.max_h1_connections, 16); // P24
    assert_eq!(
        (config.h1_only_ttl, config.h1_only_capacity),
        (Duration::from_secs(300), 1024)
    ); // P25
    assert_eq!(config.max_header_list_size, 64 * 1024); // P32
    assert_eq!(config.blocking_threads, 200); // P38
    assert_eq!(
        (config.max_informational, config.control_frames_per_second),
        (32, 1000)
    ); // P44
}

#[test]
fn fields_that_contradict_each_other_are_refused_by_name() {
    // P42
    let base = PoolConfig::default;
    let cases = [
        (
            base().min_sessions(5),
            "`min_sessions` is 5: expected at most `max_sessions`, which is 4",
        ),
        (
            base().stream_window(6 << 20),
            "`stream_window` is 6291456: expected at most `connection_window`, which is 5242880",
        ),
        (
            base().max_stream_window(1 << 20),
            "`stream_window` is 2097152: expected at most `max_stream_window`, which is 1048576",
        ),
        (
            base().connection_window(17 << 20),
            "`connection_window` is 17825792: expected at most `max_connection_window`, which is 16777216",
        ),
        (
            base().max_stream_window(17 << 20),
            "`max_stream_window` is 17825792: expected at most `max_connection_window`, which is 16777216",
        ),
    ];
    for (config, text) in cases {
        let error = config.validate().unwrap_err();
        assert!(error.is_config());
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn the_bounds_of_growth_do_not_matter_where_windows_do_not_grow() {
    // P33, P42
    let fixed = PoolConfig::default()
        .connection_window(32 << 20)
        .stream_window(32 << 20);
    assert!(fixed.clone().validate().is_err());
    fixed.adaptive_window(false).validate().unwrap();
}

#[test]
fn a_duration_out_of_range_is_named() {
    // P42
    let error = PoolConfig::default()
        .connect_timeout(Duration::ZERO)
        .validate()
        .unwrap_err();
    let text = "`connect_timeout` is 0ns: expected a duration such as \"90s\" in 1ms..=1h";
    assert_eq!(error.to_string(), text);
    let error = PoolConfig::default()
        .max_age(Duration::MAX)
        .validate()
        .unwrap_err();
    assert!(error.to_string().ends_with("in 0s..=365days (0: off)"), "{error}");
}
