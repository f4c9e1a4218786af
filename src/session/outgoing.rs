//! A request body on its way out, kept so that it can be sent again.
//!
//! The frames that were sent are kept (`Bytes` are shared, not copied) until the response's headers arrive, as long as
//! they fit in `replay_buffer`; then, or beyond that, they are let go, and the body can no longer be replayed (P21). Of many
//! small ones the bytes are copied, as a share in them takes more memory than they do.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use smallvec::SmallVec;

use crate::error::{BoxError, Error, Kind};

/// So many frames are kept as they are ..
const SHARED: usize = 64;
/// .. then those below this size are copied, one behind the other.
const SMALL: usize = 256;

/// A request body with what was sent of it.
pub(crate) struct Outgoing {
    body: UnsyncBoxBody<Bytes, BoxError>,
    /// Most bodies are of one frame.
    kept: SmallVec<[Kept; 1]>,
    kept_bytes: usize,
    /// How many more bytes may be kept; `None` once the body cannot be replayed.
    keep: Option<usize>,
    /// The next kept frame to be sent again.
    next: usize,
    ended: bool,
    /// Of the whole body, where it is known.
    size: Option<u64>,
}

enum Kept {
    Data(Bytes),
    /// Several small ones.
    Copied(BytesMut),
    Trailers(Box<http::HeaderMap>),
}

impl Outgoing {
    /// `None` for a body that has ended before it began.
    pub(crate) fn new<B>(body: B, keep: usize) -> Option<Self>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return None;
        }
        let size = body.size_hint().exact();
        let body = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
        let body = body.map_err(Into::into).boxed_unsync();
        let keep = (keep > 0).then_some(keep);
        Some(Self {
            body,
            kept: SmallVec::new(),
            kept_bytes: 0,
            keep,
            next: 0,
            ended: false,
            size,
        })
    }

    /// Starts again from the first frame. False where that is not possible.
    pub(crate) fn rewind(&mut self) -> bool {
        let untouched = self.kept.is_empty() && !self.ended && self.next == 0;
        if self.keep.is_none() && !(untouched && self.kept_bytes == 0) {
            return false;
        }
        self.next = 0;
        true
    }

    /// The response has come: nothing will be sent again.
    pub(crate) fn let_go(&mut self) {
        self.keep = None;
        self.kept_bytes = usize::MAX;
        if self.next >= self.kept.len() {
            self.kept = SmallVec::new();
            self.next = 0;
        }
    }

    /// The exact size, where it is known and nothing was sent yet, or everything is to be sent again.
    pub(crate) fn exact_size(&self) -> Option<u64> {
        let untouched = !self.ended && self.kept_bytes == 0;
        self.size
            .filter(|_| self.next == 0 && (untouched || !self.kept.is_empty()))
    }

    /// Whether all frames were handed out.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.next >= self.kept.len() && (self.ended || self.body.is_end_stream())
    }

    /// The next frame.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(kept) = self.kept.get(self.next) {
            self.next += 1;
            let frame = match kept {
                Kept::Data(data) => Frame::data(data.clone()),
                Kept::Copied(data) => Frame::data(Bytes::copy_from_slice(data)),
                Kept::Trailers(trailers) => Frame::trailers(trailers.as_ref().clone()),
            };
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.keep_frame(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.ended = true;
                self.let_go();
                let failed = Error::new(Kind::Body, "the request body failed").with_source(error);
                Poll::Ready(Some(Err(failed)))
            }
        }
    }

    fn keep_frame(&mut self, frame: &Frame<Bytes>) {
        let size = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => data.len(),
            (None, Some(trailers)) => trailers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum(),
            (None, None) => 0,
        };
        // Nothing is nothing the second time, too.
        if size == 0 && frame.is_data() && self.keep.is_some() {
            return;
        }
        match self.keep {
            Some(limit) if self.kept_bytes.saturating_add(size) <= limit => {
                self.kept_bytes += size;
                match (frame.data_ref(), frame.trailers_ref()) {
                    (Some(data), _) => self.keep_data(data),
                    (None, Some(trailers)) => {
                        self.kept.push(Kept::Trailers(Box::new(trailers.clone())));
                    }
                    (None, None) => {}
                }
                self.next = self.kept.len();
            }
            _ => self.let_go(),
        }
    }

    fn keep_data(&mut self, data: &Bytes) {
        if self.kept.len() < SHARED || data.len() >= SMALL {
            return self.kept.push(Kept::Data(data.clone()));
        }
        match self.kept.last_mut() {
            Some(Kept::Copied(copied)) => copied.extend_from_slice(data),
            _ => self.kept.push(Kept::Copied(BytesMut::from(data.as_ref()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn frames_of(body: &mut Outgoing) -> Vec<Frame<Bytes>> {
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        std::iter::from_fn(|| match body.poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => Some(frame),
            _ => None,
        })
        .collect()
    }

    fn frames(body: &mut Outgoing) -> Vec<Vec<u8>> {
        let frames = frames_of(body).into_iter();
        frames.map(|frame| frame.into_data().unwrap().to_vec()).collect()
    }

    fn chunks(sizes: &[usize]) -> impl Body<Data = Bytes, Error = std::io::Error> + Send + 'static {
        let frames: Vec<_> = sizes
            .iter()
            .map(|size| Ok(Frame::data(Bytes::from(vec![7; *size]))))
            .collect();
        StreamBody::new(futures_util::stream::iter(frames))
    }

    #[test]
    fn what_fits_is_sent_again_from_the_start() {
        // P21
        let mut body = Outgoing::new(chunks(&[10, 20, 30]), 64).unwrap();
        let first = frames(&mut body);
        assert!(body.is_end_stream() && body.rewind() && !body.is_end_stream());
        assert_eq!(frames(&mut body), first);
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn the_size_is_told_again_with_the_replay() {
        // P21, P32
        let mut body = Outgoing::new(Full::new(Bytes::from_static(b"four")), 64).unwrap();
        assert_eq!(body.exact_size(), Some(4));
        assert_eq!(frames(&mut body).len(), 1);
        assert_eq!(body.exact_size(), None);
        assert!(body.rewind());
        assert_eq!(body.exact_size(), Some(4));
        body.let_go();
        assert_eq!(frames(&mut body).len(), 1);
        assert_eq!(body.exact_size(), None);
    }

    #[test]
    fn what_does_not_fit_is_sent_once_and_an_untouched_body_always_can_be() {
        // P21
        let mut body = Outgoing::new(chunks(&[10, 60]), 64).unwrap();
        assert!(body.rewind());
        assert_eq!(frames(&mut body).len(), 2);
        assert!(!body.rewind());
        let mut off = Outgoing::new(chunks(&[1]), 0).unwrap();
        assert!(off.rewind(), "never polled");
        assert_eq!(frames(&mut off).len(), 1);
        assert!(!off.rewind());
    }

    #[test]
    fn a_body_half_sent_again_and_then_let_go_still_ends() {
        // P21
        let mut body = Outgoing::new(chunks(&[1, 2, 3]), 64).unwrap();
        assert_eq!(frames(&mut body).len(), 3);
        assert!(body.rewind());
        let waker = noop_waker();
        let _ = body.poll_frame(&mut Context::from_waker(&waker));
        body.let_go();
        assert_eq!(frames(&mut body), [vec![7; 2], vec![7; 3]]);
        assert!(!body.rewind());
    }

    #[test]
    fn frames_without_bytes_are_not_kept() {
        // P21: they would be without bound
        let mut body = Outgoing::new(chunks(&[0, 1, 0, 0, 2]), 64).unwrap();
        assert_eq!(frames(&mut body).len(), 5);
        assert!(body.rewind());
        assert_eq!(frames(&mut body), [vec![7; 1], vec![7; 2]]);
    }

    #[test]
    fn many_small_frames_are_kept_up_to_the_limit_in_memory_of_its_order() {
        // P21
        let mut body = Outgoing::new(chunks(&[1; 65_536]), 64 * 1024).unwrap();
        assert_eq!(frames(&mut body).len(), 65_536);
        assert!(body.rewind() && body.kept.len() == SHARED + 1);
        assert_eq!(frames(&mut body).concat(), [7; 65_536]);
        let mut over = Outgoing::new(chunks(&[1; 65_537]), 64 * 1024).unwrap();
        assert_eq!(frames(&mut over).len(), 65_537);
        assert!(!over.rewind());
    }

    #[test]
    fn small_and_large_frames_are_sent_again_in_their_order() {
        // P21
        let sizes: Vec<usize> = (0..200).map(|at| [1, 300, 2, 255, 256, 0][at % 6]).collect();
        let mut text = (0..=u8::MAX).cycle();
        let sent: Vec<Bytes> = sizes
            .iter()
            .map(|size| (0..*size).map(|_| text.next().unwrap_or_default()).collect())
            .collect();
        let source: Vec<_> = sent
            .iter()
            .cloned()
            .map(Frame::data)
            .map(Ok::<_, BoxError>)
            .collect();
        let mut body = Outgoing::new(StreamBody::new(futures_util::stream::iter(source)), 64 * 1024).unwrap();
        for _ in 0..3 {
            assert_eq!(frames(&mut body).concat(), sent.concat());
            assert!(body.rewind());
        }
    }

    #[test]
    fn trailers_are_sent_again_and_count() {
        // P21, P31
        let trailers = http::HeaderMap::from_iter([(http::header::ETAG, "\"5\"".parse().unwrap())]);
        let again = |keep| {
            let frames = [
                Ok(Frame::data(Bytes::from_static(b"x"))),
                Ok::<_, std::io::Error>(Frame::trailers(trailers.clone())),
            ];
            let source = StreamBody::new(futures_util::stream::iter(frames));
            let mut body = Outgoing::new(source, keep).unwrap();
            assert_eq!(frames_of(&mut body).len(), 2);
            body.rewind().then(|| frames_of(&mut body))
        };
        let sent = again(8).unwrap();
        assert_eq!(sent[0].data_ref().unwrap(), "x");
        assert_eq!(sent[1].trailers_ref(), Some(&trailers));
        assert!(again(7).is_none());
    }

    #[test]
    fn an_empty_body_is_none() {
        assert!(Outgoing::new(Full::new(Bytes::new()), 64).is_none());
    }
}
