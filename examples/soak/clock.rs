//! The one place where the example reads the clock.

pub(crate) use tokio::time::Instant;

/// The present time.
#[expect(
    clippy::disallowed_methods,
    reason = "a soak runs in real time, and this is its only clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
