//! Which session serves next (P6), and what an origin costs (P39).

use super::super::OriginState;
use super::bench::{Bench, secs};

/// Three sessions of ten, with five, two and nothing in use.
fn three(pack: bool) -> (Bench, [super::super::SessionId; 3]) {
    let mut bench = Bench::new(|limits| limits.pack = pack);
    let first = bench.serving(10);
    for _ in 0..10 {
        bench.take();
    }
    let waiters = bench.queue_many(20);
    let second = bench.open(10);
    let third = bench.open(10);
    for waiter in waiters {
        bench.granted(waiter);
    }
    for (session, ended) in [(first, 5), (second, 8), (third, 10)] {
        (0..ended).for_each(|_| bench.release(session));
    }
    (bench, [first, second, third])
}

#[test]
fn least_loaded_spreads() {
    // P6
    let (mut bench, [_, _, third]) = three(false);
    assert_eq!([bench.take(), bench.take()], [third, third]);
    bench.take();
    bench.take();
    let loads: Vec<_> = bench.state.snapshot().map(|session| session.in_use).collect();
    assert_eq!(loads, [5, 3, 3]);
}

#[test]
fn pack_fills_the_busiest_so_that_the_others_idle_out() {
    // P6, P16
    let (mut bench, [first, second, third]) = three(true);
    for _ in 0..5 {
        assert_eq!(bench.take(), first);
    }
    assert_eq!(bench.take(), second, "full: the next busiest");
    bench.pass(secs(90));
    assert_eq!(bench.closed.len(), 1);
    assert_eq!(bench.closed[0].0, third);
}

#[test]
fn many_sessions_are_kept_in_order_of_load() {
    // P6: loads beyond what the index tells apart share its last level (the audit compares with a scan).
    let mut bench = Bench::new(|limits| {
        (limits.max_sessions, limits.streams_per_session) = (70, 10_000);
    });
    let first = bench.serving(10_000);
    bench.run(|state, _| {
        for _ in 0..9_000 {
            assert_eq!(state.try_acquire(true), Some(first));
        }
    });
    assert_eq!(bench.take(), first);
    bench.settings(first, 9_001);
    bench.queue();
    let second = bench.open(10_000);
    assert_eq!(bench.take(), second);
    bench.settings(first, 10_000);
    assert_eq!(bench.take(), second, "the less busy one");
    for _ in 0..3 {
        bench.release(first);
    }
    assert_eq!(bench.take(), second);
}

#[test]
fn an_idle_origin_costs_less_than_a_kibibyte() {
    // P39: its own size, with its one group and nothing else on the heap but a few empty boxes.
    let state = std::mem::size_of::<OriginState<std::sync::Arc<()>>>();
    let group = std::mem::size_of::<super::super::Group>();
    assert!(state + group < 1024, "{state} + {group}");
    let mut bench = Bench::new(|_| {});
    let kept = |bench: &Bench| {
        let group = &bench.state.groups[super::super::SHARED];
        group.index.iter().map(|index| index.memory()).sum::<usize>()
    };
    let session = bench.serving(200);
    assert!(kept(&bench) > 0);
    bench.lose(session);
    let waiting = bench.queue_many(500);
    for _ in 0..bench.dials.len() {
        bench.fail("nobody is there");
    }
    for waiter in waiting {
        bench.claim(waiter);
    }
    assert!(bench.state.is_unused());
    bench.state.release_memory();
    let state = &bench.state;
    assert_eq!(
        (
            state.sessions.capacity(),
            state.dials.capacity(),
            state.actions.capacity()
        ),
        (0, 0, 0)
    );
    assert_eq!(state.waiters.memory(), 0);
    assert_eq!(kept(&bench), 0);
}

#[test]
fn what_a_burst_of_waiters_took_is_given_back_and_a_little_is_kept_while_in_use() {
    // P39
    let mut bench = Bench::new(|limits| limits.max_sessions = 1);
    let session = bench.serving(1);
    bench.take();
    let kept_after = |bench: &mut Bench, count| {
        for waiter in bench.queue_many(count) {
            bench.cancel(waiter);
        }
        bench.state.waiters.memory()
    };
    assert_eq!(kept_after(&mut bench, 65), 0);
    assert!(kept_after(&mut bench, 64) > 0);
    bench.lose(session);
    bench.state.release_memory();
    assert_eq!(bench.state.waiters.memory(), 0);
}

#[test]
fn the_choice_is_exact_beyond_a_hundred_streams() {
    // P6
    let mut bench = Bench::new(|limits| limits.max_sessions = 2);
    let one = bench.serving(220);
    for _ in 0..220 {
        assert_eq!(bench.take(), one);
    }
    let waiter = bench.queue();
    let other = bench.open(220);
    assert_eq!(bench.granted(waiter), other);
    for _ in 1..200 {
        assert_eq!(bench.take(), other);
    }
    for _ in 0..60 {
        bench.release(one);
    }
    // 160 of the one and 200 of the other; the other one was touched last.
    for _ in 0..15 {
        bench.release(other);
        assert_eq!(bench.take(), one);
    }
}
