//! A wait that is bounded, as the phases of a request are.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::timer::Timer;

/// How long what a server said before it closed may take to be read, after a write has failed. It is there already as a
/// rule, but the runtime hears of it when it looks for events the next time, and of the failed write at once.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);

/// Runs from its first poll to the next [`reset`](Self::reset). Without a limit it never ends, and costs nothing.
pub(super) struct Bound {
    limit: Option<Duration>,
    timer: Option<Pin<Box<Timer>>>,
}

impl Bound {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, timer: None }
    }

    /// It never ends.
    pub(super) fn is_off(&self) -> bool {
        self.limit.is_none()
    }

    /// There was progress.
    pub(super) fn reset(&mut self) {
        self.timer = None;
    }

    /// Ready with what is `late`, or with the error of whoever waits outside of any runtime. It waits for something that
    /// was sent.
    pub(super) fn poll(&mut self, late: impl FnOnce() -> Error, cx: &mut Context<'_>) -> Poll<Error> {
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(Timer::default()));
        Poll::Ready(match ready!(timer.as_mut().poll_here(limit, cx)) {
            Ok(()) => late(),
            Err(outside) => outside.with_unprocessed(false),
        })
    }
}

/// No response headers came in time.
pub(super) fn late_headers() -> Error {
    Error::new(Kind::Timeout, "no response headers came within `header_timeout`")
}

/// A body came to a halt.
pub(super) fn idle_body() -> Error {
    Error::new(
        Kind::Timeout,
        "no frame of the body came within `body_idle_timeout`",
    )
    .in_body()
}
