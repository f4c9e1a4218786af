//! What keeps a pool open: its handles.

use std::sync::Arc;

use super::core::{Core, closed, some};
use super::entry::Entry;
use crate::error::Error;
use crate::origin::Key;

/// Shared by all handles of a pool; the last one to go ends the sessions.
pub(super) struct Lifeline<O: Key> {
    core: Arc<Core<O>>,
}

impl<O: Key> Lifeline<O> {
    pub(super) fn new(core: Arc<Core<O>>) -> Arc<Self> {
        Arc::new(Self { core })
    }

    pub(super) fn core(&self) -> &Arc<Core<O>> {
        &self.core
    }

    pub(super) fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    pub(super) fn close(&self) {
        self.core.close(some(self.core.config.drain_timeout));
    }

    /// The entry of an origin.
    pub(super) fn entry(&self, key: &O) -> Result<Arc<Entry<O>>, Error> {
        if self.is_closed() {
            return Err(closed().with_origin(key.origin()));
        }
        self.core.entry(key)
    }
}

impl<O: Key> Drop for Lifeline<O> {
    fn drop(&mut self) {
        // Streams that still run keep their sessions until they end; nothing else is left of the pool.
        self.core.close(None);
    }
}
