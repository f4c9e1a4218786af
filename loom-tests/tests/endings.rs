//! Dials that fail, runtimes that end, origins that close.

use h2pool::model::lease::{Queue, Refusal, Slot};
use h2pool::model::shared::{Env, run};
use h2pool::state::{Caller, DialEnd, Failure, RuntimeId};
use h2pool_loom_tests::{ANYBODY, Answer, Hold, answered, caller, model, poll_once};
use loom::thread;

/// Waits until told whether there is a slot.
fn wait(world: &Hold) -> Answer {
    loom::future::block_on(world.queue())
}

#[test]
fn dial_failure_against_cancel() {
    // P8, P9, P12: one leaves; one who came before the failure is told of it, one who came after is served.
    model(3, || {
        let world = Hold::new(|_| {});
        let mut leaves = world.queue();
        assert!(poll_once(&mut leaves).is_none());
        let order = world.next_order();
        world.answer_dials();
        let fails = world.clone();
        let fails = thread::spawn(move || fails.end_dial(order, DialEnd::Failed("refused")));
        let stays = world.clone();
        let stays = thread::spawn(move || match wait(&stays) {
            Ok(slot) => drop(slot),
            Err(refusal) => assert!(matches!(refusal, Refusal::Failed(Failure::Dial("refused")))),
        });
        drop(leaves);
        fails.join().unwrap();
        stays.join().unwrap();
        world.settled();
    });
}

#[test]
fn the_right_to_dial_passes_on() {
    // P36: a runtime ends with its dial and its waiter; one on another runtime dials in its place.
    model(3, || {
        let world = Hold::new(|_| {});
        let mut ends = world.queue();
        assert!(poll_once(&mut ends).is_none());
        let order = world.next_order();
        world.answer_dials();
        let guard = world.clone();
        let guard = thread::spawn(move || {
            let now = guard.0.now();
            run(&guard.0, |inner| {
                inner.state.handle_runtime_ended(order.runtime, now)
            });
            guard.end_dial(order, DialEnd::Aborted);
        });
        let elsewhere = Caller {
            runtime: RuntimeId(2),
            ..caller()
        };
        let other = Queue::last(world.0.clone(), elsewhere);
        let other = thread::spawn(move || drop(answered(loom::future::block_on(other))));
        drop(ends);
        guard.join().unwrap();
        other.join().unwrap();
        world.settled();
    });
}

#[test]
fn close_against_acquire() {
    // P20: whoever asks is served or told.
    model(3, || {
        let (world, _) = Hold::with_session(1, |_| {});
        let slot = Slot::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let waits = world.clone();
        let waits = thread::spawn(move || match wait(&waits) {
            Ok(slot) => drop(slot),
            Err(refusal) => {
                let told = matches!(refusal, Refusal::Closed | Refusal::Failed(Failure::Closed));
                assert!(told, "{refusal:?}");
            }
        });
        let closes = world.clone();
        let closes = thread::spawn(move || {
            let now = closes.0.now();
            run(&closes.0, |inner| inner.state.close(now, None));
        });
        drop(slot);
        waits.join().unwrap();
        closes.join().unwrap();
        world.settled();
        assert_eq!(world.told().len(), 1, "the session is told to close, once");
    });
}

#[test]
fn many_settled_at_once() {
    // P12, P20: what one event settles is carried out in batches, with the lock given up in between.
    model(3, || {
        let (world, _) = Hold::with_session(1, |_| {});
        let slot = Slot::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let mut crowd: Vec<_> = (0..3).map(|_| world.queue()).collect();
        for queue in &mut crowd {
            assert!(poll_once(queue).is_none());
        }
        let leaves = crowd.remove(1);
        let leaves = thread::spawn(move || drop(leaves));
        let waits = world.clone();
        let waits = thread::spawn(move || drop(wait(&waits)));
        let now = world.0.now();
        run(&world.0, |inner| inner.state.close(now, None));
        waits.join().unwrap();
        leaves.join().unwrap();
        drop((crowd, slot));
        world.settled();
    });
}
