//! The one place where the example reads the clock.

pub(crate) use std::time::Instant;

/// The present time.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time, and this is its only clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
