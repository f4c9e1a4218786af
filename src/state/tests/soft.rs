//! Slots held by readiness, which may be taken back (P29).

use super::super::{Acquired, Claim, Reason};
use super::bench::{Bench, caller, on, secs, soft, with_body};

/// A soft waiter that holds a slot.
fn ready(bench: &mut Bench) -> super::super::WaiterId {
    let waiter = bench.queue_as(soft());
    assert_eq!(bench.claim(waiter), Claim::Ready);
    waiter
}

#[test]
fn readiness_holds_a_slot_and_turns_it_into_a_lease() {
    // P29
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    let waiter = ready(&mut bench);
    assert_eq!(
        bench.run(|state, _| state.try_acquire(true)),
        None,
        "the slot is taken"
    );
    assert_eq!(bench.run(|state, _| state.firm_up(waiter)), Some(session));
    assert_eq!(bench.claim(waiter), Claim::Gone);
    let behind = bench.queue();
    bench.release(session);
    assert_eq!(bench.granted(behind), session);
}

#[test]
fn a_full_session_makes_readiness_wait() {
    // P29: real readiness, for load_shed and balance.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    bench.take();
    let waiter = bench.queue_as(soft());
    assert_eq!(bench.claim(waiter), Claim::Pending);
    bench.release(session);
    assert_eq!(bench.wakes(), [waiter]);
    assert_eq!(bench.claim(waiter), Claim::Ready);
}

#[test]
fn a_soft_slot_yields_to_one_who_waits() {
    // P29: readiness that is not used starves nobody; its call acquires again, before newer callers.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    let holder = ready(&mut bench);
    assert_eq!(bench.take(), session);
    let newer = bench.queue();
    assert_eq!(bench.claim(holder), Claim::Ready, "still ready");
    assert_eq!(bench.run(|state, _| state.firm_up(holder)), None);
    assert_eq!(bench.claim(holder), Claim::Gone);
    let again = bench.queue_first(caller());
    bench.release(session);
    assert_eq!(bench.wakes(), [again]);
    assert_eq!(bench.granted(again), session);
    assert_eq!(bench.claim(newer), Claim::Pending);
}

#[test]
fn nobody_who_wants_to_be_ready_starves_behind_one_who_never_calls() {
    // P29
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    bench.serving(1);
    let holders: Vec<_> = (0..10).map(|_| ready(&mut bench)).collect();
    let firm: Vec<_> = holders
        .iter()
        .filter_map(|holder| bench.run(|state, _| state.firm_up(*holder)))
        .collect();
    assert_eq!(firm.len(), 1, "all are ready, one holds the slot");
}

#[test]
fn a_soft_slot_that_is_dropped_serves_the_next() {
    // P12, P29
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    bench.take();
    let [first, second] = [bench.queue_as(soft()), bench.queue()];
    bench.release(session);
    assert_eq!(
        bench.granted(second),
        session,
        "taken back from the first for the second"
    );
    bench.cancel(first);
    bench.release(session);
    let third = ready(&mut bench);
    bench.cancel(third);
    assert_eq!(bench.take(), session);
}

#[test]
fn a_soft_slot_is_not_taken_back_while_other_room_is_left() {
    // P29
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(3);
    let holder = ready(&mut bench);
    bench.take();
    bench.take();
    assert_eq!(bench.run(|state, _| state.firm_up(holder)), Some(session));
}

#[test]
fn a_soft_slot_is_taken_back_only_from_a_session_that_takes_work() {
    // P3, P29: over its limit, stalled or held back, a session has nothing to give.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(3);
    bench.take();
    bench.take();
    let holder = ready(&mut bench);
    bench.settings(session, 2);
    let waiter = bench.queue();
    assert_eq!(
        bench.claim(waiter),
        Claim::Pending,
        "two streams are the limit now"
    );
    assert_eq!(
        bench.run(|state, _| state.firm_up(holder)),
        None,
        "a third would be one too many"
    );
    bench.release(session);
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn a_soft_slot_within_the_limit_stays_when_that_is_lowered() {
    // P3, P29
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(3);
    bench.take();
    let holder = ready(&mut bench);
    bench.settings(session, 2);
    assert_eq!(bench.run(|state, _| state.firm_up(holder)), Some(session));
}

#[test]
fn a_session_that_stalls_or_refuses_takes_its_soft_slots_back() {
    // P21, P29, P30: held readiness is no new work for a session that gets none.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(3);
    let holder = ready(&mut bench);
    bench.run(|state, now| state.handle_stalled(session, true, now));
    assert_eq!(bench.run(|state, _| state.firm_up(holder)), None);
    bench.run(|state, now| state.handle_stalled(session, false, now));
    let holder = ready(&mut bench);
    bench.run(|state, now| {
        state.handle_refused(session, now);
        state.handle_refused(session, now);
    });
    assert_eq!(bench.run(|state, _| state.firm_up(holder)), None);
}

#[test]
fn a_soft_slot_is_taken_back_when_its_session_retires() {
    // P17, P29
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(3);
    let holder = ready(&mut bench);
    bench.goaway(session);
    assert_eq!(
        bench.closed,
        [(session, Reason::Goaway)],
        "it holds no session open"
    );
    assert_eq!(bench.claim(holder), Claim::Ready);
    assert_eq!(bench.run(|state, _| state.firm_up(holder)), None);
}

#[test]
fn a_soft_slot_does_not_keep_a_session_from_idling_out() {
    // P16, P29
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(3);
    let holder = ready(&mut bench);
    bench.pass(secs(90));
    assert_eq!(bench.closed, [(session, Reason::Idle)]);
    assert_eq!(bench.run(|state, _| state.firm_up(holder)), None);
}

#[test]
fn a_soft_slot_wears_no_session_out() {
    // P17, P29: readiness is no stream; the lease that it turns into is.
    let mut bench = Bench::new(|limits| {
        (limits.max_streams_per_session, limits.max_sessions) = (Some(3), 1);
    });
    let session = bench.serving(10);
    for _ in 0..5 {
        let holder = ready(&mut bench);
        bench.cancel(holder);
    }
    assert_eq!(bench.take(), session);
    let holder = ready(&mut bench);
    assert_eq!(bench.run(|state, _| state.firm_up(holder)), Some(session));
    bench.pass(secs(0));
    assert_eq!(bench.dials.len(), 1, "the third stream: a replacement is opened");
}

#[test]
fn a_soft_slot_before_settings_is_not_taken_back_for_a_body() {
    // P3, P29
    let mut bench = Bench::new(|limits| (limits.max_sessions, limits.streams_per_session) = (1, 1));
    let holder = bench.queue_as(soft());
    let session = bench.connect();
    assert_eq!(bench.claim(holder), Claim::Ready);
    let body = bench.queue_as(with_body());
    assert_eq!(bench.claim(body), Claim::Pending);
    bench.settings(session, 1);
    assert_eq!(bench.granted(body), session);
}

#[test]
fn a_private_caller_takes_its_own_runtimes_soft_slot_while_others_wait_elsewhere() {
    // P29, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let waiter = bench.queue_as(on(1));
    let private = bench.open(1);
    assert_eq!(bench.granted(waiter), private);
    bench.release(private);
    let holder = bench.queue_as(super::super::Caller { soft: true, ..on(1) });
    assert_eq!(bench.claim(holder), Claim::Ready);
    let elsewhere = bench.queue();
    assert_eq!(bench.take_as(on(1)), private);
    assert_eq!(bench.claim(elsewhere), Claim::Pending);
}

#[test]
fn a_closed_origin_takes_all_soft_slots_back() {
    // P20, P29
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(3);
    let holder = ready(&mut bench);
    bench.run(|state, now| state.close(now, None));
    assert_eq!(bench.closed, [(session, Reason::Closed)]);
    assert_eq!(bench.run(|state, _| state.firm_up(holder)), None);
    assert_eq!(bench.acquire(soft()), Acquired::Closed);
}

#[test]
fn readiness_is_never_refused_for_a_full_queue() {
    // P29: a full queue is pending, not an error.
    let mut bench = Bench::new(|limits| (limits.max_sessions, limits.max_waiters) = (1, Some(1)));
    let session = bench.serving(1);
    bench.take();
    let firm = bench.queue();
    let waiter = bench.queue_as(soft());
    assert_eq!(bench.claim(waiter), Claim::Pending);
    assert_eq!(bench.acquire(caller()), Acquired::Saturated);
    bench.release(session);
    assert_eq!(bench.granted(firm), session);
    bench.release(session);
    assert_eq!(bench.claim(waiter), Claim::Ready);
}

#[test]
fn a_soft_slot_of_a_session_that_has_to_answer_is_used_only_if_no_other_has_room() {
    // P19, P29: the call acquires again, and gets the other.
    for other_has_room in [false, true] {
        let mut bench = Bench::new(|limits| (limits.max_sessions, limits.streams_per_session) = (2, 5));
        let suspect = bench.serving(5);
        let waiter = ready(&mut bench);
        assert_eq!(bench.take(), suspect);
        if other_has_room {
            bench.run(|state, now| state.warm(caller(), 2, now));
            bench.open(5);
        }
        bench.run(|state, now| state.park(suspect, now));
        let firm = bench.run(|state, _| state.firm_up(waiter));
        assert_eq!(firm.is_some(), !other_has_room);
        assert_eq!(bench.claim(waiter), Claim::Gone);
        if other_has_room {
            let mut sessions = bench.state.snapshot();
            let left = sessions.find(|session| session.id == suspect).unwrap();
            assert_eq!(left.in_use, 1, "only what was cancelled");
            drop(sessions);
            assert_ne!(bench.take(), suspect);
        }
    }
}
