//! Sessions that end, or change, while their slots are on the way.

use h2pool::model::lease::{Right, Slot};
use h2pool::model::shared::{Env, run, timeout};
use h2pool::state::Reason;
use h2pool_loom_tests::{ANYBODY, Hold, Told, model, poll_once};
use loom::thread;

#[test]
fn session_death_against_the_grant() {
    // P4, P14: who was granted a slot on a session that died gets another, on its replacement.
    model(3, || {
        let (world, id) = Hold::with_session(1, |_| {});
        let slot = Slot::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let waits = world.clone();
        let waits = thread::spawn(move || drop(waits.acquire()));
        let dies = world.clone();
        let dies = thread::spawn(move || dies.lose(id));
        drop(slot);
        waits.join().unwrap();
        dies.join().unwrap();
        world.settled();
        assert!(!world.is_active(id));
    });
}

#[test]
fn session_death_against_a_lease() {
    // P1, P4: a lease holds an id; used, it finds its session, or that it is gone, never the one in its place.
    model(3, || {
        let (world, id) = Hold::with_session(1, |_| {});
        let lease = Right::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let waits = world.clone();
        let waits = thread::spawn(move || drop(waits.acquire()));
        let dies = world.clone();
        let dies = thread::spawn(move || dies.lose(id));
        match lease.claim() {
            Some(slot) => {
                assert_eq!(slot.handle().name, 0);
                world.use_slot(slot, 1);
            }
            None => assert!(!world.is_active(id)),
        }
        waits.join().unwrap();
        dies.join().unwrap();
        world.settled();
    });
}

#[test]
fn goaway_against_the_grant() {
    // P4, P18: the old session is told to close once, after its last slot came back.
    model(3, || {
        let (world, id) = Hold::with_session(1, |_| {});
        let slot = Slot::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let waits = world.clone();
        let waits = thread::spawn(move || drop(waits.acquire()));
        let leaves = world.clone();
        let leaves = thread::spawn(move || {
            let now = leaves.0.now();
            run(&leaves.0, |inner| inner.state.handle_goaway(id, "goaway", now));
        });
        drop(slot);
        waits.join().unwrap();
        leaves.join().unwrap();
        world.settled();
        assert_eq!(world.told(), [(0, Told::Close(Reason::Goaway))]);
    });
}

#[test]
fn a_stale_close_against_the_replacement() {
    // P14: whatever still names the old session (a lease, its driver's last word) leaves the one in its place alone.
    model(3, || {
        let (world, old) = Hold::with_session(1, |_| {});
        let slot = Slot::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let late = world.clone();
        let late = thread::spawn(move || {
            late.lose(old);
            drop(slot);
            late.lose(old);
        });
        let lease = world.acquire();
        late.join().unwrap();
        let (_, id, handle) = lease.into_parts();
        let sessions = world.sessions();
        assert_eq!(sessions.len(), 1);
        assert_eq!((sessions[0].id, sessions[0].in_use, handle.name), (id, 1, 1));
        run(&world.0, |inner| inner.state.release(id, || world.0.now()));
        world.settled();
        assert!(world.is_active(id) && id.slot == old.slot);
    });
}

#[test]
fn limit_lowered_while_granting() {
    // P3: nothing is granted beyond the limit last read, and nobody is forgotten when it rises again.
    model(3, || {
        let (world, id) = Hold::with_session(2, |_| {});
        let slot = Slot::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let limit = world.clone();
        let limit = thread::spawn(move || {
            limit.settings(id, 1);
            let beyond = Slot::try_acquire(limit.0.clone(), ANYBODY);
            let in_use = limit.sessions()[0].in_use;
            assert!(beyond.is_err() || in_use <= 1, "{in_use} streams of one");
            drop(beyond);
            limit.settings(id, 2);
        });
        let waits = world.clone();
        let waits = thread::spawn(move || waits.use_slot(waits.acquire(), 2));
        world.use_slot(slot, 2);
        limit.join().unwrap();
        waits.join().unwrap();
        world.settled();
    });
}

#[test]
fn idle_close_against_acquire() {
    // P16: the timer and two callers; the session is closed, or it is granted and lives.
    model(3, || {
        let (world, id) = Hold::with_session(1, |_| {});
        world.pass(90_000);
        let timer = world.clone();
        let timer = thread::spawn(move || timeout(&timer.0));
        let quick = world.clone();
        let quick = thread::spawn(move || drop(Slot::try_acquire(quick.0.clone(), ANYBODY)));
        let lease = world.acquire();
        timer.join().unwrap();
        quick.join().unwrap();
        let (_, granted, _) = lease.into_parts();
        assert!(
            world.is_active(granted),
            "a session granted in the meantime lives"
        );
        assert_eq!(world.told().is_empty(), world.is_active(id));
        run(&world.0, |inner| inner.state.release(granted, || world.0.now()));
        world.settled();
    });
}

#[test]
fn a_waiter_that_is_gone_and_a_session_that_dies() {
    // P12, P14: the grant to one who leaves was on a session that died; a third is served all the same.
    model(3, || {
        let (world, id) = Hold::with_session(1, |_| {});
        let slot = Slot::try_acquire(world.0.clone(), ANYBODY).ok().expect("room");
        let mut first = world.queue();
        assert!(poll_once(&mut first).is_none());
        let third = world.clone();
        let third = thread::spawn(move || drop(third.acquire()));
        let dies = world.clone();
        let dies = thread::spawn(move || {
            drop(slot);
            dies.lose(id);
        });
        drop(first);
        third.join().unwrap();
        dies.join().unwrap();
        world.settled();
    });
}
