//! What a response says about trying again: `Retry-After`, `retry-after-ms`, `x-should-retry`.
//!
//! Pure: names only std, http and httpdate, so that a fuzzer can include this file alone. Anything malformed is as if it
//! were absent; nothing a server sends can make these functions panic.
//!
//! - `Retry-After` (RFC 9110 §10.2.3) is a number of seconds or an HTTP date in any of the three forms of §5.6.7. A
//!   decimal fraction (`1.5`), which some servers send, is understood too. A date in the past asks for no delay.
//! - `retry-after-ms` is the same in milliseconds and, being finer, is preferred.
//! - A number too large to represent is the longest delay there is, never a short one.
//! - Of several values of one header the longest delay counts, so that no retry comes earlier than any of them asked.

use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// How long the server wants to be left alone; `now` is the wall clock that dates are compared with.
pub(crate) fn asked_delay(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    retry_after_ms(headers).or_else(|| retry_after(headers, now))
}

/// Whether the server wants another attempt at all; `false` wins over `true` where both are said.
pub(crate) fn should_retry(headers: &HeaderMap) -> Option<bool> {
    texts(headers, &X_SHOULD_RETRY)
        .filter_map(|text| {
            let yes = text.eq_ignore_ascii_case("true");
            (yes || text.eq_ignore_ascii_case("false")).then_some(yes)
        })
        .min()
}

fn retry_after_ms(headers: &HeaderMap) -> Option<Duration> {
    texts(headers, &RETRY_AFTER_MS)
        .filter_map(|text| decimal(text, 1_000_000))
        .max()
}

fn retry_after(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let mut values = texts(headers, &RETRY_AFTER).peekable();
    values.peek()?;
    let now = now();
    values.filter_map(|text| delay(text, now)).max()
}

/// One value of `Retry-After`.
fn delay(text: &str, now: SystemTime) -> Option<Duration> {
    decimal(text, 1_000_000_000).or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(now).unwrap_or(Duration::ZERO))
    })
}

fn texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value: &HeaderValue| value.to_str().ok())
        .map(str::trim_ascii)
}

/// `digits` or `digits.digits` in a unit of so many nanoseconds; no sign, no exponent, no blanks. What is finer than a
/// nanosecond is cut off; what is too large becomes [`Duration::MAX`].
fn decimal(text: &str, nanos_per_unit: u64) -> Option<Duration> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (digits(whole)?, digits(fraction)?),
        None => (digits(text)?, ""),
    };
    let mut nanos = 0_u64;
    let mut place = nanos_per_unit / 10;
    for digit in fraction.bytes() {
        nanos += u64::from(digit - b'0') * place;
        place /= 10;
        if place == 0 {
            break;
        }
    }
    let total = whole
        .parse::<u64>()
        .ok()
        .map(|whole| u128::from(whole) * u128::from(nanos_per_unit) + u128::from(nanos));
    Some(total.map_or(Duration::MAX, from_nanos))
}

fn from_nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    let rest = u32::try_from(nanos % PER_SECOND).unwrap_or(0);
    u64::try_from(nanos / PER_SECOND).map_or(Duration::MAX, |seconds| Duration::new(seconds, rest))
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 §5.6.7.
    fn then() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn map(headers: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    fn asked(headers: &[(&'static str, &[u8])]) -> Option<Duration> {
        asked_delay(&map(headers), || then() - Duration::from_secs(7))
    }

    fn wanted(headers: &[(&'static str, &[u8])]) -> Option<bool> {
        should_retry(&map(headers))
    }

    fn after(value: &str) -> Option<Duration> {
        asked(&[("retry-after", value.as_bytes())])
    }

    #[test]
    fn seconds_and_milliseconds() {
        // R7
        assert_eq!(after("0"), Some(Duration::ZERO));
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(after("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(after("0.0000000019"), Some(Duration::from_nanos(1)));
        let both = asked(&[("retry-after", b"9"), ("retry-after-ms", b"250.5")]);
        assert_eq!(both, Some(Duration::from_micros(250_500)));
    }

    #[test]
    fn every_form_of_a_date() {
        // R7
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(after(date), Some(Duration::from_secs(7)), "{date}");
        }
        assert_eq!(
            after("Sat, 05 Nov 1994 08:49:37 GMT"),
            Some(Duration::ZERO),
            "the past"
        );
        assert_eq!(after("Saturday, 05-Nov-94 08:49:37 GMT"), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        // R7
        for text in [
            "", " ", "-5", "+5", "1e9", "NaN", "inf", "1,5", "5 6", "0x10", ".5", "5.", "1.2.3", "tomorrow",
            "99:99",
        ] {
            assert_eq!(after(text), None, "{text:?}");
        }
        assert_eq!(asked(&[("retry-after", b"\xff\xfe")]), None);
        assert_eq!(asked(&[("retry-after", "５".as_bytes())]), None);
        let fallback = asked(&[("retry-after-ms", b"soon"), ("retry-after", b"4")]);
        assert_eq!(fallback, Some(Duration::from_secs(4)));
    }

    #[test]
    fn what_is_huge_is_long_and_the_longest_of_several_counts() {
        // R7
        assert_eq!(after(&"9".repeat(40)), Some(Duration::MAX));
        let ms = asked(&[("retry-after-ms", "9".repeat(40).as_bytes())]);
        assert_eq!(ms, Some(Duration::MAX));
        assert_eq!(after("18446744073709551615"), Some(Duration::from_secs(u64::MAX)));
        let twice = asked(&[
            ("retry-after", b"2"),
            ("retry-after", b"8"),
            ("retry-after", b"x"),
        ]);
        assert_eq!(twice, Some(Duration::from_secs(8)));
    }

    #[test]
    fn should_retry_is_a_plain_boolean_and_no_wins() {
        // R7
        assert_eq!(wanted(&[("x-should-retry", b"true")]), Some(true));
        assert_eq!(wanted(&[("x-should-retry", b" False ")]), Some(false));
        for odd in ["", "1", "yes", "truefalse"] {
            assert_eq!(wanted(&[("x-should-retry", odd.as_bytes())]), None);
        }
        let both = wanted(&[("x-should-retry", b"true"), ("x-should-retry", b"false")]);
        assert_eq!(both, Some(false));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            values in prop::collection::vec((0..3_usize, prop::collection::vec(any::<u8>(), 0..60)), 0..6),
            seconds in 0..u64::from(u32::MAX),
        ) {
            // R7
            let names = [RETRY_AFTER, RETRY_AFTER_MS, X_SHOULD_RETRY];
            let mut map = HeaderMap::new();
            for (name, bytes) in values {
                if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                    map.append(names[name].clone(), value);
                }
            }
            let _ = asked_delay(&map, || SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            let _ = should_retry(&map);
        }

        #[test]
        fn texts_that_look_like_dates_or_numbers(text in "[0-9A-Za-z ,:.GMT-]{0,40}") {
            // R7
            let _ = delay(&text, then());
        }

        #[test]
        fn any_number_is_read_exactly(seconds in any::<u64>(), nanos in 0..1_000_000_000_u32) {
            // R7
            let text = format!("{seconds}.{nanos:09}");
            prop_assert_eq!(delay(&text, then()), Some(Duration::new(seconds, nanos)));
        }
    }
}
