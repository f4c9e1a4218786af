//! Exponential back-off with full jitter, as pure arithmetic.

use std::time::Duration;

/// Delays between attempts: before retry `n` a random time between zero and `min(base × 2ⁿ⁻¹, cap)`.
///
/// Full jitter spreads clients that failed together over the whole range, instead of letting them come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    pub(crate) const DEFAULT: Self = Self {
        base: Duration::from_millis(200),
        cap: Duration::from_secs(2),
    };

    /// A `base` above the `cap` is cut to it.
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base: base.min(cap),
            cap,
        }
    }

    pub(crate) fn base(self) -> Duration {
        self.base
    }

    /// The longest delay after the `attempt`th attempt (counted from 1) has failed.
    pub(crate) fn ceiling(self, attempt: u32) -> Duration {
        // A nanosecond times 2⁹⁶ is longer than any cap.
        let factor = 1_u128 << attempt.saturating_sub(1).min(96);
        from_nanos(
            self.base
                .as_nanos()
                .saturating_mul(factor)
                .min(self.cap.as_nanos()),
        )
    }

    /// The delay for one draw of `random`, which lies in `0.0..=1.0` (anything else is clamped).
    pub(crate) fn delay(self, attempt: u32, random: f64) -> Duration {
        let share = if random.is_nan() {
            1.0
        } else {
            random.clamp(0.0, 1.0)
        };
        scale(self.ceiling(attempt), share)
    }
}

/// The inverse of `Duration::as_nanos`.
fn from_nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    let rest = u32::try_from(nanos % PER_SECOND).unwrap_or(0);
    u64::try_from(nanos / PER_SECOND).map_or(Duration::MAX, |seconds| Duration::new(seconds, rest))
}

/// `duration × share` for a share within `0.0..=1.0`, without the panic of `mul_f64` near the top of the range.
fn scale(duration: Duration, share: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * share).map_or(duration, |part| part.min(duration))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_doubles_from_the_base_to_the_cap() {
        // R6
        let ceilings: Vec<_> = (1..=6).map(|n| Backoff::DEFAULT.ceiling(n).as_millis()).collect();
        assert_eq!(ceilings, [200, 400, 800, 1600, 2000, 2000]);
    }

    #[test]
    fn attempt_2000_is_finite() {
        // R6
        assert_eq!(Backoff::DEFAULT.ceiling(2000), Duration::from_secs(2));
        assert_eq!(Backoff::DEFAULT.ceiling(u32::MAX), Duration::from_secs(2));
        let unbounded = Backoff::new(Duration::from_secs(1), Duration::MAX);
        assert_eq!(unbounded.delay(2000, 1.0), Duration::MAX);
        assert_eq!(
            Backoff::new(Duration::from_nanos(1), Duration::MAX).ceiling(61),
            Duration::from_nanos(1 << 60)
        );
        assert_eq!(
            Backoff::new(Duration::ZERO, Duration::MAX).ceiling(2000),
            Duration::ZERO
        );
        assert_eq!(
            Backoff::new(Duration::MAX, Duration::MAX).delay(2000, 1.0),
            Duration::MAX
        );
    }

    #[test]
    fn jitter_is_not_cut_to_whole_seconds() {
        // R6: tower's own back-off does that at a base of one second.
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(backoff.delay(1, 0.25), Duration::from_millis(250));
        assert_eq!(backoff.delay(2, 0.999), Duration::from_millis(1998));
        assert_eq!(backoff.delay(1, 0.0), Duration::ZERO);
        assert_eq!(
            backoff.delay(1, f64::NAN),
            Duration::from_secs(1),
            "never sooner for it"
        );
    }

    proptest! {
        #[test]
        fn every_delay_lies_within_its_bounds(
            base in any::<Duration>(), cap in any::<Duration>(), attempt in any::<u32>(), random in any::<f64>(),
        ) {
            // R6
            let backoff = Backoff::new(base, cap);
            let delay = backoff.delay(attempt, random);
            prop_assert!(delay <= backoff.ceiling(attempt));
            prop_assert!(backoff.ceiling(attempt) <= cap);
        }
    }
}
