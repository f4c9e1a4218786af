//! The guard that reports the end of a session however it comes, also when its task is dropped with the runtime.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

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

/// Drives a session until it says why it ended. A panic, of its transport or of who is told of it, is caught here, and so told
/// from that of a thread whose runtime goes with it.
pub(super) async fn until_end(driving: impl Future<Output = Error>) -> Error {
    let ended = AssertUnwindSafe(driving).catch_unwind().await;
    ended.unwrap_or_else(|_| Error::new(Kind::Io, "the task that drove the session panicked"))
}

/// Nobody drives the session any more; the server knows nothing of it.
pub(super) fn runtime_ended() -> Error {
    Error::new(Kind::Runtime, "the runtime that drove the session has ended")
}
