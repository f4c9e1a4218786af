//! The clocks of the retry layer and of `poll`: tokio's, so that tests with paused time work, and the wall clock, which
//! only HTTP dates need.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// tokio's timers fire at whole milliseconds: what is due in less may come a tick later.
pub(crate) const TICK: Duration = Duration::from_millis(1);

pub(crate) fn now() -> Instant {
    Instant::from_std(crate::clock::now())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the default of the injectable wall clock, read only for dates in Retry-After"
)]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
