//! Sessions that allow nothing, or never say what they allow (P3).

use super::super::{Claim, Failure, Reason};
use super::bench::{Bench, ms, secs, with_body};

#[test]
fn zero_holds_requests_back_and_ends_a_session_that_stays_there() {
    // P3
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    bench.settings(session, 0);
    let waiter = bench.queue();
    bench.pass(secs(9));
    assert_eq!(bench.claim(waiter), Claim::Pending);
    bench.settings(session, 1);
    assert_eq!(bench.granted(waiter), session);
    bench.release(session);
    bench.settings(session, 0);
    let waiter = bench.queue();
    bench.pass(secs(10));
    assert_eq!(bench.closed, [(session, Reason::Useless)]);
    assert_eq!(
        bench.claim(waiter),
        Claim::Failed(Failure::Useless(Reason::Useless))
    );
    bench.lose(session);
    bench.queue();
    assert!(bench.dials.is_empty(), "it counts as a failed dial");
    bench.pass(ms(100));
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn a_session_at_zero_that_is_busy_makes_way_and_what_runs_may_finish() {
    // P3, P14
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    bench.take();
    bench.settings(session, 0);
    bench.pass(secs(10));
    assert!(bench.closed.is_empty() && bench.killed.is_empty());
    bench.queue();
    bench.pass(ms(100));
    assert_eq!(bench.dials.len(), 1, "another takes its place");
    bench.release(session);
    assert_eq!(bench.closed, [(session, Reason::Useless)]);
}

#[test]
fn a_session_that_allowed_a_stream_lets_it_finish() {
    // P3: though nothing was answered yet.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let waiter = bench.queue();
    let session = bench.connect();
    assert_eq!(bench.granted(waiter), session);
    bench.settings(session, 5);
    bench.settings(session, 0);
    bench.pass(secs(11));
    assert!(bench.killed.is_empty());
    bench.release(session);
    assert_eq!(bench.closed, [(session, Reason::Useless)]);
}

#[test]
fn a_session_at_zero_that_never_served_ends_with_what_runs_on_it() {
    // P3: requests sent before SETTINGS may wait in the protocol library for ever.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let waiter = bench.queue();
    let session = bench.connect();
    assert_eq!(bench.granted(waiter), session);
    bench.settings(session, 0);
    bench.pass(secs(10));
    assert_eq!(bench.killed, [(session, Reason::Useless)]);
}

#[test]
fn a_session_without_settings_in_time_is_killed() {
    // P3, P8: the time of the dial counts.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let [empty, body] = [bench.queue(), bench.queue_as(with_body())];
    bench.pass(secs(4));
    let session = bench.connect();
    assert_eq!(bench.granted(empty), session);
    bench.pass(secs(6));
    assert_eq!(bench.killed, [(session, Reason::Useless)]);
    assert_eq!(
        bench.claim(body),
        Claim::Failed(Failure::Useless(Reason::Useless))
    );
}
