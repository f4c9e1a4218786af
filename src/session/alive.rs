//! The guard that reports the end of a session however it comes, also when its task is dropped with the runtime.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use super::link::Observer;
use crate::error::{Error, Kind};
use crate::state::SessionId;

/// What a session's parts share, when it ends.
pub(super) trait Ending {
    /// No more work is taken. Says why it ended: the first cause that was given.
    fn end(&self, cause: Error) -> Error;
    /// Whether its callers ended it: that says nothing about the server.
    fn is_given_up(&self) -> bool {
        false
    }
}

/// Dropped, it reports the end: a session is never taken for alive that nobody drives (P36).
pub(super) struct Alive<C: Ending> {
    pub(super) observer: Arc<dyn Observer>,
    pub(super) id: SessionId,
    pub(super) control: Arc<C>,
}

impl<C: Ending> Drop for Alive<C> {
    fn drop(&mut self) {
        let cause = self.control.end(runtime_ended());
        if self.control.is_given_up() {
            self.observer.clone().given_up(self.id);
        }
        self.observer.clone().closed(self.id, cause);
    }
}

/// One turn of a session's task. A panic, of its transport or of who is told of it, ends the session; it is caught here, and so
/// told from that of a thread whose runtime goes with it.
pub(super) fn caught<T>(turn: impl FnOnce() -> Poll<T>) -> Poll<Result<T, Error>> {
    match catch_unwind(AssertUnwindSafe(turn)) {
        Ok(polled) => polled.map(Ok),
        Err(_) => Poll::Ready(Err(Error::new(
            Kind::Io,
            "the task that drove the session panicked",
        ))),
    }
}

/// Nobody drives the session any more; the server knows nothing of it.
pub(super) fn runtime_ended() -> Error {
    Error::new(Kind::Runtime, "the runtime that drove the session has ended")
}
