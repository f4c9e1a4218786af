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
    /// Held there until it was taken back.
    #[cfg_attr(
        not(any(test, h2pool_sim)),
        expect(dead_code, reason = "the simulation wants to know where")
    )]
    Revoked(SessionId),
    Failed(Failure<C>),
}

#[derive(Debug)]
pub(super) struct Waiter<C> {
    generation: u32,
    prev: u32,
    next: u32,
    /// Orders the heads of several queues: those who return before newcomers, then first come first.
    pub(super) order: (Lane, u64),
    pub(super) group: usize,
    /// `None`: its runtime has ended; it cannot dial until it is polled on another.
    pub(super) runtime: Option<RuntimeId>,
    /// That runtime is single-threaded.
    pub(super) private: bool,
    pub(super) empty: bool,
    pub(super) soft: bool,
    pub(super) own: Own,
    pub(super) status: Status<C>,
}

/// Whether it waits for a session of its own (P23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// It waits in the queue of its group, as most do.
    No,
    /// It waits for room to dial, in a list of its own.
    Pending,
    /// It waits for its dial or its session, in no list.
    Dialing,
}

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Returning,
    Newcomer,
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

/// A queue in two lanes: those who had their turn already and lost what they got, then the newcomers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    returning: Fifo,
    newcomers: Fifo,
}

impl Queue {
    pub(super) fn len(self) -> u32 {
        self.returning.len + self.newcomers.len
    }

    pub(super) fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The oldest.
    pub(super) fn head(self) -> Option<u32> {
        self.returning.head().or(self.newcomers.head())
    }

    /// Whether somebody waits who goes before a caller of this kind.
    pub(super) fn is_ahead_of(self, returning: bool) -> bool {
        !self.returning.is_empty() || (!returning && !self.newcomers.is_empty())
    }
}

/// All waiters of an origin, whichever list they are in.
#[derive(Debug)]
pub(super) struct Waiters<C> {
    nodes: Slab<Waiter<C>>,
    generation: u32,
    /// The next place in a list.
    place: u64,
    #[cfg(test)]
    visits: std::cell::Cell<u64>,
}

impl<C> Waiters<C> {
    pub(super) fn new() -> Self {
        Self {
            nodes: Slab::new(),
            generation: 0,
            place: 0,
            #[cfg(test)]
            visits: std::cell::Cell::new(0),
        }
    }

    /// Room for so many nodes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    /// A node of its own, in no list.
    pub(super) fn insert(&mut self, caller: Caller, group: usize, status: Status<C>) -> WaiterId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        super::reserve_first(&mut self.nodes);
        let slot = self.nodes.insert(Waiter {
            generation,
            prev: NONE,
            next: NONE,
            order: (Lane::Newcomer, 0),
            group,
            runtime: Some(caller.runtime),
            private: caller.private,
            empty: caller.empty,
            soft: caller.soft,
            own: Own::No,
            status,
        });
        WaiterId {
            slot: u32::try_from(slot).expect("fewer than 2^32 waiters"),
            generation,
        }
    }

    pub(super) fn get(&self, id: WaiterId) -> Option<&Waiter<C>> {
        self.visit();
        self.nodes
            .get(id.slot as usize)
            .filter(|node| node.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: WaiterId) -> Option<&mut Waiter<C>> {
        self.visit();
        self.nodes
            .get_mut(id.slot as usize)
            .filter(|node| node.generation == id.generation)
    }

    pub(super) fn at(&self, slot: u32) -> &Waiter<C> {
        self.visit();
        &self.nodes[slot as usize]
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Waiter<C> {
        self.visit();
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

    /// Those who were granted a slot on this session and have not claimed it. O(n), and rare.
    pub(super) fn granted_on(&self, id: SessionId) -> Vec<u32> {
        let granted = |node: &Waiter<C>| matches!(node.status, Status::Granted(on) if on == id);
        let nodes = self.nodes.iter().filter(|(_, node)| granted(node));
        nodes.map(|(slot, _)| super::slot_of(slot)).collect()
    }

    /// Nobody is there, and may not be for long.
    pub(super) fn release_memory(&mut self) {
        self.nodes = Slab::new();
    }

    pub(super) fn push_back(&mut self, list: &mut Fifo, slot: u32) {
        self.nodes[slot as usize].order.1 = self.place;
        self.place += 1;
        self.link_after(list, slot, list.tail);
    }

    /// Enters a queue of another group at the place that its order gives it. O(n), and rare: the future moved to
    /// another runtime while it waited.
    pub(super) fn insert_in_order(&mut self, queue: &mut Queue, slot: u32) {
        let order = self.at(slot).order;
        let list = lane_of(queue, order.0);
        let mut before = list.tail;
        while before != NONE && self.at(before).order > order {
            before = self.at(before).prev;
        }
        self.link_after(list, slot, before);
    }

    /// Enters a queue at the back of its lane.
    pub(super) fn enqueue(&mut self, queue: &mut Queue, slot: u32, lane: Lane) {
        self.nodes[slot as usize].order.0 = lane;
        self.push_back(lane_of(queue, lane), slot);
    }

    /// Leaves a queue, from wherever it stands.
    pub(super) fn dequeue(&mut self, queue: &mut Queue, slot: u32) {
        let (lane, _) = self.nodes[slot as usize].order;
        self.unlink(lane_of(queue, lane), slot);
    }

    pub(super) fn unlink(&mut self, list: &mut Fifo, slot: u32) {
        self.visit();
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

    /// Who comes next in its list.
    pub(super) fn after(&self, slot: u32) -> Option<u32> {
        Some(self.at(slot).next).filter(|next| *next != NONE)
    }

    /// The caller, where it is polled now; `None` while that is nowhere.
    pub(super) fn caller(&self, slot: u32) -> Option<Caller> {
        let node = self.at(slot);
        Some(Caller {
            runtime: node.runtime?,
            private: node.private,
            empty: node.empty,
            soft: node.soft,
        })
    }

    /// The slots of a list, oldest first.
    pub(super) fn iter(&self, list: Fifo) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(list.head(), |slot| self.after(*slot))
    }

    /// The slots of a queue, oldest first.
    pub(super) fn queue(&self, queue: Queue) -> impl Iterator<Item = u32> + '_ {
        self.iter(queue.returning).chain(self.iter(queue.newcomers))
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

    fn link_after(&mut self, list: &mut Fifo, slot: u32, prev: u32) {
        self.visit();
        let next = match prev {
            NONE => std::mem::replace(&mut list.head, slot),
            prev => std::mem::replace(&mut self.nodes[prev as usize].next, slot),
        };
        match next {
            NONE => list.tail = slot,
            next => self.nodes[next as usize].prev = slot,
        }
        let node = &mut self.nodes[slot as usize];
        (node.prev, node.next) = (prev, next);
        list.len += 1;
    }

    /// Counts the nodes looked at, so that tests can tell O(1) from O(n).
    fn visit(&self) {
        #[cfg(test)]
        self.visits.set(self.visits.get() + 1);
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.nodes.capacity() * std::mem::size_of::<Waiter<C>>()
    }

    #[cfg(test)]
    pub(super) fn visits(&self) -> u64 {
        self.visits.get()
    }
}

fn lane_of(queue: &mut Queue, lane: Lane) -> &mut Fifo {
    match lane {
        Lane::Returning => &mut queue.returning,
        Lane::Newcomer => &mut queue.newcomers,
    }
}
