//! A wait that is bounded, as the phases of a request are.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::error::{Error, Kind};

/// Runs from its first poll to the next [`reset`](Self::reset). Without a limit it never ends, and costs nothing.
pub(super) struct Bound {
    limit: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Bound {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, sleep: None }
    }

    /// It never ends.
    pub(super) fn is_off(&self) -> bool {
        self.limit.is_none()
    }

    /// There was progress.
    #[cfg(feature = "http1")]
    pub(super) fn reset(&mut self) {
        self.sleep = None;
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        sleep.as_mut().poll(cx)
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
