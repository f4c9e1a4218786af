//! Sessions of a caller's own, for misdirected requests (P23).

use super::super::{Claim, DialEnd, Failure, Reason, RuntimeId};
use super::bench::{Bench, caller, ms, on, secs, with_body};

#[test]
fn a_misdirected_request_gets_a_session_of_its_own() {
    // P23
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let shared = bench.serving(5);
    let own = bench.queue_own(caller());
    let session = bench.connect();
    assert_eq!(bench.granted(own), session);
    assert_eq!(bench.take(), shared, "it serves nobody else");
    bench.settings(session, 5);
    bench.release(session);
    assert_eq!(bench.closed, [(session, Reason::Worn)]);
    bench.lose(session);
    assert_eq!(bench.state.snapshot().count(), 1);
}

#[test]
fn sessions_of_ones_own_are_bounded_and_no_connection_is_wasted() {
    // P5, P8, P23
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let own = bench.queue_own(caller());
    bench.cancel(own);
    let session = bench.open(5);
    assert_eq!(
        bench.take(),
        session,
        "whoever asked has gone; the connection serves the next"
    );
}

#[test]
fn who_finds_no_room_for_a_session_of_its_own_waits_for_it() {
    // P5, P23: many requests may be misdirected at once.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let mut own = || bench.queue_own(caller());
    let [first, second, third, fourth] = [own(), own(), own(), own()];
    assert_eq!(bench.dials.len(), 1);
    let session = bench.open(5);
    assert_eq!(bench.granted(first), session);
    assert_eq!(bench.claim(second), Claim::Pending);
    bench.cancel(third);
    bench.release(session);
    bench.lose(session);
    assert_eq!(bench.dials.len(), 1, "for the next");
    let session = bench.open(5);
    assert_eq!(bench.granted(second), session);
    assert_eq!(bench.state.waiting(), 1, "it is seen");
    bench.release(session);
    bench.lose(session);
    let session = bench.open(5);
    assert_eq!(bench.granted(fourth), session, "the third had gone");
    bench.release(session);
    bench.lose(session);
    assert!(bench.dials.is_empty() && bench.state.is_unused());
}

#[test]
fn who_waits_for_room_fails_with_the_dial_that_it_waits_for() {
    // P9, P23: not each with one of its own, one after the other.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let mut own = || bench.queue_own(caller());
    let waiters = [own(), own(), own()];
    bench.fail("refused");
    for waiter in waiters {
        assert_eq!(bench.claim(waiter), Claim::Failed(Failure::Dial("refused")));
    }
    assert!(bench.dials.is_empty() && bench.state.is_unused());
}

#[test]
fn no_more_wait_for_room_than_may_wait() {
    // P12, P13, P23: and what happens meanwhile costs no more for it.
    let mut bench = Bench::new(|limits| (limits.max_sessions, limits.max_waiters) = (1, Some(100)));
    let mut own = || bench.run(|state, now| state.acquire_own(caller(), now));
    let first = own().expect("open");
    let pending: Vec<_> = (0..100).map(|_| own().expect("open")).collect();
    assert_eq!(own(), None);
    assert!(!bench.state.is_idle());
    let session = bench.open(5);
    assert_eq!(bench.granted(first), session);
    let (now, before) = (bench.now, bench.state.waiters.visits());
    bench.state.handle_settings(session, 7, now);
    bench.state.warm(caller(), 1, now);
    assert!(bench.state.waiters.visits() - before < 10);
    pending.into_iter().for_each(|waiter| bench.cancel(waiter));
    assert_eq!(bench.state.waiting(), 0);
}

#[test]
fn who_waits_for_room_fails_with_the_pools_closing() {
    // P20, P23
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let mut own = || bench.queue_own(caller());
    let waiters = [own(), own(), own()];
    bench.run(|state, now| state.close(now, None));
    for waiter in waiters {
        assert_eq!(bench.claim(waiter), Claim::Failed(Failure::Closed));
    }
    assert_eq!(bench.run(|state, now| state.acquire_own(caller(), now)), None);
}

#[test]
fn who_moves_to_where_there_is_room_does_not_stand_behind_others() {
    // P23, P36: on a runtime of its own, of which nothing was known.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let mut own = || bench.queue_own(caller());
    let [_first, _second, third] = [own(), own(), own()];
    bench.run(|state, now| state.moved(third, on(7), || now));
    assert_eq!(bench.dials.last().unwrap().runtime, RuntimeId(7));
}

#[test]
fn who_waits_for_room_on_a_runtime_that_ends_dials_where_it_is_polled_next() {
    // P23, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let first = bench.queue_own(on(1));
    let second = bench.queue_own(on(1));
    bench.run(|state, now| state.handle_runtime_ended(RuntimeId(1), now));
    bench.end(DialEnd::Aborted);
    assert!(matches!(bench.claim(first), Claim::Failed(_)));
    assert!(bench.dials.is_empty(), "nobody can dial there");
    bench.run(|state, now| state.moved(second, on(2), || now));
    assert_eq!(bench.dials[0].runtime, RuntimeId(2));
    let session = bench.open(5);
    assert_eq!(bench.granted(second), session);
}

#[test]
fn a_session_of_ones_own_that_stays_silent_is_killed() {
    // P3, P23
    let mut bench = Bench::new(|_| {});
    let own = bench.queue_own(with_body());
    let session = bench.connect();
    bench.pass(secs(10));
    assert_eq!(bench.killed, [(session, Reason::Useless)]);
    bench.lose(session);
    assert!(matches!(bench.claim(own), Claim::Failed(Failure::Dial(_))));
    assert!(bench.state.is_unused());
}

#[test]
fn a_body_waits_for_the_settings_of_the_session_of_its_own() {
    // P3, P23
    let mut bench = Bench::new(|_| {});
    let own = bench.queue_own(with_body());
    let session = bench.connect();
    assert_eq!(bench.claim(own), Claim::Pending);
    bench.settings(session, 0);
    assert_eq!(bench.claim(own), Claim::Pending, "they allow nothing yet");
    bench.settings(session, 5);
    assert_eq!(bench.granted(own), session);
    bench.release(session);
    assert_eq!(bench.closed, [(session, Reason::Worn)]);
}

#[test]
fn a_session_of_ones_own_that_allows_nothing_is_killed() {
    // P3, P23
    let mut bench = Bench::new(|_| {});
    let own = bench.queue_own(with_body());
    let session = bench.connect();
    bench.settings(session, 0);
    bench.pass(secs(10));
    assert_eq!(bench.killed, [(session, Reason::Useless)]);
    bench.lose(session);
    assert!(matches!(bench.claim(own), Claim::Failed(Failure::Dial(_))));
}

#[test]
fn who_leaves_or_is_sent_away_before_those_settings_leaves_no_session_behind() {
    // P12, P20, P23
    for closed in [false, true] {
        let mut bench = Bench::new(|_| {});
        let own = bench.queue_own(with_body());
        let session = bench.connect();
        if closed {
            bench.run(|state, now| state.close(now, None));
            assert_eq!(bench.claim(own), Claim::Failed(Failure::Closed));
        } else {
            bench.cancel(own);
        }
        assert_eq!(bench.closed, [(session, Reason::Worn)]);
        bench.settings(session, 5);
        bench.lose(session);
        assert!(bench.state.is_unused());
    }
}

#[test]
fn an_origin_where_somebody_waits_for_the_settings_of_a_session_of_its_own_is_not_idle() {
    // P23, P39
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue_own(with_body());
    let own = bench.connect();
    assert_eq!(bench.claim(waiter), Claim::Pending);
    assert!(!bench.state.is_idle());
    bench.settings(own, 10);
    assert_eq!(bench.granted(waiter), own);
}

#[test]
fn who_wants_a_session_of_its_own_waits_for_the_back_off() {
    // P9, P23
    let mut bench = Bench::new(|_| {});
    bench.serving(5);
    let first = bench.queue_own(caller());
    bench.fail("refused");
    assert_eq!(bench.claim(first), Claim::Failed(Failure::Dial("refused")));
    let second = bench.queue_own(caller());
    assert!(bench.dials.is_empty());
    bench.pass(ms(100));
    assert_eq!(bench.dials.len(), 1);
    bench.fail("refused");
    assert_eq!(bench.claim(second), Claim::Failed(Failure::Dial("refused")));
    bench.queue_own(caller());
    bench.pass(ms(99));
    assert!(bench.dials.is_empty(), "the second pause is longer");
    bench.pass(ms(101));
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn an_answer_ends_the_back_off_for_who_wants_a_session_of_its_own() {
    // P9, P23
    let mut bench = Bench::new(|_| {});
    let shared = bench.serving(5);
    bench.queue_own(caller());
    bench.fail("refused");
    bench.queue_own(caller());
    assert!(bench.dials.is_empty());
    bench.run(|state, now| state.handle_answered(shared, now));
    assert_eq!(bench.dials.len(), 1);
}
