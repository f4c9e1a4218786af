//! Slots and waiters between threads. At the end of each model nothing is in use and nobody waits; a lost wake-up shows
//! as a deadlock, which loom reports.

use std::future::Future;
use std::pin::Pin;

use futures_util::task::noop_waker;
use h2pool::model::Arc;
use h2pool::model::lease::{Refusal, Slot};
use h2pool::model::members::Members;
use h2pool::model::shared::{run, timeout};
use h2pool::state::DialEnd;
use h2pool_loom_tests::{Hold, World};
use loom::thread;

fn poll_once(queue: &mut h2pool::model::lease::Queue<World>) -> Option<Slot<World>> {
    let waker = noop_waker();
    let mut cx = std::task::Context::from_waker(&waker);
    match Pin::new(queue).poll(&mut cx) {
        std::task::Poll::Ready(Ok(slot)) => Some(slot),
        std::task::Poll::Ready(Err(refusal)) => panic!("refused: {refusal:?}"),
        std::task::Poll::Pending => None,
    }
}

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(check);
}

#[test]
fn release_against_acquire() {
    // P1, P11, P12
    model(|| {
        let (world, _) = Hold::with_session(1, |limits| limits.max_sessions = 1);
        let slot = Slot::try_acquire(&world.0, true).expect("room");
        let other = world.clone();
        let waiting = thread::spawn(move || drop(other.acquire()));
        drop(slot);
        drop(world.acquire());
        waiting.join().unwrap();
        assert_eq!(world.in_use(), (0, 0));
    });
}

#[test]
fn cancel_after_the_grant() {
    // P12: the grant goes to the next.
    model(|| {
        let (world, _) = Hold::with_session(1, |limits| limits.max_sessions = 1);
        let slot = Slot::try_acquire(&world.0, true).expect("room");
        let mut first = world.queue();
        assert!(poll_once(&mut first).is_none());
        let canceller = thread::spawn(move || drop(first));
        let releaser = thread::spawn(move || drop(slot));
        drop(world.acquire());
        canceller.join().unwrap();
        releaser.join().unwrap();
        assert_eq!(world.in_use(), (0, 0));
    });
}

#[test]
fn session_death_against_the_grant() {
    // P4, P14: who was granted a slot on a session that died gets another, on its replacement.
    model(|| {
        let (world, id) = Hold::with_session(1, |limits| limits.max_sessions = 1);
        let slot = Slot::try_acquire(&world.0, true).expect("room");
        let mut waiter = world.queue();
        assert!(poll_once(&mut waiter).is_none());
        let dying = world.clone();
        let death = thread::spawn(move || dying.lose(id));
        let release = thread::spawn(move || drop(slot));
        death.join().unwrap();
        release.join().unwrap();
        // It was granted the slot of the dead one, which the next poll finds out, or it still waits.
        let early = poll_once(&mut waiter);
        assert!(early.is_none(), "no slot on a dead session");
        let order = world.next_order();
        let replacement = world.connect(order, 2);
        world.settings(replacement, 1);
        let slot = loom::future::block_on(waiter).unwrap_or_else(|refusal| panic!("refused: {refusal:?}"));
        drop(slot);
        assert_eq!(world.in_use(), (0, 0));
    });
}

#[test]
fn close_against_acquire() {
    // P20: whoever asks is served or told.
    model(|| {
        let (world, _) = Hold::with_session(1, |limits| limits.max_sessions = 1);
        let slot = Slot::try_acquire(&world.0, true).expect("room");
        let other = world.clone();
        let waiting = thread::spawn(move || match loom::future::block_on(other.queue()) {
            Ok(slot) => drop(slot),
            Err(Refusal::Closed | Refusal::Failed(_)) => {}
            Err(Refusal::Saturated) => panic!("nobody else waits"),
        });
        let now = h2pool::model::shared::Env::now(&*world.0);
        let closing = world.clone();
        let close = thread::spawn(move || run(&closing.0, |inner| inner.state.close(now, None)));
        drop(slot);
        close.join().unwrap();
        waiting.join().unwrap();
        assert_eq!(world.in_use(), (0, 0));
    });
}

#[test]
fn limit_lowered_while_granting() {
    // P3: raised again, the waiter is served.
    model(|| {
        let (world, id) = Hold::with_session(2, |limits| limits.max_sessions = 1);
        let slot = Slot::try_acquire(&world.0, true).expect("room");
        let other = world.clone();
        let acquirer = thread::spawn(move || drop(other.acquire()));
        let lowering = world.clone();
        let lower = thread::spawn(move || {
            lowering.settings(id, 1);
            lowering.settings(id, 2);
        });
        drop(slot);
        acquirer.join().unwrap();
        lower.join().unwrap();
        assert_eq!(world.in_use(), (0, 0));
    });
}

#[test]
fn idle_close_against_acquire() {
    // P16: checked again under the lock. Here the timer fires early, and must do nothing.
    model(|| {
        let (world, _) = Hold::with_session(1, |limits| limits.max_sessions = 1);
        let timer = world.clone();
        let fire = thread::spawn(move || timeout(&timer.0));
        drop(world.acquire());
        fire.join().unwrap();
        assert_eq!(world.in_use(), (0, 0));
    });
}

#[test]
fn dial_failure_against_cancel() {
    // P8, P9, P12: one who leaves and one who stays; the one who stays is told.
    model(|| {
        let world = Hold::new(|limits| limits.max_sessions = 1);
        let mut leaves = world.queue();
        assert!(poll_once(&mut leaves).is_none());
        let mut stays = world.queue();
        assert!(poll_once(&mut stays).is_none());
        let order = world.next_order();
        let now = h2pool::model::shared::Env::now(&*world.0);
        let failing = world.clone();
        let failure = thread::spawn(move || {
            run(&failing.0, |inner| {
                inner
                    .state
                    .handle_dial_ended(order.id, DialEnd::Failed("refused"), now)
            });
        });
        let cancel = thread::spawn(move || drop(leaves));
        assert!(matches!(loom::future::block_on(stays), Err(Refusal::Failed(_))));
        failure.join().unwrap();
        cancel.join().unwrap();
        assert_eq!(world.in_use(), (0, 0));
    });
}

#[test]
fn a_stale_close_against_the_replacement() {
    // P35: a member of an earlier making never touches the next.
    model(|| {
        let members = Arc::new(Members::new());
        let (_, membership, _) = members.join(1, |_| true).unwrap();
        let leaving = members.clone();
        let leaver = thread::spawn(move || leaving.leave(membership));
        let (value, mine, _) = members.join(2, |_| true).unwrap();
        let ended = leaver.join().unwrap();
        // Joined the first, which then did not end, or made the second after it ended.
        assert!((value == 1 && ended.is_none()) || (value == 2 && ended == Some(1)));
        assert_eq!(members.leave(mine), Some(value));
    });
}
