//! A request body on its way into a stream.
//!
//! Capacity is reserved only for data that is at hand, at most [`SHARE`] of it beyond what is queued already, and what
//! is left over is given back before waiting for more: neither an idle upload nor a slow socket holds the connection's
//! window from others, and uploads that wait for it take turns (P30).
//!
//! h2 assigns nothing to a stream whose HEADERS it has still to write, and a small body would be a second turn of its task,
//! of the session's, and a second write. So what is at hand when the request is handed over, up to [`SHARE`], goes **ahead**
//! of its capacity: h2 keeps it and writes it behind the HEADERS, as far as the windows allow.
//!
//! A request of which all was handed over is **queued**: its half is over once its END_STREAM was written, which the meter
//! tells (P2). Until then SETTINGS can take back what was assigned to it. h2 takes a stream that both sides have ended for over
//! while it is queued, and does not cancel it when it is dropped: who gives it up [resets](Upload::reset) it.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;

use super::bound::Bound;
use super::head::trailers_for_h2;
use super::outgoing::Outgoing;
use crate::error::{Error, Kind};

/// Bytes of the connection's window that one stream asks for at a time.
const SHARE: usize = 64 * 1024;
/// Frames and parts of frames in one poll; then others have their turn: the response, and the tasks beside this one.
const TURN: usize = 128;

/// The sending half of a stream.
pub(super) struct Upload {
    stream: SendStream<Bytes>,
    /// Data that was taken from the body and is not sent yet.
    chunk: Bytes,
    /// Bytes still to come, where `content-length` says.
    left: Option<u64>,
    /// The wait for the window.
    stalled: Bound,
    /// More may go ahead: the stream was handed to h2 just now, and the wait for the window has no limit.
    fresh: bool,
    /// Bytes that went ahead.
    ahead: usize,
    /// See the module's text.
    queued: bool,
    /// DATA that the session had written when this was looked at last, once it is queued.
    sent: Option<u64>,
}

/// How an upload ends early.
pub(super) enum Cut {
    /// The caller's body failed, or the window stayed shut: the stream is to be reset for this reason.
    Ours(Error),
    /// The peer wants no more; the response tells why.
    Theirs,
}

impl Upload {
    /// `length` is what `content-length` says.
    pub(super) fn new(
        stream: SendStream<Bytes>,
        length: Option<u64>,
        write_timeout: Option<Duration>,
    ) -> Self {
        Self {
            stream,
            chunk: Bytes::new(),
            left: length,
            stalled: Bound::new(write_timeout),
            fresh: write_timeout.is_none(),
            ahead: 0,
            queued: false,
            sent: None,
        }
    }

    /// All was handed to h2, and some of it may wait there. It is over when the meter says so, and wakes nobody before.
    pub(super) fn is_queued(&self) -> bool {
        self.queued
    }

    /// Sends as much as goes now. Ready where it is cut; where all of it went, it [is queued](Self::is_queued).
    pub(super) fn poll(&mut self, body: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Cut> {
        if self.queued {
            return Poll::Pending;
        }
        let polled = self.poll_inner(body, cx);
        self.fresh = false;
        match polled {
            Poll::Ready(Ok(())) => {
                self.queued = true;
                Poll::Pending
            }
            Poll::Ready(Err(cut)) => Poll::Ready(cut),
            Poll::Pending => match self.stream.poll_reset(cx) {
                Poll::Ready(_) => Poll::Ready(Cut::Theirs),
                Poll::Pending => self.poll_stalled(cx),
            },
        }
    }

    /// Whether what is queued has to be written in time.
    pub(super) fn is_timed(&self) -> bool {
        !self.stalled.is_off()
    }

    /// The bound on what [is queued](Self::is_queued): the server can have taken its window back. `sent` is the DATA that the
    /// session has written, `None` before the HEADERS of this stream: a socket that takes nothing is the session's to end.
    pub(super) fn poll_queued(&mut self, sent: Option<u64>, cx: &mut Context<'_>) -> Poll<Error> {
        if sent.is_none() || sent != self.sent {
            self.sent = sent;
            self.stalled.reset();
        }
        self.stalled.poll(shut_window, cx)
    }

    /// Nothing more will be sent: the request is not complete. Its HEADERS were written; before, h2 would keep what is queued
    /// and write the reset behind it.
    pub(super) fn reset(mut self) {
        self.stream.send_reset(Reason::CANCEL);
    }

    fn poll_inner(&mut self, body: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        for _ in 0..TURN {
            if !self.chunk.is_empty() {
                if ready!(self.poll_chunk(cx, body.is_end_stream()))? {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let Poll::Ready(frame) = body.poll_frame(cx) else {
                self.stream.reserve_capacity(0);
                self.stalled.reset();
                return Poll::Pending;
            };
            let frame = match frame {
                None => return Poll::Ready(self.send(Bytes::new(), true)),
                Some(frame) => frame.map_err(Cut::Ours)?,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() && body.is_end_stream() => {
                    return Poll::Ready(self.send(data, true));
                }
                Ok(data) => self.take(data)?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(self.send_trailers(trailers));
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The next chunk; not more than was promised.
    fn take(&mut self, data: Bytes) -> Result<(), Cut> {
        if let Some(left) = &mut self.left {
            let longer = || Cut::Ours(wrong_length("longer"));
            *left = left.checked_sub(data.len() as u64).ok_or_else(longer)?;
        }
        self.chunk = data;
        Ok(())
    }

    /// Sends a part of the chunk. True: END_STREAM was sent with it.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, last: bool) -> Poll<Result<bool, Cut>> {
        let granted = match self.fresh && self.ahead + self.chunk.len() <= SHARE {
            true => {
                self.ahead += self.chunk.len();
                self.chunk.len()
            }
            false => ready!(self.poll_capacity(cx))?,
        };
        let part = self.chunk.split_to(granted.min(self.chunk.len()));
        let end = last && self.chunk.is_empty();
        Poll::Ready(self.send(part, end).map(|()| end))
    }

    /// Capacity for some of the chunk; what went ahead gets its own before.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Cut>> {
        self.stream.reserve_capacity(self.chunk.len().min(SHARE));
        let granted = match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(granted)) => granted,
                Some(Err(_)) | None => return Poll::Ready(Err(Cut::Theirs)),
            },
            granted => granted,
        };
        self.stalled.reset();
        Poll::Ready(Ok(granted))
    }

    fn send(&mut self, data: Bytes, end: bool) -> Result<(), Cut> {
        if end {
            self.check_end()?;
        }
        self.stream.send_data(data, end).map_err(|_| Cut::Theirs)
    }

    fn send_trailers(&mut self, mut trailers: HeaderMap) -> Result<(), Cut> {
        self.check_end()?;
        trailers_for_h2(&mut trailers);
        self.stream.reserve_capacity(0);
        self.stream.send_trailers(trailers).map_err(|_| Cut::Theirs)
    }

    /// Not less than was promised: a request that was cut short must not look complete.
    fn check_end(&self) -> Result<(), Cut> {
        match self.left {
            Some(left) if left > 0 => Err(Cut::Ours(wrong_length("shorter"))),
            _ => Ok(()),
        }
    }

    /// A write must make progress within `write_timeout`.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        if self.chunk.is_empty() {
            return Poll::Pending;
        }
        self.stalled.poll(shut_window, cx).map(Cut::Ours)
    }
}

/// The server allowed nothing.
fn shut_window() -> Error {
    let message = "the server's window stayed shut for `write_timeout` while the request body was sent";
    Error::new(Kind::Timeout, message)
}

/// The body keeps another length than it promised.
pub(super) fn wrong_length(how: &str) -> Error {
    Error::new(
        Kind::Body,
        format!("the request body is {how} than its `content-length`"),
    )
}
