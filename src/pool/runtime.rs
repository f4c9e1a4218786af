//! The runtimes that use a pool, and one timer on each.
//!
//! A runtime is known from its first caller that has to wait. It then runs one task of the pool's: the timer, which
//! sleeps until the earliest deadline of the origins that armed it. When the runtime ends the task is dropped, and that
//! is how the pool learns of it: the runtime leaves the list, its waiters no longer dial, and the deadlines that it kept
//! are armed elsewhere (P36).
//!
//! Requests only ever move a deadline earlier; one that moved later is found when it fires for nothing (P16).

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Sleep;

use crate::error::Error;
use crate::state::RuntimeId;
use crate::timer::outside;

/// Something with deadlines.
pub(super) trait Timed: Send + Sync + 'static {
    /// A deadline has come, or may have.
    fn fire(self: Arc<Self>);
    /// The timer that was armed is gone.
    fn lost(self: Arc<Self>);
}

/// Who wants to know that a runtime ended.
pub(super) trait Mourner: Send + Sync + 'static {
    fn runtime_ended(self: Arc<Self>, runtime: RuntimeId);
}

/// A runtime that uses the pool.
pub(super) struct Runtime {
    id: RuntimeId,
    handle: Handle,
    timer: Arc<Timer>,
}

impl Runtime {
    pub(super) fn id(&self) -> RuntimeId {
        self.id
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether the caller runs on it.
    pub(super) fn is_current(&self) -> bool {
        Handle::try_current().is_ok_and(|here| here.id() == self.handle.id())
    }

    /// Single-threaded: what it drives stands still whenever nobody blocks on it.
    pub(super) fn is_private(&self) -> bool {
        self.handle.runtime_flavor() == RuntimeFlavor::CurrentThread
    }

    /// False: the runtime has ended, and nothing will fire.
    pub(super) fn arm(&self, at: Instant, whom: &Arc<impl Timed>) -> bool {
        let whom: Arc<dyn Timed> = whom.clone();
        self.timer.arm(at, Arc::downgrade(&whom))
    }
}

/// The runtimes known to a pool.
#[derive(Default)]
pub(super) struct Runtimes {
    list: RwLock<Vec<Arc<Runtime>>>,
    next: AtomicU32,
    ended: AtomicBool,
    /// A single-thread runtime was among them: where none was, nobody has to ask whether theirs is one.
    any_private: AtomicBool,
}

impl Runtimes {
    /// The runtime of the caller. Its timer starts with the first call.
    pub(super) fn current<M: Mourner>(&self, mourner: &Arc<M>) -> Result<Arc<Runtime>, Error> {
        let handle = Handle::try_current().map_err(outside)?;
        let known = self
            .list
            .read()
            .iter()
            .find(|runtime| runtime.handle.id() == handle.id())
            .cloned();
        Ok(known.unwrap_or_else(|| self.register(handle, mourner)))
    }

    /// The runtime of the caller, if it is known already.
    pub(super) fn known(&self) -> Option<Arc<Runtime>> {
        let id = Handle::try_current().ok()?.id();
        self.list
            .read()
            .iter()
            .find(|runtime| runtime.handle.id() == id)
            .cloned()
    }

    /// The caller's, if it is single-threaded and known already.
    pub(super) fn known_private(&self) -> Option<RuntimeId> {
        // Whoever registered its runtime sees it.
        if !self.any_private() {
            return None;
        }
        let handle = Handle::try_current().ok()?;
        if handle.runtime_flavor() != RuntimeFlavor::CurrentThread {
            return None;
        }
        let id = handle.id();
        let list = self.list.read();
        list.iter()
            .find(|runtime| runtime.handle.id() == id)
            .map(|runtime| runtime.id)
    }

    /// Whether a single-thread runtime is, or was, among them.
    pub(super) fn any_private(&self) -> bool {
        self.any_private.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, id: RuntimeId) -> Option<Arc<Runtime>> {
        self.list.read().iter().find(|runtime| runtime.id == id).cloned()
    }

    /// A multi-thread runtime, whose timer never stands still.
    pub(super) fn shared(&self) -> Option<Arc<Runtime>> {
        self.list
            .read()
            .iter()
            .find(|runtime| !runtime.is_private())
            .cloned()
    }

    /// Any runtime at all.
    pub(super) fn any(&self) -> Option<Arc<Runtime>> {
        self.list.read().first().cloned()
    }

    /// Forgets the deadlines of one who is gone; `address` is where it was.
    pub(super) fn disarm(&self, address: usize) {
        for runtime in self.list.read().iter() {
            runtime.timer.disarm(address);
        }
    }

    /// Ends all timers; the pool is gone.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let list = std::mem::take(&mut *self.list.write());
        for runtime in list {
            runtime.timer.end();
        }
    }

    fn register<M: Mourner>(&self, handle: Handle, mourner: &Arc<M>) -> Arc<Runtime> {
        let mut list = self.list.write();
        if let Some(known) = list.iter().find(|runtime| runtime.handle.id() == handle.id()) {
            return known.clone();
        }
        let id = RuntimeId(self.next.fetch_add(1, Ordering::Relaxed));
        let timer = Arc::new(Timer::default());
        let runtime = Arc::new(Runtime {
            id,
            handle: handle.clone(),
            timer: timer.clone(),
        });
        if runtime.is_private() {
            self.any_private.store(true, Ordering::Relaxed);
        }
        if !self.ended.load(Ordering::Acquire) {
            list.push(runtime.clone());
        } else {
            timer.end();
        }
        drop(list);
        let mourner: Weak<dyn Mourner> = Arc::downgrade(mourner) as Weak<M>;
        handle.spawn(
            Watch {
                timer,
                sleep: None,
                mourner,
                runtime: id,
            }
            .run(),
        );
        runtime
    }

    /// Forgets a runtime that has ended. True for the first to say so.
    pub(super) fn forget(&self, id: RuntimeId) -> bool {
        let mut list = self.list.write();
        let gone = list
            .iter()
            .position(|runtime| runtime.id == id)
            .map(|place| list.remove(place));
        drop(list);
        gone.is_some()
    }
}

/// Deadlines, earliest first; one for each origin.
#[derive(Default)]
struct Timer {
    deadlines: Mutex<Deadlines>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Deadlines {
    /// By time, and then by the address of whom it is for, which is unique while the weak reference lives.
    queue: BTreeMap<(Instant, usize), Weak<dyn Timed>>,
    by_address: HashMap<usize, Instant>,
    ended: bool,
}

impl Timer {
    fn arm(&self, at: Instant, whom: Weak<dyn Timed>) -> bool {
        let address = whom.as_ptr().cast::<()>() as usize;
        let mut deadlines = self.deadlines.lock();
        if deadlines.ended {
            return false;
        }
        let known = deadlines.by_address.get(&address).copied();
        if known.is_some_and(|known| known <= at) {
            return true;
        }
        let earliest = deadlines
            .queue
            .first_key_value()
            .is_none_or(|((first, _), _)| at < *first);
        let replaced = known.and_then(|known| deadlines.queue.remove(&(known, address)));
        deadlines.by_address.insert(address, at);
        deadlines.queue.insert((at, address), whom);
        drop(deadlines);
        drop(replaced);
        if earliest {
            self.waker.wake();
        }
        true
    }

    /// Forgets who is gone: its deadline would keep its memory until then.
    fn disarm(&self, address: usize) {
        let mut deadlines = self.deadlines.lock();
        let known = deadlines.by_address.remove(&address);
        let gone = known.and_then(|at| deadlines.queue.remove(&(at, address)));
        drop(deadlines);
        drop(gone);
    }

    /// Takes all deadlines; nothing is armed here any more. `None`: it was ended before.
    fn take(&self) -> Option<BTreeMap<(Instant, usize), Weak<dyn Timed>>> {
        let mut deadlines = self.deadlines.lock();
        if std::mem::replace(&mut deadlines.ended, true) {
            return None;
        }
        deadlines.by_address.clear();
        Some(std::mem::take(&mut deadlines.queue))
    }

    fn end(&self) {
        drop(self.take());
        self.waker.wake();
    }

    /// The next that is due, or when it will be; `None` once the pool is gone.
    fn next(&self, now: Instant) -> Option<Result<Weak<dyn Timed>, Option<Instant>>> {
        let mut deadlines = self.deadlines.lock();
        if deadlines.ended {
            return None;
        }
        match deadlines.queue.first_key_value().map(|(key, _)| *key) {
            Some((at, address)) if at <= now => {
                deadlines.by_address.remove(&address);
                deadlines.queue.remove(&(at, address)).map(Ok)
            }
            first => Some(Err(first.map(|(at, _)| at))),
        }
    }
}

/// The task of one runtime.
struct Watch {
    timer: Arc<Timer>,
    sleep: Option<Pin<Box<Sleep>>>,
    mourner: Weak<dyn Mourner>,
    runtime: RuntimeId,
}

impl Watch {
    async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.timer.waker.register(cx.waker());
            let at = match self.timer.next(crate::clock::now()) {
                None => return Poll::Ready(()),
                Some(Ok(whom)) => {
                    if let Some(whom) = whom.upgrade() {
                        whom.fire();
                    }
                    continue;
                }
                Some(Err(None)) => {
                    self.sleep = None;
                    return Poll::Pending;
                }
                Some(Err(Some(at))) => tokio::time::Instant::from_std(at),
            };
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(left) = self.timer.take() else {
            return;
        };
        if let Some(mourner) = self.mourner.upgrade() {
            mourner.runtime_ended(self.runtime);
        }
        for whom in left.into_values().filter_map(|whom| whom.upgrade()) {
            whom.lost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Timed for Nobody {
        fn fire(self: Arc<Self>) {}
        fn lost(self: Arc<Self>) {}
    }

    fn armed(timer: &Timer, at: Instant, whom: &Arc<Nobody>) -> bool {
        let whom: Arc<dyn Timed> = whom.clone();
        timer.arm(at, Arc::downgrade(&whom))
    }

    #[test]
    fn a_timer_whose_runtime_has_ended_takes_no_deadline() {
        // P16, P36: it would never fire, and whoever armed it would believe that it does.
        let (timer, whom, now) = (Timer::default(), Arc::new(Nobody), crate::clock::now());
        assert!(armed(&timer, now, &whom));
        timer.end();
        assert!(!armed(&timer, now, &whom));
        assert!(timer.deadlines.lock().queue.is_empty());
    }

    #[test]
    fn whoever_is_gone_leaves_no_deadline_behind() {
        // P39: an origin that was forgotten costs nothing, though its idle time would have been long.
        let (timer, whom, now) = (Timer::default(), Arc::new(Nobody), crate::clock::now());
        assert!(armed(&timer, now, &whom));
        timer.disarm(Arc::as_ptr(&whom) as usize);
        assert_eq!(Arc::weak_count(&whom), 0);
        let deadlines = timer.deadlines.lock();
        assert!(deadlines.queue.is_empty() && deadlines.by_address.is_empty());
    }
}
