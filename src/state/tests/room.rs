//! Sessions that drain, and leave no room for those who wait (P5, P14).

use super::super::{DialEnd, Reason, SessionId};
use super::bench::{Bench, caller, ms, secs};

/// A session that drains with a stream.
fn drained(bench: &mut Bench) -> SessionId {
    let waiter = bench.queue();
    let session = bench.open(1);
    assert_eq!(bench.granted(waiter), session);
    bench.run(|state, now| state.handle_answered(session, now));
    bench.goaway(session);
    session
}

#[test]
fn sessions_that_drain_for_ever_make_room_for_those_who_wait() {
    // P5, P14: the oldest first, one at a time, and only where somebody waits.
    let mut bench = Bench::new(|limits| {
        limits.max_sessions = 1;
        limits.drain_timeout = None;
    });
    let mut oldest = Vec::new();
    for _ in 0..2 {
        oldest.push(drained(&mut bench));
        bench.pass(secs(1));
    }
    bench.pass(secs(3600));
    assert!(bench.killed.is_empty(), "they are in nobody's way");
    let waiter = bench.queue();
    assert_eq!(bench.killed, [(oldest[0], Reason::Goaway)]);
    let other = bench.queue();
    bench.pass(secs(3600));
    assert_eq!(bench.killed.len(), 1, "one makes room");
    bench.cancel(other);
    bench.lose(oldest[0]);
    let session = bench.open(5);
    assert_eq!(bench.granted(waiter), session);
    bench.goaway(session);
    bench.pass(secs(1));
    bench.queue();
    assert_eq!(bench.killed.len(), 2);
    bench.lose(oldest[1]);
    bench.end(DialEnd::Failed("refused"));
}

#[test]
fn only_what_drains_for_ever_and_stands_in_the_way_makes_room() {
    // P5, P14, P18: not a session that works, nor one with a deadline, nor where a dial may be made, or none may.
    let drained = |bench: &mut Bench| {
        let session = drained(bench);
        bench.pass(secs(6));
        session
    };
    let for_ever = |max: u32| Bench::new(|limits| (limits.max_sessions, limits.drain_timeout) = (max, None));

    let mut bench = for_ever(2);
    let oldest = [(); 3].map(|()| drained(&mut bench))[0];
    let waiter = bench.queue();
    let active = bench.open(1);
    assert_eq!(bench.granted(waiter), active);
    bench.run(|state, now| state.handle_answered(active, now));
    bench.queue();
    assert_eq!(bench.killed, [(oldest, Reason::Goaway)]);

    let mut bench = for_ever(1);
    drained(&mut bench);
    let waiter = bench.queue();
    let active = bench.open(1);
    assert_eq!(bench.granted(waiter), active);
    bench.queue();
    bench.pass(secs(60));
    assert!(bench.killed.is_empty(), "no more may be open");

    let mut bench = for_ever(1);
    drained(&mut bench);
    bench.queue();
    bench.fail("refused");
    bench.queue();
    assert!(
        bench.dials.is_empty() && bench.killed.is_empty(),
        "it waits for the back-off"
    );

    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    drained(&mut bench);
    drained(&mut bench);
    bench.queue();
    bench.pass(secs(17));
    assert!(bench.killed.is_empty(), "the older one has a second left");
    bench.pass(secs(1));
    assert_eq!(bench.killed.len(), 1);
}

#[test]
fn a_session_that_has_just_begun_to_drain_has_a_while_before_it_makes_room() {
    // P5, P18
    let mut bench = Bench::new(|limits| {
        limits.max_sessions = 1;
        limits.drain_timeout = None;
    });
    for _ in 0..2 {
        drained(&mut bench);
    }
    bench.queue();
    bench.pass(ms(4_900));
    assert!(bench.killed.is_empty());
    bench.pass(ms(100));
    assert_eq!(bench.killed.len(), 1);
}

#[test]
fn a_session_that_was_told_to_end_and_does_not_makes_room_before_one_with_streams() {
    // P5, P14: its transport takes no bytes any more.
    let mut bench = Bench::new(|limits| {
        (limits.max_sessions, limits.drain_timeout) = (1, None);
        limits.idle_timeout = Some(secs(5));
    });
    let busy = drained(&mut bench);
    let stuck = bench.serving(1);
    bench.pass(secs(5));
    assert_eq!(bench.closed, [(stuck, Reason::Idle)]);
    let waiter = bench.queue();
    bench.pass(secs(5));
    assert_eq!(bench.killed, [(stuck, Reason::Idle)]);
    bench.pass(secs(600));
    assert_eq!(bench.killed.len(), 1, "one makes room");
    bench.lose(stuck);
    let session = bench.open(1);
    assert_eq!(bench.granted(waiter), session);
    assert!(bench.state.is_live(busy));
}

#[test]
fn what_answered_no_probe_makes_room_for_who_wants_a_session_of_its_own() {
    // P14, P19, P23: it may be left alone for hours; but only where there is no other room to wait for.
    for max in [1, 2] {
        let mut bench = Bench::new(|limits| limits.max_sessions = max);
        let slow = bench.unanswered();
        bench.open(5);
        let mut waiters = (0..max).map(|_| bench.queue_own(caller())).collect::<Vec<_>>();
        if max == 1 {
            bench.pass(ms(4_900));
            assert!(bench.killed.is_empty(), "it has just begun to drain");
            bench.pass(ms(100));
            assert_eq!(bench.killed, [(slow, Reason::Unanswered)]);
            bench.lose(slow);
            waiters.push(bench.queue_own(caller()));
        }
        let own = bench.open(5);
        assert_eq!(bench.granted(waiters.remove(0)), own);
        let killed = bench.killed.len();
        bench.pass(secs(60));
        assert_eq!(bench.killed.len(), killed, "the place of somebody else's own");
        bench.cancel(waiters.remove(0));
    }
}
