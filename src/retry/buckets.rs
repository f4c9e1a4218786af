//! The buckets behind `RetryBudget`: one for all, or one for each origin. `budget.rs` says how they are used; everything
//! here happens under its lock.

use std::collections::HashMap;

use http::Uri;
use http::uri::{Authority, Scheme};
use tokio::time::Instant;

/// Billionths of a token.
pub(super) const TOKEN: u64 = 1_000_000_000;

/// Origins with a bucket of their own: at most twice this many, and the ones used last are among them.
const GENERATION: usize = 512;

#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// Billionths of a token for each request.
    pub(super) per_request: u64,
    pub(super) per_second: u32,
    /// Billionths of a token.
    pub(super) burst: u64,
}

/// Either one bucket for all, or one for each origin in two generations: what is used moves into the young one; when that
/// is full it becomes the old one, and what was old is forgotten. Constant time, amortised, and no clock.
#[derive(Default)]
pub(super) struct Buckets {
    all: Option<Bucket>,
    young: HashMap<Place, Bucket>,
    old: HashMap<Place, Bucket>,
}

pub(super) type Place = (Option<Scheme>, Option<Authority>);

#[derive(Clone, Copy)]
pub(super) struct Bucket {
    /// Billionths of a token, at most the burst.
    pub(super) tokens: u64,
    /// The latest time seen; never goes back.
    pub(super) at: Instant,
}

/// Where a request goes, as far as budgets are concerned: without the user and the port that the scheme implies.
pub(super) fn place(uri: &Uri) -> Place {
    let implied = match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    let authority = uri.authority().map(|authority| {
        let port = authority.port_u16().filter(|port| Some(*port) != implied);
        plain(authority, port).unwrap_or_else(|| authority.clone())
    });
    (uri.scheme().cloned(), authority)
}

/// Host and port alone; None where there is nothing else.
fn plain(authority: &Authority, port: Option<u16>) -> Option<Authority> {
    let host = authority.host();
    if authority.as_str() == host {
        return None;
    }
    match port {
        Some(port) => format!("{host}:{port}").parse().ok(),
        None => host.parse().ok(),
    }
}

impl Buckets {
    /// The bucket of a place, or the one for all; and what was forgotten, to be dropped after the unlock.
    pub(super) fn at(&mut self, place: Option<Place>, full: Bucket) -> (&mut Bucket, HashMap<Place, Bucket>) {
        match place {
            Some(place) => {
                let forgotten = self.make_room(&place);
                (self.of_origin(place, full), forgotten)
            }
            None => (self.all.get_or_insert(full), HashMap::new()),
        }
    }

    /// Turns the generations over when the young one is full and `place` would join it.
    #[must_use = "it is dropped after the unlock"]
    fn make_room(&mut self, place: &Place) -> HashMap<Place, Bucket> {
        if self.young.len() < GENERATION || self.young.contains_key(place) {
            return HashMap::new();
        }
        let full = std::mem::take(&mut self.young);
        std::mem::replace(&mut self.old, full)
    }

    fn of_origin(&mut self, place: Place, full: Bucket) -> &mut Bucket {
        let known = self.old.remove(&place).unwrap_or(full);
        self.young.entry(place).or_insert(known)
    }
}

impl Bucket {
    /// Adds what the time since the last use is worth: one multiplication, however long that was.
    pub(super) fn refill(&mut self, now: Instant, rates: Rates) {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        // Nanoseconds times tokens a second are billionths of a token.
        let gained = passed.saturating_mul(u128::from(rates.per_second));
        let tokens = u128::from(self.tokens).saturating_add(gained);
        self.tokens = u64::try_from(tokens).unwrap_or(u64::MAX).min(rates.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_origins_is_bounded_and_those_in_use_stay() {
        // R9
        let mut buckets = Buckets::default();
        let full = Bucket {
            tokens: 1,
            at: crate::retry::clock::now(),
        };
        let mut take = |uri: &str| {
            let (bucket, _) = buckets.at(Some(place(&uri.parse().unwrap())), full);
            std::mem::take(&mut bucket.tokens)
        };
        assert_eq!(take("https://a.example/"), 1);
        for n in 0..5 * GENERATION {
            assert_eq!(take(&format!("https://{n}.example/")), 1);
            assert_eq!(take("https://a.example/x"), 0, "kept, since it is used");
        }
        assert!(buckets.young.len() + buckets.old.len() <= 2 * GENERATION);
    }
}
