//! The counters' echo in the `metrics` facade (feature `metrics`); without the feature, nothing.
//!
//! Names and labels are listed in the documentation of [`Stats`](crate::Stats). The recorder is looked up at each
//! event, so that it does not matter whether it was installed before the pool was made.

use std::time::Duration;

use crate::origin::Origin;
use crate::stats::{Left, SessionProtocol};

const OPEN_CONNECTIONS: &str = "http.client.open_connections";
const ACTIVE_REQUESTS: &str = "http.client.active_requests";
const CONNECTION_DURATION: &str = "http.client.connection.duration";
const SESSIONS_OPENED: &str = "h2pool.sessions.opened";
const SESSIONS_CLOSED: &str = "h2pool.sessions.closed";
const DIALS_FAILED: &str = "h2pool.dials.failed";
const STREAMS_STARTED: &str = "h2pool.streams.started";
const STREAMS_REFUSED: &str = "h2pool.streams.refused";
const REPLAYS: &str = "h2pool.replays";
const SATURATED: &str = "h2pool.saturated";
const H1_ONLY_HITS: &str = "h2pool.h1_only.hits";
const PROBES: &str = "h2pool.probes";
const WAITERS: &str = "h2pool.waiters";
const WAIT_DURATION: &str = "h2pool.wait.duration";

const VERSION: &str = "network.protocol.version";

type Label = (&'static str, &'static str);

/// Whether anybody can listen.
pub(crate) const ENABLED: bool = cfg!(feature = "metrics");

/// The labels that every metric of an origin carries. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    #[cfg(feature = "metrics")]
    common: [metrics::Label; 2],
}

pub(crate) fn session_opened(labels: &Labels, protocol: SessionProtocol) {
    let version = version(protocol);
    labels.count(SESSIONS_OPENED, &[version]);
    labels.change(OPEN_CONNECTIONS, &[state(false), version], 1.0);
}

pub(crate) fn session_closed(labels: &Labels, protocol: SessionProtocol, busy: bool, reason: &'static str) {
    let version = version(protocol);
    labels.count(SESSIONS_CLOSED, &[version, ("reason", reason)]);
    labels.change(OPEN_CONNECTIONS, &[state(busy), version], -1.0);
}

pub(crate) fn session_lasted(labels: &Labels, protocol: SessionProtocol, age: Duration) {
    labels.measure(CONNECTION_DURATION, &[version(protocol)], age);
}

/// `first`: the protocol of the session, if the stream is the only one there.
pub(crate) fn stream_started(labels: &Labels, first: Option<SessionProtocol>) {
    labels.count(STREAMS_STARTED, &[]);
    labels.change(ACTIVE_REQUESTS, &[], 1.0);
    if let Some(protocol) = first {
        labels.change(OPEN_CONNECTIONS, &[state(false), version(protocol)], -1.0);
        labels.change(OPEN_CONNECTIONS, &[state(true), version(protocol)], 1.0);
    }
}

/// `last`: the protocol of the session, if no stream is left there.
pub(crate) fn stream_ended(labels: &Labels, last: Option<SessionProtocol>) {
    labels.change(ACTIVE_REQUESTS, &[], -1.0);
    if let Some(protocol) = last {
        labels.change(OPEN_CONNECTIONS, &[state(true), version(protocol)], -1.0);
        labels.change(OPEN_CONNECTIONS, &[state(false), version(protocol)], 1.0);
    }
}

pub(crate) fn stream_refused(labels: &Labels) {
    labels.count(STREAMS_REFUSED, &[]);
}

pub(crate) fn replayed(labels: &Labels) {
    labels.count(REPLAYS, &[]);
}

pub(crate) fn dial_failed(labels: &Labels, kind: &'static str) {
    labels.count(DIALS_FAILED, &[("error.type", kind)]);
}

pub(crate) fn h1_only_hit(labels: &Labels) {
    labels.count(H1_ONLY_HITS, &[]);
}

pub(crate) fn waiter_queued(labels: &Labels) {
    labels.change(WAITERS, &[], 1.0);
}

pub(crate) fn waiter_left(labels: &Labels, outcome: Left, waited: Duration) {
    labels.change(WAITERS, &[], -1.0);
    labels.measure(WAIT_DURATION, &[("outcome", outcome.as_str())], waited);
}

pub(crate) fn saturated(labels: &Labels) {
    labels.count(SATURATED, &[]);
}

pub(crate) fn probed(labels: &Labels) {
    labels.count(PROBES, &[]);
}

fn version(protocol: SessionProtocol) -> Label {
    let version = match protocol {
        SessionProtocol::H2 => "2",
        SessionProtocol::H1 => "1.1",
    };
    (VERSION, version)
}

fn state(busy: bool) -> Label {
    ("http.connection.state", if busy { "active" } else { "idle" })
}

/// Tells the recorder, if one is installed already, what the metrics mean.
#[cfg(feature = "metrics")]
pub(crate) fn describe() {
    use metrics::Unit::{Count, Seconds};
    use metrics::{describe_counter, describe_gauge, describe_histogram};

    describe_gauge!(
        OPEN_CONNECTIONS,
        Count,
        "Outbound connections that are open, active or idle"
    );
    describe_gauge!(ACTIVE_REQUESTS, Count, "Requests that are running");
    describe_histogram!(CONNECTION_DURATION, Seconds, "How long connections were open");
    describe_counter!(SESSIONS_OPENED, Count, "Sessions opened");
    describe_counter!(SESSIONS_CLOSED, Count, "Sessions closed, by reason");
    describe_counter!(DIALS_FAILED, Count, "Dials that failed");
    describe_counter!(
        STREAMS_STARTED,
        Count,
        "Requests given to a session, replays included"
    );
    describe_counter!(
        STREAMS_REFUSED,
        Count,
        "Requests that servers refused without having processed them"
    );
    describe_counter!(
        REPLAYS,
        Count,
        "Requests sent again because the server did not process them"
    );
    describe_gauge!(WAITERS, Count, "Callers that wait for a slot");
    describe_histogram!(WAIT_DURATION, Seconds, "How long callers waited for a slot");
    describe_counter!(
        SATURATED,
        Count,
        "Acquisitions refused because the queue was full"
    );
    describe_counter!(
        H1_ONLY_HITS,
        Count,
        "Dials for an origin remembered to speak only HTTP/1.1"
    );
    describe_counter!(
        PROBES,
        Count,
        "PINGs sent because a request was cancelled unanswered"
    );
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn describe() {}

#[cfg(feature = "metrics")]
impl Labels {
    pub(crate) fn new(origin: &Origin) -> Self {
        let host = origin.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let common = [
            metrics::Label::new("server.address", std::sync::Arc::<str>::from(bare)),
            metrics::Label::new(
                "server.port",
                std::sync::Arc::<str>::from(origin.port().to_string()),
            ),
        ];
        Self { common }
    }

    fn with(&self, more: &[Label]) -> Vec<metrics::Label> {
        let more = more
            .iter()
            .map(|&(key, value)| metrics::Label::from_static_parts(key, value));
        self.common.iter().cloned().chain(more).collect()
    }

    fn count(&self, name: &'static str, more: &[Label]) {
        metrics::counter!(name, self.with(more)).increment(1);
    }

    fn change(&self, name: &'static str, more: &[Label], by: f64) {
        metrics::gauge!(name, self.with(more)).increment(by);
    }

    fn measure(&self, name: &'static str, more: &[Label], time: Duration) {
        metrics::histogram!(name, self.with(more)).record(time);
    }
}

#[cfg(not(feature = "metrics"))]
impl Labels {
    pub(crate) fn new(_origin: &Origin) -> Self {
        Self {}
    }

    fn count(&self, _name: &'static str, _more: &[Label]) {}

    fn change(&self, _name: &'static str, _more: &[Label], _by: f64) {}

    fn measure(&self, _name: &'static str, _more: &[Label], _time: Duration) {}
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use metrics::with_local_recorder;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;
    use crate::error::Error;
    use crate::stats::{CloseReason, Counters, SessionTally, Tally};

    /// What a recorder saw, as `name{labels}`: counters and gauges as one number, histograms as all their values.
    #[derive(Default)]
    struct Seen {
        recorder: DebuggingRecorder,
        /// A snapshot takes what it shows away.
        before: RefCell<BTreeMap<String, Vec<f64>>>,
    }

    impl Seen {
        fn during<T>(&self, act: impl FnOnce() -> T) -> T {
            with_local_recorder(&self.recorder, act)
        }

        fn all(&self) -> BTreeMap<String, Vec<f64>> {
            let mut all = self.before.borrow_mut();
            for (key, unit, description, value) in self.recorder.snapshotter().snapshot().into_vec() {
                assert!(unit.is_some() && description.is_some(), "{key:?}");
                let seen = all.entry(name(key.key())).or_default();
                let sum = seen.first().copied().unwrap_or_default();
                match value {
                    DebugValue::Counter(count) => *seen = vec![sum + count as f64],
                    DebugValue::Gauge(change) => *seen = vec![sum + change.into_inner()],
                    DebugValue::Histogram(values) => seen.extend(values.into_iter().map(f64::from)),
                }
            }
            all.clone()
        }
    }

    fn name(key: &metrics::Key) -> String {
        let (common, more): (Vec<_>, Vec<_>) =
            key.labels().partition(|label| label.key().starts_with("server."));
        let common: Vec<_> = common.iter().map(|label| label.value()).collect();
        assert_eq!(common, ["example.com", "8443"], "{}", key.name());
        let more: Vec<_> = more
            .iter()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        format!("{}{{{}}}", key.name(), more.join(","))
    }

    fn tally() -> Tally {
        Tally::new(
            &Arc::new(Counters::new()),
            &Origin::https("example.com", 8443).unwrap(),
        )
    }

    fn open(idle: f64, active: f64) -> [(String, Vec<f64>); 2] {
        [("idle", idle), ("active", active)].map(|(state, value)| {
            let labels = format!("http.connection.state={state},network.protocol.version=2");
            (format!("{OPEN_CONNECTIONS}{{{labels}}}"), vec![value])
        })
    }

    fn assert_open(seen: &Seen, idle: f64, active: f64) {
        let all = seen.all();
        for (name, value) in open(idle, active) {
            assert_eq!(all.get(&name), Some(&value), "{name} in {all:?}");
        }
    }

    #[test]
    fn a_session_is_idle_or_active_and_leaves_no_trace_in_the_gauges() {
        // P43
        let seen = Seen::default();
        seen.during(|| {
            let session: Arc<SessionTally> = Arc::new(tally().session_opened(SessionProtocol::H2));
            let (first, second) = (session.stream_started(), session.stream_started());
            assert_open(&seen, 0.0, 1.0);
            assert_eq!(seen.all()["http.client.active_requests{}"], [2.0]);
            drop(first);
            assert_open(&seen, 0.0, 1.0);
            drop(second);
            assert_open(&seen, 1.0, 0.0);

            // A stream outlives its session.
            let third = session.stream_started();
            session.closed(CloseReason::Goaway, Duration::from_millis(1500));
            assert_open(&seen, 0.0, 0.0);
            drop(third);
            assert_open(&seen, 0.0, 0.0);
        });
        let all = seen.all();
        assert_eq!(all["http.client.active_requests{}"], [0.0]);
        assert_eq!(
            all["http.client.connection.duration{network.protocol.version=2}"],
            [1.5]
        );
        assert_eq!(all["h2pool.sessions.opened{network.protocol.version=2}"], [1.0]);
        assert_eq!(
            all["h2pool.sessions.closed{network.protocol.version=2,reason=goaway}"],
            [1.0]
        );
        assert_eq!(all["h2pool.streams.started{}"], [3.0]);
    }

    #[test]
    fn a_session_dropped_without_a_word_leaves_the_gauges() {
        // P43
        let seen = Seen::default();
        seen.during(|| {
            let session = Arc::new(tally().session_opened(SessionProtocol::H2));
            let stream = session.stream_started();
            drop(session);
            drop(stream);
        });
        assert_open(&seen, 0.0, 0.0);
        let all = seen.all();
        assert_eq!(
            all["h2pool.sessions.closed{network.protocol.version=2,reason=io}"],
            [1.0]
        );
        assert!(
            !all.keys().any(|name| name.starts_with(CONNECTION_DURATION)),
            "{all:?}"
        );
    }

    #[test]
    fn every_other_event_is_recorded_under_the_pools_own_name() {
        // P43
        let seen = Seen::default();
        seen.during(|| {
            let tally = tally();
            tally.stream_refused();
            tally.replayed();
            tally.dial_failed(Error::connect("refused").with_timeout().kind_name());
            tally.h1_only_hit();
            tally.saturated();
            tally.probed();
            for _ in 0..3 {
                tally.waiter_queued();
            }
            tally.waiter_left(Left::Served, Duration::from_millis(250));
            tally.waiter_left(Left::TimedOut, Duration::from_secs(30));
        });
        let expected = [
            ("h2pool.dials.failed{error.type=connect_timeout}", 1.0),
            ("h2pool.h1_only.hits{}", 1.0),
            ("h2pool.probes{}", 1.0),
            ("h2pool.replays{}", 1.0),
            ("h2pool.saturated{}", 1.0),
            ("h2pool.streams.refused{}", 1.0),
            ("h2pool.wait.duration{outcome=served}", 0.25),
            ("h2pool.wait.duration{outcome=timeout}", 30.0),
            ("h2pool.waiters{}", 1.0),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), vec![value]));
        assert_eq!(seen.all(), BTreeMap::from(expected));
    }

    #[test]
    fn an_ipv6_address_goes_without_its_brackets() {
        // P43: OpenTelemetry's `server.address` is an address, not a part of a URI.
        for (host, address) in [
            ("::1", "::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("a.example", "a.example"),
        ] {
            let labels = Labels::new(&Origin::https(host, 443).unwrap());
            assert_eq!(labels.common[0].value(), address);
        }
    }

    #[test]
    fn http1_sessions_carry_their_version() {
        // P43
        let seen = Seen::default();
        seen.during(|| {
            tally()
                .session_opened(SessionProtocol::H1)
                .closed(CloseReason::Idle, Duration::ZERO)
        });
        let all = seen.all();
        assert_eq!(
            all["h2pool.sessions.closed{network.protocol.version=1.1,reason=idle}"],
            [1.0]
        );
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        // P43
        let text = include_str!("stats/mod.rs");
        let code = include_str!("metrics.rs").split("mod tests").next().unwrap();
        let quoted = code
            .split('"')
            .filter(|word| word.starts_with("http.client.") || word.starts_with("h2pool."));
        let missing: Vec<_> = quoted
            .filter(|name| !text.contains(&format!("| `{name}` |")))
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
