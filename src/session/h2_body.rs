//! The response body of an HTTP/2 stream.
//!
//! A body whose end has arrived when it is handed out belongs to its reader alone. Any other one is shared with the
//! driver ([`held`](super::held)), which can end it though nobody reads it. h2 fails what it takes for open when the connection
//! ends, and a stream whose request goes on is: where the meter saw the end of the response, and all of it was read, it is
//! whole (P31).

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::classify;
use super::held::Shared;
use super::tail::{Tail, Uploading, Upstream};
use crate::error::Error;

/// The response half of a stream in h2's hands, with what is left of the request half.
pub(super) struct Live {
    // The order matters: h2 forgets the stream before the slot is free.
    incoming: RecvStream,
    upstream: Upstream,
    data_over: bool,
}

/// What a poll found.
pub(super) enum Step {
    Frame(Frame<Bytes>),
    /// Nothing comes after it.
    Last(Frame<Bytes>),
    End,
    /// The server reset the stream with NO_ERROR.
    Stopped(Error),
    /// The server reset the stream.
    Reset(Error),
    /// h2 reset the stream, since the response broke the protocol.
    Broken(Error),
    /// The connection ended after the response had.
    Cut(Error),
    Failed(Error),
}

impl Live {
    pub(super) fn tail(&self) -> &Tail {
        self.upstream.tail()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            if self.data_over {
                return Poll::Ready(match ready!(self.incoming.poll_trailers(cx)) {
                    Ok(Some(trailers)) => self.trailers(trailers),
                    Ok(None) => Step::End,
                    Err(error) => self.reset(error),
                });
            }
            match ready!(self.incoming.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.taken(data.len());
                    match (self.incoming.is_end_stream(), data.is_empty()) {
                        (false, false) => return Poll::Ready(Step::Frame(Frame::data(data))),
                        (true, false) => return Poll::Ready(Step::Last(Frame::data(data))),
                        (true, true) => return Poll::Ready(Step::End),
                        (false, true) => {}
                    }
                }
                Some(Err(error)) => return Poll::Ready(self.reset(error)),
                None => self.data_over = true,
            }
        }
    }

    /// All that the server sent, or an error.
    fn trailers(&self, trailers: HeaderMap) -> Step {
        let tail = self.tail();
        let meter = &tail.control().meter;
        if meter.are_trailers_cut(tail.id(), trailers.len()) {
            return Step::Failed(classify::trailers_cut(meter));
        }
        Step::Last(Frame::trailers(trailers))
    }

    /// The reader took a frame: the server may send as much again.
    fn taken(&mut self, bytes: usize) {
        let tail = self.upstream.tail();
        let control = tail.control();
        // h2 may wake the driver, which then looks at the meter.
        control.meter.release(tail.id(), bytes as u64);
        // Fails only for a stream that is over, whose window nobody needs.
        let _ = self.incoming.flow_control().release_capacity(bytes);
        control.unread_fell();
    }

    fn reset(&self, error: h2::Error) -> Step {
        let tail = self.tail();
        if let Some(cut) = tail.cut() {
            return Step::Failed(cut.clone().in_body());
        }
        let step = match (error.is_reset(), error.is_remote(), error.reason()) {
            // The peer's reset can hide that of h2.
            (true, true, Some(Reason::NO_ERROR)) if !tail.control().meter.is_broken(tail.id()) => {
                Step::Stopped
            }
            (true, true, _) => Step::Reset,
            (true, false, Some(Reason::PROTOCOL_ERROR)) => Step::Broken,
            // h2 forgets that it had the end where the request has none yet.
            (false, ..) if self.is_read(&error) => Step::Cut,
            _ => Step::Failed,
        };
        step(classify::in_body(tail.control(), tail.violation(), error))
    }

    /// Whether the connection ended with this error when the whole response had been read.
    fn is_read(&self, error: &h2::Error) -> bool {
        let ended = error.is_io() || (error.is_go_away() && error.is_remote());
        ended && self.tail().control().meter.is_read(self.tail().id())
    }

    /// The response half is over.
    fn end(self) -> Option<Uploading> {
        drop(self.incoming);
        self.upstream.end()
    }
}

/// See [`Body`](super::Body).
pub(super) struct H2Body {
    source: Source,
    /// The request, while it outlives the response: it goes on until it is done or this body is dropped.
    upload: Option<Uploading>,
    /// The request had a body.
    uploads: bool,
    /// Bytes still to come, where that is known.
    left: Option<u64>,
    /// There is no body to such a response, whatever `content-length` tells (RFC 9110 §8.6).
    bodyless: bool,
    /// Some of it came.
    began: bool,
}

/// How long a response's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// The response has none.
    None,
    /// What `content-length` told.
    Told(u64),
    Unknown,
}

impl Length {
    fn known(self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Told(length) => Some(length),
            Self::Unknown => None,
        }
    }
}

enum Source {
    Over,
    Own(Live),
    Shared(Shared),
}

impl H2Body {
    pub(super) fn new(incoming: RecvStream, upstream: Upstream, uploads: bool, length: Length) -> Self {
        let over = incoming.is_end_stream();
        let live = Live {
            incoming,
            upstream,
            data_over: false,
        };
        let (source, upload) = if over {
            (Source::Over, live.end())
        } else {
            (Source::new(live), None)
        };
        Self {
            source,
            upload,
            uploads,
            left: length.known(),
            bodyless: length == Length::None,
            began: false,
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let step = match &mut self.source {
            Source::Over => return Poll::Ready(None),
            Source::Own(live) => ready!(live.poll(cx)),
            Source::Shared(held) => ready!(held.poll(cx)),
        };
        Poll::Ready(match step {
            Step::Frame(frame) => Some(Ok(self.count(frame))),
            Step::Last(frame) => {
                self.end();
                Some(Ok(self.count(frame)))
            }
            Step::End => {
                self.end();
                None
            }
            // All that was to come has come: the response is complete, however the server ends the stream (P31).
            Step::Reset(_) | Step::Stopped(_) if self.left == Some(0) => {
                self.end();
                None
            }
            Step::Cut(_) if self.left.is_none_or(|left| left == 0) => {
                self.end();
                None
            }
            // h2 misses what `content-length` tells of the body that a 304 does not have, where its end comes by itself.
            Step::Broken(_) if self.bodyless && !self.began => {
                self.end();
                None
            }
            // Nothing told how much would come, some came, and the server wants no more of the request though nothing went
            // wrong (RFC 9113 §8.1): Node ends large bodies so where its program did not read the request.
            Step::Stopped(_) if self.uploads && self.left.is_none() && self.began => {
                self.end();
                None
            }
            Step::Failed(error)
            | Step::Cut(error)
            | Step::Stopped(error)
            | Step::Reset(error)
            | Step::Broken(error) => Some(Err(self.fail(error))),
        })
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        self.began = true;
        if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
            *left = left.saturating_sub(data.len() as u64);
        }
        frame
    }

    fn end(&mut self) {
        let live = match std::mem::replace(&mut self.source, Source::Over) {
            Source::Over => None,
            Source::Own(live) => Some(live),
            Source::Shared(held) => held.take(),
        };
        self.upload = live.and_then(Live::end);
    }

    fn fail(&mut self, error: Error) -> Error {
        let control = match &self.source {
            Source::Over => None,
            Source::Own(live) => Some(&**live.tail().control()),
            Source::Shared(held) => Some(held.control()),
        };
        let error = match control {
            Some(control) => error.with_origin(&control.address().origin),
            None => error,
        };
        self.source = Source::Over;
        error
    }

    pub(super) fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Over)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match (self.is_end_stream(), self.left) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(left)) => SizeHint::with_exact(left),
            (false, None) => SizeHint::default(),
        }
    }
}

impl Source {
    /// What has arrived whole needs the driver only for `body_idle_timeout`.
    fn new(live: Live) -> Self {
        let tail = live.tail();
        let control = Arc::clone(tail.control());
        if !control.bodies.is_timed() && control.meter.is_settled(tail.id()) {
            return Self::Own(live);
        }
        Self::Shared(Shared::new(control, live))
    }
}
