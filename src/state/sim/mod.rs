//! For tests and fuzzing: a fixed point in time to count from, and the state's own accounts audited.

mod audit;

use std::sync::OnceLock;
use std::time::Instant;

/// An instant, the same for the whole process; virtual clocks count from it.
pub fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "where the virtual clock starts does not matter"
    )]
    *EPOCH.get_or_init(Instant::now)
}
