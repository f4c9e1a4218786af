//! The one place where the example reads the clock: tokio's, so that its test runs on a paused one.

pub(crate) use tokio::time::Instant;

/// The present time.
#[expect(clippy::disallowed_methods, reason = "the example's only clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
