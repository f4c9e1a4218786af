//! `ReplayBody` under readers that come, go and take turns (R10).
//!
//! The bytes decide what the source gives (frames, pauses, trailers, an error) and what the readers do. Nobody is polled
//! that was not woken, so that a lost wake-up shows as a reader that does not finish.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2pool::retry::ReplayBody;
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::input::Input;

/// Frames the layer records at most.
const MAX_FRAMES: usize = 4096;

#[derive(Clone)]
enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Pause,
    Fail,
}

/// The caller's body. It checks that nobody polls it after its end.
struct Source {
    steps: VecDeque<Step>,
    /// The pause under way is over when this many were let go.
    let_go: Arc<AtomicUsize>,
    passed: usize,
    parked: Parked,
    ended: bool,
}

#[derive(Clone, Default)]
struct Parked(Arc<std::sync::Mutex<Option<Waker>>>);

impl Parked {
    fn set(&self, waker: &Waker) {
        *self.0.lock().unwrap() = Some(waker.clone());
    }

    fn wake(&self) {
        if let Some(waker) = self.0.lock().unwrap().take() {
            waker.wake();
        }
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = self.get_mut();
        assert!(!this.ended, "polled after its end");
        loop {
            match this.steps.pop_front() {
                Some(Step::Pause) => {
                    if this.let_go.load(Ordering::SeqCst) <= this.passed {
                        this.steps.push_front(Step::Pause);
                        this.parked.set(cx.waker());
                        return Poll::Pending;
                    }
                    this.passed += 1;
                }
                Some(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Step::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Some(Step::Fail) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(std::io::ErrorKind::Other.into())));
                }
                None => {
                    this.ended = true;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One reader, and what it was given.
struct Reader {
    body: ReplayBody<Source>,
    woken: Arc<Woken>,
    bytes: Vec<u8>,
    trailers: usize,
    outcome: Option<bool>,
}

impl Reader {
    fn new(body: ReplayBody<Source>) -> Self {
        let woken = Arc::new(Woken::default());
        woken.0.store(true, Ordering::SeqCst);
        Self {
            body,
            woken,
            bytes: Vec::new(),
            trailers: 0,
            outcome: None,
        }
    }

    /// Polls once, whether woken or not; says whether there was anything.
    fn poll(&mut self) -> bool {
        if self.outcome.is_some() {
            return false;
        }
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.woken.clone());
        let hint = self.body.size_hint();
        match Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker)) {
            Poll::Pending => return false,
            Poll::Ready(None) => self.outcome = Some(true),
            Poll::Ready(Some(Err(_))) => self.outcome = Some(false),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    assert!(hint.upper().is_none_or(|upper| data.len() as u64 <= upper));
                    self.bytes.extend_from_slice(&data);
                }
                Err(_) => self.trailers += 1,
            },
        }
        self.woken.0.store(true, Ordering::SeqCst);
        true
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst)
    }
}

/// What the source gives in all.
struct Whole {
    bytes: Vec<u8>,
    trailers: usize,
    fails: bool,
    /// All of it can be recorded.
    fits: bool,
}

/// Panics where a promise is broken.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let limit = usize::from(input.u16()) % 4096;
    let (steps, whole) = source(&mut input, limit);
    let let_go = Arc::new(AtomicUsize::new(0));
    let parked = Parked::default();
    let body = Source {
        steps,
        let_go: let_go.clone(),
        passed: 0,
        parked: parked.clone(),
        ended: false,
    };
    let mut readers = vec![Reader::new(ReplayBody::new(body, limit))];
    while !input.is_empty() {
        let which = input.byte();
        let reader = usize::from(which >> 3) % readers.len();
        match which & 7 {
            0..=3 => drop(readers[reader].poll()),
            4 => {
                let_go.fetch_add(1, Ordering::SeqCst);
                parked.wake();
            }
            5 if readers.len() < 8 => {
                let body = readers[reader].body.replay();
                readers.push(Reader::new(body));
            }
            6 if readers.len() > 1 => drop(readers.remove(reader)),
            _ => {}
        }
        check(&readers, &whole);
    }
    let_go.store(usize::MAX, Ordering::SeqCst);
    parked.wake();
    finish(readers, &whole);
}

fn source(input: &mut Input<'_>, limit: usize) -> (VecDeque<Step>, Whole) {
    let mut steps = VecDeque::new();
    let mut whole = Whole {
        bytes: Vec::new(),
        trailers: 0,
        fails: false,
        fits: true,
    };
    let mut recorded = 0;
    for number in 0..input.below(24) {
        let kind = input.byte();
        match kind & 7 {
            0..=4 => {
                let data = vec![u8::try_from(number).unwrap(); usize::from(kind >> 3) * 17];
                recorded += data.len();
                whole.bytes.extend_from_slice(&data);
                steps.push_back(Step::Data(data.into()));
            }
            5 | 6 => steps.push_back(Step::Pause),
            _ if kind >= 128 => {
                let mut trailers = HeaderMap::new();
                trailers.insert("sum", "1".parse().unwrap());
                recorded += 4;
                whole.trailers += 1;
                steps.push_back(Step::Trailers(trailers));
                break;
            }
            _ if kind >= 64 => {
                whole.fails = true;
                steps.push_back(Step::Fail);
                break;
            }
            _ => steps.push_back(Step::Pause),
        }
    }
    whole.fits = recorded <= limit && steps.len() < MAX_FRAMES;
    (steps, whole)
}

/// Whatever a reader was given is what the source gave, from its beginning.
fn check(readers: &[Reader], whole: &Whole) {
    for reader in readers {
        assert!(
            whole.bytes.starts_with(&reader.bytes),
            "bytes were lost or sent twice"
        );
        assert!(reader.trailers <= whole.trailers);
        if reader.outcome == Some(true) {
            assert!(!whole.fails, "a body that fails has no end");
            assert_eq!(
                (reader.bytes.len(), reader.trailers),
                (whole.bytes.len(), whole.trailers)
            );
        }
        if reader.body.is_recorded() {
            assert!(whole.fits && !whole.fails);
        }
    }
}

/// The newest has all of it, unless the body failed or was not kept; for that it needs nobody else, since the others may
/// be held and never polled again. Then all who are woken read on, and end.
fn finish(mut readers: Vec<Reader>, whole: &Whole) {
    let mut newest = Reader::new(readers[0].body.replay());
    let kept = newest.body.is_replayable();
    assert!(kept || whole.fails || !whole.fits, "what fits is kept");
    while newest.poll() {}
    let outcome = newest.outcome.expect("the newest reader is never left waiting");
    assert_eq!(
        outcome,
        kept && !whole.fails,
        "the newest reader gets all there is"
    );
    readers.push(newest);
    check(&readers, whole);
    if whole.fits && !whole.fails {
        let again = Reader::new(readers[0].body.replay());
        assert!(again.body.is_recorded());
        readers.push(again);
        while readers.last_mut().unwrap().poll() {}
        assert_eq!(readers.last().unwrap().outcome, Some(true));
    }
    while let Some(reader) = readers
        .iter_mut()
        .find(|reader| reader.outcome.is_none() && reader.is_woken())
    {
        reader.poll();
        check(&readers, whole);
    }
    for reader in &readers {
        assert!(reader.outcome.is_some(), "a reader is left waiting");
    }
}
