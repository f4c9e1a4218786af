//! The client that is driven through the matrix: the pool, or hyper-util's client to tell a fixture's fault from ours
//! (`H2POOL_CLIENT=hyper`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};

use crate::Failure;

/// How a client is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Only this version of TLS.
    pub(crate) tls: TlsVersions,
    /// What the server is known to speak, for clients that have to be told.
    pub(crate) h1_only: bool,
    /// A PING each second while answers are due.
    pub(crate) pings: bool,
}

impl Options {
    /// How often to send a PING.
    pub(crate) fn keep_alive_interval(&self) -> Option<Duration> {
        self.pings.then_some(Duration::from_secs(1))
    }
}

/// The versions of TLS that a client offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TlsVersions {
    #[default]
    Both,
    Tls12,
    Tls13,
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) body: Bytes,
}

/// A request that was not answered.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// The client says that the server did nothing.
    pub(crate) unprocessed: bool,
    /// The error and its causes.
    chain: String,
}

impl Unanswered {
    pub(crate) fn new(error: &(dyn StdError + 'static), unprocessed: bool) -> Self {
        let causes = std::iter::successors(Some(error), |error| (*error).source());
        let chain = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        Self { unprocessed, chain }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unprocessed = if self.unprocessed { " (unprocessed)" } else { "" };
        write!(f, "{}{unprocessed}", self.chain)
    }
}

impl StdError for Unanswered {}

/// What a client counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    /// Connections opened.
    pub(crate) opened: u64,
    /// Requests sent again because the server refused them, those sent before its SETTINGS apart.
    pub(crate) replays: u64,
}

/// What the matrix needs of a client.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// What it is called.
    const NAME: &'static str;

    /// How many connections it opens to one origin at most.
    const CONNECTIONS: usize;

    fn build(options: &Options) -> Result<Self, Failure>;

    /// Sends a request once, as far as the caller can tell, and reads the answer.
    fn send(&self, request: Request<Payload>) -> impl Future<Output = Result<Answer, Unanswered>> + Send;

    /// Sends an idempotent request, again if need be, until it is answered.
    fn send_again(
        &self,
        request: Request<Payload>,
    ) -> impl Future<Output = Result<Answer, Unanswered>> + Send;

    /// What the client counted so far, where it does.
    fn counters(&self) -> Option<Counters>;

    /// What the client tells of its state, for the report of a failure.
    fn state(&self) -> String;
}

/// The body of a request: pieces that are there already, so that a request can be made anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload {
    pieces: VecDeque<Bytes>,
    announced: bool,
}

impl Payload {
    /// In one piece, the length announced.
    fn whole(body: Bytes) -> Self {
        Self {
            pieces: VecDeque::from([body]),
            announced: true,
        }
    }

    /// In pieces, the length unknown until the last one.
    fn in_pieces(body: &Bytes) -> Self {
        const PIECE: usize = 40_000;
        let starts = (0..body.len()).step_by(PIECE);
        let pieces = starts
            .map(|at| body.slice(at..body.len().min(at + PIECE)))
            .collect();
        Self {
            pieces,
            announced: false,
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.pieces.iter().map(Bytes::len).sum::<usize>() as u64;
        if self.announced || left == 0 {
            SizeHint::with_exact(left)
        } else {
            SizeHint::default()
        }
    }
}

/// A request without a body.
pub(crate) fn get(uri: &str) -> Request<Payload> {
    request(Method::GET, uri, Payload::default())
}

/// A request with a body whose length is announced.
pub(crate) fn post(uri: &str, body: Bytes) -> Request<Payload> {
    request(Method::POST, uri, Payload::whole(body))
}

/// A request whose body comes in pieces, its length unknown at first.
pub(crate) fn post_in_pieces(uri: &str, body: &Bytes) -> Request<Payload> {
    request(Method::POST, uri, Payload::in_pieces(body))
}

fn request(method: Method, uri: &str, body: Payload) -> Request<Payload> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().expect("the matrix makes valid URIs");
    request
}
