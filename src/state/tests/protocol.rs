//! HTTP/1.1 origins (P24–P27).

use super::super::{Acquired, Protocol, Reason};
use super::bench::{Bench, caller, secs};

#[test]
fn http1_connections_are_sessions_with_a_limit_of_one() {
    // P24, P25: known to be HTTP/1.1, dials go in parallel, up to a bound of their own.
    let mut bench = Bench::new(|limits| (limits.max_sessions, limits.max_h1_connections) = (2, 5));
    let waiters = bench.queue_many(10);
    assert_eq!(bench.dials.len(), 1);
    let first = bench.connect_as(Protocol::H1);
    assert_eq!(bench.granted(waiters[0]), first);
    assert_eq!(bench.dials.len(), 4);
    for waiter in &waiters[1..5] {
        let session = bench.connect_as(Protocol::H1);
        assert_eq!(bench.granted(*waiter), session);
    }
    bench.release(first);
    assert_eq!(bench.granted(waiters[5]), first);
}

#[test]
fn an_h2_answer_ends_http1() {
    // P25
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue();
    let old = bench.connect_as(Protocol::H1);
    bench.granted(waiter);
    let waiter = bench.queue();
    let new = bench.connect();
    assert_eq!(bench.granted(waiter), new);
    bench.settings(new, 10);
    bench.release(old);
    assert_eq!(bench.closed, [(old, Reason::Protocol)]);
}

#[test]
fn settings_of_an_old_h2_session_teach_nothing_about_http1() {
    // P25: a late SETTINGS frame does not make one HTTP/1.1 connection cover a hundred callers.
    let mut bench = Bench::new(|_| {});
    let h2 = bench.serving(100);
    bench.take();
    let now = bench.now;
    bench.run(|state, _| state.set_h1_only(Some(now + secs(300)), now));
    bench.settings(h2, 100);
    bench.queue_many(5);
    assert_eq!(bench.dials.len(), 5);
}

#[test]
fn marked_as_http1_only_the_h2_sessions_take_no_more_work() {
    // P26
    let mut bench = Bench::new(|_| {});
    let h2 = bench.serving(100);
    bench.take();
    let now = bench.now;
    bench.run(|state, _| state.set_h1_only(Some(now + secs(300)), now));
    assert!(matches!(bench.acquire(caller()), Acquired::Queued(_)));
    bench.release(h2);
    assert_eq!(bench.closed, [(h2, Reason::Protocol)]);
}

#[test]
fn marked_once_more_the_http1_connections_serve_on() {
    // P25, P26
    let mut bench = Bench::new(|_| {});
    let mark = |bench: &mut Bench| {
        let until = bench.now + secs(300);
        bench.run(|state, now| state.set_h1_only(Some(until), now));
    };
    bench.serving(100);
    bench.take();
    mark(&mut bench);
    let waiter = bench.queue();
    let h1 = bench.connect_as(Protocol::H1);
    assert_eq!(bench.granted(waiter), h1);
    bench.release(h1);
    mark(&mut bench);
    assert_eq!(bench.take(), h1);
}

#[test]
fn after_the_ttl_h2_is_offered_again_and_http1_serves_on_meanwhile() {
    // P25: the bound of HTTP/1.1 holds until h2 answers, else a busy origin would shrink to `max_sessions` first.
    let mut bench = Bench::new(|limits| (limits.max_sessions, limits.max_h1_connections) = (1, 4));
    let until = bench.now + secs(300);
    bench.run(|state, now| state.set_h1_only(Some(until), now));
    for _ in 0..3 {
        let waiter = bench.queue();
        assert!(bench.dials[0].h1_only);
        let session = bench.connect_as(Protocol::H1);
        assert_eq!(bench.granted(waiter), session);
    }
    bench.pass(secs(300));
    bench.queue();
    bench.queue();
    assert_eq!(bench.dials.len(), 1, "alone, since what comes back is not known");
    assert!(!bench.dials[0].h1_only);
    let h2 = bench.open(10);
    assert!(bench.dials.is_empty());
    assert_eq!(bench.take(), h2);
}

#[test]
fn a_mark_that_is_cleared_is_forgotten_at_once() {
    // P25
    let mut bench = Bench::new(|_| {});
    let until = bench.now + secs(300);
    bench.run(|state, now| state.set_h1_only(Some(until), now));
    bench.run(|state, now| state.set_h1_only(None, now));
    bench.queue_many(5);
    assert_eq!(bench.dials.len(), 1);
    assert!(!bench.dials[0].h1_only);
    bench.open(5);
    bench.run(|state, now| state.set_h1_only(None, now));
    bench.queue_many(5);
    assert_eq!(bench.dials.len(), 1, "what was learned of an h2 origin is kept");
}

#[test]
fn where_h2_answers_more_dials_than_it_may_have_sessions_the_rest_is_dropped() {
    // P5, P25: a connector that cannot narrow ALPN, and an origin that was taken for one of HTTP/1.1.
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let until = Some(bench.now + secs(300));
    bench.run(|state, now| state.set_h1_only(until, now));
    let waiting = bench.queue_many(10);
    let dials: Vec<_> = bench.dials.drain(..).collect();
    assert_eq!(dials.len(), 10);
    let opened: Vec<_> = dials
        .into_iter()
        .filter_map(|dial| bench.run(|state, now| state.handle_dialed(dial.id, Protocol::H2, now)))
        .collect();
    assert_eq!(opened.len(), 2);
    assert_eq!(bench.wakes(), waiting, "and they serve everybody");
}
