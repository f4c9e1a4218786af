//! Several readers of one body: who has the source, and what becomes of the others.

use std::io;

use futures_util::FutureExt;
use http_body_util::{BodyExt, Empty, StreamBody};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_test::{assert_pending, assert_ready, task};

use super::tests::{Script, next, text};
use super::*;

fn poll<B>(reader: &mut task::Spawn<ReplayBody<B>>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
where
    ReplayBody<B>: Body<Data = Bytes, Error = BoxError>,
{
    reader.enter(|cx, body| body.poll_frame(cx))
}

fn data<B>(reader: &mut task::Spawn<ReplayBody<B>>) -> Bytes
where
    ReplayBody<B>: Body<Data = Bytes, Error = BoxError>,
{
    assert_ready!(poll(reader)).unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn a_promise_keeps_what_an_older_reader_reads_beyond_the_limit() {
    // R10: one frame of it, and no more.
    let mut first = ReplayBody::new(Script::of(&["ab", "cd", "ef", "gh"]), 3);
    assert_eq!(next(&mut first).await.unwrap(), "ab");
    let promised = first.promise().unwrap();
    assert_eq!(next(&mut first).await.unwrap(), "cd");
    assert!(
        first.frame().await.unwrap().is_err(),
        "the promised reader has the rest"
    );
    assert!(promised.is_replayable());
    let again = promised.replay();
    assert_eq!(text(promised).await, "abcdefgh");
    assert!(!again.is_replayable(), "which is over the limit");
    assert!(again.promise().is_none());
}

#[tokio::test]
async fn a_promise_lets_an_older_reader_end() {
    // R10
    let mut first = ReplayBody::new(Script::of(&["ab", "cd"]), 4);
    assert_eq!(next(&mut first).await.unwrap(), "ab");
    let promised = first.promise().unwrap();
    assert_eq!(next(&mut first).await.unwrap(), "cd");
    assert!(next(&mut first).await.is_none() && promised.is_recorded());
    assert_eq!(text(promised).await, "abcd");
    assert!(ReplayBody::new(Empty::<Bytes>::new(), 0).promise().is_some());
}

#[tokio::test]
async fn an_older_reader_that_is_held_and_not_polled_keeps_nothing_back() {
    // R10: the upload of a failed attempt waits for its peer, and its transport keeps the body.
    let body = ReplayBody::new(Script::of(&["a", "b", "c"]), 100);
    let mut old = body.replay();
    assert_eq!(next(&mut old).await.unwrap(), "a");
    let new = body.replay().collect().now_or_never();
    assert_eq!(new.expect("nobody to wait for").unwrap().to_bytes(), "abc");
    assert_eq!(
        text(old).await,
        "bc",
        "all of it is recorded, so that it has the rest too"
    );
}

#[test]
fn an_older_reader_that_waits_for_the_source_is_overtaken_and_told_so() {
    // R10: the upload of a failed attempt is still under way when the next one begins.
    let (sender, mut receiver) = mpsc::unbounded_channel::<Result<Frame<Bytes>, io::Error>>();
    let send = |text: &'static str| sender.send(Ok(Frame::data(text.into()))).unwrap();
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let body = ReplayBody::new(StreamBody::new(stream), 100);
    let (mut old, mut new) = (task::spawn(body.replay()), task::spawn(body.replay()));

    send("a");
    assert_eq!(data(&mut old), "a");
    assert_pending!(poll(&mut old));
    assert_eq!(data(&mut new), "a");
    assert!(!old.is_woken());
    assert_pending!(poll(&mut new));
    assert!(old.is_woken(), "its wait is over");
    send("b");
    assert!(new.is_woken(), "the source wakes the one who has it now");
    assert!(assert_ready!(poll(&mut old)).unwrap().is_err());
    assert!(assert_ready!(poll(&mut old)).is_none());
    assert_eq!(data(&mut new), "b");
    drop(sender);
    assert!(assert_ready!(poll(&mut new)).is_none());
    assert!(body.is_recorded());
}

#[test]
fn a_reader_that_is_dropped_while_it_waits_leaves_the_source_to_the_next() {
    // R10
    let body = ReplayBody::new(Script::default().then(None), 100);
    let mut old = task::spawn(body.replay());
    assert_pending!(poll(&mut old));
    drop(old);
    assert!(assert_ready!(poll(&mut task::spawn(body.replay()))).is_none());
}

#[test]
fn a_recorded_body_is_read_by_two_at_once() {
    // R15
    let body = ReplayBody::new(Script::of(&["a", "b"]), 100);
    let (mut one, mut two) = (task::spawn(body.replay()), task::spawn(body.replay()));
    let all = |reader: &mut task::Spawn<ReplayBody<Script>>| {
        assert_ready!(reader.enter(|cx, body| body.poll_frame(cx))).map(Result::unwrap)
    };
    while all(&mut one).is_some() {}
    let mut three = task::spawn(body.replay());
    for _ in 0..2 {
        assert!(all(&mut two).unwrap().is_data() && all(&mut three).unwrap().is_data());
    }
    assert!(all(&mut two).is_none() && all(&mut three).is_none());
}

/// While it is polled for the first time, the reader in it gets a poll of its own, as if on another thread.
struct Meanwhile {
    other: Arc<Mutex<Option<task::Spawn<ReplayBody<Self>>>>>,
    script: Script,
}

impl Body for Meanwhile {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let other = self.other.clone();
        // Locked only while it is polled in there itself.
        if let Some(Some(other)) = other.try_lock().as_deref_mut() {
            assert_pending!(poll(other));
        }
        Pin::new(&mut self.script).poll_frame(cx)
    }
}

/// A reader, and a newer one that overtakes it while it polls the source for the first time.
fn overtaken(script: Script, limit: usize) -> (task::Spawn<ReplayBody<Meanwhile>>, impl FnOnce() -> Newer) {
    let other = Arc::default();
    let source = Meanwhile {
        other: Arc::clone(&other),
        script,
    };
    let older = task::spawn(ReplayBody::new(source, limit));
    *other.lock() = Some(task::spawn(older.replay()));
    (older, move || other.lock().take().unwrap())
}

type Newer = task::Spawn<ReplayBody<Meanwhile>>;

#[test]
fn a_reader_that_is_overtaken_while_it_polls_the_source_gives_it_up_at_once() {
    // R10, R15: nobody would wake it for that.
    let (mut older, newer) = overtaken(Script::default().then(None), 10);
    assert!(assert_ready!(poll(&mut older)).unwrap().is_err());
    let mut newer = newer();
    assert!(newer.is_woken());
    assert!(assert_ready!(poll(&mut newer)).is_none());
}

#[test]
fn a_frame_that_comes_to_a_reader_as_it_is_overtaken_is_for_both() {
    // R10: within the limit or beyond it.
    for limit in [10, 1] {
        let (mut older, newer) = overtaken(Script::of(&["ab", "c"]), limit);
        assert_eq!(data(&mut older), "ab");
        let mut newer = newer();
        assert!(newer.is_woken());
        assert_eq!((data(&mut newer), data(&mut newer)), ("ab".into(), "c".into()));
        assert!(assert_ready!(poll(&mut newer)).is_none());
        assert_eq!(newer.is_replayable(), limit == 10);
    }
}

proptest! {
    #[test]
    fn readers_that_are_held_wherever_they_stand_keep_nothing_from_the_next(
        sizes in prop::collection::vec(1..40_usize, 0..12), stops in prop::collection::vec(0..14_usize, 0..6),
    ) {
        // R10
        let chunks: Vec<Bytes> = (0..).zip(&sizes).map(|(byte, size)| vec![byte; *size].into()).collect();
        let whole = chunks.concat();
        let frames = chunks.into_iter().map(|chunk| Some(Ok(Frame::data(chunk)))).collect();
        let body = ReplayBody::new(Script(frames), 1_000);
        let mut held = Vec::new();
        for stop in stops {
            let mut reader = body.replay();
            for _ in 0..stop {
                reader.frame().now_or_never().expect("nobody to wait for");
            }
            held.push(reader);
        }
        let read = body.replay().collect().now_or_never().expect("nobody to wait for");
        prop_assert_eq!(read.unwrap().to_bytes(), whole);
    }
}
