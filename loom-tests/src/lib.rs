//! What surrounds an origin in a model: dials are noted and answered by the model, sessions are names, and time stands
//! still unless the model moves it.
//!
//! What lies in std's primitives here is seen by loom as one step: it is never locked over anything of loom's, and only
//! the production code's own locks are points where loom switches threads.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc as StdArc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use h2pool::model::Arc;
use h2pool::model::lease::{Queue, Quick, Refusal, Slot};
use h2pool::model::shared::{Env, Handle, Keeper, Shared, run};
use h2pool::state::{
    Caller, DialEnd, DialOrder, Limits, OriginState, Phase, Protocol, Reason, RuntimeId, SessionId, Snapshot,
};

/// How a caller's wait ends.
pub type Answer = Result<Slot<World>, Refusal<&'static str>>;

/// A session that is only a name, and a list of what it is told.
#[derive(Clone, Debug)]
pub struct Name {
    pub name: u32,
    told: StdArc<Mutex<Vec<(u32, Told)>>>,
}

/// What a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Close(Reason),
    Kill(Reason),
}

impl Handle for Name {
    fn remnant(&self) -> Self {
        self.clone()
    }

    fn retire(&self) {}

    fn close(&self, reason: Reason) {
        lock(&self.told).push((self.name, Told::Close(reason)));
    }

    fn kill(&self, reason: Reason) {
        lock(&self.told).push((self.name, Told::Kill(reason)));
    }

    fn probe(&self) -> bool {
        true
    }
}

/// An origin and the dials that it ordered.
pub struct World {
    shared: Shared<Name, &'static str>,
    orders: Mutex<Vec<DialOrder>>,
    /// Orders from this one on are answered at once, by a session of one stream.
    answered_from: AtomicU32,
    ordered: AtomicU32,
    names: AtomicU32,
    told: StdArc<Mutex<Vec<(u32, Told)>>>,
    epoch: Instant,
    millis: AtomicU64,
    /// Callers that use a stream at this moment.
    streams: AtomicU32,
    /// A point where loom may switch threads.
    pause: loom::sync::atomic::AtomicUsize,
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
        let number = this.ordered.fetch_add(1, Ordering::SeqCst);
        if number >= this.answered_from.load(Ordering::SeqCst) {
            let hold = Hold(this.clone());
            if let Some((id, _)) = hold.connect(order) {
                hold.settings(id, 1);
            }
        } else {
            lock(&this.orders).push(order);
        }
    }

    fn arm(_: &Arc<Self>, _: Instant) -> Keeper {
        Keeper::Shared
    }

    fn is_elsewhere(&self, _: RuntimeId) -> bool {
        false
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

/// The same, for a slot that is there for the taking.
pub const ANYBODY: Quick = Quick {
    empty: true,
    private: None,
};

/// A handle of an origin, one for each thread.
#[derive(Clone)]
pub struct Hold(pub Arc<World>);

impl Hold {
    /// An origin without sessions, with one at most; its dials wait for the model.
    pub fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits {
            max_sessions: 1,
            backoff_base: Duration::ZERO,
            ..Limits::default()
        };
        change(&mut limits);
        let epoch = Instant::now();
        let state = OriginState::new(StdArc::new(limits), epoch, 1);
        Self(Arc::new(World {
            shared: Shared::new(state),
            orders: Mutex::new(Vec::new()),
            answered_from: AtomicU32::new(u32::MAX),
            ordered: AtomicU32::new(0),
            names: AtomicU32::new(0),
            told: StdArc::new(Mutex::new(Vec::new())),
            epoch,
            millis: AtomicU64::new(0),
            streams: AtomicU32::new(0),
            pause: loom::sync::atomic::AtomicUsize::new(0),
        }))
    }

    /// An origin with one session of this many streams that has served something; dials from now on are answered at
    /// once.
    pub fn with_session(streams: u32, change: impl FnOnce(&mut Limits)) -> (Self, SessionId) {
        let world = Self::new(change);
        let mut opener = world.queue();
        assert!(poll_once(&mut opener).is_none());
        let (id, _) = world.connect(world.next_order()).expect("wanted");
        drop(opener);
        world.settings(id, streams);
        run(&world.0, |inner| inner.state.handle_answered(id, world.0.now()));
        world.answer_dials();
        (world, id)
    }

    /// Dials from now on are answered at once.
    pub fn answer_dials(&self) {
        self.0.answered_from.store(0, Ordering::SeqCst);
    }

    /// The oldest dial that was ordered and not answered.
    pub fn next_order(&self) -> DialOrder {
        lock(&self.0.orders).remove(0)
    }

    /// A dial succeeds.
    pub fn connect(&self, order: DialOrder) -> Option<(SessionId, u32)> {
        let now = self.0.now();
        run(&self.0, |inner| {
            let id = inner.state.handle_dialed(order.id, Protocol::H2, now)?;
            let name = self.0.names.fetch_add(1, Ordering::SeqCst);
            let told = self.0.told.clone();
            assert!(inner.set_handle(id, Name { name, told }).is_none());
            Some((id, name))
        })
    }

    /// A dial ends without a session.
    pub fn end_dial(&self, order: DialOrder, end: DialEnd<&'static str>) {
        let now = self.0.now();
        run(&self.0, |inner| inner.state.handle_dial_ended(order.id, end, now));
    }

    /// The server's limit.
    pub fn settings(&self, id: SessionId, streams: u32) {
        let now = self.0.now();
        run(&self.0, |inner| inner.state.handle_settings(id, streams, now));
    }

    /// The connection is gone, as its driver says.
    pub fn lose(&self, id: SessionId) {
        let now = self.0.now();
        drop(run(&self.0, |inner| {
            let handle = inner.take_handle(id);
            inner.state.handle_closed(id, "lost", now);
            handle
        }));
    }

    /// A wait behind all others.
    pub fn queue(&self) -> Queue<World> {
        Queue::last(self.0.clone(), caller())
    }

    /// Waits for a slot.
    pub fn acquire(&self) -> Slot<World> {
        answered(loom::future::block_on(self.queue()))
    }

    /// Uses a slot, which at most this many do at once, and gives it back.
    pub fn use_slot(&self, slot: Slot<World>, limit: u32) {
        let others = self.0.streams.fetch_add(1, Ordering::SeqCst);
        assert!(others < limit, "more streams than the server allows");
        self.0.pause.load(loom::sync::atomic::Ordering::SeqCst);
        self.0.streams.fetch_sub(1, Ordering::SeqCst);
        drop(slot);
    }

    /// Lets time pass.
    pub fn pass(&self, millis: u64) {
        self.0.millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// What sessions were told so far.
    pub fn told(&self) -> Vec<(u32, Told)> {
        lock(&self.0.told).clone()
    }

    /// The sessions.
    pub fn sessions(&self) -> Vec<Snapshot> {
        self.0.shared.read(|inner| inner.state.snapshot().collect())
    }

    /// Whether a session takes work.
    pub fn is_active(&self, id: SessionId) -> bool {
        let active = |session: &Snapshot| session.id == id && session.phase == Phase::Active;
        self.sessions().iter().any(active)
    }

    /// The end of a model: the books are in order, nothing is in use, and nobody waits.
    pub fn settled(&self) {
        self.0.shared.read(|inner| {
            inner.state.audit();
            assert_eq!(
                inner.state.unclaimed(),
                0,
                "nobody waits, and nothing waits to be claimed"
            );
            let in_use: u32 = inner.state.snapshot().map(|session| session.in_use).sum();
            assert_eq!(in_use, 0, "no slot leaked");
        });
    }
}

/// A slot that must have been given.
pub fn answered(answer: Answer) -> Slot<World> {
    answer.unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
}

/// Polls once, with a waker that does nothing.
pub fn poll_once(queue: &mut Queue<World>) -> Option<Answer> {
    match Pin::new(queue).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

/// Checks every interleaving with at most this many preemptions, and says how many there were.
pub fn model(preemptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let executions = StdArc::new(AtomicU64::new(0));
    let count = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    let started = Instant::now();
    builder.check(move || {
        count.fetch_add(1, Ordering::SeqCst);
        check();
    });
    let thread = std::thread::current();
    println!(
        "| `{}` | {preemptions} | {} | {} ms |",
        thread.name().unwrap_or_default(),
        executions.load(Ordering::SeqCst),
        started.elapsed().as_millis()
    );
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
