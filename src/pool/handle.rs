//! What keeps a pool open: its handles, and the process-wide pool (P35).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::acquire::{Held, Permit, Waited, Want};
use super::core::{Core, closed};
use super::entry::Entry;
use super::lease::Slot;
use super::members::{Members, Membership};
use super::settings::some;
use crate::error::Error;
use crate::origin::{Key, Origin};

/// A handle and its clones; the last one to go ends the sessions, or leaves the process-wide pool.
pub(super) struct Lifeline<O: Key> {
    core: Arc<Core<O>>,
    closed: AtomicBool,
    /// Told when it is closed, so that those who wait through it stop.
    closing: Arc<Notify>,
    /// What is left of the process-wide pool, for one of its handles.
    shared: Option<Share<O>>,
}

/// A place among the handles of a pool that several share.
struct Share<O: Key> {
    members: &'static Members<Arc<Core<O>>>,
    membership: Mutex<Option<Membership>>,
}

/// The process-wide pool.
static SHARED: Members<Arc<Core<Origin>>> = Members::new();

impl Lifeline<Origin> {
    /// A handle of the process-wide pool, which `fresh` becomes if there is none.
    pub(super) fn join(fresh: Arc<Core<Origin>>, any: bool) -> Result<Arc<Self>, Error> {
        Self::join_in(&SHARED, fresh, any)
    }
}

impl<O: Key> Lifeline<O> {
    /// A handle of the pool that is kept there, which `fresh` becomes if there is none.
    pub(super) fn join_in(
        members: &'static Members<Arc<Core<O>>>,
        fresh: Arc<Core<O>>,
        any: bool,
    ) -> Result<Arc<Self>, Error> {
        let wanted = fresh.config.clone();
        let joined = members.join(fresh, |core| any || core.config == wanted);
        let (core, membership, _) = joined.map_err(|_| {
            Error::config(
                "the process-wide pool exists with another configuration: close its handles first, use `shared()` to \
                 take it as it is, or build a pool of your own",
            )
        })?;
        let share = Share {
            members,
            membership: Mutex::new(Some(membership)),
        };
        Ok(Self::with(core, Some(share)))
    }

    pub(super) fn new(core: Arc<Core<O>>) -> Arc<Self> {
        Self::with(core, None)
    }

    fn with(core: Arc<Core<O>>, shared: Option<Share<O>>) -> Arc<Self> {
        Arc::new(Self {
            core,
            closed: AtomicBool::new(false),
            closing: Arc::default(),
            shared,
        })
    }

    pub(super) fn core(&self) -> &Arc<Core<O>> {
        &self.core
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.core.is_closed()
    }

    /// Closes this handle and its clones; the pool with them, unless others share it.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let grace = some(self.core.config.drain_timeout);
        match &self.shared {
            None => self.core.close(grace),
            Some(share) => {
                if let Some(core) = share.leave() {
                    core.close(grace);
                }
                self.closing.notify_waiters();
            }
        }
    }

    /// Resolves when this handle, one of several of a pool, is closed. (A handle that owns its pool closes the origins,
    /// which tell their waiters themselves.)
    async fn wait_closing(&self) {
        let notified = self.closing.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_closed() {
            notified.await;
        }
    }

    /// Resolves when this handle, one of several of a pool, is closed after this; `None` for a handle that owns its
    /// pool, as there the origins tell.
    pub(super) fn closing(&self) -> Option<OwnedNotified> {
        self.shared
            .is_some()
            .then(|| self.closing.clone().notified_owned())
    }

    /// A slot, unless this handle is closed while it is waited for. An origin that was forgotten for want of use between
    /// its look-up and now is made anew, and `entry` becomes that. See [`Entry::acquire`] for the permit.
    pub(super) async fn acquire(
        &self,
        entry: &mut Arc<Entry<O>>,
        want: Want,
        mut waited: Pin<&mut Waited>,
        permit: &mut Option<Permit>,
    ) -> Result<Held<O>, Error> {
        loop {
            let acquired = entry.acquire(want, waited.as_mut(), permit);
            match self.while_open(entry, acquired).await {
                Err(error) if error.is_closed() && !self.is_closed() => *entry = self.entry(&entry.key)?,
                acquired => return acquired,
            }
        }
    }

    /// The permit for a slot, unless this handle is closed while it is waited for; see [`Entry::with_permit`].
    pub(super) async fn with_permit(
        &self,
        slot: Slot<Entry<O>>,
        waited: Pin<&mut Waited>,
        kept: &mut Option<Permit>,
    ) -> Result<Option<Held<O>>, Error> {
        let entry = slot.env().clone();
        self.while_open(&entry, entry.with_permit(slot, waited, kept))
            .await
    }

    /// A session that nobody else uses, unless this handle is closed while it is opened. For an origin that was forgotten
    /// see [`acquire`](Self::acquire).
    pub(super) async fn acquire_own(
        &self,
        entry: &mut Arc<Entry<O>>,
        empty: bool,
        mut waited: Pin<&mut Waited>,
    ) -> Result<Slot<Entry<O>>, Error> {
        loop {
            let acquired = entry.acquire_own(empty, waited.as_mut());
            match self.while_open(entry, acquired).await {
                Err(error) if error.is_closed() && !self.is_closed() => *entry = self.entry(&entry.key)?,
                acquired => return acquired,
            }
        }
    }

    async fn while_open<T>(
        &self,
        entry: &Entry<O>,
        wait: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if self.shared.is_none() {
            return wait.await;
        }
        tokio::select! {
            biased;
            result = wait => result,
            () = self.wait_closing() => Err(entry.name(closed())),
        }
    }

    /// The entry of an origin.
    pub(super) fn entry(&self, key: &O) -> Result<Arc<Entry<O>>, Error> {
        if self.is_closed() {
            return Err(closed().with_origin(key.origin()));
        }
        self.core.entry(key)
    }
}

impl<O: Key> Share<O> {
    /// The pool, for the last to leave.
    fn leave(&self) -> Option<Arc<Core<O>>> {
        let membership = self.membership.lock().take()?;
        self.members.leave(membership)
    }
}

impl<O: Key> Drop for Lifeline<O> {
    fn drop(&mut self) {
        // Streams that still run keep their sessions until they end; nothing else is left of the pool.
        match &self.shared {
            None => self.core.close(None),
            Some(share) => {
                if let Some(core) = share.leave() {
                    core.close(None);
                }
            }
        }
    }
}
