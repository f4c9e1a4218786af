//! Something shared by members that come and go: made by the first, given up by the last, and made afresh after that.
//!
//! Each making has a generation of its own, so that a member of an earlier one that leaves late can never touch the
//! replacement.

use crate::sync::Mutex;

/// The place where it is kept. `T` is cheap to clone.
#[derive(Debug)]
pub struct Members<T> {
    place: Mutex<Place<T>>,
}

#[derive(Debug)]
struct Place<T> {
    current: Option<Current<T>>,
    generation: u64,
}

#[derive(Debug)]
struct Current<T> {
    value: T,
    members: usize,
}

/// Which making a member belongs to. Not `Clone`: it is given back exactly once.
#[derive(Debug, PartialEq, Eq)]
pub struct Membership(u64);

impl<T: Clone> Members<T> {
    /// Nothing is there.
    #[cfg(not(h2pool_loom))]
    pub const fn new() -> Self {
        Self {
            place: Mutex::new(Place {
                current: None,
                generation: 0,
            }),
        }
    }

    /// Nothing is there.
    #[cfg(h2pool_loom)]
    pub fn new() -> Self {
        Self {
            place: Mutex::new(Place {
                current: None,
                generation: 0,
            }),
        }
    }

    /// Joins what is there if it `fits`, or puts `fresh` there. `Err`: what is there does not fit; `fresh` comes back.
    /// `fresh` also comes back, beside what is there, when it was not needed.
    pub fn join(&self, fresh: T, fits: impl FnOnce(&T) -> bool) -> Result<(T, Membership, Option<T>), T> {
        let mut place = self.place.lock();
        let generation = place.generation;
        if let Some(current) = &mut place.current {
            if !fits(&current.value) {
                return Err(fresh);
            }
            current.members += usize::from(!cfg!(h2pool_seed = "join_uncounted"));
            return Ok((current.value.clone(), Membership(generation), Some(fresh)));
        }
        place.generation += 1;
        let membership = Membership(place.generation);
        place.current = Some(Current {
            value: fresh.clone(),
            members: 1,
        });
        Ok((fresh, membership, None))
    }

    /// A member leaves. The last one gets what there was, to end it; nobody joins it any more.
    #[expect(clippy::needless_pass_by_value, reason = "a membership is given back once")]
    pub fn leave(&self, membership: Membership) -> Option<T> {
        let mut place = self.place.lock();
        if place.generation != membership.0 {
            return None;
        }
        let current = place.current.as_mut()?;
        current.members -= 1;
        if current.members > 0 {
            return None;
        }
        #[cfg(h2pool_seed = "leave_in_two_steps")]
        let mut place = {
            drop(place);
            self.place.lock()
        };
        place.current.take().map(|current| current.value)
    }
}

#[cfg(all(test, not(h2pool_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_leave_ends_it_and_the_next_starts_afresh() {
        // P35
        let members = Members::new();
        let (first, a, _) = members.join("first", |_| true).unwrap();
        let (same, b, unused) = members.join("unused", |_| true).unwrap();
        assert_eq!((first, same, unused), ("first", "first", Some("unused")));
        assert_eq!(members.join("other", |_| false).unwrap_err(), "other");
        assert_eq!(members.leave(a), None);
        assert_eq!(members.leave(b), Some("first"));
        let (second, c, _) = members.join("second", |_| false).unwrap();
        assert_eq!(second, "second");
        // A member of the first making that leaves late harms nobody.
        assert_eq!(members.leave(Membership(1)), None);
        assert_eq!(members.leave(c), Some("second"));
    }
}
