//! A response body that nobody reads, over HTTP/1.1 (P30, P44).
//!
//! Where `body_idle_timeout` is set, the slot of a response lies with the session while somebody holds the body: the
//! driver ends the connection when nothing was read for too long, and the slot comes back though the body is still held.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::bound::idle_body;
use super::h1::{H1Control, Returned, Sender};
use super::link::Occupied;
use crate::clock;
use crate::error::Error;
use crate::sync::Mutex;

/// The right to send the next request, and the slot of the one whose response is held.
pub(super) type Rights = (Option<Sender>, Occupied);

/// The body that is held, if one is.
pub(super) struct Held {
    /// How long nothing may be read of it.
    limit: Option<Duration>,
    inner: Mutex<Option<Inner>>,
}

struct Inner {
    rights: Rights,
    read_at: Instant,
}

impl Held {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            inner: Mutex::new(None),
        }
    }

    /// The body was handed out. The rights come back where nothing ends it; else the driver has to be told.
    pub(super) fn hold(&self, rights: Rights) -> Option<Rights> {
        if self.limit.is_none() {
            return Some(rights);
        }
        let read_at = clock::now();
        let before = self.inner.lock().replace(Inner { rights, read_at });
        debug_assert!(before.is_none(), "one response at a time");
        None
    }

    /// A frame was read.
    pub(super) fn read(&self) {
        if self.limit.is_some() {
            if let Some(inner) = &mut *self.inner.lock() {
                inner.read_at = clock::now();
            }
        }
    }

    /// The body is over, if the driver has not ended it.
    pub(super) fn take(&self) -> Option<Rights> {
        self.inner.lock().take().map(|inner| inner.rights)
    }

    /// The same if nothing was read since `limit`; else when to look again.
    fn take_idle(&self, limit: Duration) -> Result<Rights, Option<Instant>> {
        let now = clock::now();
        let mut held = self.inner.lock();
        match held.take_if(|inner| inner.read_at + limit <= now) {
            Some(inner) => Ok(inner.rights),
            None => Err(held.as_ref().map(|inner| inner.read_at + limit)),
        }
    }
}

/// The driver's watch over it. It has a timer only while a body is held, or was until lately.
#[derive(Default)]
pub(super) struct Watch {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// Ready when the connection is to end.
    pub(super) fn poll(&mut self, control: &H1Control, cx: &mut Context<'_>) -> Poll<Error> {
        let Some(limit) = control.held.limit else {
            return Poll::Pending;
        };
        loop {
            // It never fires too late: what is read only moves the deadline on.
            if let Some(sleep) = &mut self.sleep {
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            self.sleep = match control.held.take_idle(limit) {
                Ok((sender, slot)) => {
                    control.kill(idle_body());
                    control.give_back(Returned { sender, _slot: slot });
                    return Poll::Ready(idle_body());
                }
                Err(Some(due)) => Some(Box::pin(tokio::time::sleep_until(due.into()))),
                Err(None) => None,
            };
            if self.sleep.is_none() {
                return Poll::Pending;
            }
        }
    }
}
