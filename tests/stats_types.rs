//! The filter of sessions as users write it, and the plain data of the statistics.

use h2pool::{SessionFilter, SessionsClosed, Stats};

#[test]
fn what_is_not_a_condition_is_refused_by_name() {
    // P40
    let cases = [
        ("", "there is an empty condition"),
        ("protocol=h2,", "there is an empty condition"),
        (",idle", "there is an empty condition"),
        ("color=red", "there is no `color`"),
        ("color", "there is no `color`"),
        ("State=active", "there is no `State`"),
        ("idle, full", "there is no ` full`"),
        ("=h2", "there is no ``"),
        ("protocol", "`protocol` needs a value"),
        ("state", "`state` needs a value"),
        ("origin", "`origin` needs a value"),
        ("protocol=", "`protocol` cannot be ``"),
        ("protocol=h3", "`protocol` cannot be `h3`"),
        ("protocol=H2", "`protocol` cannot be `H2`"),
        ("protocol=h2=h1", "`protocol` cannot be `h2=h1`"),
        ("state=closed", "`state` cannot be `closed`"),
        ("origin=example.com", "`origin` cannot be `example.com`"),
        ("idle=true", "`idle` takes no value"),
        ("full=", "`full` takes no value"),
        ("state=active,state=draining", "`state` is given twice"),
        ("idle,protocol=h2,idle", "`idle` is given twice"),
    ];
    for (text, what) in cases {
        let error = text.parse::<SessionFilter>().expect_err(text);
        assert!(error.is_config(), "{text}");
        let allowed = "protocol=h2|h1, state=dialing|active|draining, origin=URL, idle, full";
        assert_eq!(
            error.to_string(),
            format!("in the session filter, {what}; allowed: {allowed}")
        );
    }
}

#[test]
fn equal_filters_are_equal_however_they_are_written() {
    // P40
    let read = |text: &str| text.parse::<SessionFilter>().unwrap();
    assert_eq!(
        read("idle,origin=https://A.example"),
        read("origin=https://a.example:443,idle")
    );
    assert_ne!(read("idle"), SessionFilter::default());
}

#[test]
fn a_pool_that_did_nothing_has_counted_nothing() {
    // P40
    let stats = Stats::default();
    assert_eq!((stats.sessions_opened, stats.sessions_closed.total()), (0, 0));
    assert_eq!(stats.sessions_closed, SessionsClosed::default());
}

#[test]
#[cfg(feature = "serde")]
fn statistics_are_written_as_numbers_and_durations() {
    // P40
    let written = serde_json::to_value(Stats::default()).unwrap();
    assert_eq!(written["wait_time"], "0s");
    assert_eq!(written["sessions_closed"]["goaway"], 0);
    assert_eq!(written["origins_h1_only"], 0);
}
