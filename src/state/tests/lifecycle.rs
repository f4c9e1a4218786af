//! What happens to sessions: SETTINGS, GOAWAY, wear, refusals, parking, closing.

use super::super::{Claim, Failure, Phase, Reason};
use super::bench::{Bench, caller, ms, secs, with_body};

#[test]
fn the_limit_is_followed_up_and_down() {
    // P3
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(2);
    bench.take();
    bench.take();
    let waiters = bench.queue_many(3);
    bench.settings(session, 4);
    assert_eq!(bench.wakes(), waiters[..2], "raised: served at once");
    waiters[..2]
        .iter()
        .for_each(|waiter| assert_eq!(bench.granted(*waiter), session));
    bench.settings(session, 2);
    for _ in 0..2 {
        bench.release(session);
        assert_eq!(bench.wakes(), [], "no grant until it falls under the limit");
    }
    bench.release(session);
    assert_eq!(bench.wakes(), waiters[2..]);
}

#[test]
fn the_configured_cap_bounds_what_the_server_allows() {
    // P3
    let mut bench = Bench::new(|limits| (limits.max_sessions, limits.streams_per_session) = (1, 2));
    let session = bench.serving(u32::MAX);
    assert_eq!(bench.take(), session);
    assert_eq!(bench.take(), session);
    bench.queue();
}

#[test]
fn before_settings_the_limit_is_what_was_learned_last() {
    // P3
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let first = bench.serving(3);
    bench.lose(first);
    let waiters = bench.queue_many(5);
    let second = bench.connect();
    assert_eq!(bench.wakes(), waiters[..3]);
    bench.settings(second, 5);
    assert_eq!(bench.wakes(), waiters[3..]);
}

#[test]
fn goaway_before_anything_was_served_is_no_loop() {
    // P3, P9: a few tries with a back-off, then those who wait fail.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let body = bench.queue_as(with_body());
    let mut dials = 0;
    for _ in 0..1000 {
        bench.pass(ms(10));
        if !bench.dials.is_empty() {
            let session = bench.connect();
            dials += 1;
            bench.goaway(session);
            bench.lose(session);
        }
    }
    assert_eq!(bench.claim(body), Claim::Failed(Failure::Dial("goaway")));
    assert_eq!(dials, 3);
}

#[test]
fn sessions_that_serve_end_without_a_pause() {
    // P14, P18: nginx's keepalive_requests.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    for _ in 0..20 {
        let session = bench.serving(1);
        bench.goaway(session);
        assert_eq!(bench.closed.pop(), Some((session, Reason::Goaway)));
        bench.lose(session);
    }
}

#[test]
fn a_draining_session_ends_with_its_last_stream_or_at_the_deadline() {
    // P18
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(2);
    bench.take();
    bench.take();
    bench.goaway(session);
    assert!(bench.closed.is_empty());
    bench.release(session);
    assert!(bench.closed.is_empty());
    bench.release(session);
    assert_eq!(bench.closed, [(session, Reason::Goaway)]);
    let stuck = bench.serving(2);
    bench.take();
    bench.goaway(stuck);
    bench.pass(secs(30));
    assert_eq!(bench.killed.last(), Some(&(stuck, Reason::Goaway)));
}

#[test]
fn two_goaways_on_one_session_count_once() {
    // P18
    let mut bench = Bench::new(|_| {});
    bench.queue_as(with_body());
    let session = bench.connect();
    bench.goaway(session);
    bench.goaway(session);
    bench.lose(session);
    bench.pass(ms(100));
    assert_eq!(bench.dials.len(), 1, "the back-off of one failure, not of three");
}

#[test]
fn a_worn_session_is_replaced_before_it_stops() {
    // P17: also where one session is the bound.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let old = bench.serving(2);
    bench.take();
    bench.run(|state, now| state.handle_worn(old, now));
    assert_eq!(bench.dials.len(), 1);
    assert_eq!(bench.take(), old, "it takes work until the replacement is open");
    let phases: Vec<_> = bench.state.snapshot().map(|session| session.phase).collect();
    assert_eq!(phases, [Phase::Draining]);
    let new = bench.open(2);
    assert_eq!(bench.take(), new);
    bench.release(old);
    bench.release(old);
    assert_eq!(bench.closed, [(old, Reason::Worn)]);
}

#[test]
fn a_dial_that_nobody_waits_for_any_more_replaces_a_worn_session() {
    // P5, P17: no dial that demand does not justify.
    let mut bench = Bench::new(|_| {});
    let old = bench.serving(1);
    bench.take();
    let waiter = bench.queue();
    assert_eq!(bench.dials.len(), 1);
    bench.cancel(waiter);
    bench.run(|state, now| state.handle_worn(old, now));
    assert_eq!(bench.dials.len(), 1);
    bench.queue();
    assert_eq!(
        bench.dials.len(),
        2,
        "one for the waiter, one for the worn session"
    );
    bench.open(1);
    bench.release(old);
    assert_eq!(bench.closed, [(old, Reason::Worn)]);
}

#[test]
fn an_idle_worn_session_ends_without_a_replacement() {
    // P17
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(2);
    bench.pass(secs(1));
    bench.run(|state, now| state.handle_worn(session, now));
    assert_eq!(bench.closed, [(session, Reason::Worn)]);
    assert!(bench.dials.is_empty());
}

#[test]
fn a_failed_replacement_is_tried_again_while_the_old_session_works_on() {
    // P9, P17
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let old = bench.serving(2);
    bench.take();
    bench.run(|state, now| state.handle_worn(old, now));
    bench.fail("refused");
    assert_eq!(bench.take(), old);
    let waiter = bench.queue();
    bench.pass(ms(100));
    bench.fail("refused");
    assert_eq!(bench.claim(waiter), Claim::Pending);
    bench.release(old);
    assert_eq!(bench.granted(waiter), old);
    bench.pass(ms(200));
    let new = bench.open(2);
    assert_eq!(bench.take(), new);
}

#[test]
fn a_session_that_refuses_twice_gets_no_new_work_for_a_while() {
    // P21
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(2);
    bench.run(|state, now| state.handle_refused(session, now));
    assert_eq!(bench.take(), session, "once is nothing");
    bench.run(|state, now| state.handle_refused(session, now));
    let waiter = bench.queue();
    bench.pass(ms(999));
    assert_eq!(bench.claim(waiter), Claim::Pending);
    bench.pass(ms(1));
    assert_eq!(bench.granted(waiter), session);
    bench.run(|state, now| state.handle_refused(session, now));
    bench.release(session);
    assert_eq!(bench.take(), session, "and it counts anew");
}

#[test]
fn a_parked_slot_is_taken_until_a_sign_of_life() {
    // P19, P44
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(2);
    bench.take();
    bench.take();
    for _ in 0..2 {
        bench.run(|state, now| state.park(session, now));
    }
    assert_eq!(bench.probed, [session], "one probe is under way");
    let waiter = bench.queue();
    assert_eq!(bench.claim(waiter), Claim::Pending);
    bench.run(|state, now| state.handle_sign_of_life(session, now));
    assert_eq!(bench.granted(waiter), session);
    bench.release(session);
    bench.pass(secs(89));
    assert!(bench.closed.is_empty());
    bench.pass(secs(1));
    assert_eq!(bench.closed, [(session, Reason::Idle)]);
}

#[test]
fn a_suspect_session_is_the_last_choice_and_before_settings_takes_no_body() {
    // P3, P19
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let suspect = bench.serving(10);
    for _ in 0..10 {
        bench.take();
    }
    let waiter = bench.queue();
    let other = bench.open(10);
    assert_eq!(bench.granted(waiter), other);
    for _ in 0..10 {
        bench.release(suspect);
    }
    assert_eq!(bench.take(), suspect, "the less busy one");
    bench.run(|state, now| state.park(suspect, now));
    for _ in 0..9 {
        assert_eq!(bench.take(), other);
    }
    assert_eq!(bench.take(), suspect, "when no other has room");

    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let waiter = bench.queue();
    let fresh = bench.connect();
    bench.granted(waiter);
    bench.run(|state, now| state.park(fresh, now));
    let body = bench.queue_as(with_body());
    assert_eq!(bench.claim(body), Claim::Pending);
    bench.settings(fresh, 10);
    assert_eq!(bench.granted(body), fresh);
}

#[test]
fn an_unanswered_probe_brings_a_replacement() {
    // P19: its streams may still finish, however late.
    let mut bench = Bench::new(|_| {});
    let session = bench.unanswered();
    assert!(bench.closed.is_empty() && bench.killed.is_empty());
    assert_eq!(bench.dials.len(), 1);
    let new = bench.open(5);
    assert_eq!(bench.take(), new);
    bench.pass(secs(60));
    assert!(bench.killed.is_empty(), "it may only be slow");
    bench.run(|state, now| state.handle_sign_of_life(session, now));
    bench.release(session);
    assert_eq!(bench.closed, [(session, Reason::Unanswered)]);
}

#[test]
fn what_drains_without_a_deadline_has_one_from_the_goaway_on() {
    // P18, P19: what runs on a session that answered no probe, or is one caller's own, is left alone until then.
    let mut bench = Bench::new(|_| {});
    let session = bench.unanswered();
    bench.open(5);
    let waiter = bench.queue_own(caller());
    let own = bench.open(5);
    assert_eq!(bench.granted(waiter), own);
    // Somebody had a slot there, and was turned away.
    bench.run(|state, now| state.handle_failing(session, "retired", now));
    bench.pass(secs(60));
    assert!(bench.killed.is_empty());
    bench.goaway(session);
    bench.goaway(own);
    bench.pass(secs(29));
    assert!(bench.killed.is_empty());
    bench.pass(secs(1));
    assert_eq!(bench.killed, [(session, Reason::Unanswered), (own, Reason::Worn)]);
}

#[test]
fn an_unread_body_stalls_its_session() {
    // P30
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(5);
    bench.run(|state, now| state.handle_stalled(session, true, now));
    let waiter = bench.queue();
    assert_eq!(bench.claim(waiter), Claim::Pending);
    bench.run(|state, now| state.handle_stalled(session, false, now));
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn closing_lets_streams_finish_up_to_the_deadline() {
    // P20: twice is harmless.
    let mut bench = Bench::new(|limits| limits.drain_timeout = None);
    let idle = bench.serving(1);
    bench.take();
    let waiter = bench.queue();
    let busy = bench.open(1);
    assert_eq!(bench.granted(waiter), busy);
    bench.release(idle);
    let deadline = bench.now + secs(5);
    bench.run(|state, now| state.close(now, Some(deadline)));
    bench.run(|state, now| state.close(now, Some(deadline)));
    assert_eq!(bench.closed, [(idle, Reason::Closed)]);
    bench.lose(idle);
    bench.pass(secs(5));
    assert_eq!(bench.killed, [(busy, Reason::Closed)]);
    bench.lose(busy);
    assert!(bench.state.is_unused());
    bench.pass(secs(600));
    assert_eq!(bench.state.poll_timeout(), None);
}

#[test]
fn streams_are_counted_and_the_last_one_brings_a_replacement() {
    // P17: nothing is timed by a clock that was read long ago.
    let mut bench = Bench::new(|limits| (limits.max_streams_per_session, limits.max_sessions) = (Some(4), 1));
    let old = bench.serving(10);
    bench.take();
    bench.take();
    bench.now += secs(3600);
    bench.run(|state, _| state.try_acquire(true)).expect("room");
    bench.pass(secs(0));
    assert_eq!(bench.dials.len(), 1);
    let new = bench.connect();
    bench.pass(secs(9));
    assert!(
        bench.killed.is_empty(),
        "the replacement and the old session have their full time"
    );
    assert_eq!(bench.take(), old, "which works on until the other may");
    bench.settings(new, 10);
    assert_eq!(bench.take(), new);
    let streams: Vec<_> = bench.state.snapshot().map(|session| session.streams).collect();
    assert_eq!(streams, [5, 1]);
    for _ in 0..4 {
        bench.release(old);
    }
    assert_eq!(bench.closed, [(old, Reason::Worn)]);
}

#[test]
fn a_stream_cancelled_on_a_draining_session_needs_no_probe() {
    // P18, P44: no stream follows it, and the session ends with its last one.
    let mut bench = Bench::new(|limits| limits.drain_timeout = None);
    let session = bench.serving(5);
    bench.take();
    bench.goaway(session);
    bench.run(|state, now| state.park(session, now));
    assert_eq!(bench.closed, [(session, Reason::Goaway)]);
    assert!(bench.probed.is_empty());
}

#[test]
fn draining_sessions_do_not_count_but_are_bounded() {
    // P5: at most twice the bound in all, whatever the server does.
    let mut bench = Bench::new(|limits| (limits.max_sessions, limits.drain_timeout) = (2, None));
    let mut old = Vec::new();
    for _ in 0..4 {
        let session = bench.serving(1);
        assert_eq!(bench.take(), session);
        bench.goaway(session);
        old.push(session);
    }
    let waiter = bench.queue();
    bench.pass(secs(60));
    assert!(bench.dials.is_empty(), "four still drain");
    bench.release(old[0]);
    bench.lose(old[0]);
    assert_eq!(bench.dials.len(), 1);
    let session = bench.open(1);
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn goaway_before_the_first_answer_is_judged_when_the_session_is_gone() {
    // P3, P18: a server that serves one request a connection says GOAWAY before it answers.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let waiter = bench.queue();
    let first = bench.open(100);
    assert_eq!(bench.granted(waiter), first);
    bench.goaway(first);
    bench.queue();
    assert_eq!(bench.dials.len(), 1, "no pause: nothing has failed");
    let second = bench.connect();
    bench.settings(second, 100);
    bench.run(|state, now| state.handle_answered(first, now));
    bench.release(first);
    bench.lose(first);
    bench.goaway(second);
    bench.lose(second);
    bench.queue();
    assert!(bench.dials.is_empty(), "this one ended before it served anything");
}

#[test]
fn sessions_that_came_to_nothing_are_shown_as_failed_dials() {
    // P3, P43
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    bench.queue_as(with_body());
    let session = bench.connect();
    bench.lose(session);
    assert_eq!(bench.wasted, 1, "closed before SETTINGS");
    bench.pass(secs(1));
    let session = bench.connect();
    bench.settings(session, 0);
    bench.goaway(session);
    bench.lose(session);
    assert_eq!(bench.wasted, 2, "GOAWAY, and then its end: once");
    bench.pass(secs(1));
    bench.connect();
    bench.pass(secs(11));
    assert_eq!(bench.wasted, 3, "no SETTINGS in time");

    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    bench.queue();
    bench.fail("refused");
    assert_eq!(bench.wasted, 0, "the shell saw that dial fail");
    bench.pass(secs(1));
    let session = bench.serving(3);
    bench.lose(session);
    assert_eq!(bench.wasted, 0, "it has served");
}
