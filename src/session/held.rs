//! Response bodies that the driver can end, though nobody reads them.
//!
//! ```text
//!   Body ── Shared ──▶ Held { Live } ◀── Bodies ── driver: idle for `body_idle_timeout` (P44),
//!                                                          or accused by the meter of too many small frames
//! ```
//!
//! Whoever holds a response may forget about it. Its window, its slot and its frames must come back all the same: the
//! driver takes the stream out of the body, which resets it, and leaves the error for the reader.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slab::Slab;
use tokio::time::Sleep;

use super::bound::idle_body;
use super::classify;
use super::h2::Control;
use super::h2_body::{Live, Step};
use crate::clock;
use crate::error::Error;

/// The bodies of a session that are held by somebody.
pub(super) struct Bodies {
    /// How long one may stay without a frame being read.
    limit: Option<Duration>,
    table: Mutex<Slab<Weak<Held>>>,
    /// The driver has a timer for one of them.
    watched: AtomicBool,
}

impl Bodies {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            table: Mutex::default(),
            watched: AtomicBool::new(false),
        }
    }

    /// Whether a body that is not read ends some time.
    pub(super) fn is_timed(&self) -> bool {
        self.limit.is_some()
    }

    /// Ends the body of stream `id`, which went over a bound. False: nobody holds it here.
    pub(super) fn cut(&self, id: u32) -> bool {
        let found = self.find(|held| held.id == id);
        let cut = found.iter().filter(|held| {
            held.cut(|live| {
                let violation = live.tail().violation()?;
                Some(classify::stream_over_bound(violation).in_body())
            })
        });
        cut.count() > 0
    }

    /// Ends those of which nothing was read for too long, and says when to look again.
    fn cut_idle(&self, limit: Duration) -> Option<Instant> {
        let now = clock::now();
        let mut next: Option<Instant> = None;
        let idle = self.find(|held| {
            let due = held.inner.lock().read_at.map(|at| at + limit);
            if due.is_some_and(|due| due <= now) {
                return true;
            }
            next = next.into_iter().chain(due).min();
            false
        });
        for held in idle {
            held.cut(|_| Some(idle_body()));
        }
        next
    }

    fn find(&self, mut wanted: impl FnMut(&Held) -> bool) -> Vec<Arc<Held>> {
        let table = self.table.lock();
        let held = table.iter().filter_map(|(_, held)| held.upgrade());
        held.filter(|held| wanted(held)).collect()
    }
}

/// A body that the driver knows of.
struct Held {
    id: u32,
    inner: Mutex<Inner>,
}

struct Inner {
    live: Option<Live>,
    /// Why the driver ended it.
    cut: Option<Error>,
    /// Who waits for a frame.
    waker: Option<Waker>,
    /// When the last frame was read, where that matters.
    read_at: Option<Instant>,
}

impl Held {
    /// False where it is over already, or there is no reason.
    fn cut(&self, why: impl FnOnce(&Live) -> Option<Error>) -> bool {
        let mut inner = self.inner.lock();
        let Some(error) = inner.live.as_ref().and_then(why) else {
            return false;
        };
        let live = inner.live.take();
        inner.cut = Some(error);
        inner.read_at = None;
        let waker = inner.waker.take();
        drop(inner);
        drop(live);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

/// The reader's hold of it.
pub(super) struct Shared {
    control: Arc<Control>,
    place: usize,
    held: Arc<Held>,
}

impl Shared {
    pub(super) fn new(control: Arc<Control>, live: Live) -> Self {
        let bodies = &control.bodies;
        let held = Arc::new(Held {
            id: live.tail().id(),
            inner: Mutex::new(Inner {
                live: Some(live),
                cut: None,
                waker: None,
                read_at: bodies.limit.map(|_| clock::now()),
            }),
        });
        let mut table = bodies.table.lock();
        let place = table.insert(Arc::downgrade(&held));
        drop(table);
        // The driver waits for the oldest one; only where it waits for none has it to be told.
        if bodies.is_timed() && !bodies.watched.swap(true, Ordering::AcqRel) {
            control.waker.wake();
        }
        Self { control, place, held }
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Step> {
        let mut inner = self.held.inner.lock();
        if let Some(error) = inner.cut.take() {
            return Poll::Ready(Step::Failed(error));
        }
        let Some(live) = &mut inner.live else {
            return Poll::Ready(Step::End);
        };
        let step = live.poll(cx);
        let mut old = None;
        if step.is_ready() {
            inner.read_at = inner.read_at.map(|_| clock::now());
        } else if inner
            .waker
            .as_ref()
            .is_none_or(|waker| !waker.will_wake(cx.waker()))
        {
            old = inner.waker.replace(cx.waker().clone());
        }
        // A waker may be the last that holds its task.
        drop(inner);
        drop(old);
        step
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    /// The response is over.
    pub(super) fn take(self) -> Option<Live> {
        self.held.inner.lock().live.take()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.control.bodies.table.lock().try_remove(self.place));
    }
}

/// The driver's watch over idle bodies. It has a timer only while there are bodies.
pub(super) struct Reaper {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Reaper {
    /// `None` where nothing ends an idle body.
    pub(super) fn new(bodies: &Bodies) -> Option<Self> {
        let limit = bodies.limit?;
        Some(Self { limit, sleep: None })
    }

    pub(super) fn poll(&mut self, bodies: &Bodies, cx: &mut Context<'_>) {
        loop {
            if let Some(sleep) = &mut self.sleep {
                if sleep.as_mut().poll(cx).is_pending() {
                    return;
                }
            }
            self.sleep = None;
            // Before the look: whoever comes after it tells.
            bodies.watched.store(false, Ordering::Release);
            let Some(next) = bodies.cut_idle(self.limit) else {
                return;
            };
            bodies.watched.store(true, Ordering::Release);
            self.sleep = Some(Box::pin(tokio::time::sleep_until(next.into())));
        }
    }
}
