//! An HTTP server on a loopback port that can die, with all its connections, and come back at the same address.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What a handler answers with.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

type Handler = Arc<dyn Fn(Request<Incoming>) -> Handled + Send + Sync>;
type Handled = std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The server. Dropped, it dies.
pub(crate) struct Endpoint {
    addr: SocketAddr,
    handler: Handler,
    tls: Option<Arc<ServerConfig>>,
    max_streams: u32,
    connections: Arc<AtomicUsize>,
    running: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Plain text, HTTP/1.1 and HTTP/2 by prior knowledge.
    pub(crate) async fn plain<F, Fut>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        Self::start(handler, None, 100).await
    }

    /// TLS with these protocols.
    pub(crate) async fn tls<F, Fut>(alpn: &[&str], handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        Self::start(handler, Some(super::certs::server(alpn)), 100).await
    }

    async fn start<F, Fut>(handler: F, tls: Option<Arc<ServerConfig>>, max_streams: u32) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let mut endpoint = Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            handler: Arc::new(move |request| Box::pin(handler(request))),
            tls,
            max_streams,
            connections: Arc::default(),
            running: None,
        };
        endpoint.come_back().await;
        endpoint
    }

    /// Its URI's beginning, such as `https://127.0.0.1:4433`.
    pub(crate) fn uri(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Stops listening, and cuts every connection.
    pub(crate) async fn die(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            drop(running.await);
        }
    }

    /// Listens again, at the same address.
    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.addr).await.unwrap();
        self.addr = listener.local_addr().unwrap();
        let server = Server {
            handler: self.handler.clone(),
            tls: self.tls.clone().map(TlsAcceptor::from),
            max_streams: self.max_streams,
        };
        let connections = self.connections.clone();
        self.running = Some(tokio::spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                serving.spawn(server.clone().serve(socket));
            }
        }));
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

#[derive(Clone)]
struct Server {
    handler: Handler,
    tls: Option<TlsAcceptor>,
    max_streams: u32,
}

impl Server {
    async fn serve(self, socket: tokio::net::TcpStream) {
        socket.set_nodelay(true).unwrap();
        match &self.tls {
            // A client that goes away during the handshake is none.
            Some(tls) => {
                if let Ok(socket) = tls.accept(socket).await {
                    self.speak(socket).await;
                }
            }
            None => self.speak(socket).await,
        }
    }

    async fn speak(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let service = service_fn(|request| {
            let answer = (self.handler)(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(self.max_streams);
        // A connection that is cut is the test's own doing.
        drop(builder.serve_connection(TokioIo::new(io), service).await);
    }
}
