//! Acquiring and giving back, again and again: timed by `benches/acquire.rs`, counted by `benches/counts.rs`.
//!
//! Budgets of tokio's cooperative scheduling are off (`unconstrained`): they would make every 128th turn of those who heed
//! them a visit to the scheduler.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use deadpool::unmanaged;
use h2pool::PoolConfig;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, unconstrained, yield_now};

use crate::peers::{self, Nothing, Peer, Permits, Readiness, Sessions, Thing};

/// How many can be held at a time where nobody has to wait.
const ROOM: usize = 64;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Nothing,
    Semaphore,
    DeadpoolUnmanaged,
    Deadpool,
    Bb8,
    H2pool,
    /// On a single-thread runtime, whose sessions serve nobody else.
    H2poolCurrentThread,
    /// The readiness of its service for one origin.
    H2poolReady,
}

/// Something that is done so many times.
pub trait Case {
    fn run(&mut self, times: u64);
}

/// Acquire and release, with room and nobody else.
pub fn alone(who: Who) -> Box<dyn Case> {
    with(who, ROOM, 1, Alone)
}

/// Acquire, yield and release, in each of so many tasks on two threads, with room for all.
pub fn tasks(who: Who, tasks: usize) -> Box<dyn Case> {
    with(who, ROOM, 1, Crowd { tasks })
}

/// [`alone`], with so many sessions open.
pub fn sessions(count: usize) -> Box<dyn Case> {
    with(Who::H2pool, 256, count, Alone)
}

/// [`alone`], with so many origins known.
pub fn origins(count: usize) -> Box<dyn Case> {
    let runtime = runtime(Who::H2pool);
    let config = config(ROOM, 1).max_origins(count);
    let opened = runtime.block_on(async { Sessions::open(config).await?.with_origins(count) });
    Alone.case(opened.expect("origins"), runtime)
}

/// Release, the grant to the oldest of so many who wait, and another who joins them.
pub fn waiters(who: Who, count: usize) -> Box<dyn Case> {
    with(who, 1, 1, Handover { count })
}

/// One who stands in the middle of so many gives up, and another joins them.
pub fn cancel(who: Who, count: usize) -> Box<dyn Case> {
    with(who, 1, 1, Cancel { count })
}

/// Makes a case of any peer.
trait Plan {
    fn case<P: Peer>(self, peer: P, runtime: Runtime) -> Box<dyn Case>;
}

fn runtime(who: Who) -> Runtime {
    let mut builder = match who {
        Who::H2poolCurrentThread => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let built = builder.worker_threads(2).enable_all().build();
    built.expect("a runtime")
}

fn config(streams: usize, sessions: usize) -> PoolConfig {
    PoolConfig::default()
        .max_sessions(sessions)
        .streams_per_session(streams)
        .max_waiters(0)
        // Whoever waits has a timer, as with the default, that does not go off.
        .acquire_timeout(Duration::from_secs(86_400))
}

fn with(who: Who, room: usize, sessions: usize, plan: impl Plan) -> Box<dyn Case> {
    let runtime = runtime(who);
    match who {
        Who::Nothing => plan.case(Nothing, runtime),
        Who::Semaphore => plan.case(Permits(Arc::new(Semaphore::new(room))), runtime),
        Who::DeadpoolUnmanaged => {
            let things: Vec<Thing> = (0..room).map(|_| Thing).collect();
            plan.case(unmanaged::Pool::from(things), runtime)
        }
        Who::Deadpool => {
            let pool = runtime.block_on(peers::deadpool(room));
            plan.case(pool.expect("a pool"), runtime)
        }
        Who::Bb8 => {
            let pool = runtime.block_on(peers::bb8(u32::try_from(room).expect("few")));
            plan.case(pool.expect("a pool"), runtime)
        }
        Who::H2pool | Who::H2poolCurrentThread => {
            let opened = runtime.block_on(Sessions::open(config(room, sessions)));
            plan.case(opened.expect("sessions"), runtime)
        }
        Who::H2poolReady => {
            let opened = runtime.block_on(Sessions::open(config(room, sessions)));
            let Sessions { pool, key } = opened.expect("sessions");
            plan.case(Readiness(pool.origin(key)), runtime)
        }
    }
}

/// `'static`, so that futures that borrow it can be kept; a few are made in a process.
fn leak<P>(peer: P) -> &'static P {
    Box::leak(Box::new(peer))
}

struct Alone;

struct AloneCase<P: Peer> {
    peer: &'static P,
    runtime: Runtime,
}

impl Plan for Alone {
    fn case<P: Peer>(self, peer: P, runtime: Runtime) -> Box<dyn Case> {
        let peer = leak(peer);
        Box::new(AloneCase { peer, runtime })
    }
}

impl<P: Peer> Case for AloneCase<P> {
    fn run(&mut self, times: u64) {
        let peer = self.peer;
        self.runtime.block_on(unconstrained(async {
            for _ in 0..times {
                drop(black_box(peer.acquire().await));
            }
        }));
    }
}

struct Crowd {
    tasks: usize,
}

struct CrowdCase<P: Peer> {
    peer: &'static P,
    tasks: usize,
    runtime: Runtime,
}

impl Plan for Crowd {
    fn case<P: Peer>(self, peer: P, runtime: Runtime) -> Box<dyn Case> {
        let (peer, tasks) = (leak(peer), self.tasks);
        Box::new(CrowdCase { peer, tasks, runtime })
    }
}

impl<P: Peer> Case for CrowdCase<P> {
    fn run(&mut self, times: u64) {
        let peer = self.peer;
        let mut tasks = JoinSet::new();
        for _ in 0..self.tasks {
            let work = unconstrained(async move {
                for _ in 0..times {
                    let held = peer.acquire().await;
                    yield_now().await;
                    drop(held);
                }
            });
            tasks.spawn_on(work, self.runtime.handle());
        }
        self.runtime.block_on(tasks.join_all());
    }
}

/// Callers who wait, oldest first.
struct Line<P: Peer> {
    peer: &'static P,
    waiting: VecDeque<Pin<Box<dyn Future<Output = P::Held>>>>,
}

impl<P: Peer> Line<P> {
    fn of(peer: &'static P, count: usize) -> Self {
        let waiting = VecDeque::with_capacity(count + 1);
        let mut line = Self { peer, waiting };
        (0..count).for_each(|_| line.join());
        line
    }

    fn join(&mut self) {
        let mut last = Box::pin(self.peer.acquire());
        assert!(poll(last.as_mut()).is_pending(), "nothing is free");
        self.waiting.push_back(last);
    }

    /// The oldest, who was served.
    fn served(&mut self) -> P::Held {
        let mut oldest = self.waiting.pop_front().expect("somebody waits");
        match poll(oldest.as_mut()) {
            Poll::Ready(held) => held,
            Poll::Pending => panic!("the oldest is served first"),
        }
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs `turn` so many times where a caller of the runtime would, in one poll.
fn in_one_poll(runtime: &Runtime, times: u64, mut turn: impl FnMut()) {
    let all = poll_fn(|_| {
        (0..times).for_each(|_| turn());
        Poll::Ready(())
    });
    runtime.block_on(unconstrained(all));
}

struct Handover {
    count: usize,
}

struct HandoverCase<P: Peer> {
    line: Line<P>,
    held: Option<P::Held>,
    runtime: Runtime,
}

impl Plan for Handover {
    fn case<P: Peer>(self, peer: P, runtime: Runtime) -> Box<dyn Case> {
        let peer = leak(peer);
        let (held, line) = runtime.block_on(unconstrained(async {
            let held = peer.acquire().await;
            (Some(held), Line::of(peer, self.count))
        }));
        Box::new(HandoverCase { line, held, runtime })
    }
}

impl<P: Peer> Case for HandoverCase<P> {
    fn run(&mut self, times: u64) {
        let Self { line, held, runtime } = self;
        in_one_poll(runtime, times, || {
            drop(held.take());
            *held = Some(line.served());
            line.join();
        });
    }
}

struct Cancel {
    count: usize,
}

/// The front half of the queue stays as it is; the oldest of the back half is who gives up.
struct CancelCase<P: Peer> {
    back: Line<P>,
    _front: Line<P>,
    _held: P::Held,
    runtime: Runtime,
}

impl Plan for Cancel {
    fn case<P: Peer>(self, peer: P, runtime: Runtime) -> Box<dyn Case> {
        let (peer, half) = (leak(peer), self.count / 2);
        let (_held, _front, back) = runtime.block_on(unconstrained(async {
            let held = peer.acquire().await;
            let front = Line::of(peer, half);
            (held, front, Line::of(peer, self.count - half))
        }));
        Box::new(CancelCase {
            back,
            _front,
            _held,
            runtime,
        })
    }
}

impl<P: Peer> Case for CancelCase<P> {
    fn run(&mut self, times: u64) {
        let back = &mut self.back;
        in_one_poll(&self.runtime, times, || {
            drop(back.waiting.pop_front());
            back.join();
        });
    }
}
