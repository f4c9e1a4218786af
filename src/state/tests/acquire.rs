//! Asking for a slot and giving it back.

use super::super::{Acquired, Claim, WaiterId};
use super::bench::{Bench, caller};

#[test]
fn a_slot_is_granted_at_once_while_there_is_room() {
    // P1, P2: the slot is taken at the grant, so that concurrent callers never all see an empty session.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(3);
    for _ in 0..3 {
        assert_eq!(bench.take(), session);
    }
    let waiter = bench.queue();
    assert_eq!(bench.claim(waiter), Claim::Pending);
    bench.release(session);
    assert_eq!(bench.wakes(), [waiter]);
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn the_fast_path_grants_and_never_overtakes() {
    // P1, P11
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    assert_eq!(bench.run(|state, _| state.try_acquire(true)), None);
    let session = bench.serving(1);
    assert_eq!(bench.run(|state, _| state.try_acquire(false)), Some(session));
    assert_eq!(bench.run(|state, _| state.try_acquire(true)), None);
    let waiter = bench.queue();
    bench.release(session);
    assert_eq!(bench.run(|state, _| state.try_acquire(true)), None);
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn the_warm_path_reads_no_clock() {
    // P1: neither a grant nor a release that leaves the session busy needs the time.
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(10);
    let never = || -> std::time::Instant { panic!("the clock was read") };
    for _ in 0..2 {
        let granted = bench.run(|state, _| state.acquire(caller(), never));
        assert_eq!(granted, Acquired::Granted(session));
    }
    bench.run(|state, _| state.release(session, never));
}

#[test]
fn a_release_that_leaves_the_session_busy_reads_no_clock() {
    // P1: whether somebody still waits, or a session awaits its SETTINGS.
    let never = || -> std::time::Instant { panic!("the clock was read") };
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    bench.take();
    bench.queue_many(2);
    bench.run(|state, _| state.release(session, never));

    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue();
    let fresh = bench.connect();
    assert_eq!((bench.granted(waiter), bench.take()), (fresh, fresh));
    bench.run(|state, _| state.release(fresh, never));
}

#[test]
fn waiters_are_served_first_come_first_served() {
    // P11
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    assert_eq!(bench.take(), session);
    let waiters = bench.queue_many(5);
    for waiter in waiters {
        bench.release(session);
        assert_eq!(bench.wakes(), [waiter]);
        assert_eq!(bench.granted(waiter), session);
    }
}

#[test]
fn a_waiter_that_leaves_is_skipped_and_its_grant_passes_on() {
    // P12
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    bench.take();
    let [a, b, c] = [bench.queue(), bench.queue(), bench.queue()];
    bench.cancel(a);
    bench.release(session);
    assert_eq!(bench.wakes(), [b]);
    bench.cancel(b);
    assert_eq!(bench.wakes(), [c], "a grant on its way goes to the next");
    assert_eq!(bench.granted(c), session);
    assert_eq!(bench.claim(b), Claim::Gone);
}

#[test]
fn stale_ids_do_nothing() {
    // P12, P14
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(1);
    let waiter = {
        bench.take();
        bench.queue()
    };
    bench.cancel(waiter);
    bench.cancel(waiter);
    assert_eq!(bench.claim(waiter), Claim::Gone);
    bench.lose(session);
    bench.release(session);
    bench.lose(session);
    bench.settings(session, 5);
    bench.goaway(session);
    let now = bench.now;
    bench.run(|state, _| {
        state.park(session, now);
        state.handle_sign_of_life(session, now);
        state.handle_refused(session, now);
        state.handle_stalled(session, true, now);
        state.handle_worn(session, now);
        state.handle_answered(session, now);
        assert_eq!(
            state.firm_up(WaiterId {
                slot: 9,
                generation: 9
            }),
            None
        );
    });
    assert_eq!(bench.state.snapshot().count(), 0);
}

#[test]
fn a_full_queue_answers_at_once_and_counts_those_who_wait_for_a_permit() {
    // P13, P15
    let mut bench = Bench::new(|limits| limits.max_waiters = Some(3));
    let session = bench.serving(1);
    bench.take();
    let first = bench.queue();
    assert!(bench.state.await_permit(false));
    let last = bench.queue();
    assert_eq!(bench.state.waiting(), 3);
    assert_eq!(bench.acquire(caller()), Acquired::Saturated);
    assert!(!bench.state.await_permit(false));
    bench.state.permit_settled();
    assert!(matches!(bench.acquire(caller()), Acquired::Queued(_)));
    bench.cancel(first);
    bench.release(session);
    assert_eq!(bench.granted(last), session);
}

#[test]
fn no_bound_on_the_queue_when_it_is_off() {
    // P13
    let mut bench = Bench::new(|limits| limits.max_waiters = None);
    bench.run(|state, now| {
        for _ in 0..5000 {
            assert!(matches!(state.acquire(caller(), || now), Acquired::Queued(_)));
        }
    });
    assert_eq!(bench.state.waiting(), 5000);
}

#[test]
fn a_lease_lost_before_use_is_exchanged_at_the_front() {
    // P4
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let old = bench.serving(1);
    assert_eq!(bench.take(), old);
    let behind = bench.queue();
    bench.goaway(old);
    bench.release(old);
    let exchanged = bench.run(|state, now| state.acquire_first(caller(), || now));
    let Acquired::Queued(exchanged) = exchanged else {
        panic!("{exchanged:?}")
    };
    assert_eq!(bench.closed.len(), 1, "the old session's last slot came back");
    let new = bench.open(1);
    assert_eq!(bench.granted(exchanged), new);
    assert_eq!(bench.claim(behind), Claim::Pending);
    bench.release(new);
    assert_eq!(bench.granted(behind), new);
}
