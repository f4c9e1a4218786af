//! A real HTTP server on loopback that counts what reaches it.
//!
//! ```text
//! let server = Server::builder().h2_max_streams(3).start().await;
//! let response = client.get(server.uri("/gate")).await;  // paths: see `handlers`
//! server.gate("").until_waiting(1).await;
//! server.gate("").release(1);
//! assert_eq!(server.counts().by_protocol("h2"), 1);
//! ```
//!
//! By default it speaks TLS and offers h2 and HTTP/1.1. It ends when it is dropped.

pub mod body;
mod counts;
mod handlers;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub use self::body::{is_pattern, pattern};
pub use self::counts::{Connected, ConnectionCounts, Counter, Counts, ID};
use super::Io;
use super::certs::Tls;
use super::gate::Gate;

/// How the server behaves.
#[derive(Clone)]
#[must_use]
pub struct Builder {
    tls: Option<Arc<ServerConfig>>,
    delay: Duration,
    h2_max_streams: Option<u32>,
    h2_only: bool,
    h1_only: bool,
    connect_protocol: bool,
    addr: SocketAddr,
}

impl Builder {
    /// HTTP/1.1 alone, by ALPN or in plain text.
    pub fn h1_only(mut self) -> Self {
        self.h1_only = true;
        self.tls = self.tls.map(|_| Tls::h1().server());
        self
    }

    /// HTTP/2 alone, by ALPN or by prior knowledge.
    pub fn h2_only(mut self) -> Self {
        self.h2_only = true;
        self.tls = self.tls.map(|_| Tls::h2().server());
        self
    }

    /// No TLS: HTTP/1.1 or HTTP/2 by prior knowledge, whichever the client begins with.
    pub fn plain(mut self) -> Self {
        self.tls = None;
        self
    }

    /// This TLS configuration; its ALPN list decides which protocols are spoken.
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Every answer waits so long.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// SETTINGS_MAX_CONCURRENT_STREAMS; hyper's default is 200.
    pub fn h2_max_streams(mut self, max: u32) -> Self {
        self.h2_max_streams = Some(max);
        self
    }

    /// Allows extended CONNECT (RFC 8441).
    pub fn connect_protocol(mut self) -> Self {
        self.connect_protocol = true;
        self
    }

    /// Listens here, on a port that was used before for example; default: any port of 127.0.0.1.
    pub fn addr(mut self, addr: SocketAddr) -> Self {
        self.addr = addr;
        self
    }

    /// Listens on the runtime of the caller.
    pub async fn start(self) -> Server {
        let listener = TcpListener::bind(self.addr).await.unwrap();
        let server = Server::new(self, listener.local_addr().unwrap());
        tokio::spawn(accept(listener, Arc::clone(&server.shared)));
        server
    }

    /// Listens on a runtime and thread of its own, which outlive every runtime of the tests.
    pub fn start_on_own_thread(self) -> Server {
        let listener = std::net::TcpListener::bind(self.addr).unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = Server::new(self, listener.local_addr().unwrap());
        let shared = Arc::clone(&server.shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                accept(TcpListener::from_std(listener).unwrap(), Arc::clone(&shared)).await;
                shared.counter.until_closed().await;
            });
        });
        server
    }

    /// No listener at all: connections come by [`Server::attach`] only.
    pub fn start_in_memory(mut self) -> Server {
        self.tls = None;
        let addr = self.addr;
        Server::new(self, addr)
    }
}

/// What all connections are told.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Orders {
    /// Counts the calls of [`Server::drain`]: GOAWAY, or `connection: close`.
    drains: usize,
    /// Counts the calls of [`Server::kill`].
    kills: usize,
    /// No more accepting.
    stopped: bool,
}

struct Shared {
    options: Builder,
    counter: Counter,
    gates: Mutex<HashMap<String, Gate>>,
    orders: watch::Sender<Orders>,
}

impl Shared {
    fn gate(&self, name: &str) -> Gate {
        self.gates.lock().entry(name.to_owned()).or_default().clone()
    }
}

/// A running server.
pub struct Server {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// TLS with h2 and HTTP/1.1, no delay.
    pub fn builder() -> Builder {
        Builder {
            tls: Some(Tls::any().server()),
            delay: Duration::ZERO,
            h2_max_streams: None,
            h2_only: false,
            h1_only: false,
            connect_protocol: false,
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
        }
    }

    /// With all defaults.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    fn new(options: Builder, addr: SocketAddr) -> Self {
        let shared = Shared {
            options,
            counter: Counter::default(),
            gates: Mutex::default(),
            orders: watch::Sender::default(),
        };
        Self {
            addr,
            shared: Arc::new(shared),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URI of a path here, by address.
    pub fn uri(&self, path: &str) -> Uri {
        self.uri_for(&self.addr.ip().to_string(), path)
    }

    /// The URI of a path here, by the name `localhost`.
    pub fn localhost_uri(&self, path: &str) -> Uri {
        self.uri_for("localhost", path)
    }

    fn uri_for(&self, host: &str, path: &str) -> Uri {
        let scheme = if self.shared.options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{host}:{}{path}", self.addr.port())
            .parse()
            .unwrap()
    }

    /// What was counted up to now.
    pub fn counts(&self) -> Counts {
        self.shared.counter.snapshot()
    }

    /// Waits until the counts satisfy `enough`, and returns them.
    pub async fn until(&self, what: &str, enough: impl FnMut(&Counts) -> bool) -> Counts {
        self.shared.counter.until(what, enough).await
    }

    /// The gate of this name; `/gate` is the one whose name is empty.
    pub fn gate(&self, name: &str) -> Gate {
        self.shared.gate(name)
    }

    /// Tells every connection that is open now to finish: GOAWAY, or `connection: close`. New ones are welcome.
    pub fn drain(&self) {
        self.shared.orders.send_modify(|orders| orders.drains += 1);
    }

    /// Closes every connection that is open now, whatever runs on it. New ones are welcome.
    pub fn kill(&self) {
        self.shared.orders.send_modify(|orders| orders.kills += 1);
    }

    /// Accepts no more: dials are refused. Connections that are open stay.
    pub fn stop_accepting(&self) {
        self.shared.orders.send_modify(|orders| orders.stopped = true);
    }

    /// Drains, accepts no more, and waits until every connection is closed.
    pub async fn shut_down(&self) {
        self.stop_accepting();
        self.drain();
        self.until("all connections closed", |counts| counts.open() == 0)
            .await;
    }

    /// Serves one connection over any byte stream, in memory for example, by prior knowledge.
    pub fn attach(&self, io: impl Io) {
        self.shared.counter.accepted();
        tokio::spawn(serve(
            io,
            "plain",
            Arc::clone(&self.shared),
            self.shared.orders.subscribe(),
        ));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_accepting();
        self.kill();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut orders = shared.orders.subscribe();
    loop {
        tokio::select! {
            _ = orders.wait_for(|orders| orders.stopped) => return,
            accepted = listener.accept() => if let Ok((tcp, _)) = accepted {
                shared.counter.accepted();
                // Best effort: the client may have gone already.
                drop(tcp.set_nodelay(true));
                tokio::spawn(greet(tcp, Arc::clone(&shared), shared.orders.subscribe()));
            },
        }
    }
}

async fn greet(tcp: TcpStream, shared: Arc<Shared>, mut orders: watch::Receiver<Orders>) {
    let Some(config) = shared.options.tls.clone() else {
        return serve(tcp, "plain", shared, orders).await;
    };
    let kills = orders.borrow().kills;
    let handshake = tokio::select! {
        _ = orders.wait_for(|orders| orders.kills > kills) => return,
        handshake = TlsAcceptor::from(config).accept(tcp) => handshake,
    };
    let Ok(stream) = handshake else {
        return shared.counter.tls_failed();
    };
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => "h2",
        Some(b"http/1.1") => "http/1.1",
        _ => "plain",
    };
    serve(stream, protocol, shared, orders).await;
}

async fn serve(
    io: impl Io,
    protocol: &'static str,
    shared: Arc<Shared>,
    mut orders: watch::Receiver<Orders>,
) {
    let connected = Arc::new(shared.counter.connected(protocol));
    let options = &shared.options;
    let builder = protocols(options, protocol);
    let service =
        service_fn(|request| handlers::handle(Arc::clone(&shared), Arc::clone(&connected), request));
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    let mut seen = *orders.borrow_and_update();
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            Ok(()) = orders.changed() => {
                let now = *orders.borrow_and_update();
                if now.kills > seen.kills {
                    return;
                }
                if now.drains > seen.drains {
                    connection.as_mut().graceful_shutdown();
                }
                seen = now;
            }
        }
    }
}

/// The protocols to speak, as ALPN or the options say.
fn protocols(options: &Builder, protocol: &str) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new());
    if let Some(max) = options.h2_max_streams {
        http2.max_concurrent_streams(max);
    }
    if options.connect_protocol {
        http2.enable_connect_protocol();
    }
    if options.h2_only || protocol == "h2" {
        builder.http2_only()
    } else if options.h1_only || protocol == "http/1.1" {
        builder.http1_only()
    } else {
        builder
    }
}
