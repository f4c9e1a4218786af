//! Sessions with room, ordered by load: insert, remove, least and busiest in constant time.
//!
//! A bucket queue. Level `n` holds the sessions with `n` streams in use in a doubly linked list threaded through the
//! sessions themselves; a two-level bitmap says which levels are populated, so that the least and the busiest are found
//! by two bit scans however many sessions there are. Loads of [`LEVELS`] and more share the last level: there the order
//! no longer matters. Nor does it for a session that is alone in an index, as those of most origins are: its level is that
//! of when it came, until another comes.

use slab::Slab;

use super::session::Session;

/// Sixty-four words of sixty-four levels.
const LEVELS: u32 = 64 * 64;

/// No session.
pub(super) const NONE: u32 = u32::MAX;

/// A session's place in an index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    prev: u32,
    next: u32,
    level: u32,
}

/// The bucket queue. One word while no session was ever in it: an origin has several, and most of them stay empty (P39).
#[derive(Debug, Default)]
pub(super) struct LoadIndex(Option<Box<Buckets>>);

#[derive(Debug, Default)]
struct Buckets {
    heads: Vec<u32>,
    words: Vec<u64>,
    summary: u64,
    /// Sessions in it.
    count: u32,
}

impl LoadIndex {
    /// The session with the fewest streams in use.
    #[inline]
    pub(super) fn least(&self) -> Option<u32> {
        self.0.as_ref()?.least()
    }

    /// The session with the most streams in use.
    #[inline]
    pub(super) fn busiest(&self) -> Option<u32> {
        self.0.as_ref()?.busiest()
    }

    /// Files a session under its load.
    pub(super) fn insert(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        self.0.get_or_insert_default().insert(sessions, slot);
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        if let Some(buckets) = &mut self.0 {
            buckets.remove(sessions, slot);
        }
    }

    /// Files a session that is in it under its load of now.
    #[inline]
    pub(super) fn reload(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        if let Some(buckets) = self.0.as_mut().filter(|buckets| buckets.count > 1) {
            buckets.reload(sessions, slot);
        }
    }

    /// Gives the memory back when there are no sessions at all.
    pub(super) fn release_memory(&mut self) {
        if self.0.as_ref().is_some_and(|buckets| buckets.summary == 0) {
            self.0 = None;
        }
    }

    /// Sessions in it.
    #[cfg(any(test, h2pool_sim))]
    pub(super) fn len(&self) -> u32 {
        self.0.as_ref().map_or(0, |buckets| buckets.count)
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let buckets = |buckets: &Buckets| {
            size_of::<Buckets>() + buckets.heads.capacity() * 4 + buckets.words.capacity() * 8
        };
        self.0.as_deref().map_or(0, buckets)
    }
}

impl Buckets {
    #[inline]
    fn least(&self) -> Option<u32> {
        if self.summary == 0 {
            return None;
        }
        let word = self.summary.trailing_zeros();
        let level = word * 64 + self.words[word as usize].trailing_zeros();
        Some(self.heads[level as usize])
    }

    #[inline]
    fn busiest(&self) -> Option<u32> {
        if self.summary == 0 {
            return None;
        }
        let word = 63 - self.summary.leading_zeros();
        let level = word * 64 + 63 - self.words[word as usize].leading_zeros();
        Some(self.heads[level as usize])
    }

    fn insert(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        if let Some(lone) = self.least().filter(|_| self.count == 1) {
            self.reload(sessions, lone);
        }
        self.count += 1;
        self.reload(sessions, slot);
    }

    fn remove(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        self.count -= 1;
        self.move_to(sessions, slot, None);
    }

    /// Files a session under its load of now, whether it was filed or not.
    fn reload(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        let session = &sessions[slot as usize];
        let level = level_of(session);
        if session.link.is_none_or(|link| link.level != level) {
            self.move_to(sessions, slot, Some(level));
        }
    }

    /// Files a session on another level, or takes it off its own.
    fn move_to(&mut self, sessions: &mut Slab<Session>, slot: u32, level: Option<u32>) {
        let old = sessions[slot as usize].link.take();
        if let Some(level) = level {
            if self.heads.len() <= level as usize {
                self.grow_to(level);
            }
            let next = std::mem::replace(&mut self.heads[level as usize], slot);
            if next == NONE {
                self.words[(level / 64) as usize] |= 1 << (level % 64);
                self.summary |= 1 << (level / 64);
            } else {
                link(sessions, next).prev = slot;
            }
            sessions[slot as usize].link = Some(Link {
                prev: NONE,
                next,
                level,
            });
        }
        let Some(Link { prev, next, level }) = old else {
            return;
        };
        if next != NONE {
            link(sessions, next).prev = prev;
        }
        if prev != NONE {
            link(sessions, prev).next = next;
            return;
        }
        self.heads[level as usize] = next;
        if next == NONE {
            self.clear_level(level);
        }
    }

    fn clear_level(&mut self, level: u32) {
        let word = &mut self.words[(level / 64) as usize];
        *word &= !(1 << (level % 64));
        if *word == 0 {
            self.summary &= !(1 << (level / 64));
        }
    }

    #[cold]
    fn grow_to(&mut self, level: u32) {
        let levels = level as usize + 1;
        self.heads.resize(levels, NONE);
        self.words.resize(levels.div_ceil(64), 0);
    }
}

fn level_of(session: &Session) -> u32 {
    session.in_use.min(LEVELS - 1)
}

fn link(sessions: &mut Slab<Session>, slot: u32) -> &mut Link {
    sessions[slot as usize]
        .link
        .as_mut()
        .expect("a neighbour in a list is linked")
}
