//! The list of fields: name, range, what zero means, and where the value sits.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Balance, PoolConfig};
use crate::error::Error;

/// Timers have a resolution of one millisecond.
const MILLI: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Far enough for any timer, near enough that adding it to a point in time never overflows.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const GIB: usize = 1 << 30;
/// The most that a count without a natural bound may be, on 32-bit machines too.
const MOST: usize = u32::MAX as usize;
/// RFC 9113 §6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Every field of [`PoolConfig`], in its order.
pub(super) static FIELDS: &[Field] = &[
    // Capacity
    Field::count("max_sessions", 1, 1024, |c| &mut c.max_sessions),
    Field::count("streams_per_session", 1, 65_535, |c| &mut c.streams_per_session),
    Field::count("max_h1_connections", 1, 4096, |c| &mut c.max_h1_connections),
    Field::count("min_sessions", 0, 1024, |c| &mut c.min_sessions).zero("none"),
    Field::balance("balance", |c| &mut c.balance),
    Field::count("max_waiters", 0, MOST, |c| &mut c.max_waiters).zero("unlimited"),
    Field::count("limit_concurrency", 0, MOST, |c| &mut c.limit_concurrency).zero("off"),
    Field::count("max_origins", 1, 1 << 20, |c| &mut c.max_origins),
    Field::count("blocking_threads", 1, 10_000, |c| &mut c.blocking_threads),
    // Time to a slot
    Field::time("connect_timeout", MILLI, HOUR, |c| &mut c.connect_timeout),
    Field::time("acquire_timeout", Duration::ZERO, YEAR, |c| {
        &mut c.acquire_timeout
    })
    .zero("off"),
    // Life of a session
    Field::time("idle_timeout", Duration::ZERO, YEAR, |c| &mut c.idle_timeout).zero("never"),
    Field::time("max_age", Duration::ZERO, YEAR, |c| &mut c.max_age).zero("off"),
    Field::count("max_streams_per_session", 0, 1_000_000_000, |c| {
        &mut c.max_streams_per_session
    })
    .zero("off"),
    Field::time("drain_timeout", Duration::ZERO, YEAR, |c| &mut c.drain_timeout).zero("no limit"),
    Field::time("keep_alive_interval", Duration::ZERO, YEAR, |c| {
        &mut c.keep_alive_interval
    })
    .zero("off"),
    Field::time("keep_alive_timeout", MILLI, HOUR, |c| &mut c.keep_alive_timeout),
    Field::flag("keep_alive_while_idle", |c| &mut c.keep_alive_while_idle),
    Field::time("probe_timeout", MILLI, HOUR, |c| &mut c.probe_timeout),
    // Replays of what the server did not process
    Field::count("max_replays", 0, 100, |c| &mut c.max_replays).zero("off"),
    Field::count("replay_buffer", 0, GIB, |c| &mut c.replay_buffer).zero("off"),
    // HTTP/1.1 and plain text
    Field::time("h1_only_ttl", Duration::ZERO, YEAR, |c| &mut c.h1_only_ttl).zero("no cache"),
    Field::count("h1_only_capacity", 1, 1 << 20, |c| &mut c.h1_only_capacity),
    Field::flag("http2_prior_knowledge", |c| &mut c.http2_prior_knowledge),
    // HTTP/2 flow control and frames
    Field::wire("stream_window", 1024, MAX_WINDOW, |c| &mut c.stream_window),
    Field::wire("connection_window", 65_535, MAX_WINDOW, |c| {
        &mut c.connection_window
    }),
    Field::flag("adaptive_window", |c| &mut c.adaptive_window),
    Field::wire("max_stream_window", 1024, MAX_WINDOW, |c| {
        &mut c.max_stream_window
    }),
    Field::wire("max_connection_window", 65_535, MAX_WINDOW, |c| {
        &mut c.max_connection_window
    }),
    Field::wire("max_frame_size", 16_384, 16_777_215, |c| &mut c.max_frame_size),
    Field::count("max_send_buffer", 1024, GIB, |c| &mut c.max_send_buffer),
    // Bounds on what a server may do
    Field::wire("max_header_list_size", 1024, 16 << 20, |c| {
        &mut c.max_header_list_size
    }),
    Field::count("max_informational", 1, 10_000, |c| &mut c.max_informational),
    Field::count("control_frames_per_second", 10, 1_000_000, |c| {
        &mut c.control_frames_per_second
    }),
    Field::time("header_timeout", Duration::ZERO, YEAR, |c| &mut c.header_timeout).zero("off"),
    Field::time("body_idle_timeout", Duration::ZERO, YEAR, |c| {
        &mut c.body_idle_timeout
    })
    .zero("off"),
    Field::time("write_timeout", Duration::ZERO, YEAR, |c| &mut c.write_timeout).zero("off"),
];

/// One field: what it is called, what it allows, what zero means.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    zero: Option<&'static str>,
}

/// The type of a field, with its range.
#[cfg_attr(
    not(any(feature = "serde", test)),
    expect(dead_code, reason = "what has no range is looked at by files and tests alone")
)]
pub(super) enum Kind {
    Count(Place<usize>),
    /// As HTTP/2 sends it.
    Wire(Place<u32>),
    Time(Place<Duration>),
    Flag(At<bool>),
    Balance(At<Balance>),
}

/// Where a value sits in the configuration.
pub(super) type At<T> = fn(&mut PoolConfig) -> &mut T;

/// Where a value sits, and its range.
pub(super) struct Place<T> {
    range: RangeInclusive<T>,
    at: At<T>,
}

impl Field {
    const fn count(name: &'static str, min: usize, max: usize, at: At<usize>) -> Self {
        Self::new(name, Kind::Count(Place { range: min..=max, at }))
    }

    const fn wire(name: &'static str, min: u32, max: u32, at: At<u32>) -> Self {
        Self::new(name, Kind::Wire(Place { range: min..=max, at }))
    }

    const fn time(name: &'static str, min: Duration, max: Duration, at: At<Duration>) -> Self {
        Self::new(name, Kind::Time(Place { range: min..=max, at }))
    }

    const fn flag(name: &'static str, at: At<bool>) -> Self {
        Self::new(name, Kind::Flag(at))
    }

    const fn balance(name: &'static str, at: At<Balance>) -> Self {
        Self::new(name, Kind::Balance(at))
    }

    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            zero: None,
        }
    }

    const fn zero(mut self, meaning: &'static str) -> Self {
        self.zero = Some(meaning);
        self
    }

    /// Whether the value in `config` is in range.
    pub(super) fn check(&self, config: &PoolConfig) -> Result<(), Error> {
        // Places lead into a configuration that can be changed; a copy will do.
        let mut copy = config.clone();
        let found = match &self.kind {
            Kind::Count(place) => place.outside(&mut copy).map(|n| n.to_string()),
            Kind::Wire(place) => place.outside(&mut copy).map(|n| n.to_string()),
            Kind::Time(place) => place.outside(&mut copy).map(|time| format!("{time:?}")),
            Kind::Flag(_) | Kind::Balance(_) => None,
        };
        found.map_or(Ok(()), |found| {
            Err(Error::config(format!(
                "`{}` is {found}: expected {}",
                self.name,
                self.allowed()
            )))
        })
    }

    /// What the field allows, in words.
    pub(super) fn allowed(&self) -> Allowed<'_> {
        Allowed(self)
    }
}

/// Writes what a field allows.
pub(super) struct Allowed<'a>(&'a Field);

impl fmt::Display for Allowed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::Count(place) => write!(f, "an integer in {:?}", place.range)?,
            Kind::Wire(place) => write!(f, "an integer in {:?}", place.range)?,
            Kind::Time(place) => {
                let (min, max) = (show(*place.range.start()), show(*place.range.end()));
                write!(f, "a duration such as \"90s\" in {min}..={max}")?;
            }
            Kind::Flag(_) => f.write_str("true or false")?,
            Kind::Balance(_) => f.write_str("\"least_loaded\" or \"pack\"")?,
        }
        self.0.zero.map_or(Ok(()), |meaning| write!(f, " (0: {meaning})"))
    }
}

/// The limits above as one writes them in a file.
fn show(limit: Duration) -> String {
    match limit.as_secs() {
        0 if limit.is_zero() => "0s".to_owned(),
        days if limit >= DAY => format!("{}days", days / DAY.as_secs()),
        hours if limit >= HOUR => format!("{}h", hours / HOUR.as_secs()),
        _ => format!("{limit:?}"),
    }
}

impl<T: PartialOrd + Copy> Place<T> {
    #[cfg(feature = "serde")]
    pub(super) fn get<'a>(&self, config: &'a mut PoolConfig) -> &'a mut T {
        (self.at)(config)
    }

    /// Writes `value`, unless it is out of range.
    #[cfg(feature = "serde")]
    pub(super) fn set(&self, config: &mut PoolConfig, value: T) -> Option<()> {
        self.range.contains(&value).then(|| *(self.at)(config) = value)
    }

    /// The value, if it is out of range.
    fn outside(&self, config: &mut PoolConfig) -> Option<T> {
        let value = *(self.at)(config);
        (!self.range.contains(&value)).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of the struct, as `Debug` lists them.
    fn struct_fields() -> Vec<String> {
        let shown = format!("{:#?}", PoolConfig::default());
        let names = shown
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn every_field_of_the_struct_is_listed_in_its_order() {
        // P42: a field that were missing here would be neither checked nor read.
        let listed: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(struct_fields(), listed);
    }

    #[test]
    fn places_lead_to_the_fields_they_are_named_for() {
        // P42
        for (index, field) in FIELDS.iter().enumerate() {
            let mut config = PoolConfig::default();
            match &field.kind {
                Kind::Count(place) => *(place.at)(&mut config) += 1,
                Kind::Wire(place) => *(place.at)(&mut config) += 1,
                Kind::Time(place) => *(place.at)(&mut config) += MILLI,
                Kind::Flag(at) => *at(&mut config) ^= true,
                Kind::Balance(at) => *at(&mut config) = Balance::Pack,
            }
            let (before, after) = (format!("{:#?}", PoolConfig::default()), format!("{config:#?}"));
            let changed: Vec<_> = before
                .lines()
                .zip(after.lines())
                .enumerate()
                .filter(|(_, (b, a))| b != a)
                .collect();
            assert_eq!(changed.len(), 1, "{}", field.name);
            assert_eq!(
                changed[0].0,
                index + 1,
                "{} changed {:?}",
                field.name,
                changed[0].1
            );
        }
    }

    #[test]
    fn the_example_file_says_what_each_field_allows() {
        // P42
        let file = include_str!("../../examples/h2pool.toml");
        let mut values = 0;
        for paragraph in file.split("\n\n") {
            let last = paragraph.trim_end().lines().last().unwrap_or_default();
            let Some((name, _)) = last.split_once(" = ").filter(|_| !last.starts_with('#')) else {
                continue;
            };
            let field = FIELDS.iter().find(|field| field.name == name).expect(name);
            let note = format!("# Allowed: {}.", field.allowed());
            assert!(
                paragraph.lines().any(|line| line == note),
                "`{name}` lacks: {note}"
            );
            values += 1;
        }
        assert_eq!(values, FIELDS.len());
    }

    /// The comment above an item, on one line.
    fn comment(text: &str, item: &str) -> String {
        let before = text.split(item).next().filter(|before| before.len() < text.len());
        let above = before.expect(item).lines().rev();
        let mut lines: Vec<_> = above
            .map(str::trim)
            .skip_while(|line| line.is_empty())
            .take_while(|line| line.starts_with("///") || line.starts_with("#["))
            .filter_map(|line| line.strip_prefix("///"))
            .map(str::trim)
            .collect();
        lines.reverse();
        lines.join(" ")
    }

    #[test]
    fn fields_and_setters_say_their_defaults_and_ranges() {
        // P42: the defaults as the example file writes them.
        let file = include_str!("../../examples/h2pool.toml");
        let (fields, setters) = (include_str!("mod.rs"), include_str!("setters.rs"));
        let builder = include_str!("../builder.rs");
        for field in FIELDS {
            let written = format!("\n{} = ", field.name);
            let default = file.split(&written).nth(1).and_then(|rest| rest.lines().next());
            let default = match default.expect(field.name).trim_matches('"') {
                "least_loaded" => "`LeastLoaded`",
                default => default,
            };
            let range = match &field.kind {
                Kind::Count(place) => format!(", allowed {:?}", place.range),
                Kind::Wire(place) => format!(", allowed {:?}", place.range),
                Kind::Time(place) => {
                    let (min, max) = (show(*place.range.start()), show(*place.range.end()));
                    format!(", allowed {min}..={max}")
                }
                Kind::Flag(_) | Kind::Balance(_) => String::new(),
            };
            let zero = field
                .zero
                .map_or(String::new(), |meaning| format!("; 0 means {meaning}"));
            let setter = format!("pub fn {}(", field.name);
            for (text, item, range) in [
                (fields, format!("pub {}: ", field.name), &*range),
                (setters, setter.clone(), &*range),
                (builder, setter, ""),
            ] {
                let (comment, end) = (comment(text, &item), format!("Default {default}{range}{zero}."));
                assert!(comment.ends_with(&end), "{item}: {comment}: {end}");
            }
        }
    }

    #[test]
    fn both_ends_of_every_range_pass_and_what_lies_beyond_names_field_and_range() {
        // P42
        for field in FIELDS {
            match &field.kind {
                Kind::Count(place) => ends(field, place, |n| n.checked_sub(1), |n| n + 1),
                Kind::Wire(place) => ends(field, place, |n| n.checked_sub(1), |n| n + 1),
                Kind::Time(place) => ends(field, place, |t| t.checked_sub(MILLI), |t| t + MILLI),
                Kind::Flag(_) | Kind::Balance(_) => {}
            }
        }
    }

    fn ends<T: PartialOrd + Copy>(
        field: &Field,
        place: &Place<T>,
        below: impl Fn(T) -> Option<T>,
        above: impl Fn(T) -> T,
    ) {
        let check = |value: T| {
            let mut config = PoolConfig::default();
            *(place.at)(&mut config) = value;
            field.check(&config)
        };
        let (min, max) = (*place.range.start(), *place.range.end());
        assert!(check(min).is_ok() && check(max).is_ok(), "{}", field.name);
        for value in [below(min), Some(above(max))].into_iter().flatten() {
            let error = check(value).expect_err(field.name);
            assert!(error.is_config() && error.is_unprocessed());
            let text = error.to_string();
            assert!(text.starts_with(&format!("`{}` is ", field.name)), "{text}");
            assert!(
                text.ends_with(&format!(": expected {}", field.allowed())),
                "{text}"
            );
        }
    }
}
