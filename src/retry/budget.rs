//! `RetryBudget`: a token bucket that keeps retries a share of the traffic.
//!
//! Every request pays in a share of a token (0.2), time adds some (10 a second), every retry takes one. Under an outage
//! the retries are therefore at most `share × requests + per_second × time + what was in the bucket`. The bucket holds at
//! most `burst` tokens, which is what it starts with as well. Amounts are integers, in billionths of a token, so that the
//! refill over any stretch of time is one multiplication and no rounding is lost.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use parking_lot::Mutex;

use super::buckets::{Bucket, Buckets, Rates, TOKEN, place};
use super::clock;
use super::outcome::Outcome;

/// Replays of one request that cost nothing, because the server did nothing.
const FREE_REPLAYS: u32 = 3;

/// Bounds the extra load that retries make, over everything that shares it.
///
/// Clones share the tokens, so that one budget serves a whole process, or one policy. Its cost is constant, however long
/// nothing happened. Without one, retries are bounded by attempts and deadline alone.
///
/// The default allows retries for 20 % of the requests and 10 a second besides, so that little traffic is not starved,
/// and saves up to 100. What a server refused unprocessed is sent again for free, up to three times for one request (and
/// a pool below may have sent it several times for each of those). A fleet of clients that all wake at once against a
/// server that needs seconds to start is the case for more: size `burst` by the number of requests in the air times
/// the attempts each needs until the server is up.
///
/// ```
/// use h2pool::retry::{RetryBudget, RetryPolicy};
///
/// let budget = RetryBudget::new(0.1, 5).burst(50).per_origin();
/// let policy = RetryPolicy::default().budget(budget.clone());
/// # let _ = policy;
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    rates: Rates,
    per_origin: bool,
    shared: Arc<Mutex<Buckets>>,
}

impl Default for RetryBudget {
    /// 20 % of the requests and 10 retries a second.
    fn default() -> Self {
        Self::new(0.2, 10)
    }
}

impl RetryBudget {
    /// Allows retries for this share of the requests (0.2 is 20 %; not a number, negative and above 1,000 are clamped),
    /// and `per_second` besides. Holds 10 seconds' worth of the latter, or 10 tokens, whichever is more.
    #[must_use]
    pub fn new(share: f64, per_second: u32) -> Self {
        let per_request = (share.clamp(0.0, 1_000.0) * 1e9).round() as u64;
        Self::with(
            Rates {
                per_request,
                per_second,
                burst: tokens(per_second.saturating_mul(10).max(10)),
            },
            false,
        )
    }

    /// How many retries can be saved up, and how many there are to begin with. Default: ten times `per_second`, at least
    /// 10. What it returns shares nothing with what it was made from.
    #[must_use]
    pub fn burst(self, retries: u32) -> Self {
        let burst = tokens(retries);
        Self::with(Rates { burst, ..self.rates }, self.per_origin)
    }

    /// A bucket for each origin (scheme, host and port of the request's URI; `http://a` and `http://a:80` are one)
    /// instead of one for all: one dead origin leaves the others' retries alone. At most 1,024 origins are told
    /// apart; one that has not been used for longest starts anew. What it returns shares nothing with what it was
    /// made from.
    #[must_use]
    pub fn per_origin(self) -> Self {
        Self::with(self.rates, true)
    }

    /// How many retries the budget would allow right now, for requests to `uri`.
    #[must_use]
    pub fn available(&self, uri: &Uri) -> u32 {
        let tokens = self.change(uri, |bucket| bucket.tokens / TOKEN);
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// A request is made: pays its share in.
    pub(crate) fn deposit(&self, uri: &Uri) {
        let Rates {
            per_request, burst, ..
        } = self.rates;
        self.change(uri, |bucket| {
            bucket.tokens = (bucket.tokens + per_request).min(burst)
        });
    }

    /// A retry is wanted: takes a token, if there is one.
    pub(crate) fn withdraw(&self, uri: &Uri) -> Option<Token> {
        let paid = self.change(uri, |bucket| match bucket.tokens.checked_sub(TOKEN) {
            Some(rest) => {
                bucket.tokens = rest;
                true
            }
            None => false,
        });
        paid.then(|| Token(Some((self.clone(), uri.clone()))))
    }

    fn refund(&self, uri: &Uri) {
        let burst = self.rates.burst;
        self.change(uri, |bucket| bucket.tokens = (bucket.tokens + TOKEN).min(burst));
    }

    fn with(rates: Rates, per_origin: bool) -> Self {
        Self {
            rates,
            per_origin,
            shared: Arc::default(),
        }
    }

    fn change<T>(&self, uri: &Uri, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let now = clock::now();
        let full = Bucket {
            tokens: self.rates.burst,
            at: now,
        };
        let place = self.per_origin.then(|| place(uri));
        let mut buckets = self.shared.lock();
        let (bucket, forgotten) = buckets.at(place, full);
        bucket.refill(now, self.rates);
        let result = change(bucket);
        drop(buckets);
        drop(forgotten);
        result
    }
}

/// The right to one retry, paid for: given back when it is dropped without having been spent.
#[derive(Debug)]
pub(crate) struct Token(Option<(RetryBudget, Uri)>);

impl Token {
    /// The retry is made.
    pub(crate) fn spend(mut self) {
        self.0 = None;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some((budget, uri)) = self.0.take() {
            budget.refund(&uri);
        }
    }
}

/// Whether a retry after this outcome is free, for a request that has had so many free ones.
pub(crate) fn is_free(outcome: &Outcome, used: &mut u32) -> bool {
    let free = !outcome.costs() && *used < FREE_REPLAYS;
    *used += u32::from(free);
    free
}

fn tokens(whole: u32) -> u64 {
    u64::from(whole) * TOKEN
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("rates", &self.rates)
            .field("per_origin", &self.per_origin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn uri() -> Uri {
        Uri::from_static("https://a.example/x")
    }

    fn drain(budget: &RetryBudget, uri: &Uri) -> usize {
        std::iter::from_fn(|| budget.withdraw(uri).map(Token::spend))
            .take(10_000)
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_pay_in_their_share_and_clones_share() {
        // R9
        let budget = RetryBudget::default();
        assert_eq!(drain(&budget, &uri()), 100, "the burst it starts with");
        for _ in 0..50 {
            budget.clone().deposit(&uri());
        }
        assert_eq!(budget.available(&uri()), 10);
        assert_eq!(drain(&budget, &uri()), 10, "20 % of 50");
        assert!(budget.clone().withdraw(&uri()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refund_is_one_token_and_fills_no_more_than_the_burst() {
        // R9 R12
        let budget = RetryBudget::new(0.0, 0).burst(2);
        let token = budget.withdraw(&uri()).unwrap();
        assert_eq!(budget.available(&uri()), 1);
        drop(token);
        assert_eq!(budget.available(&uri()), 2);
        budget.refund(&uri());
        assert_eq!(drain(&budget, &uri()), 2);
        budget.refund(&uri());
        assert_eq!(drain(&budget, &uri()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn time_refills_without_losing_fractions() {
        // R9
        let budget = RetryBudget::new(0.0, 10);
        drain(&budget, &uri());
        for _ in 0..1_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(budget.available(&uri()) <= 10);
        }
        assert_eq!(
            drain(&budget, &uri()),
            10,
            "a second's worth, read a thousand times"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_idle_time_is_one_step_and_fills_no_more_than_the_burst() {
        // R9
        let budget = RetryBudget::new(1.0, u32::MAX).burst(7);
        drain(&budget, &uri());
        tokio::time::advance(Duration::from_secs(20 * 365 * 86_400)).await;
        assert_eq!(drain(&budget, &uri()), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn each_origin_may_have_its_own() {
        // R9
        let budget = RetryBudget::new(0.0, 0).burst(3).per_origin();
        assert_eq!(drain(&budget, &uri()), 3);
        assert_eq!(drain(&budget, &uri()), 0);
        for (other, left) in [
            ("https://b.example/x", 3),
            ("http://a.example/x", 3),
            ("https://a.example:8443/", 3),
            ("https://a.example:443/", 0),
            ("https://A.example:/y", 0),
            ("https://user:secret@a.example/", 0),
            ("https://user@a.example:8443/", 0),
            ("http://a.example:80/", 0),
            ("http://a.example:443/", 3),
            ("https://[::1]/", 3),
            ("https://[::1]:443/", 0),
            ("ws://a.example/", 3),
            ("ws://a.example:80/", 3),
            ("/x", 3),
            ("/y", 0),
        ] {
            assert_eq!(drain(&budget, &Uri::from_static(other)), left, "{other}");
        }
    }

    #[test]
    fn three_replays_of_one_request_are_free() {
        // R9
        let mut used = 0;
        assert!(!is_free(&Outcome::transient(), &mut used));
        assert!(!is_free(&Outcome::unprocessed().costly(), &mut used));
        let free = (0..10).filter(|_| is_free(&Outcome::unprocessed(), &mut used));
        assert_eq!(free.count(), 3);
    }

    #[test]
    fn odd_shares_are_clamped() {
        // R9
        for (share, expected) in [(f64::NAN, 0), (-1.0, 0), (0.2, TOKEN / 5), (1e300, 1_000 * TOKEN)] {
            assert_eq!(RetryBudget::new(share, 0).rates.per_request, expected);
        }
    }
}
