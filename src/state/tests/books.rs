//! What the state says of itself, and what it must not forget.

use super::super::Acquired;
use super::bench::{Bench, caller, on, secs, with_body};

#[test]
fn what_there_is_is_counted() {
    // P29, P39, P40
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let said = |bench: &Bench| {
        let state = &bench.state;
        (
            state.is_unused(),
            state.is_idle(),
            state.load(),
            state.dials().count(),
        )
    };
    assert_eq!(said(&bench), (true, true, 0, 0));
    let first = bench.queue();
    assert_eq!(said(&bench), (false, false, 1, 1));
    assert!(bench.state.is_waiting(first));
    let session = bench.open(1);
    assert_eq!(bench.granted(first), session);
    assert_eq!(said(&bench), (false, false, 1, 0));
    assert!(bench.state.is_live(session) && !bench.state.is_waiting(first));
    let second = bench.queue();
    assert_eq!(said(&bench), (false, false, 2, 0));
    bench.cancel(second);
    assert!(!bench.state.is_waiting(second));
    bench.release(session);
    assert_eq!(said(&bench), (false, true, 0, 0));
    bench.lose(session);
    assert_eq!(said(&bench), (true, true, 0, 0));
    assert!(!bench.state.is_live(session));
}

#[test]
fn an_origin_is_in_use_while_there_is_any_one_thing() {
    // P39
    let mut dialing = Bench::new(|_| {});
    let waiter = dialing.queue();
    dialing.cancel(waiter);
    assert!(!dialing.state.is_unused() && !dialing.state.is_idle(), "a dial");

    let mut failed = Bench::new(|_| {});
    let waiter = failed.queue();
    failed.fail("no answer");
    assert!(!failed.state.is_unused(), "an error to be fetched");
    failed.claim(waiter);
    assert!(failed.state.is_unused());
    failed.queue();
    assert!(!failed.state.is_idle(), "one who waits for the back-off");

    let mut permit = Bench::new(|_| {});
    assert!(permit.run(|state, _| state.await_permit(false)));
    assert!(
        !permit.state.is_unused() && !permit.state.is_idle(),
        "one who waits for a permit"
    );
    assert_eq!(permit.state.load(), 1);
    permit.run(|state, _| state.permit_settled());
    assert!(permit.state.is_unused() && permit.state.is_idle());
}

#[test]
fn the_group_of_a_runtime_stays_while_anything_is_its_own() {
    // P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let waiter = bench.queue_as(on(1));
    bench.cancel(waiter);
    let old = bench.open(1);
    assert_eq!(
        bench.take_as(on(1)),
        old,
        "of a dial that nobody waits for any more"
    );
    let waiter = bench.queue_as(on(1));
    bench.goaway(old);
    let new = bench.open(1);
    assert_eq!(bench.granted(waiter), new);
    let waiter = bench.queue_as(on(1));
    bench.cancel(waiter);
    bench.release(new);
    assert_eq!(bench.take_as(on(1)), new, "beside one that drains");

    let mut warm = Bench::new(|_| {});
    warm.run(|state, now| state.warm(on(1), 1, now));
    let waiter = warm.queue_as(on(1));
    warm.cancel(waiter);
    let session = warm.open(1);
    assert_eq!(warm.take_as(on(1)), session);
}

#[test]
fn only_those_who_had_their_turn_go_ahead_of_one_who_cannot_be_served() {
    // P11: a session without SETTINGS has room, but not for the body of the one who waits.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let body = bench.queue_as(with_body());
    let fresh = bench.connect();
    assert_eq!(bench.run(|state, _| state.try_acquire(true)), None);
    let back = bench.run(|state, now| state.acquire_first(caller(), || now));
    assert_eq!(back, Acquired::Granted(fresh));
    bench.settings(fresh, 2);
    assert_eq!(bench.granted(body), fresh);
}

#[test]
fn a_waiter_that_moves_is_served_where_it_is() {
    // P36
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue_as(on(1));
    bench.run(|state, _| state.moved(waiter, on(1), || unreachable!("nothing changes")));
    bench.run(|state, now| state.moved(waiter, on(2), || now));
    let left = bench.open(1);
    assert!(bench.state.is_waiting(waiter));
    let new = bench.open(1);
    assert_eq!(bench.granted(waiter), new);
    assert_ne!(left, new);
}

#[test]
fn one_that_was_served_already_may_move_and_keeps_its_slot() {
    // P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let shared = bench.serving(1);
    assert_eq!(bench.take(), shared);
    let waiter = bench.queue_as(on(1));
    bench.release(shared);
    bench.run(|state, _| state.moved(waiter, on(2), || unreachable!("it does not queue")));
    assert_eq!(bench.granted(waiter), shared);
}

#[test]
fn the_last_who_leaves_changes_nothing_for_others() {
    // P12: and reads no clock.
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue();
    bench.run(|state, _| state.cancel(waiter, || unreachable!("nobody else waits")));
    assert_eq!(bench.dials.len(), 1, "the dial goes on");
}

#[test]
fn an_idle_session_that_is_told_to_end_and_does_not_is_ended() {
    // P20
    let mut bench = Bench::new(|limits| limits.drain_timeout = Some(secs(30)));
    let idle = bench.serving(1);
    bench.run(|state, now| state.close(now, None));
    assert_eq!(bench.closed.len(), 1);
    bench.pass(secs(30));
    assert_eq!(bench.killed.len(), 1);
    assert!(bench.state.is_live(idle), "until its driver says so");
}
