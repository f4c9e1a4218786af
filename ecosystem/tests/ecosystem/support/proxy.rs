//! A small HTTP CONNECT proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The proxy, and what it was asked to connect to. Dropped, it accepts no more.
pub(crate) struct Proxy {
    addr: SocketAddr,
    pub(crate) asked: mpsc::UnboundedReceiver<String>,
    running: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, asked) = mpsc::unbounded_channel();
        let sender = Arc::new(sender);
        let running = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let sender = sender.clone();
                let service = service_fn(move |request| connect(request, sender.clone()));
                let serving = http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service)
                    .with_upgrades();
                tokio::spawn(serving);
            }
        });
        Self { addr, asked, running }
    }

    pub(crate) fn uri(&self) -> http::Uri {
        format!("http://{}", self.addr).parse().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn connect(
    request: Request<Incoming>,
    asked: Arc<mpsc::UnboundedSender<String>>,
) -> Result<Response<Empty<&'static [u8]>>, std::io::Error> {
    assert_eq!(request.method(), Method::CONNECT);
    let target = request.uri().to_string();
    asked.send(target.clone()).unwrap();
    let mut far = TcpStream::connect(target).await?;
    tokio::spawn(async move {
        let near = hyper::upgrade::on(request).await.unwrap();
        // Either side may cut the tunnel.
        drop(tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut far).await);
    });
    Ok(Response::new(Empty::new()))
}
