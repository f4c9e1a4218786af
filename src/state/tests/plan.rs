//! When to dial, and when not to.

use super::super::{Acquired, Claim, DialEnd, Failure, Protocol};
use super::bench::{Bench, caller, ms, on, secs, with_body};

#[test]
fn a_thousand_first_requests_open_no_more_than_the_bound() {
    // P5, P7: the first dial to an unknown origin goes alone; then the demand decides.
    let mut bench = Bench::new(|_| {});
    let waiters = bench.queue_many(1000);
    assert_eq!(bench.dials.len(), 1, "an unknown origin's first dial goes alone");
    let first = bench.connect();
    assert_eq!(bench.wakes().len(), 100, "before SETTINGS a hundred may be tried");
    assert!(bench.dials.is_empty());
    bench.settings(first, 100);
    assert_eq!(bench.dials.len(), 3);
    for _ in 0..3 {
        bench.open(100);
    }
    assert!(bench.dials.is_empty());
    assert_eq!(bench.state.snapshot().count(), 4);
    for waiter in &waiters[..400] {
        assert!(matches!(bench.claim(*waiter), Claim::Granted(_)));
    }
    assert_eq!(bench.claim(waiters[400]), Claim::Pending);
}

#[test]
fn dials_are_planned_from_uncovered_demand() {
    // P7: ceil(waiters not covered / streams per session)
    let mut bench = Bench::new(|limits| limits.max_sessions = 10);
    let first = bench.serving(10);
    for _ in 0..10 {
        assert_eq!(bench.take(), first);
    }
    bench.queue_many(1);
    assert_eq!(bench.dials.len(), 1);
    bench.queue_many(9);
    assert_eq!(bench.dials.len(), 1);
    bench.queue_many(1);
    assert_eq!(bench.dials.len(), 2);
    bench.queue_many(25);
    assert_eq!(bench.dials.len(), 4);
}

#[test]
fn settings_that_lower_the_limit_make_the_plan_anew() {
    // P7
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(4);
    for _ in 0..4 {
        bench.take();
    }
    bench.queue_many(4);
    assert_eq!(bench.dials.len(), 1);
    bench.settings(session, 1);
    assert_eq!(
        bench.dials.len(),
        3,
        "one stream per session now: up to the bound of four"
    );
}

#[test]
fn a_full_session_covers_nobody_though_its_settings_are_not_here() {
    // P7, P14: its server may take its time for them.
    let mut bench = Bench::new(|_| {});
    let first = bench.serving(2);
    bench.take();
    bench.take();
    let waiting = bench.queue_many(2);
    assert_eq!(bench.dials.len(), 1);
    let fresh = bench.connect();
    for waiter in waiting {
        assert_eq!(bench.granted(waiter), fresh);
    }
    bench.queue();
    assert_eq!(bench.dials.len(), 1, "it has no room for one more");
    bench.release(fresh);
    bench.queue();
    assert_eq!(bench.dials.len(), 1, "the dial under way is for this one");
    bench.release(first);
    bench.queue_as(with_body());
    bench.queue_as(with_body());
    assert_eq!(bench.dials.len(), 1);
    bench.queue_as(with_body());
    assert_eq!(bench.dials.len(), 2);
}

#[test]
fn a_session_that_has_room_covers_those_who_wait_for_its_settings() {
    // P7: with a body nobody goes ahead of them.
    let mut bench = Bench::new(|_| {});
    bench.serving(2);
    bench.take();
    bench.take();
    bench.queue_as(with_body());
    let fresh = bench.connect();
    bench.queue_as(with_body());
    assert_eq!(bench.dials.len(), 0, "{fresh:?} has two slots");
    bench.queue_as(with_body());
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn whoever_goes_ahead_of_those_who_were_covered_leaves_them_to_be_dialed_for() {
    // P4, P7
    let mut bench = Bench::new(|_| {});
    bench.serving(1);
    bench.take();
    bench.queue_as(with_body());
    let fresh = bench.connect();
    let back = bench.run(|state, now| state.acquire_first(caller(), || now));
    assert_eq!(back, Acquired::Granted(fresh));
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn a_stalled_session_covers_nobody_though_its_settings_are_not_here() {
    // P7, P14
    let mut bench = Bench::new(|_| {});
    bench.serving(1);
    bench.take();
    bench.queue_as(with_body());
    let fresh = bench.connect();
    assert!(bench.dials.is_empty());
    bench.run(|state, now| state.handle_stalled(fresh, true, now));
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn a_body_waits_for_settings() {
    // P3: before SETTINGS only requests with an empty body are sent.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let body = bench.queue_as(with_body());
    let session = bench.connect();
    assert_eq!(bench.claim(body), Claim::Pending);
    let empty = bench.queue();
    assert_eq!(bench.claim(empty), Claim::Pending, "nobody overtakes (P11)");
    bench.settings(session, 50);
    assert_eq!(bench.wakes(), [body, empty]);
}

#[test]
fn empty_bodies_go_ahead_once_the_body_that_stood_first_leaves() {
    // P3, P12
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let body = bench.queue_as(with_body());
    let empty = bench.queue();
    let session = bench.connect();
    assert_eq!(bench.claim(empty), Claim::Pending);
    bench.cancel(body);
    assert_eq!(bench.granted(empty), session);
}

#[test]
fn a_failed_lone_dial_fails_all_who_wait_with_one_cause() {
    // P9: no serial row of timeouts.
    let mut bench = Bench::new(|_| {});
    let waiters = bench.queue_many(300);
    bench.fail("refused");
    assert_eq!(bench.wakes(), waiters);
    for waiter in waiters {
        assert_eq!(bench.claim(waiter), Claim::Failed(Failure::Dial("refused")));
    }
    assert!(bench.dials.is_empty());
}

#[test]
fn after_a_failure_one_redial_follows_the_back_off() {
    // P9
    let mut bench = Bench::new(|_| {});
    bench.queue();
    bench.fail("refused");
    let late = bench.queue_many(500);
    assert!(bench.dials.is_empty(), "no dial before the back-off has passed");
    bench.pass(ms(49));
    assert!(bench.dials.is_empty(), "at least half of the base");
    bench.pass(ms(51));
    assert_eq!(bench.dials.len(), 1, "one redial, shared");
    bench.pass(secs(60));
    assert_eq!(bench.dials.len(), 1, "and no other while it is under way");
    bench.fail("again");
    assert_eq!(bench.wakes().len(), 1 + late.len());
}

#[test]
fn the_back_off_doubles_up_to_its_bound_and_a_served_request_ends_it() {
    // P9
    let mut bench = Bench::new(|_| {});
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let waiter = bench.queue();
        let asked = bench.now;
        while bench.dials.is_empty() {
            assert!(bench.now < asked + secs(6), "nobody dials");
            bench.pass(ms(1));
        }
        pauses.push(bench.now - asked);
        bench.fail("refused");
        bench.claim(waiter);
    }
    assert_eq!(pauses[0], ms(0));
    for (n, pause) in pauses.iter().enumerate().skip(1) {
        let full = ms(100 * (1 << (n - 1))).min(secs(5));
        assert!(
            *pause >= full / 2 && *pause <= full + ms(1),
            "pause {n}: {pause:?}"
        );
    }
    bench.pass(secs(5));
    let session = bench.serving(1);
    bench.lose(session);
    bench.queue();
    assert_eq!(bench.dials.len(), 1, "well again: the next dial goes at once");
}

#[test]
fn an_answer_ends_the_back_off_for_those_who_wait() {
    // P7, P9
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(1);
    bench.take();
    bench.queue();
    bench.fail("refused");
    assert!(bench.dials.is_empty());
    bench.run(|state, now| state.handle_answered(session, now));
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn jitter_is_drawn_from_xorshift64_star() {
    // P9, P17: its first numbers for the seed 1, of which the upper 24 bits are used.
    let mut plan = super::super::Plan::new(1);
    for number in [
        5_180_492_295_206_395_165_u64,
        12_380_297_144_915_551_517,
        13_389_498_078_930_870_103,
        5_599_127_315_341_312_413,
    ] {
        assert_eq!(plan.random(), (number >> 40) as f64 / 16_777_216.0);
    }
}

#[test]
fn a_failed_dial_among_others_fails_as_many_as_one_session_serves() {
    // P9
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(2);
    bench.take();
    bench.take();
    let waiters = bench.queue_many(6);
    assert_eq!(bench.dials.len(), 3);
    bench.lose(session);
    bench.fail("reset");
    assert_eq!(bench.wakes(), waiters[..2]);
    let next = bench.open(2);
    assert_eq!(bench.granted(waiters[2]), next);
}

#[test]
fn a_dial_fails_those_whom_it_covered_when_it_was_made() {
    // P9, P25: the memory of HTTP/1.1 ends while a connection is being opened for each of five.
    let mut bench = Bench::new(|_| {});
    bench.run(|state, now| state.set_h1_only(Some(now + secs(1)), now));
    let waiters = bench.queue_many(5);
    assert_eq!(bench.dials.len(), 5);
    bench.pass(secs(2));
    let late = bench.queue();
    assert_eq!(bench.dials.len(), 5, "the next goes alone");
    bench.fail("refused");
    assert_eq!(bench.wakes(), waiters[..1]);
    assert_eq!(bench.claim(late), Claim::Pending);
}

#[test]
fn nobody_fails_while_a_session_can_still_serve() {
    // P9, P14
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(1);
    bench.take();
    let waiter = bench.queue();
    bench.fail("refused");
    assert_eq!(bench.claim(waiter), Claim::Pending);
    bench.release(session);
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn a_session_at_zero_saves_nobody_from_a_failed_dial() {
    // P3, P9
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(1);
    bench.settings(session, 0);
    let waiter = bench.queue();
    bench.fail("refused");
    assert_eq!(bench.claim(waiter), Claim::Failed(Failure::Dial("refused")));
}

#[test]
fn a_dial_belongs_to_the_pool() {
    // P8: the caller gives up, the connection serves the next one.
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue();
    bench.cancel(waiter);
    assert_eq!(bench.dials.len(), 1);
    let next = bench.queue();
    assert_eq!(bench.dials.len(), 1);
    let session = bench.open(10);
    assert_eq!(bench.granted(next), session);
}

#[test]
fn waiters_are_never_stranded_however_sessions_die() {
    // P14
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    for kind in 0..3 {
        let session = bench.serving(1);
        bench.take();
        let waiter = bench.queue();
        match kind {
            0 => bench.goaway(session),
            1 => bench.lose(session),
            _ => bench.settings(session, 0),
        }
        if kind == 2 {
            bench.release(session);
            bench.pass(secs(10));
            assert_eq!(bench.closed.last().map(|closed| closed.0), Some(session));
            assert!(matches!(bench.claim(waiter), Claim::Failed(Failure::Useless(_))));
            bench.lose(session);
            continue;
        }
        let replacement = bench.open(1);
        assert_eq!(bench.granted(waiter), replacement);
        bench.run(|state, now| state.handle_answered(replacement, now));
        bench.lose(replacement);
        bench.lose(session);
    }
}

#[test]
fn warm_opens_ahead_of_need_once() {
    // P10: up to the count and the bound; the sessions idle out like all others.
    let mut bench = Bench::new(|_| {});
    bench.run(|state, now| state.warm(caller(), 3, now));
    assert_eq!(bench.dials.len(), 1, "an unknown origin's first dial goes alone");
    bench.open(10);
    assert_eq!(bench.dials.len(), 2);
    bench.open(10);
    bench.open(10);
    bench.pass(secs(90));
    assert_eq!(bench.closed.len(), 3);
    assert!(bench.dials.is_empty(), "opened once, not for ever");
    bench.run(|state, now| state.warm(caller(), 100, now));
    assert_eq!(bench.dials.len(), 4, "never over the bound");
}

#[test]
fn what_a_runtime_was_warmed_for_ends_with_it_and_no_other() {
    // P10, P36, P39
    let mut bench = Bench::new(|_| {});
    bench.run(|state, now| state.warm(on(1), 2, now));
    bench.run(|state, now| state.handle_runtime_ended(on(1).runtime, now));
    bench.end(DialEnd::Aborted);
    assert_eq!(bench.state.groups.len(), 1);
    bench.run(|state, now| state.warm(caller(), 3, now));
    bench.run(|state, now| state.handle_runtime_ended(on(1).runtime, now));
    bench.open(1);
    assert_eq!(bench.dials.len(), 2);
}

#[test]
fn a_dial_that_a_runtime_took_with_it_is_done_elsewhere() {
    // P36
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue();
    bench.end(DialEnd::Aborted);
    assert_eq!(bench.wakes(), [], "nobody fails");
    assert!(
        bench.dials.is_empty(),
        "and nobody dials on a runtime that has ended"
    );
    let other = super::super::RuntimeId(9);
    let there = super::super::Caller {
        runtime: other,
        ..caller()
    };
    bench.run(|state, now| state.moved(waiter, there, || now));
    assert_eq!(bench.dials.len(), 1);
    assert_eq!(bench.dials[0].runtime, other);
    let session = bench.open(10);
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn a_closed_origin_plans_nothing_and_wants_no_connection() {
    // P20
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue();
    bench.run(|state, now| state.close(now, None));
    assert_eq!(bench.claim(waiter), Claim::Failed(Failure::Closed));
    assert_eq!(bench.acquire(caller()), Acquired::Closed);
    let dial = bench.dial();
    assert_eq!(
        bench.run(|state, now| state.handle_dialed(dial, Protocol::H2, now)),
        None
    );
    bench.run(|state, now| state.warm(caller(), 2, now));
    assert!(bench.dials.is_empty() && bench.state.is_unused());
}

#[test]
fn an_origin_that_cannot_be_spoken_to_is_not_dialed_in_a_loop() {
    // P9, P17: the replacement of a worn session, and min_sessions, want a dial as long as none succeeds.
    let mut bench = Bench::new(|limits| limits.min_sessions = 2);
    let session = bench.serving(10);
    bench.take();
    bench.run(|state, now| state.handle_worn(session, now));
    for _ in 0..5 {
        let dials = bench.dials.len();
        assert!(dials <= 2);
        for _ in 0..dials {
            bench.end(DialEnd::H1Only("h1 only"));
        }
        assert!(bench.dials.is_empty(), "not before the back-off has passed");
        bench.pass(secs(5));
        assert_eq!(bench.dials.len(), 1);
    }
}

#[test]
fn an_origin_that_turned_to_http1_fails_nobody_whom_a_session_can_serve() {
    // P9, P27: a fleet of mixed servers.
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(1);
    bench.take();
    let waiter = bench.queue();
    bench.end(DialEnd::H1Only("h1 only"));
    assert_eq!(bench.claim(waiter), Claim::Pending);
    bench.release(session);
    assert_eq!(bench.granted(waiter), session);
}
