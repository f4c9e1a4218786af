//! Runtimes: private sessions, the shared ones, and runtimes that end.

use super::super::{Acquired, Caller, Claim, DialEnd, Failure, Protocol, Reason, RuntimeId};
use super::bench::{Bench, caller, on, soft, with_body};

#[test]
fn a_private_session_serves_only_its_own_runtime() {
    // P36
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue_as(on(1));
    assert_eq!(bench.dials[0].runtime, RuntimeId(1));
    let private = bench.open(10);
    assert_eq!(bench.granted(waiter), private);
    assert_eq!(bench.take_as(on(1)), private);
    assert!(matches!(bench.acquire(on(2)), Acquired::Queued(_)));
    assert!(matches!(bench.acquire(caller()), Acquired::Queued(_)));
    assert_eq!(bench.run(|state, _| state.try_acquire(true)), None);
}

#[test]
fn a_slot_for_the_taking_is_one_of_the_own_runtime_and_overtakes_nobody() {
    // P1, P11, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let waiter = bench.queue_as(on(1));
    let private = bench.open(2);
    assert_eq!(bench.granted(waiter), private);
    let mut take = |on| bench.run(|state, _| state.try_acquire_private(on));
    assert_eq!(
        (take(on(2)), take(on(1)), take(on(1))),
        (None, Some(private), None)
    );
    let waiter = bench.queue_as(on(1));
    bench.release(private);
    assert_eq!(bench.run(|state, _| state.try_acquire_private(on(1))), None);
    assert_eq!(bench.granted(waiter), private);
}

#[test]
fn a_slot_for_the_taking_may_be_one_of_a_shared_session() {
    // P1, P11, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let shared = bench.serving(1);
    assert_eq!(
        bench.run(|state, _| state.try_acquire_private(on(1))),
        Some(shared)
    );
    let waiter = bench.queue();
    assert_eq!(bench.run(|state, _| state.try_acquire_private(on(1))), None);
    bench.release(shared);
    assert_eq!(bench.granted(waiter), shared);
    bench.run(|state, now| state.close(now, None));
    bench.release(shared);
    assert_eq!(bench.run(|state, _| state.try_acquire_private(on(1))), None);
}

#[test]
fn a_shared_session_serves_everybody() {
    // P36
    let mut bench = Bench::new(|_| {});
    let shared = bench.serving(10);
    assert_eq!(bench.take_as(on(1)), shared);
    assert_eq!(bench.take_as(on(2)), shared);
}

#[test]
fn each_group_has_the_bound_of_its_own() {
    // P5, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let session = bench.serving(1);
    assert_eq!(bench.take(), session);
    bench.queue_many(5);
    assert_eq!(bench.dials.len(), 1);
    for _ in 0..5 {
        bench.queue_as(on(1));
    }
    assert_eq!(bench.dials.len(), 3);
}

#[test]
fn a_shared_slot_serves_the_oldest_of_all_groups() {
    // P11, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let shared = bench.serving(1);
    bench.take();
    let waiters = [
        bench.queue_as(on(1)),
        bench.queue(),
        bench.queue_as(on(2)),
        bench.queue_as(on(1)),
    ];
    for waiter in waiters {
        bench.release(shared);
        assert_eq!(bench.wakes(), [waiter]);
        bench.claim(waiter);
    }
}

#[test]
fn a_private_waiter_does_not_pass_an_older_one_on_a_shared_session() {
    // P11, P36: the oldest has a body and waits for SETTINGS; nobody behind it takes its place.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let body = bench.queue_as(with_body());
    let first = bench.queue_as(on(1));
    let private = bench.queue_as(on(1));
    let shared = bench.connect();
    bench.cancel(first);
    assert_eq!(bench.claim(private), Claim::Pending);
    bench.settings(shared, 5);
    assert_eq!(bench.wakes(), [body, private]);
}

#[test]
fn a_newcomer_passes_nobody_who_waits_for_settings() {
    // P11, P36: neither on the shared session nor on one of its own runtime.
    let body = Caller {
        empty: false,
        ..on(1)
    };
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let first = bench.queue_as(body);
    let gone = bench.queue();
    bench.dial();
    let shared = bench.connect();
    bench.cancel(gone);
    let newcomer = bench.queue();
    bench.settings(shared, 5);
    assert_eq!(bench.wakes(), [first, newcomer]);

    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let first = bench.queue_as(body);
    let private = bench.connect();
    assert_eq!(bench.run(|state, _| state.try_acquire_private(on(1))), None);
    let newcomer = bench.queue_as(on(1));
    bench.settings(private, 5);
    assert_eq!(bench.wakes(), [first, newcomer]);
}

#[test]
fn a_runtime_that_ended_is_not_told_to_dial() {
    // P36: the right to dial passes to the next waiter, in whatever order the shell learns of things.
    let mut bench = Bench::new(|_| {});
    let other = Caller {
        runtime: RuntimeId(5),
        ..caller()
    };
    let dead = bench.queue_as(other);
    let alive = bench.queue();
    assert_eq!(bench.dials[0].runtime, RuntimeId(5));
    bench.run(|state, now| state.handle_runtime_ended(RuntimeId(5), now));
    bench.end(DialEnd::Aborted);
    assert_eq!(bench.dials.len(), 1);
    assert_eq!(bench.dials[0].runtime, super::bench::MAIN);
    let session = bench.open(10);
    assert_eq!(bench.granted(alive), session);
    assert_eq!(
        bench.granted(dead),
        session,
        "should it still be polled, it is served"
    );
}

#[test]
fn groups_of_runtimes_that_are_gone_leave_nothing_behind() {
    // P36, P39
    let mut bench = Bench::new(|_| {});
    let shared = bench.serving(100);
    for runtime in 1..50 {
        let session = bench.take_as(on(runtime));
        assert_eq!(session, shared);
        bench.release(session);
    }
    assert_eq!(bench.state.groups.len(), 1, "a shared session needs no group");
    for _ in 0..100 {
        bench.take();
    }
    for runtime in 50..60 {
        let waiter = bench.queue_as(on(runtime));
        let dial = bench.dial();
        bench.release(shared);
        assert_eq!(bench.granted(waiter), shared);
        bench.run(|state, now| state.handle_dial_ended(dial, DialEnd::Aborted, now));
        bench.release(shared);
        assert_eq!(bench.take_as(on(runtime)), shared);
    }
    assert_eq!(bench.state.groups.len(), 1);
}

#[test]
fn a_caller_who_wants_a_session_of_its_own_on_a_runtime_that_ended_is_not_dialed_for_again() {
    // P23, P36
    let mut bench = Bench::new(|_| {});
    bench.serving(10);
    let own = bench.queue_own(caller());
    bench.end(DialEnd::Aborted);
    assert!(bench.dials.is_empty());
    assert_eq!(bench.claim(own), Claim::Failed(Failure::Useless(Reason::Lost)));
}

#[test]
fn a_caller_who_moved_on_gets_its_own_session_dialed_for_where_it_is() {
    // P23, P36
    let mut bench = Bench::new(|_| {});
    bench.serving(10);
    let own = bench.queue_own(caller());
    bench.run(|state, now| {
        state.moved(
            own,
            Caller {
                runtime: RuntimeId(5),
                ..caller()
            },
            || now,
        )
    });
    bench.end(DialEnd::Aborted);
    assert_eq!(bench.dials[0].runtime, RuntimeId(5));
    let session = bench.connect();
    assert_eq!(bench.granted(own), session);
}

#[test]
fn closing_settles_a_caller_who_wants_a_session_of_its_own_once() {
    // P20, P23
    let mut bench = Bench::new(|_| {});
    bench.serving(10);
    let own = bench.queue_own(caller());
    bench.run(|state, now| state.close(now, None));
    bench.run(|state, now| state.close(now, None));
    bench.fail("late");
    assert_eq!(bench.wakes(), [own]);
    assert_eq!(bench.claim(own), Claim::Failed(Failure::Closed));
}

#[test]
fn a_failed_private_dial_fails_nobody_whom_a_shared_session_will_serve() {
    // P9, P11, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let first = bench.queue_as(Caller {
        empty: false,
        ..on(1)
    });
    let behind = bench.queue();
    let private = bench.dial();
    let shared = bench.connect();
    bench.run(|state, now| state.handle_dial_ended(private, DialEnd::Failed("refused"), now));
    assert_eq!(
        bench.claim(behind),
        Claim::Pending,
        "the body before it waits for SETTINGS"
    );
    bench.settings(shared, 5);
    assert_eq!(bench.wakes(), [first, behind]);
}

#[test]
fn a_failed_private_dial_fails_whom_only_the_session_of_another_runtime_is_left_for() {
    // P9, P36
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue_as(on(1));
    let private = bench.open(1);
    assert_eq!(bench.granted(waiter), private);
    let kept = bench.queue_as(on(1));
    bench.fail("refused");
    assert_eq!(bench.claim(kept), Claim::Pending, "its own session will serve it");

    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue_as(on(1));
    let private = bench.open(1);
    assert_eq!(bench.granted(waiter), private);
    let failed = bench.queue_as(on(2));
    bench.fail("refused");
    assert_eq!(bench.claim(failed), Claim::Failed(Failure::Dial("refused")));
}

#[test]
fn sessions_of_a_runtime_that_ended_are_never_handed_out() {
    // P36
    let mut bench = Bench::new(|_| {});
    let session = bench.serving(10);
    let soft = bench.queue_as(soft());
    bench.run(|state, now| state.handle_runtime_ended(super::bench::MAIN, now));
    assert_eq!(bench.closed, [(session, Reason::Lost)]);
    assert_eq!(bench.run(|state, _| state.firm_up(soft)), None);
    let alive = Caller {
        runtime: RuntimeId(5),
        ..caller()
    };
    assert!(matches!(bench.acquire(alive), Acquired::Queued(_)));
    assert_eq!(bench.dials.len(), 1);
}

#[test]
fn a_waiter_that_moves_to_a_single_thread_runtime_dials_for_nobody_else() {
    // P36: its session would stand still whenever nobody blocks on that runtime.
    let mut bench = Bench::new(|_| {});
    let mover = bench.queue();
    let stays = bench.queue();
    bench.run(|state, now| state.moved(mover, on(5), || now));
    bench.fail("refused");
    assert_eq!(bench.claim(stays), Claim::Failed(Failure::Dial("refused")));
    assert_eq!(bench.claim(mover), Claim::Pending, "covered by a dial of its own");
    let private = bench.open(10);
    assert_eq!(bench.granted(mover), private);
    assert!(matches!(bench.acquire(caller()), Acquired::Queued(_)));
}

#[test]
fn a_waiter_that_moves_keeps_its_place() {
    // P11, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let shared = bench.serving(1);
    bench.take();
    let waiters = [
        bench.queue_as(on(1)),
        bench.queue(),
        bench.queue_as(on(1)),
        bench.queue(),
        bench.queue_as(on(1)),
    ];
    for moves in [waiters[1], waiters[3]] {
        bench.run(|state, now| state.moved(moves, on(1), || now));
    }
    bench.run(|state, now| state.moved(waiters[4], on(2), || now));
    for waiter in waiters {
        bench.release(shared);
        assert_eq!(bench.wakes(), [waiter]);
        assert_eq!(bench.granted(waiter), shared);
    }
}

#[test]
fn a_waiter_that_moves_to_where_there_is_room_is_served() {
    // P14, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let shared = bench.serving(1);
    bench.take();
    let waiter = bench.queue_as(on(1));
    let private = bench.open(5);
    assert_eq!(bench.granted(waiter), private);
    let mover = bench.queue();
    bench.run(|state, now| state.moved(mover, on(1), || now));
    assert_eq!(bench.granted(mover), private);
    bench.release(shared);
}

#[test]
fn a_private_waiter_that_moves_away_lets_those_behind_it_go_ahead() {
    // P11, P14, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let body = bench.queue_as(Caller {
        empty: false,
        ..on(1)
    });
    let empty = bench.queue_as(on(1));
    let private = bench.connect();
    assert_eq!(bench.claim(empty), Claim::Pending);
    bench.run(|state, now| state.moved(body, with_body(), || now));
    assert_eq!(bench.granted(empty), private);
}

#[test]
fn a_connection_of_a_runtime_that_ended_is_no_session() {
    // P36: the dial came to its end just before its runtime did, and its word arrives after.
    let mut bench = Bench::new(|_| {});
    let waiter = bench.queue();
    bench.run(|state, now| state.handle_runtime_ended(super::bench::MAIN, now));
    let dial = bench.dial();
    let session = bench.run(|state, now| state.handle_dialed(dial, Protocol::H2, now));
    assert_eq!(session, None);
    let there = Caller {
        runtime: RuntimeId(5),
        ..caller()
    };
    bench.run(|state, now| state.moved(waiter, there, || now));
    let session = bench.open(10);
    assert_eq!(bench.granted(waiter), session);
}

#[test]
fn a_private_session_that_serves_the_oldest_lets_a_shared_one_serve_the_next() {
    // P11, P14, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let body = bench.queue_as(Caller {
        empty: false,
        ..on(1)
    });
    let behind = bench.queue();
    let private = bench.connect();
    let shared = bench.connect();
    assert_eq!(bench.claim(behind), Claim::Pending);
    bench.settings(private, 5);
    assert_eq!(bench.granted(body), private);
    assert_eq!(bench.granted(behind), shared);
}

#[test]
fn a_shared_session_that_serves_a_private_waiter_lets_its_own_session_serve_the_next() {
    // P11, P14, P36
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let full = bench.serving(1);
    bench.take();
    let body = bench.queue_as(Caller {
        empty: false,
        ..on(1)
    });
    let between = bench.queue();
    let behind = bench.queue_as(on(1));
    let private = bench.connect();
    assert_eq!(bench.claim(behind), Claim::Pending);
    bench.release(full);
    assert_eq!(bench.granted(body), full);
    assert_eq!(bench.granted(behind), private);
    assert_eq!(bench.claim(between), Claim::Pending);
}

#[test]
fn a_runtime_that_ended_is_no_failure_of_the_server() {
    // P9, P36: one test after the other with a pool of the process, each gone before the first answer.
    let mut bench = Bench::new(|_| {});
    for (life, abandoned_first) in (0..10).map(|life| (life, life % 2 == 0)) {
        let waiter = bench.queue_as(on(life));
        let session = bench.connect();
        bench.granted(waiter);
        let end = |bench: &mut Bench| {
            bench.run(|state, now| state.handle_abandoned(session, "its runtime ended", now));
        };
        if abandoned_first {
            end(&mut bench);
        }
        bench.run(|state, now| state.handle_runtime_ended(RuntimeId(life), now));
        end(&mut bench);
        assert!(!bench.state.is_live(session));
        bench.queue();
        assert_eq!(
            bench.dials.len(),
            1,
            "nothing to recover from: it is dialed at once"
        );
        let session = bench.connect();
        bench.run(|state, now| state.handle_runtime_ended(RuntimeId(0), now));
        bench.run(|state, now| state.handle_closed(session, "so did this one's", now));
    }
}

#[test]
fn a_suspect_session_of_ones_own_comes_after_a_sound_shared_one() {
    // P19
    let mut bench = Bench::new(|_| {});
    let own = bench.queue_as(on(5));
    let private = bench.open(10);
    assert_eq!(bench.granted(own), private);
    bench.queue();
    let shared = bench.open(10);
    bench.run(|state, now| state.park(private, now));
    assert_eq!(bench.take_as(on(5)), shared);
    bench.run(|state, now| state.handle_sign_of_life(private, now));
    assert_eq!(bench.take_as(on(5)), private);
}

#[test]
fn whoever_takes_what_covered_others_leaves_them_to_be_dialed_for() {
    // P7, P36: those with a body wait for SETTINGS of the session that has room for them; callers of a single-thread runtime
    // without one go ahead as soon as it is their turn.
    let mut bench = Bench::new(|_| {});
    let first = bench.serving(2);
    bench.take();
    bench.take();
    let oldest = bench.queue_as(with_body());
    bench.connect();
    let private = [bench.queue_as(on(5)), bench.queue_as(on(5))];
    bench.queue_as(with_body());
    assert_eq!(bench.dials.len(), 1, "for the single-thread runtime");
    bench.release(first);
    assert_eq!(bench.wakes(), [oldest, private[0], private[1]]);
    assert_eq!(bench.dials.len(), 2);
}
