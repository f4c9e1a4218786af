//! The watch over a transport that takes no bytes (P44).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::error::{Error, Kind};

/// It has a timer only while bytes wait.
pub(super) struct Writing {
    timeout: Duration,
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Writing {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            since: None,
            sleep: None,
        }
    }

    /// `since` is when the transport took bytes for the last time, if bytes wait. Ready: it will take none any more.
    pub(super) fn poll(&mut self, since: Option<Instant>, cx: &mut Context<'_>) -> Poll<Error> {
        if since != self.since {
            self.since = since;
            let due = since.map(|since| since + self.timeout);
            self.sleep = due.map(|due| Box::pin(tokio::time::sleep_until(due.into())));
        }
        let Some(sleep) = &mut self.sleep else {
            return Poll::Pending;
        };
        sleep.as_mut().poll(cx).map(|()| {
            let message = "the transport took no bytes for `write_timeout` and the session was ended";
            Error::new(Kind::Timeout, message)
        })
    }
}
