//! Long polls, alone and shared, on tokio's paused clock. Every contract number W1–W4 is named where it is proven.

mod alone;
mod holding;
mod pool;
mod shared;

use std::time::Duration;

use h2pool::poll::LongPoll;
use tokio::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the tests' own clock, paused")]
fn now() -> Instant {
    Instant::now()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Always the longest pause of the back-off, so that times are known.
fn steady() -> LongPoll {
    LongPoll::new().random(|| 1.0)
}

fn io(kind: std::io::ErrorKind) -> std::io::Error {
    kind.into()
}
