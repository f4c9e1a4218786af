//! Keep-alive: a PING when the server has been silent for too long (P19).
//!
//! ```text
//!   Resting ── streams, or while idle too ──▶ Waiting ── silent for `interval` ──▶ Asked ── `timeout` ──▶ dead
//!      ▲                                       │   ▲                                 │
//!      └───────────── no streams ──────────────┘   └──────────── any frame ──────────┘
//! ```
//!
//! Frames do not touch the timer: when it fires, the time of the last one says when to look again.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::ping::Pings;
use crate::clock;
use crate::error::{Error, Kind};

/// When PINGs are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    /// Silence before a PING.
    pub(crate) interval: Duration,
    /// Silence after it that means death.
    pub(crate) timeout: Duration,
    /// Whether a session without streams is watched too.
    pub(crate) while_idle: bool,
}

/// The watch over one session.
pub(super) struct Watch {
    rule: KeepAlive,
    phase: Phase,
    /// Frames heard so far, and when the last one was noticed.
    frames: u64,
    heard_at: Instant,
    sleep: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resting,
    Waiting,
    Asked,
}

impl Watch {
    pub(super) fn new(rule: KeepAlive) -> Self {
        Self {
            rule,
            phase: Phase::Resting,
            frames: 0,
            heard_at: clock::now(),
            sleep: Box::pin(tokio::time::sleep(rule.interval)),
        }
    }

    /// After each poll of the connection: `frames` were heard so far, `busy` is whether it has streams. Ready: the
    /// session is dead.
    pub(super) fn poll(
        &mut self,
        frames: u64,
        busy: bool,
        pings: &mut Pings,
        cx: &mut Context<'_>,
    ) -> Poll<Error> {
        if frames != self.frames {
            self.frames = frames;
            self.heard_at = clock::now();
            if self.phase == Phase::Asked {
                self.wait();
            }
        }
        loop {
            match self.phase {
                Phase::Resting if busy || self.rule.while_idle => self.wait(),
                Phase::Resting => return Poll::Pending,
                Phase::Waiting => {
                    ready!(self.sleep.as_mut().poll(cx));
                    let now = clock::now();
                    if self.heard_at + self.rule.interval > now {
                        self.wait();
                    } else if busy || self.rule.while_idle {
                        pings.send(cx);
                        self.phase = Phase::Asked;
                        self.sleep.as_mut().reset((now + self.rule.timeout).into());
                    } else {
                        self.phase = Phase::Resting;
                    }
                }
                Phase::Asked => return self.sleep.as_mut().poll(cx).map(|()| self.dead()),
            }
        }
    }

    fn wait(&mut self) {
        self.phase = Phase::Waiting;
        self.sleep
            .as_mut()
            .reset((self.heard_at + self.rule.interval).into());
    }

    fn dead(&self) -> Error {
        let timeout = self.rule.timeout;
        let message = format!("no frame came within {timeout:?} (`keep_alive_timeout`) after a PING");
        Error::new(Kind::KeepAlive, message)
    }
}
