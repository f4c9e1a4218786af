//! The interim responses (1xx) to one request, counted as h2 hands them out (P44).
//!
//! The meter sees them earlier, but cannot tell the last one from the final response; it bounds what piles up while
//! nobody polls the request.

use std::task::{Context, Poll};

use h2::client::ResponseFuture;

use super::meter::{Meter, Violation};
use super::tail::Tail;

/// Those that came so far.
pub(super) struct Interim {
    /// Heads that did not end their stream, on the whole session, when the request was sent: until there are more, none
    /// of them can be an interim response to it, and h2 need not be asked.
    heads: u64,
    count: u32,
    /// Of their names and values.
    bytes: u64,
}

impl Interim {
    /// Of a request that is about to be sent.
    pub(super) fn from_now(meter: &Meter) -> Self {
        Self {
            heads: meter.open_heads(),
            count: 0,
            bytes: 0,
        }
    }

    /// Takes out those that wait, before the response is polled, which would skip them.
    ///
    /// # Errors
    ///
    /// They are more than the bound.
    pub(super) fn take_in(
        &mut self,
        response: &mut ResponseFuture,
        tail: &Tail,
        cx: &mut Context<'_>,
    ) -> Result<(), Violation> {
        if tail.control().meter.open_heads() == self.heads {
            return Ok(());
        }
        // The response itself tells the errors.
        while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            let headers = interim.headers().iter();
            let size: usize = headers
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum();
            self.count += 1;
            self.bytes += size as u64;
            let found = tail
                .control()
                .meter
                .too_interim(tail.id(), self.count, self.bytes);
            found.map_or(Ok(()), Err)?;
        }
        Ok(())
    }
}
