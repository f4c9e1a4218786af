//! What surrounds an origin in a model: dials are noted and answered by the model, nothing else exists.

use std::sync::Arc as StdArc;
use std::time::Instant;

use h2pool::model::Arc;
use h2pool::model::lease::{Queue, Slot};
use h2pool::model::shared::{Env, Handle, Shared, run};
use h2pool::state::{Caller, DialOrder, Limits, OriginState, Protocol, Reason, RuntimeId, SessionId};
use loom::sync::Mutex;

/// A session that is only a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub u32);

impl Handle for Name {
    fn remnant(&self) -> Self {
        self.clone()
    }
    fn close(&self, _: Reason) {}
    fn kill(&self, _: Reason) {}
    fn probe(&self) {}
}

/// An origin and the dials that it ordered.
pub struct World {
    shared: Shared<Name, &'static str>,
    orders: Mutex<Vec<DialOrder>>,
    epoch: Instant,
}

impl Env for World {
    type Handle = Name;
    type Cause = &'static str;

    fn shared(&self) -> &Shared<Name, &'static str> {
        &self.shared
    }

    fn now(&self) -> Instant {
        self.epoch
    }

    fn dial(this: &Arc<Self>, order: DialOrder) {
        this.orders.lock().unwrap().push(order);
    }

    fn arm(_: &Arc<Self>, _: Instant) -> Option<RuntimeId> {
        None
    }
}

/// A caller on a multi-thread runtime, whose request has no body.
pub fn caller() -> Caller {
    Caller {
        runtime: RuntimeId(1),
        private: false,
        empty: true,
        soft: false,
    }
}

/// A handle of an origin, one for each thread.
#[derive(Clone)]
pub struct Hold(pub Arc<World>);

impl Hold {
    /// An origin without sessions.
    pub fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        let epoch = Instant::now();
        let state = OriginState::new(StdArc::new(limits), epoch, 1);
        Self(Arc::new(World {
            shared: Shared::new(state),
            orders: Mutex::new(Vec::new()),
            epoch,
        }))
    }

    /// An origin with one session of this many streams, opened by a caller that is gone.
    pub fn with_session(streams: u32, change: impl FnOnce(&mut Limits)) -> (Self, SessionId) {
        let world = Self::new(change);
        let opener = world.queue();
        let order = world.opened_by(opener);
        let id = world.connect(order, 1);
        world.settings(id, streams);
        run(&world.0, |inner| inner.state.handle_answered(id, world.0.epoch));
        (world, id)
    }

    fn opened_by(&self, mut queue: Queue<World>) -> DialOrder {
        let waker = futures_util::task::noop_waker();
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(std::pin::Pin::new(&mut queue).poll(&mut cx).is_pending());
        self.next_order()
    }

    /// The oldest dial that was ordered and not answered.
    pub fn next_order(&self) -> DialOrder {
        self.0.orders.lock().unwrap().remove(0)
    }

    /// How many dials are ordered and not answered.
    pub fn orders(&self) -> usize {
        self.0.orders.lock().unwrap().len()
    }

    /// A dial succeeds.
    pub fn connect(&self, order: DialOrder, name: u32) -> SessionId {
        run(&self.0, |inner| {
            let id = inner
                .state
                .handle_dialed(order.id, Protocol::H2, self.0.epoch)
                .expect("wanted");
            assert!(inner.set_handle(id, Name(name)).is_none());
            id
        })
    }

    /// The server's limit.
    pub fn settings(&self, id: SessionId, streams: u32) {
        run(&self.0, |inner| {
            inner.state.handle_settings(id, streams, self.0.epoch)
        });
    }

    /// The connection is gone.
    pub fn lose(&self, id: SessionId) {
        drop(run(&self.0, |inner| {
            let handle = inner.take_handle(id);
            inner.state.handle_closed(id, "lost", self.0.epoch);
            handle
        }));
    }

    /// A wait behind all others.
    pub fn queue(&self) -> Queue<World> {
        Queue::last(self.0.clone(), caller())
    }

    /// Waits for a slot.
    pub fn acquire(&self) -> Slot<World> {
        match loom::future::block_on(self.queue()) {
            Ok(slot) => slot,
            Err(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    /// Streams in use over all sessions, and callers that wait.
    pub fn in_use(&self) -> (u32, u32) {
        self.0.shared.read(|inner| {
            (
                inner.state.snapshot().map(|session| session.in_use).sum(),
                inner.state.waiting(),
            )
        })
    }
}
