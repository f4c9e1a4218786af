//! How sessions end that nobody wants any more, or that failed.

use super::super::{Acquired, Claim, DialEnd, Failure, Protocol, Reason};
use super::bench::{Bench, caller, secs};

#[test]
fn without_a_deadline_streams_finish_however_late_and_the_end_is_bounded_then() {
    // P20
    let mut bench = Bench::new(|limits| limits.drain_timeout = Some(secs(30)));
    let busy = bench.serving(1);
    bench.take();
    bench.run(|state, now| state.close(now, None));
    bench.pass(secs(3600));
    assert_eq!((&bench.closed[..], &bench.killed[..]), (&[][..], &[][..]));
    bench.release(busy);
    assert_eq!(bench.closed, [(busy, Reason::Closed)]);
    bench.pass(secs(30));
    assert_eq!(
        bench.killed,
        [(busy, Reason::Closed)],
        "its server never took leave"
    );
}

#[test]
fn a_failing_connection_takes_no_more_work() {
    // P4, P14
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let failing = bench.serving(2);
    bench.take();
    bench.run(|state, now| state.handle_failing(failing, "broken", now));
    let waiter = bench.queue();
    let replacement = bench.connect();
    assert_eq!(bench.granted(waiter), replacement);
    bench.release(failing);
    assert_eq!(bench.closed, [(failing, Reason::Lost)]);
}

#[test]
fn an_origin_that_is_forgotten_says_so() {
    // P39, P43
    let mut bench = Bench::new(|_| {});
    let idle = bench.serving(2);
    bench.run(|state, now| state.evict(now));
    assert_eq!(bench.closed, [(idle, Reason::Evicted)]);
    assert_eq!(bench.acquire(caller()), Acquired::Closed);
}

#[test]
fn those_who_wait_are_turned_away_when_http1_is_spoken_elsewhere() {
    // P26, P27: nobody dials for them, and what runs goes on.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let busy = bench.serving(1);
    bench.take();
    let waiters = bench.queue_many(2);
    bench.run(|state, now| state.turn_away("elsewhere", now));
    for waiter in waiters {
        assert_eq!(bench.claim(waiter), Claim::Failed(Failure::Dial("elsewhere")));
    }
    assert!(bench.dials.is_empty());
    bench.release(busy);
    assert_eq!(bench.closed, [(busy, Reason::Protocol)]);
}

#[test]
fn a_session_that_ends_with_a_request_that_was_given_up_is_no_failed_dial() {
    // P3, P9, P12: over HTTP/1.1 the connection ends with it. Those who wait are served at once, not after a back-off.
    let mut bench = Bench::new(|limits| limits.max_h1_connections = 1);
    for _ in 0..3 {
        let waiter = bench.queue();
        let dial = bench.dial();
        let session = bench
            .run(|state, now| state.handle_dialed(dial, Protocol::H1, now))
            .unwrap();
        assert_eq!(bench.granted(waiter), session);
        let next = bench.queue();
        bench.run(|state, now| {
            state.handle_given_up(session);
            state.handle_closed(session, "closed", now)
        });
        bench.run(|state, _| state.handle_given_up(session));
        assert_eq!(bench.claim(next), Claim::Pending);
        assert_eq!(bench.dials.len(), 1, "dialed for at once");
        bench.cancel(next);
        let dial = bench.dial();
        bench.run(|state, now| state.handle_dial_ended(dial, DialEnd::Aborted, now));
    }
    assert_eq!(bench.wasted, 0);
}

#[test]
fn warm_sessions_that_prove_useless_are_not_opened_for_ever() {
    // P5, P9, P10: nobody waits for them.
    let mut bench = Bench::new(|_| {});
    bench.run(|state, now| state.warm(caller(), 3, now));
    let mut dials = 0;
    while !bench.dials.is_empty() {
        dials += 1;
        assert!(dials < 10);
        let session = bench.connect();
        bench.lose(session);
        bench.pass(secs(60));
    }
    assert!(bench.state.is_unused());
}
