//! An HTTP/1.1 session on hyper: a session whose limit is one (P24).
//!
//! ```text
//!            take_sender                try_send_request
//!   resting ─────────────▶ Tail (h1_exchange.rs) ──▶ hyper ◀── driver (h1_driver.rs): the connection
//!      ▲                        │ the response ended, was dropped, or failed
//!      │  hyper is ready        ▼
//!      └─────────────────── returned ──▶ the connection ended: closed is reported, then the slot dropped
//! ```
//!
//! hyper's sender is the right to send, and there is one: it rests in the [`H1Control`] or travels with the request. It
//! comes back together with the slot, which is let go only when hyper can take the next request; so a waiter is never
//! granted a connection that is about to close. Mostly it can at once, as it has read the response to its end; else the
//! driver sees when. A connection without its sender ends by itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::client::conn::http1::SendRequest;

use super::alive::Ending;
use super::h1_held::Held;
use super::h1_upload::Upload;
use super::link::{Address, Informant, Occupied};
use super::meter::Bounds;
use crate::connect::{Connection, Fault};
use crate::error::Error;
use crate::sync::Mutex;

pub(super) type Sender = SendRequest<Upload>;

/// The handle of a session. When the last one is dropped the session ends, gracefully.
pub(crate) struct H1 {
    pub(super) control: Arc<H1Control>,
}

impl H1 {
    pub(crate) fn control(&self) -> &Arc<H1Control> {
        &self.control
    }
}

impl Drop for H1 {
    fn drop(&mut self) {
        self.control.close();
    }
}

/// What the driver, the request and the pool share of a session.
pub(crate) struct H1Control {
    seat: Mutex<Seat>,
    /// The response whose body somebody holds.
    pub(super) held: Held,
    /// The driver's.
    pub(super) waker: AtomicWaker,
    /// Why this side ended it. Set means that the driver is to end it at once.
    verdict: OnceLock<Error>,
    /// Why it ended.
    cause: OnceLock<Error>,
    /// hyper has a request.
    busy: AtomicBool,
    /// Something was read while it had one.
    heard: AtomicBool,
    /// The first response was reported.
    served: AtomicBool,
    /// A caller had a response.
    answered: AtomicBool,
    /// A caller gave up its request, or its body failed: that it ends is not the server's doing.
    given_up: AtomicBool,
    /// The last response was one of HTTP/1.0.
    old: AtomicBool,
    /// How often hyper has written all that it had.
    flushes: AtomicU64,
    /// It has done so lately.
    drained: AtomicBool,
    /// A caller wants to hear of that.
    written_watched: AtomicBool,
    /// The caller who waits for the response: told of that, and when the session has ended.
    pub(super) watcher: AtomicWaker,
    /// In milliseconds; 0 is never.
    write_timeout: AtomicU64,
    pub(super) informant: Informant,
    pub(super) fault: Fault,
    /// The server is a forward proxy.
    pub(super) proxied: bool,
    /// Interim responses to one request, and bytes of them (P44).
    pub(super) max_interim: (u32, u64),
}

#[derive(Default)]
struct Seat {
    sender: Option<Sender>,
    returned: Option<Returned>,
    closing: bool,
    ended: bool,
}

/// The request is over as far as its caller goes; the connection may still be busy with it.
pub(super) struct Returned {
    /// Without it, the slot is let go when the session ends.
    pub(super) sender: Option<Sender>,
    pub(super) _slot: Occupied,
}

impl H1Control {
    pub(super) fn new(
        address: Arc<Address>,
        connection: &Connection,
        bounds: &Bounds,
        body_idle: Option<Duration>,
    ) -> Self {
        Self {
            seat: Mutex::new(Seat::default()),
            held: Held::new(body_idle),
            waker: AtomicWaker::new(),
            verdict: OnceLock::new(),
            cause: OnceLock::new(),
            busy: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            served: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            old: AtomicBool::new(false),
            flushes: AtomicU64::new(0),
            drained: AtomicBool::new(false),
            written_watched: AtomicBool::new(false),
            watcher: AtomicWaker::new(),
            write_timeout: AtomicU64::new(0),
            informant: Informant::new(address),
            fault: connection.fault.clone(),
            proxied: connection.proxied,
            max_interim: (bounds.informational, bounds.informational_bytes),
        }
    }

    /// The right to send one request.
    pub(super) fn take_sender(&self) -> Option<Sender> {
        let sender = self.seat.lock().sender.take()?;
        if self.verdict.get().is_some() || sender.is_closed() {
            return None;
        }
        self.busy.store(true, Ordering::Release);
        Some(sender)
    }

    /// The request is over as far as its caller goes: its slot is let go if hyper can take the next one already, else by
    /// the driver, which knows when the connection is free.
    pub(super) fn finish(&self, sender: Option<Sender>, slot: Occupied) {
        let sender = match sender {
            Some(sender) if sender.is_ready() => {
                if self.rest(sender) {
                    return drop(slot);
                }
                None
            }
            other => other,
        };
        self.give_back(Returned { sender, _slot: slot });
    }

    /// hyper can take the next request. False if none will come: the connection ends.
    pub(super) fn rest(&self, sender: Sender) -> bool {
        self.busy.store(false, Ordering::Release);
        let unwanted = {
            let mut seat = self.seat.lock();
            if seat.closing || seat.ended {
                Some(sender)
            } else {
                seat.sender = Some(sender);
                None
            }
        };
        unwanted.is_none()
    }

    /// To the driver.
    pub(super) fn give_back(&self, returned: Returned) {
        let late = {
            let mut seat = self.seat.lock();
            if seat.ended {
                Some(returned)
            } else {
                seat.returned.replace(returned)
            }
        };
        self.waker.wake();
        drop(late);
    }

    pub(super) fn take_returned(&self) -> Option<Returned> {
        self.seat.lock().returned.take()
    }

    /// Nobody drives the connection any more.
    pub(super) fn has_ended(&self) -> bool {
        self.cause().is_some()
    }

    /// Why it ended.
    pub(crate) fn cause(&self) -> Option<&Error> {
        self.cause.get()
    }

    pub(super) fn verdict(&self) -> Option<&Error> {
        self.verdict.get()
    }

    /// Whether a response on this session is not the first one.
    pub(super) fn answer(&self) -> bool {
        self.answered.swap(true, Ordering::AcqRel)
    }

    /// Whether the first response is to be reported: yes, once.
    pub(super) fn serve(&self) -> bool {
        !self.served.swap(true, Ordering::AcqRel)
    }

    /// Something was read.
    pub(super) fn hear(&self) {
        if self.busy.load(Ordering::Acquire) {
            self.heard.store(true, Ordering::Release);
        }
    }

    /// Something was read since there was a request.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Acquire)
    }

    /// The end is to be reported. A caller who has not looked yet may have a response, and a session that served
    /// somebody must not be taken for one that served nobody. A response that was cut or malformed counts too: its
    /// request fails, so that nothing goes in circles.
    pub(super) fn served_unseen(&self) -> bool {
        self.heard.load(Ordering::Acquire) && self.serve()
    }

    pub(super) fn set_given_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    pub(super) fn set_old(&self, old: bool) {
        self.old.store(old, Ordering::Release);
    }

    /// Whether hyper would send chunks here. To a server of HTTP/1.0 it sends the head without them, and drops a body whose
    /// length is not known; and an answer that was given up may have been one, unseen.
    pub(super) fn takes_chunks(&self) -> bool {
        !self.old.load(Ordering::Acquire) && !self.is_given_up()
    }

    /// hyper has written all that it had; `some`: and there was something.
    pub(super) fn flushed(&self, some: bool) {
        if some {
            self.drained.store(true, Ordering::Release);
        }
        self.flushes.fetch_add(1, Ordering::AcqRel);
        if self.written_watched.load(Ordering::Acquire) {
            self.watcher.wake();
        }
    }

    /// Whether hyper has written the last of something since the last call.
    pub(super) fn take_drained(&self) -> bool {
        self.drained.swap(false, Ordering::AcqRel)
    }

    /// Before a request is handed over: whether its caller wants to hear when it was written.
    pub(super) fn watch_written(&self, watched: bool) {
        self.written_watched.store(watched, Ordering::Release);
    }

    pub(super) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Acquire)
    }

    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) {
        let millis = timeout.map_or(0, |timeout| {
            u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1)
        });
        self.write_timeout.store(millis, Ordering::Release);
    }

    pub(super) fn write_timeout(&self) -> Option<Duration> {
        let millis = self.write_timeout.load(Ordering::Acquire);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// No more requests; the connection ends when the one under way is over.
    pub(crate) fn close(&self) {
        let sender = {
            let mut seat = self.seat.lock();
            seat.closing = true;
            seat.sender.take()
        };
        drop(sender);
        self.waker.wake();
    }

    /// Ends the connection with what runs on it.
    pub(crate) fn kill(&self, cause: Error) {
        let _ = self.verdict.set(cause);
        self.close();
    }

    pub(crate) fn address(&self) -> &Arc<Address> {
        self.informant.address()
    }
}

impl Ending for H1Control {
    fn end(&self, cause: Error) -> Error {
        // First the cause: whoever comes too late finds it.
        let cause = self
            .cause
            .get_or_init(|| self.verdict.get().cloned().unwrap_or(cause))
            .clone();
        self.seat.lock().ended = true;
        // An upgraded connection is its user's, who has time.
        self.set_write_timeout(None);
        self.close();
        self.watcher.wake();
        cause
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}
