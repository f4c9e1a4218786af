//! The one owner of PING. h2 knows of one at a time, so those who want to hear from the server share it: the probe after a
//! cancelled request (P19), keep-alive, and the measurement of the bandwidth (P33).

use std::task::{Context, Poll};

use h2::{Ping, PingPong};

pub(super) struct Pings {
    handle: Option<PingPong>,
    /// One is under way.
    sent: bool,
}

impl Pings {
    pub(super) fn new(handle: Option<PingPong>) -> Self {
        Self { handle, sent: false }
    }

    /// Sends one. False: one is under way already, and whoever wants just any sign of life will get it.
    pub(super) fn send(&mut self, cx: &Context<'_>) -> bool {
        let Some(handle) = self.handle.as_mut().filter(|_| !self.sent) else {
            return false;
        };
        self.sent = handle.send_ping(Ping::opaque()).is_ok();
        if self.sent {
            // The connection, which writes it, was polled already.
            cx.waker().wake_by_ref();
        }
        self.sent
    }

    /// True once for each that was answered.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(handle) = self.handle.as_mut().filter(|_| self.sent) else {
            return false;
        };
        match handle.poll_pong(cx) {
            Poll::Pending => false,
            Poll::Ready(answer) => {
                self.sent = false;
                answer.is_ok()
            }
        }
    }
}
