//! A stream that h2 knows of, as the pool sees it: its slot, and what is left of its request beside the response.

use std::sync::{Arc, OnceLock};

use tokio::task::AbortHandle;

use super::h2::{Control, H2};
use super::link::{Observer, Occupied};
use super::meter::Violation;
use crate::error::Error;

/// A stream that h2 knows of, and the slot it fills. Dropped, it gives the slot back.
pub(super) struct Tail {
    session: Arc<H2>,
    id: u32,
    slot: Option<Occupied>,
    forgotten: bool,
    /// Why our side reset the stream, where it did.
    cut: OnceLock<Error>,
}

impl Tail {
    pub(super) fn new(session: Arc<H2>, id: u32, slot: Occupied) -> Self {
        Self {
            session,
            id,
            slot: Some(slot),
            forgotten: false,
            cut: OnceLock::new(),
        }
    }

    pub(super) fn control(&self) -> &Arc<Control> {
        &self.session.control
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn slot(&self) -> Option<&Occupied> {
        self.slot.as_ref()
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.control().meter.stream_violation(self.id)
    }

    /// The stream is reset for this reason.
    pub(super) fn set_cut(&self, error: Error) {
        let _ = self.cut.set(error);
    }

    pub(super) fn cut(&self) -> Option<&Error> {
        self.cut.get()
    }

    /// The stream was cancelled before its response: if nothing was heard since its HEADERS, the slot is parked.
    pub(super) fn give_up(mut self) {
        let quiet = self.forget();
        let clogged = quiet && self.control().meter.is_clogged();
        let park = quiet && !clogged && self.control().may_park();
        if clogged || (quiet && !park && self.control().is_doubtful()) {
            // It may not be asked again (P44), and has said nothing while two requests in a row were given up; or it takes
            // nothing.
            if let Some(slot) = &self.slot {
                slot.report(Observer::silent);
            }
        }
        if clogged {
            self.control().set_draining();
        }
        if let Some(slot) = self.slot.take().filter(|_| park) {
            slot.park();
        }
    }

    /// True where nothing had been heard since the stream was opened.
    fn forget(&mut self) -> bool {
        if std::mem::replace(&mut self.forgotten, true) {
            return false;
        }
        let control = self.control();
        let forgotten = control.meter.forget(self.id);
        control.unread_fell();
        control.stream_over();
        forgotten.is_some_and(|stream| stream.quiet)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The request half beside a response.
pub(super) enum Upstream {
    /// It is over.
    Done(Tail),
    /// It goes on in a task.
    Running(Arc<Tail>, Uploading),
}

impl Upstream {
    pub(super) fn tail(&self) -> &Tail {
        match self {
            Self::Done(tail) => tail,
            Self::Running(tail, _) => tail,
        }
    }

    /// The response is over: the task, if there is one, has the slot alone.
    pub(super) fn end(self) -> Option<Uploading> {
        match self {
            Self::Done(_) => None,
            Self::Running(_, task) => Some(task),
        }
    }
}

/// A task that sends the rest of a request. Dropped, it ends it.
pub(super) struct Uploading(AbortHandle);

impl Uploading {
    pub(super) fn new(task: AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.abort();
    }
}
