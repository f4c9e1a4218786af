//! The configuration in TOML and JSON (feature `serde`).
#![cfg(feature = "serde")]

use std::time::Duration;

use h2pool::{Balance, PoolConfig};

/// A configuration in which every field differs from its default.
fn all_different() -> PoolConfig {
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

/// The same as a file.
const ALL_DIFFERENT: &str = r#"
max_sessions = 9
streams_per_session = 65535
max_h1_connections = 1
min_sessions = 2
balance = "pack"
max_waiters = 0
limit_concurrency = 7
max_origins = 1
blocking_threads = 3
connect_timeout = "1ms"
acquire_timeout = "0s"
idle_timeout = "1500us"
max_age = "365days"
max_streams_per_session = 1000000
drain_timeout = "90s"
keep_alive_interval = "1000000001ns"
keep_alive_timeout = "3600s"
keep_alive_while_idle = true
probe_timeout = "250ms"
max_replays = 0
replay_buffer = 0
h1_only_ttl = "0s"
h1_only_capacity = 1
http2_prior_knowledge = true
stream_window = 1024
connection_window = 65535
adaptive_window = false
max_stream_window = 2147483647
max_connection_window = 65536
max_frame_size = 16384
max_send_buffer = 1024
max_header_list_size = 1024
max_informational = 1
control_frames_per_second = 10
header_timeout = "1s"
body_idle_timeout = "2s"
write_timeout = "3s"
"#;

fn toml_error(text: &str) -> String {
    toml::from_str::<PoolConfig>(text).expect_err(text).to_string()
}

fn json_error(text: &str) -> String {
    serde_json::from_str::<PoolConfig>(text)
        .expect_err(text)
        .to_string()
}

#[test]
fn the_example_file_lists_every_field_with_its_default() {
    // P42
    let text = include_str!("../examples/h2pool.toml");
    assert_eq!(toml::from_str::<PoolConfig>(text).unwrap(), PoolConfig::default());
    let listed: toml::Table = text.parse().unwrap();
    let all: toml::Table = toml::to_string(&PoolConfig::default()).unwrap().parse().unwrap();
    let names = |table: &toml::Table| table.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&listed), names(&all));
}

#[test]
fn every_setter_sets_the_field_of_its_name() {
    // P42
    assert_eq!(
        toml::from_str::<PoolConfig>(ALL_DIFFERENT).unwrap(),
        all_different()
    );
}

#[test]
fn what_is_written_is_read_back_the_same() {
    // P42
    let config = all_different();
    let default = toml::Table::try_from(PoolConfig::default()).unwrap();
    for (name, value) in toml::Table::try_from(&config).unwrap() {
        assert_ne!(value, default[&name], "`{name}` is not exercised");
    }
    for config in [config, PoolConfig::default()] {
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<PoolConfig>(&text).unwrap(), config);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<PoolConfig>(&text).unwrap(), config);
    }
}

#[test]
fn an_empty_file_is_the_default_and_a_table_within_another_file_is_read() {
    // P42
    assert_eq!(toml::from_str::<PoolConfig>("").unwrap(), PoolConfig::default());
    assert_eq!(
        serde_json::from_str::<PoolConfig>("{}").unwrap(),
        PoolConfig::default()
    );

    #[derive(serde::Deserialize)]
    struct Service {
        pool: PoolConfig,
    }
    let service: Service = toml::from_str("[pool]\nmax_sessions = 2\nbalance = 'pack'").unwrap();
    assert_eq!(
        service.pool,
        PoolConfig::default().max_sessions(2).balance(Balance::Pack)
    );
}

#[test]
fn durations_are_written_with_their_unit_and_zero_needs_none() {
    // P42
    let read = |text: &str| toml::from_str::<PoolConfig>(text).unwrap().idle_timeout;
    assert_eq!(read("idle_timeout = '90s'"), Duration::from_secs(90));
    assert_eq!(read("idle_timeout = '1m 30s'"), Duration::from_secs(90));
    assert_eq!(read("idle_timeout = '250ms'"), Duration::from_millis(250));
    for zero in ["'0s'", "'0'", "0"] {
        assert_eq!(read(&format!("idle_timeout = {zero}")), Duration::ZERO);
    }
    let written = serde_json::to_value(PoolConfig::default()).unwrap();
    assert_eq!(written["connect_timeout"], "10s");
    assert_eq!(written["stream_window"], 2 * 1024 * 1024);
}

#[test]
fn a_wrong_value_is_an_error_that_names_the_field_and_what_it_allows() {
    // P42. Each case is the value (the same in TOML and JSON) and what serde calls it.
    let sessions = "expected an integer in 1..=1024 for `max_sessions`";
    let connect = "expected a duration such as \"90s\" in 1ms..=1h for `connect_timeout`";
    let idle = "expected a duration such as \"90s\" in 0s..=365days (0: never) for `idle_timeout`";
    let window = "expected an integer in 1024..=2147483647 for `stream_window`";
    let balance = "expected \"least_loaded\" or \"pack\" for `balance`";
    let adaptive = "expected true or false for `adaptive_window`";
    let unit = "invalid value: string \"90\" (time unit needed, for example 90sec or 90ms)";
    let cases = [
        ("max_sessions", "0", "invalid value: integer `0`", sessions),
        ("max_sessions", "1025", "invalid value: integer `1025`", sessions),
        ("max_sessions", "-1", "invalid value: integer `-1`", sessions),
        (
            "max_sessions",
            "4.5",
            "invalid type: floating point `4.5`",
            sessions,
        ),
        ("max_sessions", "\"4\"", "invalid type: string \"4\"", sessions),
        ("max_sessions", "true", "invalid type: boolean `true`", sessions),
        ("max_sessions", "[4]", "invalid type: sequence", sessions),
        (
            "connect_timeout",
            "\"0s\"",
            "invalid value: string \"0s\"",
            connect,
        ),
        ("connect_timeout", "0", "invalid value: integer `0`", connect),
        (
            "connect_timeout",
            "\"61m\"",
            "invalid value: string \"61m\"",
            connect,
        ),
        ("connect_timeout", "\"90\"", unit, connect),
        ("idle_timeout", "90", "invalid type: integer `90`", idle),
        ("idle_timeout", "-90", "invalid type: integer `-90`", idle),
        (
            "idle_timeout",
            "\"\"",
            "invalid value: string \"\" (value was empty)",
            idle,
        ),
        (
            "idle_timeout",
            "\"400days\"",
            "invalid value: string \"400days\"",
            idle,
        ),
        (
            "stream_window",
            "2147483648",
            "invalid value: integer `2147483648`",
            window,
        ),
        (
            "stream_window",
            "1e6",
            "invalid type: floating point `1000000.0`",
            window,
        ),
        (
            "stream_window",
            "9223372036854775807",
            "invalid value: integer `9223372036854775807`",
            window,
        ),
        (
            "balance",
            "\"random\"",
            "invalid value: string \"random\"",
            balance,
        ),
        ("balance", "1", "invalid type: integer `1`", balance),
        (
            "adaptive_window",
            "\"yes\"",
            "invalid type: string \"yes\"",
            adaptive,
        ),
        ("adaptive_window", "1", "invalid type: integer `1`", adaptive),
    ];
    for (field, value, found, expected) in cases {
        let toml = toml_error(&format!("# a comment\n{field} = {value}"));
        assert!(toml.contains(&format!("{found}, {expected}")), "{toml}");
        let column = field.len() + 4;
        assert!(toml.contains(&format!("at line 2, column {column}")), "{toml}");

        let json = json_error(&format!("{{\n\"{field}\": {value}}}"));
        let tail = json.strip_prefix(&format!("{found}, {expected} at line 2 column "));
        assert!(tail.is_some_and(|column| column.parse::<u32>().is_ok()), "{json}");
    }
    let json = json_error(r#"{"max_sessions": null}"#);
    assert!(
        json.starts_with(&format!("invalid type: null, {sessions}")),
        "{json}"
    );
}

#[test]
fn an_unknown_or_repeated_field_is_refused_and_the_known_ones_are_listed() {
    // P42
    for text in [toml_error("max_session = 4"), json_error(r#"{"max_session": 4}"#)] {
        assert!(
            text.contains("unknown field `max_session`, expected one of `max_sessions`, `str"),
            "{text}"
        );
        assert!(text.contains("`write_timeout`"), "{text}");
    }
    let text = json_error(r#"{"max_sessions": 4, "max_sessions": 4}"#);
    assert!(text.starts_with("duplicate field `max_sessions`"), "{text}");
    assert!(toml_error("max_sessions = 4\nmax_sessions = 4").contains("duplicate key"));
    assert!(json_error("4").contains("expected the fields of an h2pool configuration"));
}

#[test]
fn fields_that_contradict_each_other_are_refused_when_read() {
    // P42: what was read is valid.
    let expected = "`min_sessions` is 5: expected at most `max_sessions`, which is 4";
    assert!(toml_error("min_sessions = 5").contains(expected));
    assert!(json_error(r#"{"min_sessions": 5}"#).contains(expected));
    assert_eq!(
        toml::from_str::<PoolConfig>("min_sessions = 5\nmax_sessions = 5")
            .unwrap()
            .min_sessions,
        5
    );
}
