//! A request body on its way into a stream.
//!
//! Capacity is reserved only for data that is at hand, and what is left over is given back before waiting for more, so
//! that an idle upload never holds the connection's window from others (P30). The request half is over when h2 accepts
//! END_STREAM with capacity assigned to all data before it (P2).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use tokio::time::Sleep;

use super::outgoing::Outgoing;
use crate::error::{Error, Kind};

/// The sending half of a stream.
pub(super) struct Upload {
    stream: SendStream<Bytes>,
    /// Data that was taken from the body and is not sent yet.
    chunk: Bytes,
    trailers: Option<HeaderMap>,
    write_timeout: Option<Duration>,
    stalled: Option<Pin<Box<Sleep>>>,
}

/// How an upload ends early.
pub(super) enum Cut {
    /// The caller's body failed, or the window stayed shut: the stream is reset with this error.
    Ours(Error),
    /// The peer wants no more; the response tells why.
    Theirs,
}

impl Upload {
    pub(super) fn new(stream: SendStream<Bytes>, write_timeout: Option<Duration>) -> Self {
        Self {
            stream,
            chunk: Bytes::new(),
            trailers: None,
            write_timeout,
            stalled: None,
        }
    }

    /// Sends as much as goes now.
    pub(super) fn poll(&mut self, body: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let result = match self.poll_inner(body, cx) {
            Poll::Pending => match self.stream.poll_reset(cx) {
                Poll::Ready(_) => Poll::Ready(Err(Cut::Theirs)),
                Poll::Pending => self.poll_stalled(cx),
            },
            ready => ready,
        };
        if let Poll::Ready(Err(Cut::Ours(_))) = &result {
            self.stream.send_reset(Reason::CANCEL);
        }
        result
    }

    fn poll_inner(&mut self, body: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        loop {
            if !self.chunk.is_empty() {
                let last = self.trailers.is_none() && body.is_end_stream();
                match self.poll_chunk(cx, last) {
                    Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(false)) => continue,
                    Poll::Ready(Err(cut)) => return Poll::Ready(Err(cut)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match body.poll_frame(cx) {
                Poll::Pending => {
                    self.stream.reserve_capacity(0);
                    self.stalled = None;
                    return Poll::Pending;
                }
                Poll::Ready(None) => return Poll::Ready(self.send(Bytes::new(), true)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Cut::Ours(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() && body.is_end_stream() => {
                        return Poll::Ready(self.send(data, true));
                    }
                    Ok(data) => self.chunk = data,
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.stream.reserve_capacity(0);
                            return Poll::Ready(self.stream.send_trailers(trailers).map_err(|_| Cut::Theirs));
                        }
                    }
                },
            }
        }
    }

    /// Sends a part of the chunk. True: END_STREAM was sent with it.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, last: bool) -> Poll<Result<bool, Cut>> {
        self.stream.reserve_capacity(self.chunk.len());
        let granted = match self.stream.capacity() {
            0 => match self.stream.poll_capacity(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(granted))) => granted,
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Cut::Theirs)),
            },
            granted => granted,
        };
        self.stalled = None;
        let part = self.chunk.split_to(granted.min(self.chunk.len()));
        let end = last && self.chunk.is_empty();
        Poll::Ready(self.send(part, end).map(|()| end))
    }

    fn send(&mut self, data: Bytes, end: bool) -> Result<(), Cut> {
        self.stream.send_data(data, end).map_err(|_| Cut::Theirs)
    }

    /// A write must make progress within `write_timeout`.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let Some(timeout) = self.write_timeout.filter(|_| !self.chunk.is_empty()) else {
            return Poll::Pending;
        };
        let sleep = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        sleep.as_mut().poll(cx).map(|()| {
            let message =
                "the server's window stayed shut for `write_timeout` while the request body was sent";
            Err(Cut::Ours(Error::new(Kind::Timeout, message)))
        })
    }
}
