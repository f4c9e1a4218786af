//! Response bodies: the deterministic pattern, trailers, bodies that break off, and the guard that ends a request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use super::counts::Running;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Any response body.
pub type Boxed = UnsyncBoxBody<Bytes, BoxError>;

/// The byte at `offset` of every `/bytes` body and of uploads that `/upload-count` calls good.
pub fn pattern_at(offset: u64) -> u8 {
    // A prime period, so that no chunk boundary hides a shifted or repeated chunk.
    u8::try_from(offset % 251).unwrap()
}

/// `length` bytes of the pattern from `offset` on.
pub fn pattern(offset: u64, length: usize) -> Bytes {
    (offset..).take(length).map(pattern_at).collect()
}

/// Whether `data` is what the pattern has at `offset`.
pub fn is_pattern(offset: u64, data: &[u8]) -> bool {
    (offset..)
        .zip(data)
        .all(|(offset, byte)| pattern_at(offset) == *byte)
}

/// A body that is there at once.
pub fn full(data: impl Into<Bytes>) -> Boxed {
    Full::new(data.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// No body.
pub fn empty() -> Boxed {
    full(Bytes::new())
}

/// The pattern in chunks of 16 KiB, its length known beforehand.
pub fn pattern_body(length: u64) -> Boxed {
    Pattern { sent: 0, length }.boxed_unsync()
}

/// Data, then trailers.
pub fn with_trailers(data: impl Into<Bytes>, trailers: HeaderMap) -> Boxed {
    let frames = [Ok(Frame::data(data.into())), Ok(Frame::trailers(trailers))];
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// Data, then after 10 ms an error: the connection or the stream breaks. The pause lets the head and the data leave;
/// an h2 server throws away what is still queued when a stream is reset.
pub fn broken_off(data: impl Into<Bytes>) -> Boxed {
    let data = data.into();
    let first = stream::once(async { Ok(Frame::data(data)) });
    let last = stream::once(async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Err("the handler breaks off".into())
    });
    StreamBody::new(first.chain(last)).boxed_unsync()
}

struct Pattern {
    sent: u64,
    length: u64,
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // 65 periods: every chunk is a slice of the same bytes.
        const CHUNK: u64 = 251 * 65;
        let left = self.length - self.sent;
        if left == 0 {
            return Poll::Ready(None);
        }
        let length = left.min(CHUNK);
        let chunk = pattern(self.sent, usize::try_from(length).unwrap());
        self.sent += length;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.sent)
    }
}

/// A body that keeps its request running until it has ended or is dropped.
pub struct Guarded {
    pub(super) inner: Boxed,
    pub(super) running: Option<Running>,
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if frame.is_none() {
            self.running = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
