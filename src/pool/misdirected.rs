//! Misdirected requests (421): sent again on a session that nobody else uses (P23).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::stream;
use http::Response;
use http_body::Body as _;
use http_body_util::StreamBody;

use super::acquire::{Held, Waited, Want};
use super::request::Exchange;
use crate::error::Error;
use crate::origin::{Key, Origin};
use crate::session::Body;
use crate::timer::Timer;

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
        // While it waits, it holds neither the slot nor the permit of what it was answered.
        let (response, whole) = read_small(response, self.entry.key.origin()).await;
        if whole {
            self.let_go();
        }
        let waited = pin!(Waited::default());
        let own = self.lifeline.acquire_own(&mut self.entry, want.empty, waited);
        let Ok(own) = own.await else {
            self.let_go();
            return Ok(Redirected::Not(Box::new(response)));
        };
        self.misdirected = true;
        self.tell_replay(&"the server answered 421 (Misdirected Request)", "misdirected");
        drop(response);
        // Where the response held a permit all the time, the request goes on with that: the others may all be held so.
        let mut waited = pin!(Waited::new(true));
        let held = self.lifeline.with_permit(own, waited.as_mut(), &mut self.permit);
        let held = match held.await? {
            Some(held) => held,
            None => self.acquire_own(want, waited).await?,
        };
        Ok(Redirected::To(held))
    }

    /// Another session of its own, for a request that lost the one it had, or left its runtime: a shared one would answer as
    /// before.
    pub(super) async fn acquire_own(
        &mut self,
        want: Want,
        mut waited: Pin<&mut Waited>,
    ) -> Result<Held<O>, Error> {
        loop {
            self.let_go();
            let own = self
                .lifeline
                .acquire_own(&mut self.entry, want.empty, waited.as_mut());
            let own = own.await?;
            let held = self.lifeline.with_permit(own, waited.as_mut(), &mut self.permit);
            if let Some(held) = held.await? {
                return Ok(held);
            }
        }
    }
}

/// The most bytes of a body that are read before its request waits for a session of its own, and for how long.
const SMALL: usize = 16 * 1024;
const SOON: Duration = Duration::from_millis(100);

/// Reads a small body, so that nothing is held for it; whether that was all of it. What was read of a larger or slower one
/// comes before its rest.
async fn read_small(response: Response<Body>, origin: &Origin) -> (Response<Body>, bool) {
    if response.body().is_end_stream() {
        return (response, true);
    }
    let (parts, mut body) = response.into_parts();
    let (mut frames, mut left) = (Vec::new(), SMALL);
    let mut timer = pin!(Timer::default());
    let whole = poll_fn(|cx| {
        while let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) {
            let Some(frame) = frame else {
                return Poll::Ready(true);
            };
            let size = frame
                .as_ref()
                .map_or(SMALL, |frame| frame.data_ref().map_or(0, bytes::Bytes::len));
            let over = size >= left;
            left = left.saturating_sub(size);
            frames.push(frame);
            if over {
                return Poll::Ready(false);
            }
        }
        timer.as_mut().poll_here(SOON, cx).map(|_| false)
    })
    .await;
    let read = stream::iter(frames);
    let body = match whole {
        true => Body::other(StreamBody::new(read), origin.clone()),
        false => {
            let rest = stream::poll_fn(move |cx| Pin::new(&mut body).poll_frame(cx));
            Body::other(
                StreamBody::new(stream::StreamExt::chain(read, rest)),
                origin.clone(),
            )
        }
    };
    (Response::from_parts(parts, body), whole)
}
