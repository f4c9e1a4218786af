//! Sequences of events that are rare, and found by reading and by servers that play them.

use super::super::{Acquired, Claim, Failure, Phase, Protocol, Reason};
use super::bench::{Bench, caller, ms, on, secs, with_body};

#[test]
fn a_server_that_says_goaway_right_after_its_settings_fails_those_who_wait() {
    // P3, P9, P14: they are granted slots by the SETTINGS, and have not claimed them when the connection is gone.
    for goaway in [true, false] {
        let mut bench = Bench::new(|_| {});
        let mut waiter = match bench.acquire(with_body()) {
            Acquired::Queued(waiter) => waiter,
            other => panic!("{other:?}"),
        };
        for round in 1..=3 {
            let session = bench.open(5);
            if goaway {
                bench.goaway(session);
            }
            bench.lose(session);
            match bench.claim(waiter) {
                Claim::Granted(granted) => assert_eq!(granted, session),
                Claim::Failed(Failure::Dial("lost")) => {
                    assert_eq!(round, 3, "it is tried three times");
                    break;
                }
                other => panic!("{other:?}"),
            }
            assert!(round < 3, "it is tried three times");
            waiter = bench.queue_first(with_body());
            bench.pass(secs(5));
        }
        assert!(bench.state.is_unused(), "and nobody dials for nobody");
    }
}

#[test]
fn a_session_before_its_settings_neither_idles_out_nor_comes_of_age() {
    // P3, P16, P17: until then it is a dial, and ends with `connect_timeout`.
    for limit_at_zero in [false, true] {
        let mut bench = Bench::new(|limits| {
            limits.idle_timeout = Some(ms(200));
            limits.max_age = (!limit_at_zero).then_some(ms(200));
            limits.max_sessions = 1;
        });
        let Acquired::Queued(waiter) = bench.acquire(with_body()) else {
            panic!("nothing is open");
        };
        let session = bench.connect();
        if limit_at_zero {
            bench.settings(session, 0);
        }
        bench.pass(secs(9));
        assert!(bench.closed.is_empty() && bench.dials.is_empty());
        bench.settings(session, 5);
        assert_eq!(bench.granted(waiter), session);
        bench.pass(ms(1));
        assert_eq!(
            bench.dials.len(),
            u32::from(!limit_at_zero) as usize,
            "its age has come"
        );
    }
}

#[test]
fn a_session_that_was_warmed_is_joined_by_others_with_its_first_stream() {
    // P10: the origin is in use from then on.
    let mut bench = Bench::new(|limits| limits.min_sessions = 3);
    bench.run(|state, now| state.warm(caller(), 1, now));
    let session = bench.open(5);
    assert!(bench.dials.is_empty());
    bench.pass(secs(1));
    assert_eq!(bench.take(), session);
    bench.pass(secs(0));
    assert_eq!(bench.dials.len(), 2);
}

#[test]
fn an_old_session_works_on_until_its_replacement_may_be_used() {
    // P8, P17: a connection without SETTINGS is no replacement yet, nor is one that allows nothing.
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let old = bench.serving(5);
    bench.take();
    bench.run(|state, now| state.handle_worn(old, now));
    let new = bench.connect();
    assert!(bench.dials.is_empty(), "one is enough");
    let body = |bench: &mut Bench| match bench.acquire(with_body()) {
        Acquired::Granted(session) => session,
        other => panic!("{other:?}"),
    };
    assert_eq!(body(&mut bench), old);
    bench.settings(new, 0);
    assert_eq!(body(&mut bench), old);
    assert!(bench.dials.is_empty());
    bench.settings(new, 5);
    assert_eq!(body(&mut bench), new);
    let phase = |bench: &Bench, id| {
        bench
            .state
            .snapshot()
            .find(|session| session.id == id)
            .unwrap()
            .phase
    };
    assert_eq!(
        (phase(&bench, old), phase(&bench, new)),
        (Phase::Draining, Phase::Active)
    );
}

#[test]
fn a_replacement_that_comes_to_nothing_costs_the_old_session_nothing() {
    // P9, P17
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let old = bench.serving(5);
    bench.take();
    bench.run(|state, now| state.handle_worn(old, now));
    let new = bench.connect();
    for _ in 0..12 {
        bench.pass(secs(1));
        assert!(matches!(bench.acquire(with_body()), Acquired::Granted(session) if session == old));
        bench.release(old);
    }
    assert_eq!(bench.killed, [(new, Reason::Useless)]);
    bench.lose(new);
    bench.pass(secs(1));
    assert_eq!(bench.dials.len(), 1, "it is tried again");
}

#[test]
fn an_h2_answer_that_was_asked_for_before_the_origin_was_known_changes_nothing() {
    // P25, P26: several dials are under way when the first answer says HTTP_1_1_REQUIRED.
    let mut bench = Bench::new(|limits| limits.max_sessions = 3);
    let first = bench.serving(1);
    bench.take();
    let waiters = bench.queue_many(2);
    assert_eq!(bench.dials.len(), 2);
    let until = bench.now + secs(300);
    bench.run(|state, now| state.set_h1_only(Some(until), now));
    let late = [bench.dial(), bench.dial()];
    assert!(bench.dials.iter().all(|order| order.h1_only));
    for dial in late {
        assert_eq!(
            bench.run(|state, now| state.handle_dialed(dial, Protocol::H2, now)),
            None
        );
    }
    assert!(!bench.dials.is_empty() && bench.dials.iter().all(|order| order.h1_only));
    for waiter in waiters {
        let session = bench.connect_as(Protocol::H1);
        assert_eq!(bench.granted(waiter), session);
    }
    bench.release(first);
    // Where only HTTP/1.1 was offered, an answer in HTTP/2 is news.
    bench.queue();
    let dial = bench.dial();
    let session = bench.run(|state, now| state.handle_dialed(dial, Protocol::H2, now));
    assert!(session.is_some());
}

#[test]
fn a_dial_of_ones_own_offers_h2_again_after_the_ttl_and_learns_from_the_answer() {
    // P23, P25
    let mut bench = Bench::new(|_| {});
    let until = bench.now + secs(300);
    bench.run(|state, now| state.set_h1_only(Some(until), now));
    bench.pass(secs(301));
    bench.run(|state, now| state.acquire_own(caller(), now)).unwrap();
    assert!(!bench.dials[0].h1_only, "the TTL is over");

    let mut bench = Bench::new(|_| {});
    let until = bench.now + secs(300);
    bench.run(|state, now| state.set_h1_only(Some(until), now));
    let own = bench.run(|state, now| state.acquire_own(caller(), now)).unwrap();
    let session = bench.connect_as(Protocol::H2);
    assert_eq!(bench.granted(own), session);
    bench.queue();
    assert!(!bench.dials[0].h1_only, "it answered in h2");
}

#[test]
fn what_is_warmed_beyond_the_bound_of_http1_is_not_dialed_for_ever() {
    // P10, P16
    let mut bench = Bench::new(|limits| limits.max_h1_connections = 1);
    bench.run(|state, now| state.warm(caller(), 4, now));
    let session = bench.connect_as(Protocol::H1);
    bench.pass(secs(200));
    assert_eq!(bench.closed, [(session, Reason::Idle)]);
    bench.lose(session);
    bench.pass(secs(10));
    assert!(bench.dials.is_empty(), "nobody asked");
}

#[test]
fn a_failure_of_long_ago_makes_no_dial_go_alone_and_no_pause_longer() {
    // P7, P9: failures in a row are those that follow each other.
    let hours_later = || {
        let mut bench = Bench::new(|limits| limits.max_sessions = 4);
        let session = bench.serving(1);
        for _ in 0..6 {
            assert_eq!(bench.take(), session);
            let waiter = bench.queue();
            bench.pass(secs(10));
            bench.fail("refused");
            bench.cancel(waiter);
            bench.release(session);
            for _ in 0..60 {
                bench.pass(secs(60));
                assert_eq!(bench.take(), session);
                bench.release(session);
            }
        }
        assert_eq!(bench.take(), session);
        bench.dials.clear();
        bench
    };
    let mut bench = hours_later();
    bench.queue_many(3);
    assert_eq!(
        bench.dials.len(),
        3,
        "one session serves one: three are wanted, and three are free"
    );
    let mut bench = hours_later();
    bench.queue();
    bench.fail("refused");
    bench.pass(ms(101));
    assert_eq!(bench.dials.len(), 1, "the first pause is 100 ms at most");
}

#[test]
fn a_session_of_ones_own_that_is_given_up_has_a_deadline() {
    // P18, P23: its transport may take nothing.
    let mut bench = Bench::new(|_| {});
    let own = bench
        .run(|state, now| state.acquire_own(with_body(), now))
        .unwrap();
    let session = bench.connect();
    bench.settings(session, 0);
    bench.cancel(own);
    assert_eq!(bench.closed, [(session, Reason::Worn)]);
    bench.pass(secs(3600));
    assert_eq!(bench.killed.len(), 1, "`drain_timeout`");
}

#[test]
fn a_private_session_serves_its_own_runtime_alone_whoever_was_granted_it() {
    // P36: the shell asks before a grant is used, as the waiter may have moved.
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue_as(on(1));
    let private = bench.open(5);
    assert_eq!(bench.granted(waiter), private);
    assert!(bench.state.serves(private, on(1)));
    assert!(!bench.state.serves(private, on(2)) && !bench.state.serves(private, caller()));
    let waiter = bench.queue();
    let shared = bench.open(5);
    assert_eq!(bench.granted(waiter), shared);
    assert!(bench.state.serves(shared, on(2)) && bench.state.serves(shared, caller()));
}

#[test]
fn a_silent_session_gets_no_more_work_and_what_runs_on_it_may_finish() {
    // P14, P18, P19: it may be alive, and it may not be asked.
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let session = bench.serving(5);
    bench.take();
    bench.run(|state, now| state.handle_silent(session, now));
    let next = bench.open(5);
    bench.pass(secs(60));
    assert!(bench.killed.is_empty());
    assert_eq!(bench.take(), next);
    bench.release(session);
    assert_eq!(bench.closed, [(session, Reason::Unanswered)]);

    let mut bench = Bench::new(|_| {});
    let session = bench.serving(5);
    bench.run(|state, now| state.handle_silent(session, now));
    assert_eq!(bench.closed, [(session, Reason::Unanswered)]);
    bench.pass(secs(30));
    assert_eq!(bench.killed.len(), 1, "nothing runs, and it does not end");

    let mut bench = Bench::new(|_| {});
    let session = bench.serving(5);
    bench.take();
    bench.goaway(session);
    bench.run(|state, now| state.handle_silent(session, now));
    bench.pass(secs(30));
    assert_eq!(
        bench.killed,
        [(session, Reason::Goaway)],
        "it has a deadline already"
    );
}

#[test]
fn failures_are_remembered_for_as_long_as_a_dial_and_the_longest_pause_take() {
    // P7, P9: and while one is under way.
    let failed = || {
        let mut bench = Bench::new(|limits| limits.max_sessions = 5);
        bench.serving(1);
        bench.take();
        let waiter = bench.queue();
        bench.fail("refused");
        (bench, waiter)
    };
    for (seconds, dials) in [(14, 1), (16, 3)] {
        let (mut bench, waiter) = failed();
        bench.cancel(waiter);
        bench.pass(secs(seconds));
        bench.queue_many(3);
        assert_eq!(bench.dials.len(), dials, "after {seconds} s");
    }
    let (mut bench, _waiter) = failed();
    bench.pass(secs(1));
    assert_eq!(bench.dials.len(), 1);
    bench.pass(secs(60));
    bench.queue_many(3);
    assert_eq!(bench.dials.len(), 1, "it is under way");
}
