//! What the state says of itself, and what it must not forget.

use super::super::{Acquired, Claim, DialEnd, Protocol, Reason, RuntimeId};
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
fn a_slot_parked_by_a_cancelled_request_is_no_load() {
    // P29, P39, P44
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(2);
    bench.take();
    bench.run(|state, now| state.park(session, now));
    assert!(bench.state.is_idle());
    assert_eq!(bench.state.load(), 0);
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

    let mut later = Bench::new(|_| {});
    let waiter = later.queue_as(on(1));
    later.fail("no answer");
    later.claim(waiter);
    later.run(|state, now| state.warm(on(1), 1, now));
    let waiter = later.queue_as(on(1));
    later.cancel(waiter);
    later.pass(secs(60));
    assert_eq!(later.dials.len(), 1, "after the back-off, for those to come");
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

#[test]
fn a_session_that_is_being_replaced_is_not_replaced_twice() {
    // P17
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let old = bench.serving(2);
    assert_eq!(bench.take(), old);
    bench.run(|state, now| state.handle_worn(old, now));
    assert_eq!(bench.dials.len(), 1);
    bench.run(|state, now| state.handle_worn(old, now));
    assert_eq!(bench.dials.len(), 1);
    let new = bench.open(2);
    assert_eq!(bench.take(), new);
    bench.run(|state, now| state.handle_worn(old, now));
    bench.release(old);
    assert_eq!(bench.closed.len(), 1);
}

#[test]
fn what_was_opened_ahead_of_need_and_lost_unused_is_no_use_of_the_origin() {
    // P10
    let mut bench = Bench::new(|limits| limits.min_sessions = 2);
    bench.run(|state, now| state.warm(caller(), 1, now));
    let unused = bench.open(1);
    assert_eq!(bench.dials.len(), 0);
    bench.run(|state, now| state.handle_closed(unused, "lost", now));
    bench.pass(secs(3600));
    assert_eq!(bench.dials.len(), 0);
}

#[test]
fn what_comes_late_is_no_event() {
    // P12, P36: ids carry generations.
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue();
    let dial = bench.dial();
    bench.run(|state, now| state.handle_dial_ended(dial, DialEnd::Failed("no answer"), now));
    bench.run(|state, now| state.handle_dial_ended(dial, DialEnd::Failed("again"), now));
    bench.claim(waiter);
    bench.run(|state, _| state.moved(waiter, on(1), || unreachable!("it is gone")));
    assert!(bench.state.is_unused());
    let waiter = bench.queue();
    assert_eq!(bench.run(|state, _| state.firm_up(waiter)), None);
    assert!(bench.state.is_waiting(waiter), "it holds nothing, and queues");
}

#[test]
fn a_session_that_never_served_is_replaced_at_once() {
    // P17
    let mut bench = Bench::new(|_| {});
    bench.run(|state, now| state.warm(caller(), 1, now));
    let unused = bench.open(1);
    bench.run(|state, now| state.handle_worn(unused, now));
    assert_eq!(bench.closed, [(unused, Reason::Worn)]);
}

#[test]
fn a_session_may_wear_out_before_its_settings() {
    // P3, P17
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let waiter = bench.queue();
    let fresh = bench.connect();
    assert_eq!(bench.granted(waiter), fresh);
    bench.run(|state, now| state.handle_worn(fresh, now));
    let new = bench.open(5);
    assert_eq!(bench.take(), new);
    bench.release(fresh);
    assert_eq!(bench.closed, [(fresh, Reason::Worn)]);
}

#[test]
fn a_worn_session_whose_streams_end_first_waits_for_its_replacement_no_longer_than_a_lull() {
    // P17
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let old = bench.serving(2);
    assert_eq!(bench.take(), old);
    bench.run(|state, now| state.handle_worn(old, now));
    bench.release(old);
    assert_eq!(bench.closed, [], "traffic has its lulls");
    bench.pass(secs(3600));
    assert_eq!(bench.closed[0], (old, Reason::Worn));
}

#[test]
fn a_runtime_that_ends_takes_its_own_sessions_along_and_no_others() {
    // P36
    let mut bench = Bench::new(|_| {});
    let other = bench.queue_as(on(2));
    let theirs = bench.open(1);
    assert_eq!(bench.granted(other), theirs);
    let waiter = bench.queue_as(on(1));
    let session = bench.open(1);
    assert_eq!(bench.granted(waiter), session);
    bench.goaway(session);
    bench.run(|state, now| state.handle_runtime_ended(on(1).runtime, now));
    bench.lose(session);
    bench.release(theirs);
    assert_eq!(bench.take_as(on(2)), theirs);
}

#[test]
fn a_session_of_ones_own_is_dialed_again_only_where_there_is_room() {
    // P23, P36: the waiter moved on, its runtime ended, and where it is now there are as many as may be.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let theirs = bench.queue_own(on(2));
    let waiter = bench.queue_own(on(1));
    let (other, dial) = (bench.dial(), bench.dial());
    bench.run(|state, now| state.moved(waiter, on(2), || now));
    bench.run(|state, now| state.handle_dial_ended(dial, DialEnd::Aborted, now));
    assert_eq!(bench.claim(waiter), Claim::Pending);
    assert!(bench.dials.is_empty());
    let session = bench
        .run(|state, now| state.handle_dialed(other, Protocol::H2, now))
        .unwrap();
    assert_eq!(bench.granted(theirs), session);
    bench.release(session);
    bench.lose(session);
    assert_eq!(bench.dials[0].runtime, RuntimeId(2));
    let session = bench.open(5);
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn something_follows_from_an_action_and_from_memory_that_may_be_given_back() {
    // P12, P39: the shell looks no further where nothing does.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    assert!(!bench.state.is_quiet(), "nothing is here");
    let session = bench.serving(1);
    assert!(bench.state.is_quiet());
    assert_eq!(bench.take(), session);
    let waiter = bench.queue();
    let woken = bench.run(|state, now| {
        state.release(session, || now);
        !state.is_quiet()
    });
    assert!(woken, "somebody is to be woken");
    assert!(bench.state.is_quiet());
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn a_runtime_that_came_once_leaves_no_room_behind() {
    // P36, P39
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue_as(on(1));
    assert_eq!(bench.state.groups.len(), 2);
    bench.run(|state, now| state.cancel(waiter, || now));
    let dial = bench.dial();
    bench.run(|state, now| state.handle_dial_ended(dial, DialEnd::Aborted, now));
    assert!(bench.state.is_unused() && bench.state.groups.capacity() > 1);
    bench.state.release_memory();
    assert_eq!((bench.state.groups.len(), bench.state.groups.capacity()), (1, 1));
}

#[test]
fn the_first_of_each_kind_takes_room_for_one() {
    // P39: most origins have one session, one dial and one waiter, and there are many origins.
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue();
    let session = bench.connect();
    assert_eq!(bench.granted(waiter), session);
    assert_eq!(
        (bench.state.sessions.capacity(), bench.state.dials.capacity()),
        (1, 1)
    );
    assert_eq!(bench.state.waiters.capacity(), 1);
}
