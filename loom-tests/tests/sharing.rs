//! The process-wide pool's members (P35), and the map of origins (P39).

use std::sync::atomic::{AtomicBool, Ordering};

use h2pool::model::Arc;
use h2pool::model::lease::{Refusal, Slot};
use h2pool::model::members::Members;
use h2pool::model::registry::{Registry, Resident};
use h2pool::model::shared::{Env, run};
use h2pool::state::Failure;
use h2pool_loom_tests::{Hold, World, model};
use loom::thread;

/// A pool that several share.
#[derive(Clone)]
struct Pool(std::sync::Arc<AtomicBool>);

impl Pool {
    fn new() -> Self {
        Self(std::sync::Arc::new(AtomicBool::new(false)))
    }

    fn is_ended(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Joins, finds the pool alive, and leaves; the last one ends it.
fn visit(members: &Members<Pool>) {
    let joined = members.join(Pool::new(), |_| true);
    let (pool, membership, _) = joined.unwrap_or_else(|_| panic!("it fits"));
    assert!(!pool.is_ended(), "nobody joins what has ended");
    thread::yield_now();
    assert!(!pool.is_ended(), "it does not end under a member");
    if let Some(last) = members.leave(membership) {
        assert!(!last.0.swap(true, Ordering::SeqCst), "ended once");
    }
}

#[test]
fn members_that_come_and_go() {
    // P35: the last one ends the pool, and the next starts afresh.
    model(3, || {
        let members = Arc::new(Members::new());
        let others = [(); 2].map(|()| {
            let members = members.clone();
            thread::spawn(move || visit(&members))
        });
        visit(&members);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn a_member_that_stays_keeps_the_pool() {
    // P35: whoever leaves, and in whatever order, what one still holds has not ended.
    model(3, || {
        let members = Arc::new(Members::new());
        let (pool, membership, _) = members
            .join(Pool::new(), |_| true)
            .unwrap_or_else(|_| panic!("new"));
        let other = members.clone();
        let other = thread::spawn(move || visit(&other));
        visit(&members);
        assert!(!pool.is_ended());
        let last = members.leave(membership);
        other.join().unwrap();
        assert!(last.is_none_or(|last| !last.is_ended()));
    });
}

/// An origin in the map.
struct Entry {
    key: u8,
    origin: Hold,
    touched: AtomicBool,
}

impl Resident for Entry {
    type Key = u8;

    fn key(&self) -> &u8 {
        &self.key
    }

    fn touch(&self) {
        self.touched.store(true, Ordering::SeqCst);
    }

    fn was_touched(&self) -> bool {
        self.touched.swap(false, Ordering::SeqCst)
    }

    fn is_idle(&self) -> bool {
        self.origin.0.shared().read(|inner| inner.state.is_idle())
    }
}

type Origins = Registry<Entry>;

/// The entry of an origin, as the pool finds it.
fn entry(origins: &Origins, key: u8) -> Option<Arc<Entry>> {
    if let Some(entry) = origins.get(&key) {
        return Some(entry);
    }
    let make = || {
        let origin = Hold::new(|_| {});
        origin.answer_dials();
        Arc::new(Entry {
            key,
            origin,
            touched: AtomicBool::new(false),
        })
    };
    let (entry, evicted) = origins.insert(&key, make)?;
    for old in evicted {
        let now = old.origin.0.now();
        run(&old.origin.0, |inner| inner.state.evict(now));
    }
    Some(entry)
}

/// A slot of an origin, as the pool gets it: one that was forgotten in the meantime is looked up again.
fn acquire(origins: &Origins, key: u8) -> Slot<World> {
    loop {
        let entry = entry(origins, key).expect("room for it");
        match loom::future::block_on(entry.origin.queue()) {
            Ok(slot) => return slot,
            Err(Refusal::Closed | Refusal::Failed(Failure::Closed)) => {}
            Err(refusal) => panic!("refused: {refusal:?}"),
        }
    }
}

#[test]
fn two_look_up_one_origin() {
    // P34, P39: they find the same one, so that they share its sessions.
    model(3, || {
        let origins = Arc::new(Origins::new(2));
        let other = origins.clone();
        let other = thread::spawn(move || entry(&other, 1).expect("room"));
        let mine = entry(&origins, 1).expect("room");
        let theirs = other.join().unwrap();
        assert!(Arc::ptr_eq(&mine, &theirs));
    });
}

#[test]
fn eviction_against_a_look_up() {
    // P39: one origin leaves for another while a caller finds it; the caller gets its slot, on an origin that is not
    // forgotten while it is used.
    model(3, || {
        let origins = Arc::new(Origins::new(1));
        entry(&origins, 1).expect("room");
        entry(&origins, 1)
            .expect("there")
            .touched
            .store(false, Ordering::SeqCst);
        let held = std::sync::Arc::new(AtomicBool::new(false));
        let (evicts, in_use) = (origins.clone(), held.clone());
        let evicts = thread::spawn(move || {
            let in_use = in_use.load(Ordering::SeqCst);
            let evicted = entry(&evicts, 2).is_some();
            assert!(!(in_use && evicted), "one that is in use is not forgotten");
            evicted
        });
        let slot = acquire(&origins, 1);
        held.store(true, Ordering::SeqCst);
        let evicted = evicts.join().unwrap();
        let world = slot.env().clone();
        assert!(Env::shared(&*world).read(|inner| inner.state.snapshot().any(|session| session.in_use == 1)));
        drop(slot);
        Hold(world).settled();
        assert!(evicted || origins.get(&1).is_some());
    });
}
