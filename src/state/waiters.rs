//! The waiters: a slab of nodes threaded into first-in-first-out lists.
//!
//! Every operation is O(1): entering at either end, leaving from anywhere, serving the oldest. A node lives from the
//! moment its caller queues until the caller claims the outcome or goes away:
//!
//! ```text
//!   Queued ──▶ Granted ──▶ claimed            firm: the slot is the caller's
//!     │  └───▶ Held ──▶ claimed               soft: may be taken back …
//!     │          └────▶ Revoked ──▶ claimed   … and then the caller asks again
//!     └──────▶ Failed ──▶ claimed
//! ```

use slab::Slab;

use super::Failure;
use super::load::NONE;
use super::session::SessionId;

/// A waiter, never confused with another that later uses the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaiterId {
    /// Where the waiter's data lies; small and reused.
    pub slot: u32,
    /// Tells the users of a slot apart.
    pub generation: u32,
}

/// An async runtime known to the shell; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuntimeId(pub u32);

/// Who asks for a slot, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Where the caller runs; its dials run there too.
    pub runtime: RuntimeId,
    /// The runtime is single-threaded: its sessions serve nobody else.
    pub private: bool,
    /// The request has no body, so that it may go out before SETTINGS.
    pub empty: bool,
    /// The slot is held by readiness and may be taken back.
    pub soft: bool,
}

/// Where a waiter stands.
#[derive(Debug)]
pub(super) enum Status<C> {
    Queued,
    Granted(SessionId),
    Held(SessionId),
    Revoked,
    Failed(Failure<C>),
}

#[derive(Debug)]
pub(super) struct Waiter<C> {
    generation: u32,
    prev: u32,
    next: u32,
    /// Orders the heads of several queues.
    pub(super) order: i64,
    pub(super) group: usize,
    /// `None`: its runtime has ended; it cannot dial until it is polled on another.
    pub(super) runtime: Option<RuntimeId>,
    pub(super) empty: bool,
    pub(super) soft: bool,
    /// It waits for a session of its own, in no queue.
    pub(super) own: bool,
    pub(super) status: Status<C>,
}

/// A list of waiters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fifo {
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for Fifo {
    fn default() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            len: 0,
        }
    }
}

impl Fifo {
    pub(super) fn len(self) -> u32 {
        self.len
    }

    pub(super) fn is_empty(self) -> bool {
        self.len == 0
    }

    pub(super) fn head(self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }
}

/// All waiters of an origin, whichever list they are in.
#[derive(Debug)]
pub(super) struct Waiters<C> {
    nodes: Slab<Waiter<C>>,
    generation: u32,
    /// The next place at the back, and at the front.
    back: i64,
    front: i64,
}

impl<C> Waiters<C> {
    pub(super) fn new() -> Self {
        Self {
            nodes: Slab::new(),
            generation: 0,
            back: 0,
            front: -1,
        }
    }

    /// A node of its own, in no list.
    pub(super) fn insert(&mut self, caller: Caller, group: usize, status: Status<C>) -> WaiterId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.nodes.insert(Waiter {
            generation,
            prev: NONE,
            next: NONE,
            order: 0,
            group,
            runtime: Some(caller.runtime),
            empty: caller.empty,
            soft: caller.soft,
            own: false,
            status,
        });
        WaiterId {
            slot: u32::try_from(slot).expect("fewer than 2^32 waiters"),
            generation,
        }
    }

    pub(super) fn get(&self, id: WaiterId) -> Option<&Waiter<C>> {
        self.nodes
            .get(id.slot as usize)
            .filter(|node| node.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: WaiterId) -> Option<&mut Waiter<C>> {
        self.nodes
            .get_mut(id.slot as usize)
            .filter(|node| node.generation == id.generation)
    }

    pub(super) fn at(&self, slot: u32) -> &Waiter<C> {
        &self.nodes[slot as usize]
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Waiter<C> {
        &mut self.nodes[slot as usize]
    }

    pub(super) fn id_at(&self, slot: u32) -> WaiterId {
        WaiterId {
            slot,
            generation: self.nodes[slot as usize].generation,
        }
    }

    /// Removes a node that is in no list.
    pub(super) fn remove(&mut self, id: WaiterId) -> Status<C> {
        let node = self.nodes.remove(id.slot as usize);
        if self.nodes.is_empty() && self.nodes.capacity() > 64 {
            self.nodes = Slab::new();
        }
        node.status
    }

    pub(super) fn push_back(&mut self, list: &mut Fifo, slot: u32) {
        self.nodes[slot as usize].order = self.back;
        self.back += 1;
        self.attach(list, slot, list.tail, NONE);
    }

    pub(super) fn push_front(&mut self, list: &mut Fifo, slot: u32) {
        self.nodes[slot as usize].order = self.front;
        self.front -= 1;
        self.attach(list, slot, NONE, list.head);
    }

    pub(super) fn unlink(&mut self, list: &mut Fifo, slot: u32) {
        let (prev, next) = (self.nodes[slot as usize].prev, self.nodes[slot as usize].next);
        match prev {
            NONE => list.head = next,
            prev => self.nodes[prev as usize].next = next,
        }
        match next {
            NONE => list.tail = prev,
            next => self.nodes[next as usize].prev = prev,
        }
        let node = &mut self.nodes[slot as usize];
        (node.prev, node.next) = (NONE, NONE);
        list.len -= 1;
    }

    /// The slots of a list, oldest first.
    pub(super) fn iter(&self, list: Fifo) -> impl Iterator<Item = u32> + '_ {
        let next = move |slot: &u32| Some(self.nodes[*slot as usize].next).filter(|slot| *slot != NONE);
        std::iter::successors(list.head(), next)
    }

    /// All nodes: those in lists, and those settled but not yet claimed.
    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// All nodes, in no order.
    #[cfg(any(test, h2pool_sim))]
    pub(super) fn all(&self) -> impl Iterator<Item = &Waiter<C>> + '_ {
        self.nodes.iter().map(|(_, node)| node)
    }

    fn attach(&mut self, list: &mut Fifo, slot: u32, prev: u32, next: u32) {
        let node = &mut self.nodes[slot as usize];
        (node.prev, node.next) = (prev, next);
        match prev {
            NONE => list.head = slot,
            prev => self.nodes[prev as usize].next = slot,
        }
        match next {
            NONE => list.tail = slot,
            next => self.nodes[next as usize].prev = slot,
        }
        list.len += 1;
    }
}
