use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::state::{Caller, Limits, Protocol};

#[derive(Clone)]
struct Name;

impl Handle for Name {
    fn remnant(&self) -> Self {
        Self
    }

    fn retire(&self) {}

    fn close(&self, _: Reason) {}

    fn kill(&self, _: Reason) {}

    fn probe(&self) -> bool {
        true
    }
}

struct World {
    shared: Shared<Name, &'static str>,
    epoch: Instant,
    millis: AtomicU64,
    orders: parking_lot::Mutex<Vec<DialOrder>>,
    /// Another runtime's timer fires when the next one is armed.
    stray: AtomicBool,
}

impl World {
    fn new() -> Arc<Self> {
        let epoch = crate::clock::now();
        let state = OriginState::new(std::sync::Arc::new(Limits::default()), epoch, 1);
        Arc::new(Self {
            shared: Shared::new(state),
            epoch,
            millis: AtomicU64::new(0),
            orders: parking_lot::Mutex::default(),
            stray: AtomicBool::new(false),
        })
    }

    fn latest(&self) -> Instant {
        self.shared.read(|inner| inner.state.latest())
    }

    /// The clock shows the time of the deadline that is armed.
    fn reach_deadline(&self) {
        let armed = self.shared.read(|inner| inner.armed).unwrap();
        let millis = (armed - self.epoch).as_millis();
        self.millis
            .store(u64::try_from(millis).unwrap(), Ordering::SeqCst);
    }
}

impl Env for World {
    type Handle = Name;
    type Cause = &'static str;

    fn shared(&self) -> &Shared<Name, &'static str> {
        &self.shared
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn dial(this: &Arc<Self>, order: DialOrder) {
        this.orders.lock().push(order);
    }

    fn arm(this: &Arc<Self>, _: Instant) -> Keeper {
        if this.stray.swap(false, Ordering::SeqCst) {
            timeout(this);
        }
        Keeper::Shared
    }

    fn is_elsewhere(&self, _: RuntimeId) -> bool {
        false
    }
}

/// An origin with an idle session.
fn idle() -> (Arc<World>, SessionId) {
    let world = World::new();
    let now = world.now();
    let caller = Caller {
        runtime: RuntimeId(0),
        private: false,
        empty: true,
        soft: false,
    };
    run(&world, |inner| inner.state.acquire(caller, || now));
    let order = world.orders.lock().pop().unwrap();
    let id = run(&world, |inner| {
        let id = inner.state.handle_dialed(order.id, Protocol::H2, now).unwrap();
        inner.set_handle(id, Name);
        id
    });
    run(&world, |inner| inner.state.handle_settings(id, 10, now));
    run(&world, |inner| inner.state.release(id, || now));
    (world, id)
}

#[test]
fn a_timer_that_fires_while_another_is_armed_moves_no_clock() {
    // P16, P36: the first deadline passes for nothing, and the idle timeout is armed.
    let (world, _) = idle();
    world.reach_deadline();
    world.stray.store(true, Ordering::SeqCst);
    timeout(&world);
    assert!(!world.stray.load(Ordering::SeqCst), "it fired");
    assert!(world.latest() <= world.now());
}

#[test]
fn where_the_clock_is_behind_the_state_a_timer_fires_as_much_later() {
    // P36
    let (world, id) = idle();
    let ahead = world.epoch + Duration::from_secs(3600);
    run(&world, |inner| inner.state.handle_answered(id, ahead));
    run(&world, |inner| {
        let session = inner.state.try_acquire(true).unwrap();
        inner.state.release(session, || world.now());
    });
    timeout(&world);
    let at = |world: &World| {
        world
            .shared
            .read(|inner| (inner.armed.unwrap(), inner.armed_at.unwrap()))
    };
    let (due, clock) = at(&world);
    assert_eq!(due - ahead, clock - world.now());
    world.millis.fetch_add(90_000, Ordering::SeqCst);
    timeout(&world);
    let left = world.shared.read(|inner| {
        inner
            .state
            .snapshot()
            .any(|session| session.phase == crate::state::Phase::Active)
    });
    assert!(!left, "it idled out");
}
