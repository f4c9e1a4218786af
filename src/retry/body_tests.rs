//! Recording and replaying: once, again, over the limit, one reader after the other.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use http::HeaderMap;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, task};

use super::*;

/// A body by script: what it gives, one frame for each poll; None is a poll that is pending.
#[derive(Default)]
pub(super) struct Script(pub(super) VecDeque<Option<Result<Frame<Bytes>, io::Error>>>);

impl Script {
    pub(super) fn of(chunks: &[&'static str]) -> Self {
        Self(
            chunks
                .iter()
                .map(|chunk| Some(Ok(Frame::data(Bytes::from_static(chunk.as_bytes())))))
                .collect(),
        )
    }

    pub(super) fn then(mut self, step: Option<Result<Frame<Bytes>, io::Error>>) -> Self {
        self.0.push_back(step);
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.0.pop_front() {
            Some(Some(frame)) => Poll::Ready(Some(frame)),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

pub(super) async fn next<B>(body: &mut ReplayBody<B>) -> Option<Bytes>
where
    ReplayBody<B>: Body<Data = Bytes, Error = BoxError>,
{
    body.frame()
        .await
        .map(|frame| frame.unwrap().into_data().unwrap())
}

pub(super) async fn text<B>(body: ReplayBody<B>) -> String
where
    ReplayBody<B>: Body<Data = Bytes, Error = BoxError>,
{
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn an_empty_body_needs_no_tape() {
    // R10
    let body = ReplayBody::new(Empty::<Bytes>::new(), 0);
    assert!(body.tape.is_none() && body.is_end_stream() && body.is_replayable() && body.is_recorded());
    assert!(body.replay().is_end_stream());
    assert_eq!(body.replay().size_hint().exact(), Some(0));
}

#[tokio::test]
async fn bytes_are_shared_not_copied() {
    // R10
    let data = Bytes::from(vec![7; 1_000]);
    let mut first = ReplayBody::new(Full::new(data.clone()), 1_000);
    let mut again = first.replay();
    assert_eq!(next(&mut first).await.unwrap().as_ptr(), data.as_ptr());
    assert!(
        first.is_end_stream() && first.is_recorded(),
        "known without another poll"
    );
    assert_eq!(next(&mut again).await.unwrap().as_ptr(), data.as_ptr());
    assert!(again.is_end_stream());
}

#[tokio::test]
async fn a_reader_dropped_before_it_was_polled_costs_nothing() {
    // R10: linkerd2#15649 sent the first chunk twice.
    let first = ReplayBody::new(Script::of(&["a", "b"]), 100);
    let again = first.replay();
    drop(first);
    assert_eq!(text(again).await, "ab");
}

#[tokio::test]
async fn a_reader_dropped_in_the_middle_is_continued() {
    // R10
    let mut first = ReplayBody::new(Script::of(&["a", "b", "c"]), 100);
    let mut second = first.replay();
    assert_eq!(next(&mut first).await.unwrap(), "a");
    drop(first);
    assert_eq!(next(&mut second).await.unwrap(), "a");
    assert_eq!(next(&mut second).await.unwrap(), "b");
    let third = second.replay();
    drop(second);
    assert_eq!(text(third).await, "abc");
}

#[tokio::test]
async fn trailers_are_replayed() {
    // R10
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "5".parse().unwrap());
    let script = Script::of(&["a"]).then(Some(Ok(Frame::trailers(trailers.clone()))));
    let body = ReplayBody::new(script, 100);
    for reader in [body.replay(), body.replay()] {
        let collected = reader.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "a");
    }
}

#[tokio::test]
async fn exactly_the_limit_is_kept_and_a_byte_more_is_not() {
    // R10
    let exact = ReplayBody::new(Script::of(&["ab", "cd"]), 4);
    assert_eq!(text(exact.replay()).await, "abcd");
    assert!(exact.is_replayable());

    let over = ReplayBody::new(Script::of(&["ab", "cde", "f"]), 4);
    assert_eq!(
        text(over.replay()).await,
        "abcdef",
        "the attempt under way goes on"
    );
    assert!(!over.is_replayable() && !over.is_recorded());
    assert!(over.replay().collect().await.is_err(), "never half a body");
}

#[tokio::test]
async fn trailers_and_tiny_frames_count_too() {
    // R10
    let mut trailers = HeaderMap::new();
    trailers.insert("name", "value".parse().unwrap());
    let body = ReplayBody::new(Script::default().then(Some(Ok(Frame::trailers(trailers)))), 8);
    assert!(body.replay().collect().await.unwrap().trailers().is_some());
    assert!(!body.is_replayable());

    for (count, limit, kept) in [(65_536, 65_536, true), (65_537, 1_000_000, false)] {
        let frames = (0..count)
            .map(|_| Some(Ok(Frame::data(Bytes::from_static(b"x")))))
            .collect();
        let body = ReplayBody::new(Script(frames), limit);
        assert_eq!(text(body.replay()).await.len(), count);
        assert_eq!(
            body.is_replayable(),
            kept,
            "so many frames cost memory beyond their bytes"
        );
    }
}

#[tokio::test]
async fn a_source_that_fails_is_not_replayed() {
    // R10
    let script = Script::of(&["a"]).then(Some(Err(io::Error::other("disk"))));
    let body = ReplayBody::new(script, 100);
    let error = body.replay().collect().await.unwrap_err();
    assert_eq!(error.downcast::<io::Error>().unwrap().to_string(), "disk");
    assert!(!body.is_replayable());
}

#[tokio::test]
async fn any_buf_and_any_stream_will_do() {
    // R10 (P29)
    let chunks =
        ["ab", "c"].map(|text| Ok::<_, io::Error>(Frame::data(VecDeque::from(text.as_bytes().to_vec()))));
    let body = ReplayBody::new(StreamBody::new(futures_util::stream::iter(chunks)), 100);
    assert_eq!(text(body.replay()).await, "abc");
    assert_eq!(text(body.replay()).await, "abc");
}

#[test]
fn the_size_counts_down_from_what_the_source_said() {
    // R10
    let first = ReplayBody::new(Full::new(Bytes::from_static(b"hello")), 100);
    assert_eq!(first.size_hint().exact(), Some(5));
    let mut again = task::spawn(first.replay());
    let frame = assert_ready!(again.enter(|cx, body| body.poll_frame(cx)));
    assert!(frame.unwrap().is_ok());
    assert_eq!(again.size_hint().exact(), Some(0));
    assert_eq!(first.replay().size_hint().exact(), Some(5));
}

#[test]
fn it_is_send_and_unpin_whatever_the_body() {
    // R1: hyper-util's client asks for both.
    fn check<T: Send + Unpin>(_: &T) {}
    let pinned = StreamBody::new(futures_util::stream::once(async {
        Ok::<_, io::Error>(Frame::data(Bytes::new()))
    }));
    check(&ReplayBody::new(pinned, 1));
}

proptest! {
    #[test]
    fn whatever_the_readers_do_a_whole_read_is_the_body(
        sizes in prop::collection::vec(0..40_usize, 0..12), stops in prop::collection::vec(0..12_usize, 0..6),
        limit in 0..400_usize,
    ) {
        // R10: readers that stop anywhere, one after the other; then one reads to the end.
        let mut number = 0_u8;
        let mut chunk = |size: usize| {
            let bytes: Vec<u8> = (0..size).map(|_| { number = number.wrapping_add(1); number }).collect();
            Bytes::from(bytes)
        };
        let chunks: Vec<Bytes> = sizes.iter().map(|size| chunk(*size)).collect();
        let expected = chunks.concat();
        let script = Script(chunks.into_iter().map(|chunk| Some(Ok(Frame::data(chunk)))).collect());
        let body = ReplayBody::new(script, limit);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for stop in stops {
                if !body.is_replayable() {
                    break;
                }
                let mut reader = body.replay();
                let mut read = Vec::new();
                for _ in 0..stop {
                    match poll_fn(|cx| Pin::new(&mut reader).poll_frame(cx)).await {
                        Some(frame) => read.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                        None => break,
                    }
                }
                assert!(expected.starts_with(&read));
            }
            let replayable = body.is_replayable();
            match body.replay().collect().await {
                Ok(read) => assert_eq!(read.to_bytes(), expected),
                Err(_) => assert!(!replayable),
            }
            assert!(body.is_replayable() || expected.len() > limit);
        });
    }
}

#[test]
fn the_tape_is_freed_with_its_last_reader() {
    // R10 R12
    let data = Arc::new(());
    struct Held(#[expect(dead_code, reason = "only its lifetime matters")] Arc<()>);
    impl Body for Held {
        type Data = Bytes;
        type Error = io::Error;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Pending
        }
    }
    let body = ReplayBody::new(Held(data.clone()), 100);
    let mut reader = task::spawn(body.replay());
    assert_pending!(reader.enter(|cx, body| body.poll_frame(cx)));
    drop(body);
    assert_eq!(Arc::strong_count(&data), 2);
    drop(reader);
    assert_eq!(Arc::strong_count(&data), 1);
}

#[test]
fn a_body_over_its_limit_streams_on_with_its_pauses() {
    // R10
    let more = |text: &'static str| Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
    let script = Script::of(&["ab"])
        .then(None)
        .then(more("cd"))
        .then(None)
        .then(more("ef"));
    let mut body = task::spawn(ReplayBody::new(script, 2));
    let mut given = Vec::new();
    for pause in [false, true, false, true, false] {
        let polled = body.enter(|cx, body| body.poll_frame(cx));
        assert_eq!(polled.is_pending(), pause);
        if let Poll::Ready(frame) = polled {
            given.extend(frame.unwrap().unwrap().into_data().unwrap());
        }
    }
    assert_eq!(given, b"abcdef");
    assert!(!body.is_replayable() && assert_ready!(body.enter(|cx, body| body.poll_frame(cx))).is_none());
}
