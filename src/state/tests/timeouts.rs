//! Time: idle sessions, ages, and a timer that neither misses nor spins.

use super::super::{Acquired, Caller, Claim, DialEnd, Reason, RuntimeId};
use super::bench::{Bench, MAIN, caller, ms, secs};

#[test]
fn an_idle_session_is_closed_and_a_granted_one_lives() {
    // P16: counted from the end of the last stream, checked again when the timer fires.
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(2);
    bench.pass(secs(60));
    bench.take();
    bench.pass(secs(60));
    assert!(bench.closed.is_empty(), "busy");
    bench.release(session);
    bench.pass(secs(89));
    assert!(bench.closed.is_empty());
    bench.take();
    bench.pass(secs(10));
    assert!(bench.closed.is_empty(), "granted in the meantime");
    bench.release(session);
    bench.pass(secs(90));
    assert_eq!(bench.closed, [(session, Reason::Idle)]);
    assert!(
        matches!(bench.acquire(caller()), Acquired::Queued(_)),
        "and not handed out after"
    );
}

#[test]
fn a_lease_that_carries_no_stream_prolongs_nothing() {
    // P16: counted from the end of the last stream; the hot path needs no clock.
    let never = || -> std::time::Instant { panic!("the clock was read") };
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(2);
    bench.pass(secs(80));
    bench.take();
    assert_eq!(
        bench.state.snapshot().next().unwrap().idle_since,
        None,
        "it is out"
    );
    bench.run(|state, _| state.give_back(session, never));
    let idle_since = bench.state.snapshot().next().unwrap().idle_since;
    assert_eq!(idle_since, Some(bench.now - secs(80)));
    bench.pass(secs(9));
    assert!(bench.closed.is_empty());
    bench.pass(secs(1));
    assert_eq!(bench.closed, [(session, Reason::Idle)]);
}

#[test]
fn a_lease_that_is_out_when_the_idle_timeout_has_passed_keeps_its_session_for_another() {
    // P16: its user may have meant to use it a moment later, and others may be about to.
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(2);
    bench.pass(secs(80));
    bench.take();
    bench.pass(secs(20));
    bench.give_back(session);
    bench.pass(secs(89));
    assert!(bench.closed.is_empty());
    bench.pass(secs(1));
    assert_eq!(bench.closed, [(session, Reason::Idle)]);
}

#[test]
fn a_stream_beside_an_unused_lease_counts() {
    // P16: whichever of the two ends last.
    for stream_first in [true, false] {
        let mut bench = Bench::new(|_| {});
        let session = bench.serving(2);
        bench.pass(secs(50));
        bench.take();
        bench.take();
        if stream_first {
            bench.release(session);
            bench.give_back(session);
        } else {
            bench.give_back(session);
            bench.release(session);
        }
        bench.pass(secs(89));
        assert!(bench.closed.is_empty());
        bench.pass(secs(1));
        assert_eq!(bench.closed, [(session, Reason::Idle)]);
    }
}

#[test]
fn a_session_that_is_to_be_replaced_ends_after_the_lull_that_follows_an_unused_lease() {
    // P17: it is retired while the lease is out.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(2);
    bench.pass(secs(50));
    bench.take();
    bench.run(|state, now| state.handle_worn(session, now));
    assert_eq!(bench.dials.len(), 1);
    bench.give_back(session);
    let lull = bench.state.limits.lull();
    bench.pass(lull);
    assert_eq!(bench.closed, [(session, Reason::Worn)]);
}

#[test]
fn no_idle_timeout_means_never() {
    // P16
    let mut bench = Bench::new(|limits| limits.idle_timeout = None);
    let session = bench.serving(2);
    bench.pass(secs(1_000_000));
    assert_eq!(bench.take(), session);
    assert_eq!(bench.state.poll_timeout(), None, "no timer runs for nothing");
}

#[test]
fn min_sessions_are_kept_while_the_origin_is_in_use() {
    // P10
    let mut bench = Bench::new(|limits| limits.min_sessions = 2);
    let first = bench.serving(2);
    bench.take();
    let second = bench.open(2);
    for _ in 0..10 {
        bench.pass(secs(60));
        bench.release(first);
        bench.take();
    }
    assert!(bench.closed.is_empty(), "two are kept");
    bench.release(first);
    bench.pass(secs(200));
    bench.closed.sort_by_key(|closed| closed.0.slot);
    assert_eq!(
        bench.closed,
        [(first, Reason::Idle), (second, Reason::Idle)],
        "not in use any more"
    );
    assert!(bench.dials.is_empty());
}

#[test]
fn min_sessions_are_kept_no_longer_than_any_other_once_the_origin_is_not_in_use() {
    // P10, P16
    let mut bench = Bench::new(|limits| limits.min_sessions = 1);
    let session = bench.serving(1);
    bench.pass(secs(90));
    assert_eq!(bench.closed, [(session, Reason::Idle)]);
}

#[test]
fn more_than_min_sessions_idle_out() {
    // P10, P16
    let mut bench = Bench::new(|limits| limits.min_sessions = 1);
    let first = bench.serving(1);
    bench.take();
    let waiter = bench.queue();
    let second = bench.open(1);
    assert_eq!(bench.granted(waiter), second);
    bench.release(second);
    for _ in 0..4 {
        bench.pass(secs(60));
        bench.release(first);
        assert_eq!(bench.take(), first, "the least recently filed serves");
    }
    assert_eq!(bench.closed, [(second, Reason::Idle)]);
}

#[test]
fn an_old_session_is_replaced_and_its_age_is_jittered() {
    // P17: between nine tenths of the age and the whole.
    let mut bench = Bench::new(|limits| {
        (limits.max_age, limits.idle_timeout, limits.max_sessions) = (Some(secs(100)), None, 1);
    });
    let old = bench.serving(2);
    bench.take();
    bench.pass(secs(89));
    assert!(bench.dials.is_empty());
    bench.pass(secs(11));
    assert_eq!(bench.dials.len(), 1);
    let new = bench.open(2);
    assert_eq!(bench.take(), new);
    bench.release(old);
    assert_eq!(bench.closed, [(old, Reason::Age)]);
}

#[test]
fn a_session_that_comes_of_age_between_two_requests_is_replaced_first() {
    // P17: traffic flows, though nothing runs at that very moment.
    for ends in [false, true] {
        let mut bench = Bench::new(|limits| (limits.max_age, limits.max_sessions) = (Some(secs(100)), 1));
        let (old, start) = (bench.serving(2), bench.now);
        while bench.dials.is_empty() {
            assert!(bench.now < start + secs(101), "nobody dials");
            assert_eq!(bench.take(), old);
            bench.release(old);
            bench.pass(ms(700));
        }
        assert!(bench.closed.is_empty());
        if ends {
            // Nobody comes any more: what is dialed for nobody is not waited for.
            bench.pass(secs(1));
            assert_eq!(bench.closed, [(old, Reason::Age)]);
            bench.fail("refused");
            bench.pass(secs(200));
            assert!(bench.dials.is_empty());
        } else {
            assert_eq!(bench.take(), old, "it works on");
            let new = bench.open(2);
            bench.release(old);
            assert_eq!(bench.closed, [(old, Reason::Age)]);
            assert_eq!(bench.take(), new);
        }
    }
}

#[test]
fn a_lull_is_no_longer_than_a_tenth_of_the_age() {
    // P17
    let mut bench = Bench::new(|limits| limits.max_age = Some(secs(5)));
    let old = bench.serving(2);
    bench.run(|state, now| state.handle_worn(old, now));
    bench.pass(ms(499));
    assert!(bench.closed.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.closed, [(old, Reason::Worn)]);
}

#[test]
fn nobody_is_sent_to_a_session_that_the_same_moment_ends() {
    // P16, P19: its pause is over, and its probe went unanswered.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(3);
    bench.take();
    bench.run(|state, now| {
        state.park(session, now);
        state.handle_refused(session, now);
        state.handle_refused(session, now);
    });
    let waiter = bench.queue();
    bench.pass(secs(1));
    assert_eq!(bench.claim(waiter), Claim::Pending);
    let replacement = bench.open(3);
    assert_eq!(bench.granted(waiter), replacement);
}

#[test]
fn a_session_that_does_not_answer_is_replaced_beside_what_others_wait_for() {
    // P19
    let mut bench = Bench::new(|_| {});
    let silent = bench.serving(1);
    bench.take();
    let waiter = bench.queue();
    let other = bench.open(1);
    assert_eq!(bench.granted(waiter), other);
    bench.queue();
    bench.run(|state, now| state.park(silent, now));
    assert_eq!(bench.dials.len(), 1);
    bench.pass(secs(1));
    assert_eq!(bench.dials.len(), 2);
}

#[test]
fn spurious_and_early_calls_do_nothing() {
    // P16
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(3);
    let due = bench.state.poll_timeout();
    for _ in 0..3 {
        bench.run(|state, now| state.handle_timeout(now));
    }
    bench.now += ms(1);
    bench.run(|state, now| state.handle_timeout(now));
    assert_eq!(bench.state.poll_timeout(), due);
    assert_eq!(bench.take(), session);
}

#[test]
fn time_never_runs_backwards() {
    // P36: runtimes may disagree about the time; the state clamps it to the latest seen.
    let mut bench = Bench::new(|_| {});
    let start = bench.now;
    let session = bench.serving(3);
    bench.pass(secs(80));
    bench.run(|state, now| state.handle_timeout(now));
    bench.now = start;
    bench.take();
    bench.release(session);
    bench.run(|state, now| state.handle_timeout(now));
    bench.now = start + secs(80);
    bench.pass(secs(89));
    assert!(
        bench.closed.is_empty(),
        "idle since the latest time that was ever seen"
    );
    bench.pass(secs(1));
    assert_eq!(bench.closed, [(session, Reason::Idle)]);
}

#[test]
fn requests_only_move_the_timer_earlier() {
    // P16: one timer; a request does not touch what is due before.
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(3);
    bench.pass(secs(20));
    let due = bench.state.poll_timeout();
    assert!(due.is_some());
    bench.take();
    bench.release(session);
    assert_eq!(bench.state.poll_timeout(), due);
}

#[test]
fn two_things_due_at_once_are_both_done() {
    // P16: the timer does not fire twice for one moment (the bench asserts it).
    let mut bench = Bench::new(|limits| {
        limits.connect_timeout = secs(10);
        limits.probe_timeout = secs(10);
        limits.refusal_pause = secs(10);
        limits.max_sessions = 1;
    });
    let session = bench.serving(3);
    bench.take();
    bench.take();
    bench.settings(session, 0);
    bench.run(|state, now| {
        state.park(session, now);
        state.handle_refused(session, now);
        state.handle_refused(session, now);
    });
    bench.pass(secs(10));
    assert_eq!(bench.dials.len(), 1, "unanswered: replaced");
    bench.release(session);
    assert_eq!(bench.closed, [(session, Reason::Unanswered)]);
}

#[test]
fn min_sessions_are_opened_again_when_all_were_lost() {
    // P10: the origin is in use though no session is left to tell.
    let mut bench = Bench::new(|limits| limits.min_sessions = 1);
    let session = bench.serving(2);
    bench.pass(secs(30));
    bench.lose(session);
    assert_eq!(bench.dials.len(), 1);
    let session = bench.open(2);
    bench.pass(secs(30));
    bench.lose(session);
    bench.pass(secs(5));
    assert_eq!(bench.dials.len(), 1);
    let session = bench.open(2);
    bench.pass(secs(300));
    assert_eq!(
        bench.closed,
        [(session, Reason::Idle)],
        "until it is not in use any more"
    );
}

#[test]
fn min_sessions_are_kept_though_the_runtime_that_waited_last_is_gone() {
    // P10, P36
    let mut bench = Bench::new(|limits| limits.min_sessions = 2);
    bench.serving(1);
    bench.pass(ms(1));
    let second = bench.open(1);
    let _busy = [bench.take(), bench.take()];
    let waiter = bench.queue_as(Caller {
        runtime: RuntimeId(7),
        ..caller()
    });
    bench.cancel(waiter);
    bench.run(|state, now| state.handle_runtime_ended(RuntimeId(7), now));
    bench.end(DialEnd::Aborted);
    bench.run(|state, now| state.handle_answered(second, now));
    bench.lose(second);
    assert_eq!(bench.dials[0].runtime, MAIN);
}

#[test]
fn a_session_worn_by_what_the_timer_serves_is_retired_at_once() {
    // P16, P17: the timer does not fire twice for one moment (the bench asserts it).
    let mut bench = Bench::new(|limits| (limits.max_streams_per_session, limits.max_sessions) = (Some(2), 1));
    let session = bench.serving(5);
    bench.run(|state, now| {
        state.handle_refused(session, now);
        state.handle_refused(session, now);
    });
    let waiter = bench.queue();
    bench.pass(secs(1));
    assert_eq!(bench.granted(waiter), session);
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn a_silent_session_whose_probe_goes_unanswered_at_the_same_moment_is_killed() {
    // P3, P16, P19: the timer does not fire twice for one moment (the bench asserts it).
    let mut bench = Bench::new(|limits| limits.probe_timeout = limits.connect_timeout);
    let waiter = bench.queue();
    let session = bench.connect();
    assert_eq!(bench.granted(waiter), session);
    bench.run(|state, now| state.park(session, now));
    bench.pass(secs(10));
    assert_eq!(bench.killed, [(session, Reason::Useless)]);
}

#[test]
fn what_is_armed_later_than_the_first_deadline_is_told_too() {
    // P36: whoever arms it may run on another runtime than the one that keeps the first.
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(2);
    bench.run(|state, _| state.take_armed());
    bench.take();
    assert!(!bench.state.has_armed());
    bench.pass(secs(1));
    let first = bench.state.poll_timeout();
    bench.release(session);
    assert_eq!(bench.state.poll_timeout(), first);
    assert!(bench.state.has_armed());
    assert!(bench.run(|state, _| state.take_armed()));
    assert!(!bench.state.has_armed());
}
