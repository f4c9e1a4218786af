//! The headers that tell when to try again, from arbitrary bytes.

use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, HeaderValue};

#[path = "../../src/retry/headers.rs"]
mod headers;

const NAMES: [&str; 3] = ["retry-after", "retry-after-ms", "x-should-retry"];

/// What was understood: the delay asked for, and whether to try again at all.
type Asked = (Option<Duration>, Option<bool>);

/// Reads the bytes as a wall clock (4 bytes: seconds since 1970) and lines: a byte that chooses the name, then a value.
/// Panics where a promise is broken (R7).
pub fn run(bytes: &[u8]) {
    let Some((clock, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u32::from_be_bytes(*clock).into());
    let fields = rest.split(|byte| *byte == b'\n').filter_map(field);
    let fields: Vec<_> = fields.take(16).collect();
    let asked = read(&fields, now);

    let mut other_way: Vec<_> = fields.clone();
    other_way.reverse();
    assert_eq!(read(&other_way, now), asked, "the order does not matter");

    let mut with_noise = fields.clone();
    for name in NAMES {
        with_noise.push((name, HeaderValue::from_static("no such thing")));
    }
    assert_eq!(
        read(&with_noise, now),
        asked,
        "what is malformed is as if it were absent"
    );

    let (later, _) = read(&fields, now + Duration::from_secs(1000));
    assert!(later <= asked.0, "no date comes nearer by waiting less");

    if let [("retry-after", value)] = &fields[..] {
        check_seconds(value, asked.0);
    }
}

fn field(line: &[u8]) -> Option<(&'static str, HeaderValue)> {
    let (name, value) = line.split_first()?;
    let value = HeaderValue::from_bytes(value).ok()?;
    Some((NAMES[usize::from(*name) % NAMES.len()], value))
}

fn read(fields: &[(&'static str, HeaderValue)], now: SystemTime) -> Asked {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, value.clone());
    }
    (headers::asked_delay(&map, || now), headers::should_retry(&map))
}

/// A plain number of seconds is understood exactly; one that does not fit is a long delay, never a short one.
fn check_seconds(value: &HeaderValue, asked: Option<Duration>) {
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return;
    }
    let expected = text.parse().map_or(Duration::MAX, Duration::from_secs);
    assert_eq!(asked, Some(expected), "{text}");
}
