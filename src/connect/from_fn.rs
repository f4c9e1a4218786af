//! A connector from an async function.

use std::fmt;

use super::{Connect, Connection, Offer};
use crate::error::Error;

/// Makes a connector from an async function; see [`from_fn`].
#[derive(Clone)]
pub struct FromFn<F> {
    function: F,
}

/// Makes a connector from a function that returns a future.
///
/// The future must not borrow from the key: take what it needs before the `async` block.
///
/// ```
/// use h2pool::connect::{Connection, from_fn};
/// use h2pool::{Error, Origin};
///
/// let unix = from_fn(|_key: &Origin, _offer| async {
///     let socket = tokio::net::UnixStream::connect("/run/app.sock").await.map_err(Error::connect)?;
///     Ok(Connection::new(socket, http::Version::HTTP_2))
/// });
/// # fn check(_: impl h2pool::Connect<Origin>) {}
/// # check(unix);
/// ```
pub fn from_fn<O, F, Fut>(function: F) -> FromFn<F>
where
    F: Fn(&O, Offer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Connection, Error>> + Send + 'static,
{
    FromFn { function }
}

impl<O, F, Fut> Connect<O> for FromFn<F>
where
    F: Fn(&O, Offer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Connection, Error>> + Send + 'static,
{
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
        (self.function)(key, offer)
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}
