//! The one clock of the crate.

use std::time::Instant;

/// Now, by tokio's clock, so that tests with paused time see the time they made.
#[expect(clippy::disallowed_methods, reason = "the one permitted reading of the clock")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
