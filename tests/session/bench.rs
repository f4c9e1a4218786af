//! A pool whose connections a test answers.

use std::time::Duration;

use bytes::Bytes;
use h2pool::connect::memory::{self, MemoryListener};
use h2pool::{Body, Builder, Error, H2Pool, Origin};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use crate::support::peer::Peer;
use crate::support::server::body::BoxError;
use crate::support::within;

pub(crate) type Answer = JoinHandle<Result<Response<Body>, Error>>;

/// A pool, and the listener of its connector.
pub(crate) struct Bench {
    pub(crate) pool: H2Pool,
    listener: MemoryListener<Origin>,
}

impl Bench {
    /// At most one session, unless `configure` says otherwise.
    pub(crate) fn new(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let (connector, listener) = memory::pair();
        let builder = H2Pool::builder().connector(connector).max_sessions(1);
        let pool = configure(builder).build().unwrap();
        Self { pool, listener }
    }

    /// Answers the pool's next dial. The peer's SETTINGS are sent, the client's were read.
    pub(crate) async fn peer(&mut self, settings: &[(u16, u32)]) -> Peer {
        let mut peer = Peer::new(self.raw().await);
        peer.handshake(settings).await;
        peer
    }

    /// The server's end of the pool's next connection.
    pub(crate) async fn raw(&mut self) -> DuplexStream {
        let dial = within("the pool dials", self.listener.accept()).await.unwrap();
        dial.accept(Version::HTTP_2)
    }

    /// Whether a dial waits to be answered.
    pub(crate) fn dials(&mut self) -> bool {
        self.listener.try_accept().is_some()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(Request::get(uri(path)).body(Empty::<Bytes>::new()).unwrap())
    }

    pub(crate) fn send<B>(&self, request: Request<B>) -> Answer
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        tokio::spawn(self.pool.request(request))
    }
}

pub(crate) fn uri(path: &str) -> String {
    format!("https://server{path}")
}

/// The response, which has come or is about to.
pub(crate) async fn response(answer: Answer) -> Response<Body> {
    within("a response", answer).await.unwrap().unwrap()
}

/// The error, which has come or is about to.
pub(crate) async fn failure(answer: Answer) -> Error {
    within("an error", answer).await.unwrap().unwrap_err()
}

/// All of a body.
pub(crate) async fn text(body: Body) -> Bytes {
    within("the body", body.collect()).await.unwrap().to_bytes()
}

/// The next frame of a body; it must carry data.
pub(crate) async fn data(body: &mut Body) -> Bytes {
    let frame = within("a frame", body.frame()).await.unwrap().unwrap();
    frame.into_data().unwrap()
}

/// How a body fails.
pub(crate) async fn broken(body: &mut Body) -> Error {
    loop {
        if let Err(error) = within("the end of the body", body.frame()).await.unwrap() {
            return error;
        }
    }
}

/// Lets everything happen that can without time passing.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_nanos(1)).await;
}

/// Now, on the paused clock.
pub(crate) fn now() -> tokio::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "tests tell time by the paused clock")]
    tokio::time::Instant::now()
}
