//! The other side of the wire, and the pool's side of the session.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Builder;
use http::{Response, Version};
use http_body::Frame;
use http_body_util::{Empty, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::Origin;
use crate::connect::{Connection, Io};
use crate::error::Error;
use crate::session::exchange::Patience;
use crate::session::h1::H1;
use crate::session::h2::Control;
use crate::session::h2_driver::Tuning;
use crate::session::link::{Address, Failure, Observer, Occupied};
use crate::session::{Body, H1Sending, Outgoing, drive_h1, handshake_h1};
use crate::state::SessionId;
use crate::stats::{Counters, SessionProtocol, SessionTally, Tally};

pub(super) const ID: SessionId = SessionId {
    slot: 3,
    generation: 7,
};

/// What a session reported.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Answered,
    GivenUp,
    Released,
    Failing,
    Closed(Error),
}

/// Remembers what was reported.
pub(super) struct Recorder {
    events: watch::Sender<Vec<Event>>,
}

impl Recorder {
    fn push(&self, id: SessionId, event: Event) {
        assert_eq!(id, ID);
        self.events.send_modify(|events| events.push(event));
    }

    /// The events so far, one letter each.
    pub(super) fn seen(&self) -> String {
        let letter = |event: &Event| match event {
            Event::Answered => 'a',
            Event::GivenUp => 'g',
            Event::Released => 'r',
            Event::Failing => 'f',
            Event::Closed(_) => 'c',
        };
        self.events.borrow().iter().map(letter).collect()
    }

    /// Waits for these events, in this order.
    pub(super) async fn until(&self, wanted: &str) {
        let mut events = self.events.subscribe();
        let reached = async {
            while self.seen() != wanted {
                events.changed().await.unwrap();
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(600), reached).await;
        assert!(reached.is_ok(), "wanted {wanted}, saw {:?}", self.events.borrow());
    }

    /// Why the session closed.
    pub(super) fn cause(&self) -> Error {
        let closed = self.events.borrow().iter().find_map(|event| match event {
            Event::Closed(cause) => Some(cause.clone()),
            _ => None,
        });
        closed.expect("closed")
    }
}

impl Observer for Recorder {
    fn answered(self: Arc<Self>, id: SessionId) {
        self.push(id, Event::Answered);
    }

    fn given_up(self: Arc<Self>, id: SessionId) {
        self.push(id, Event::GivenUp);
    }

    fn closed(self: Arc<Self>, id: SessionId, cause: Error) {
        self.push(id, Event::Closed(cause));
    }

    fn release(self: Arc<Self>, id: SessionId) {
        self.push(id, Event::Released);
    }

    fn settings(self: Arc<Self>, _: SessionId, _: &Control) {
        panic!("HTTP/1.1 has no SETTINGS");
    }

    fn refused(self: Arc<Self>, _: SessionId) {
        panic!("HTTP/1.1 refuses nothing");
    }

    fn needs_h1(self: Arc<Self>, _: SessionId) {
        panic!("it is HTTP/1.1 already");
    }

    fn goaway(self: Arc<Self>, _: SessionId, _: Error) {
        panic!("HTTP/1.1 has no GOAWAY");
    }

    fn failing(self: Arc<Self>, id: SessionId, _: Error) {
        self.push(id, Event::Failing);
    }

    fn alive(self: Arc<Self>, _: SessionId) {
        panic!("nothing was parked");
    }

    fn silent(self: Arc<Self>, _: SessionId) {}
    fn stalled(self: Arc<Self>, _: SessionId, _: bool) {
        panic!("HTTP/1.1 has no shared window");
    }

    fn worn(self: Arc<Self>, _: SessionId) {
        panic!("HTTP/1.1 does not wear");
    }

    fn park(self: Arc<Self>, _: SessionId) {
        panic!("nothing is parked");
    }
}

/// A session as the pool has it.
pub(super) struct Fake {
    pub(super) h1: Arc<H1>,
    pub(super) events: Arc<Recorder>,
    pub(super) driver: AbortHandle,
    tally: Arc<SessionTally>,
    pub(super) patience: Patience,
}

/// One attempt: what came of it, and the body if it was not sent.
pub(super) type Attempt = (Result<Response<Body>, Failure>, Option<Outgoing>);

impl Fake {
    /// A session and its server's end; each direction holds `buffer` bytes.
    pub(super) async fn new(buffer: usize) -> (Self, Server) {
        Self::over(buffer, |io| io).await
    }

    /// The same over a connection that is not what it was.
    pub(super) async fn over<T: Io + 'static>(
        buffer: usize,
        wrap: impl FnOnce(DuplexStream) -> T,
    ) -> (Self, Server) {
        Self::tuned(buffer, Tuning::narrow(), wrap).await
    }

    /// The same with `body_idle_timeout`.
    pub(super) async fn impatient(buffer: usize, body_idle_timeout: Duration) -> (Self, Server) {
        let tuning = Tuning {
            body_idle_timeout: Some(body_idle_timeout),
            ..Tuning::narrow()
        };
        Self::tuned(buffer, tuning, |io| io).await
    }

    async fn tuned<T: Io + 'static>(
        buffer: usize,
        tuning: Tuning,
        wrap: impl FnOnce(DuplexStream) -> T,
    ) -> (Self, Server) {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let address = Address {
            session: 11,
            origin: "https://fake".parse().unwrap(),
            version: Version::HTTP_11,
            peer: None,
            local: None,
            authenticated: false,
        };
        let connection = Connection::new(wrap(ours), Version::HTTP_11);
        let (h1, driver) = handshake_h1(connection, &tuning, Arc::new(address))
            .await
            .unwrap();
        let events = Arc::new(Recorder {
            events: watch::Sender::default(),
        });
        let driver = tokio::spawn(drive_h1(driver, events.clone(), ID)).abort_handle();
        let origin: Origin = "http://example.com".parse().unwrap();
        let tally = Tally::new(&Arc::new(Counters::new()), &origin).session_opened(SessionProtocol::H1);
        let fake = Self {
            h1,
            events,
            driver,
            tally: Arc::new(tally),
            patience: Patience::default(),
        };
        (
            fake,
            Server {
                io: theirs,
                read: Vec::new(),
            },
        )
    }

    pub(super) fn slot(&self) -> Occupied {
        Occupied::new(self.events.clone(), ID, self.tally.stream_started(), None)
    }

    pub(super) fn start(&self, request: Builder, body: Option<Outgoing>) -> JoinHandle<Attempt> {
        tokio::spawn(self.attempt(request, body))
    }

    /// The same for who polls it, or does not.
    pub(super) fn attempt(
        &self,
        request: Builder,
        mut body: Option<Outgoing>,
    ) -> impl Future<Output = Attempt> + Send + 'static {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let (session, slot, patience) = (self.h1.clone(), self.slot(), self.patience);
        async move {
            let result = match H1Sending::start(session, slot, &parts, &mut body, patience) {
                Ok(mut sending) => poll_fn(|cx| sending.poll(&mut body, cx)).await,
                Err(failure) => Err(failure),
            };
            (result, body)
        }
    }

    /// A request without a body.
    pub(super) fn get(&self, uri: &str) -> JoinHandle<Attempt> {
        self.start(http::Request::get(uri), Outgoing::new(Empty::<Bytes>::new(), 0))
    }
}

pub(super) async fn response(attempt: JoinHandle<Attempt>) -> Response<Body> {
    match attempt.await.unwrap().0 {
        Ok(response) => response,
        Err(Failure::NotSent(error) | Failure::NeedsH1(error) | Failure::Failed(error)) => {
            panic!("{error:?}")
        }
        Err(Failure::Unprocessed { error, .. }) => panic!("{error:?}"),
    }
}

/// An attempt that failed after it may have been sent.
pub(super) async fn failure(attempt: JoinHandle<Attempt>) -> Error {
    match attempt.await.unwrap().0 {
        Err(Failure::Failed(error)) => {
            assert!(!error.is_unprocessed(), "{error:?}");
            error
        }
        _ => panic!("it did not fail, or is said not to have been sent"),
    }
}

/// A request body whose frames the test sends; it ends when the sender is dropped.
pub(super) fn piecewise() -> (mpsc::UnboundedSender<Frame<Bytes>>, Option<Outgoing>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let frame = receiver.recv().await?;
        Some((Ok::<_, Error>(frame), receiver))
    });
    (sender, Outgoing::new(StreamBody::new(frames), 1024))
}

pub(super) fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

/// The server's end.
pub(super) struct Server {
    pub(super) io: DuplexStream,
    read: Vec<u8>,
}

impl Server {
    /// Reads up to and including `end`.
    pub(super) async fn read_until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .read
                .windows(end.len())
                .position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(at + end.len());
                let read = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(read).unwrap();
            }
            let more = self.io.read_buf(&mut self.read).await.unwrap();
            assert!(
                more > 0,
                "the client went away after {:?}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// Reads a request's head.
    pub(super) async fn head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// Reads so many bytes.
    pub(super) async fn skip(&mut self, bytes: usize) {
        while self.read.len() < bytes {
            assert!(self.io.read_buf(&mut self.read).await.unwrap() > 0);
        }
        self.read.drain(..bytes);
    }

    pub(super) async fn write(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one request's head and answers it.
    pub(super) async fn answer(&mut self, text: &str) {
        self.head().await;
        self.write(text).await;
    }

    /// Waits until the client has closed the connection.
    pub(super) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A pipe that broke is closed, too.
        let _ = self.io.read_to_end(&mut rest).await;
    }
}
