//! The connector as the pool holds it: one allocation per dial buys a pool without a connector type parameter.

use std::pin::Pin;
use std::sync::Arc;

use super::{Connect, Connection, Offer};
use crate::error::Error;

/// A boxed dial.
pub(crate) type Connecting = Pin<Box<dyn Future<Output = Result<Connection, Error>> + Send>>;

/// [`Connect`], object safe.
pub(crate) trait ErasedConnect<O>: Send + Sync + 'static {
    /// Opens one connection. This is the user's code: it may panic, here and when the future is polled.
    fn connect(&self, key: &O, offer: Offer) -> Connecting;

    /// See [`Connect`]'s.
    fn http2_in_plain_text(&self) -> bool;
}

struct Erased<C>(C);

impl<O, C: Connect<O>> ErasedConnect<O> for Erased<C> {
    fn connect(&self, key: &O, offer: Offer) -> Connecting {
        Box::pin(self.0.connect(key, offer))
    }

    fn http2_in_plain_text(&self) -> bool {
        self.0.http2_in_plain_text()
    }
}

/// Hides the type of a connector.
pub(crate) fn erase<O, C: Connect<O>>(connector: C) -> Arc<dyn ErasedConnect<O>> {
    Arc::new(Erased(connector))
}
