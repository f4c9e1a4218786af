//! Order among those who wait, and the cost of leaving.

use super::super::{Acquired, Claim, Failure};
use super::bench::{Bench, caller, with_body};

#[test]
fn those_who_return_go_before_newcomers_and_in_their_own_order() {
    // P4, P11: whoever lost a slot before using it goes first, but never before another who lost one earlier.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let old = bench.serving(3);
    for _ in 0..3 {
        assert_eq!(bench.take(), old);
    }
    let newcomer = bench.queue();
    bench.goaway(old);
    let served: Vec<_> = (0..3)
        .map(|_| {
            bench.release(old);
            bench.queue_first(caller())
        })
        .collect();
    let new = bench.open(1);
    assert_eq!(bench.wakes(), served, "as many as the server allowed last");
    for waiter in served {
        assert_eq!(bench.granted(waiter), new);
        assert_eq!(bench.claim(newcomer), Claim::Pending);
        bench.release(new);
    }
    assert_eq!(bench.granted(newcomer), new);
}

#[test]
fn one_who_returns_does_not_overtake_another_who_returned() {
    // P11: a session without SETTINGS has room, but the oldest has a body.
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let body = bench.queue_first(with_body());
    let session = bench.connect();
    let empty = bench.queue_first(caller());
    assert_eq!(bench.claim(empty), Claim::Pending);
    bench.settings(session, 5);
    assert_eq!(bench.wakes(), [body, empty]);
}

#[test]
fn the_bound_on_waiters_does_not_stop_those_who_return() {
    // P4, P13
    let mut bench = Bench::new(|limits| limits.max_waiters = Some(1));
    bench.queue();
    assert_eq!(bench.acquire(caller()), Acquired::Saturated);
    bench.queue_first(caller());
    assert_eq!(bench.state.waiting(), 2);
}

#[test]
fn a_failed_dial_fails_those_who_returned_first() {
    // P9
    let mut bench = Bench::new(|_| {});
    let newcomer = bench.queue();
    let returned = bench.queue_first(caller());
    bench.fail("refused");
    assert_eq!(bench.wakes(), [returned, newcomer]);
    assert_eq!(bench.claim(newcomer), Claim::Failed(Failure::Dial("refused")));
}

#[test]
fn leaving_costs_the_same_however_many_wait() {
    // P12: nodes looked at, not time taken.
    let cost = |crowd: usize| {
        let mut bench = Bench::new(|limits| (limits.max_sessions, limits.max_waiters) = (1, None));
        bench.serving(1);
        bench.take();
        let waiters = bench.run(|state, now| {
            let enter = |_| match state.acquire(caller(), || now) {
                Acquired::Queued(waiter) => waiter,
                other => panic!("{other:?}"),
            };
            (0..crowd).map(enter).collect::<Vec<_>>()
        });
        let before = bench.state.waiters.visits();
        let never = || -> std::time::Instant { panic!("the clock was read") };
        for waiter in [waiters[crowd / 2], waiters[crowd / 2 + 1], waiters[crowd - 1]] {
            assert_eq!(bench.state.cancel(waiter, never), None);
        }
        let left = bench.state.waiters.visits() - before;
        let before = bench.state.waiters.visits();
        let now = bench.now;
        assert_eq!(bench.state.cancel(waiters[0], || now), None);
        (left, bench.state.waiters.visits() - before)
    };
    assert_eq!(cost(10), cost(100_000));
    assert!(cost(10).0 > 0, "the count counts");
}
