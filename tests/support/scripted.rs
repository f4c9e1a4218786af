//! A server on the `h2` crate whose test decides, stream by stream, what happens: refused, reset, GOAWAY, 1xx.
//!
//! ```text
//! let server = Scripted::start(|seen| match seen.nth {
//!     0 => Answer::Reset(Reason::REFUSED_STREAM),
//!     _ => Answer::ok("done"),
//! }).await;
//! ```
//!
//! Only streams that are answered count as processed ([`Counts::requests`], [`Counts::by_id`]). The limit of streams
//! cannot change while an `h2` server runs: that takes the frame-level [`peer`](super::peer).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, Reason};
use http::request::Parts;
use http::{HeaderMap, Response, Uri};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::Io;
use super::certs::Tls;
use super::gate::Gate;
use super::server::{Connected, Counter, Counts, ID};

/// A stream that was opened.
pub struct Seen {
    /// The connection, counted from 0.
    pub connection: usize,
    /// The stream on this connection, counted from 0.
    pub nth: usize,
    /// The head of the request.
    pub request: Parts,
}

/// What becomes of a stream.
pub enum Answer {
    /// 1xx of these statuses, then a response with a body and, if there are any, trailers.
    Respond {
        informational: Vec<u16>,
        status: u16,
        body: Bytes,
        trailers: Option<HeaderMap>,
    },
    /// RST_STREAM instead of a head.
    Reset(Reason),
    /// A head, some body, then RST_STREAM.
    ResetInBody(Reason),
    /// A whole response without reading the upload, then RST_STREAM(NO_ERROR) (RFC 9113 §8.1).
    RespondAndReset(Bytes),
    /// Nothing, ever.
    Never,
    /// Graceful GOAWAY (2³¹−1 first, then the last stream), while this stream gets that answer.
    Goaway(Box<Answer>),
    /// GOAWAY with a reason that covers all streams opened so far, and the connection ends with every one of them:
    /// what excludes streams takes the frame-level peer.
    Abort(Reason),
    /// The connection ends without a word.
    Drop,
    /// That answer, once the gate lets it pass.
    Gated(Gate, Box<Answer>),
}

impl Answer {
    /// 200 with this body.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::Respond {
            informational: Vec::new(),
            status: 200,
            body: body.into(),
            trailers: None,
        }
    }

    /// An empty response with this status.
    pub fn status(status: u16) -> Self {
        Self::Respond {
            informational: Vec::new(),
            status,
            body: Bytes::new(),
            trailers: None,
        }
    }

    /// REFUSED_STREAM.
    pub fn refuse() -> Self {
        Self::Reset(Reason::REFUSED_STREAM)
    }

    fn processes(&self) -> bool {
        match self {
            Self::Reset(reason) => *reason != Reason::REFUSED_STREAM,
            Self::Goaway(answer) | Self::Gated(_, answer) => answer.processes(),
            _ => true,
        }
    }
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

/// A running server; it ends when it is dropped.
pub struct Scripted {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    counter: Counter,
    settings: h2::server::Builder,
    script: Box<Script>,
}

impl Scripted {
    /// TLS with ALPN `h2`.
    pub async fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_settings(h2::server::Builder::new(), script).await
    }

    /// The same with settings of one's own.
    pub async fn with_settings(
        settings: h2::server::Builder,
        script: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            counter: Counter::default(),
            settings,
            script: Box::new(script),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, task }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URI of a path here, by address.
    pub fn uri(&self, path: &str) -> Uri {
        format!("https://{}{path}", self.addr).parse().unwrap()
    }

    /// What was counted up to now.
    pub fn counts(&self) -> Counts {
        self.shared.counter.snapshot()
    }

    /// Waits until the counts satisfy `enough`, and returns them.
    pub async fn until(&self, what: &str, enough: impl FnMut(&Counts) -> bool) -> Counts {
        self.shared.counter.until(what, enough).await
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let acceptor = TlsAcceptor::from(Tls::h2().server());
    // Ends its connections when the accepting task is aborted.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        shared.counter.accepted();
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            match acceptor.accept(tcp).await {
                Ok(stream) => serve(stream, shared).await,
                Err(_) => shared.counter.tls_failed(),
            }
        });
    }
}

async fn serve(io: impl Io, shared: Arc<Shared>) {
    let connected = Arc::new(shared.counter.connected("h2"));
    let Ok(mut connection) = shared.settings.handshake::<_, Bytes>(io).await else {
        return;
    };
    let flushes = Flushes::new(&mut connection);
    for nth in 0.. {
        let Some(Ok((request, respond))) = connection.accept().await else {
            return;
        };
        let (request, upload) = request.into_parts();
        let seen = Seen {
            connection: connected.index,
            nth,
            request,
        };
        let mut answer = (shared.script)(&seen);
        if let Answer::Goaway(then) = answer {
            connection.graceful_shutdown();
            answer = *then;
        }
        match answer {
            Answer::Abort(reason) => connection.abrupt_shutdown(reason),
            Answer::Drop => return,
            answer => {
                let (connected, flushes) = (Arc::clone(&connected), flushes.clone());
                tokio::spawn(run(answer, seen, upload, respond, connected, flushes));
            }
        }
    }
}

async fn run(
    answer: Answer,
    seen: Seen,
    upload: h2::RecvStream,
    mut respond: SendResponse<Bytes>,
    connected: Arc<Connected>,
    flushes: Flushes,
) {
    let id = seen.request.headers.get(ID).and_then(|id| id.to_str().ok());
    let running = answer.processes().then(|| connected.request(id).0);
    let Some(answer) = pass_gates(answer, &mut respond).await else {
        return;
    };
    // A client that goes meanwhile is part of the test.
    drop(perform(answer, upload, &mut respond, &flushes).await);
    if let Some(mut running) = running {
        running.answered();
    }
}

/// The answer behind the gates, or `None` if the stream ended before them.
async fn pass_gates(mut answer: Answer, respond: &mut SendResponse<Bytes>) -> Option<Answer> {
    while let Answer::Gated(gate, then) = answer {
        tokio::select! {
            () = gate.pass() => answer = *then,
            () = until_reset(respond) => return None,
        }
    }
    if matches!(answer, Answer::Never) {
        until_reset(respond).await;
        return None;
    }
    Some(answer)
}

/// Waits until what was sent has left: by a PING round trip, since `h2` throws away what is queued on a reset stream.
#[derive(Clone)]
struct Flushes(Arc<tokio::sync::Mutex<PingPong>>);

impl Flushes {
    fn new<I: Io>(connection: &mut Connection<I, Bytes>) -> Self {
        let pings = connection.ping_pong().expect("taken once");
        Self(Arc::new(tokio::sync::Mutex::new(pings)))
    }

    async fn flush(&self) -> Result<(), h2::Error> {
        self.0.lock().await.ping(Ping::opaque()).await.map(drop)
    }
}

async fn until_reset(respond: &mut SendResponse<Bytes>) {
    // An error says that the connection ended.
    drop(std::future::poll_fn(|cx| respond.poll_reset(cx)).await);
}

async fn perform(
    answer: Answer,
    mut upload: h2::RecvStream,
    respond: &mut SendResponse<Bytes>,
    flushes: &Flushes,
) -> Result<(), h2::Error> {
    let head = |status: u16| Response::builder().status(status).body(()).unwrap();
    match answer {
        Answer::Respond {
            informational,
            status,
            body,
            trailers,
        } => {
            for status in informational {
                respond.send_informational(head(status))?;
            }
            while let Some(data) = upload.data().await {
                upload.flow_control().release_capacity(data?.len())?;
            }
            let mut stream = respond.send_response(head(status), false)?;
            stream.send_data(body, trailers.is_none())?;
            if let Some(trailers) = trailers {
                stream.send_trailers(trailers)?;
            }
        }
        Answer::Reset(reason) => respond.send_reset(reason),
        Answer::ResetInBody(reason) => {
            let mut stream = respond.send_response(head(200), false)?;
            stream.send_data(Bytes::from_static(b"some"), false)?;
            flushes.flush().await?;
            stream.send_reset(reason);
        }
        Answer::RespondAndReset(body) => {
            let mut stream = respond.send_response(head(200), false)?;
            stream.send_data(body, true)?;
        }
        Answer::Never | Answer::Goaway(_) | Answer::Abort(_) | Answer::Drop | Answer::Gated(..) => {
            unreachable!("done before")
        }
    }
    Ok(())
}
