//! Slots between threads. A lost wake-up shows as a deadlock, which loom reports.

use h2pool::model::lease::{Queue, Slot};
use h2pool::state::Caller;
use h2pool_loom_tests::{ANYBODY, Hold, answered, caller, model, poll_once};
use loom::thread;

#[test]
fn release_against_acquire() {
    // P1, P2, P11, P12: three callers, one stream.
    model(3, || {
        let (world, _) = Hold::with_session(1, |_| {});
        let slot = Slot::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let others = [(); 2].map(|()| {
            let world = world.clone();
            thread::spawn(move || world.use_slot(world.acquire(), 1))
        });
        world.use_slot(slot, 1);
        others.into_iter().for_each(|other| other.join().unwrap());
        world.settled();
    });
}

#[test]
fn the_fast_path_against_the_queue() {
    // P1, P11: whoever finds the slot free takes it; nobody who queues is forgotten for it.
    model(3, || {
        let (world, _) = Hold::with_session(1, |_| {});
        let quick = world.clone();
        let quick = thread::spawn(move || {
            if let Ok(slot) = Slot::try_acquire(quick.0.clone(), ANYBODY) {
                quick.use_slot(slot, 1);
            }
        });
        let waits = world.clone();
        let waits = thread::spawn(move || waits.use_slot(waits.acquire(), 1));
        world.use_slot(world.acquire(), 1);
        quick.join().unwrap();
        waits.join().unwrap();
        world.settled();
    });
}

#[test]
fn cancel_after_the_grant() {
    // P12: a grant on its way to one who leaves goes to the next.
    model(3, || {
        let (world, _) = Hold::with_session(1, |_| {});
        let slot = Slot::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let mut first = world.queue();
        assert!(poll_once(&mut first).is_none());
        let leaves = thread::spawn(move || drop(first));
        let next = world.clone();
        let next = thread::spawn(move || next.use_slot(next.acquire(), 1));
        world.use_slot(slot, 1);
        leaves.join().unwrap();
        next.join().unwrap();
        world.settled();
    });
}

#[test]
fn firm_up_against_a_firm_caller() {
    // P29: a slot that readiness holds is taken back for one who waits, or turned into a lease; never both.
    model(3, || {
        let (world, _) = Hold::with_session(1, |_| {});
        let soft = Caller {
            soft: true,
            ..caller()
        };
        let mut ready = Queue::last(world.0.clone(), soft);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(ready.poll_ready(&mut cx, soft).is_ready());
        let calls = world.clone();
        let calls = thread::spawn(move || match ready.firm_up(None) {
            Some(slot) => calls.use_slot(slot, 1),
            None => {
                let again = Queue::first(calls.0.clone(), caller());
                calls.use_slot(answered(loom::future::block_on(again)), 1);
            }
        });
        world.use_slot(world.acquire(), 1);
        calls.join().unwrap();
        world.settled();
    });
}
