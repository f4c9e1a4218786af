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
    pub(super) fn least(&self) -> Option<u32> {
        self.0.as_ref()?.least()
    }

    /// The session with the most streams in use.
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
    fn least(&self) -> Option<u32> {
        if self.summary == 0 {
            return None;
        }
        let word = self.summary.trailing_zeros();
        let level = word * 64 + self.words[word as usize].trailing_zeros();
        Some(self.heads[level as usize])
    }

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
        self.file(sessions, slot);
    }

    fn remove(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        self.count -= 1;
        self.unfile(sessions, slot);
    }

    fn file(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        let level = level_of(&sessions[slot as usize]);
        self.grow_to(level);
        let next = self.heads[level as usize];
        if next != NONE {
            link(sessions, next).prev = slot;
        }
        sessions[slot as usize].link = Some(Link {
            prev: NONE,
            next,
            level,
        });
        self.heads[level as usize] = slot;
        self.words[(level / 64) as usize] |= 1 << (level % 64);
        self.summary |= 1 << (level / 64);
    }

    fn unfile(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        let link_of = sessions[slot as usize].link.take();
        let Link { prev, next, level } = link_of.expect("a session in the index is linked");
        if next != NONE {
            link(sessions, next).prev = prev;
        }
        if prev != NONE {
            link(sessions, prev).next = next;
        } else {
            self.heads[level as usize] = next;
            if next == NONE {
                self.clear_level(level);
            }
        }
    }

    /// The same as removing and inserting; quick for a session that is alone on its level and will be on the next.
    fn reload(&mut self, sessions: &mut Slab<Session>, slot: u32) {
        let session = &mut sessions[slot as usize];
        let level = level_of(session);
        match &mut session.link {
            Some(link) if link.level == level => {}
            Some(link)
                if (link.prev, link.next) == (NONE, NONE)
                    && self.heads.get(level as usize) == Some(&NONE) =>
            {
                let old = std::mem::replace(&mut link.level, level);
                self.heads[old as usize] = NONE;
                self.clear_level(old);
                self.heads[level as usize] = slot;
                self.words[(level / 64) as usize] |= 1 << (level % 64);
                self.summary |= 1 << (level / 64);
            }
            _ => {
                self.unfile(sessions, slot);
                self.file(sessions, slot);
            }
        }
    }

    fn clear_level(&mut self, level: u32) {
        let word = &mut self.words[(level / 64) as usize];
        *word &= !(1 << (level % 64));
        if *word == 0 {
            self.summary &= !(1 << (level / 64));
        }
    }

    fn grow_to(&mut self, level: u32) {
        let levels = level as usize + 1;
        if self.heads.len() < levels {
            self.heads.resize(levels, NONE);
            self.words.resize(levels.div_ceil(64), 0);
        }
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
