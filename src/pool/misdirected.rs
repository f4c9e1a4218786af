//! Misdirected requests (421): sent again on a session that nobody else uses (P23).

use std::pin::{Pin, pin};

use http::Response;

use super::acquire::{Held, Waited, Want};
use super::request::Exchange;
use crate::error::Error;
use crate::origin::Key;
use crate::session::Body;

/// What becomes of a misdirected request.
pub(super) enum Redirected<O: Key> {
    To(Held<O>),
    /// The response is the answer.
    Not(Box<Response<Body>>),
}

impl<O: Key> Exchange<O> {
    /// A misdirected request goes to a session of its own, where it can.
    pub(super) async fn redirect(
        &mut self,
        response: Response<Body>,
        want: Want,
    ) -> Result<Redirected<O>, Error> {
        // The body went with the response: over HTTP/1.1, or with an upload that goes on.
        let gone = self.body.is_none() && !want.empty;
        if gone || !self.rewind() {
            return Ok(Redirected::Not(Box::new(response)));
        }
        self.let_go();
        let waited = pin!(Waited::default());
        let own = self.lifeline.acquire_own(&self.entry, want.empty, waited);
        let Ok(own) = own.await else {
            return Ok(Redirected::Not(Box::new(response)));
        };
        self.misdirected = true;
        self.entry.tally.replayed();
        // Its permit, which may be the only one, goes before another is asked for.
        drop(response);
        let own = self.lifeline.with_permit(own, pin!(Waited::new(true))).await?;
        Ok(Redirected::To(own))
    }

    /// Another session of its own, for a request that lost the one it had: a shared one would answer as before.
    pub(super) async fn acquire_own(
        &mut self,
        want: Want,
        mut waited: Pin<&mut Waited>,
    ) -> Result<Held<O>, Error> {
        self.let_go();
        let own = self
            .lifeline
            .acquire_own(&self.entry, want.empty, waited.as_mut())
            .await?;
        self.lifeline.with_permit(own, waited).await
    }
}
