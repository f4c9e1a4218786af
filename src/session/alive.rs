//! The guard that reports the end of a session however it comes, also when its task is dropped with the runtime.

use std::sync::Arc;

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
        let cause = if std::thread::panicking() {
            panicked()
        } else {
            runtime_ended()
        };
        let cause = self.control.end(cause);
        if self.control.is_given_up() {
            self.observer.clone().given_up(self.id);
        }
        self.observer.clone().closed(self.id, cause);
    }
}

/// Nobody drives the session any more; the server knows nothing of it.
pub(super) fn runtime_ended() -> Error {
    Error::new(Kind::Runtime, "the runtime that drove the session has ended")
}

/// Nobody drives it any more, though its runtime goes on: the transport panicked, or what the caller gave to be called.
pub(super) fn panicked() -> Error {
    Error::new(Kind::Io, "the task that drove the session panicked")
}
