//! A listener on loopback whose connections become frame-level peers, one by one, and are counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Uri;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::certs::Tls;
use super::peer::Peer;
use super::within;

/// Accepts in a task of its own, so that every connection is counted at once, whatever the test does with the others.
pub struct PeerListener {
    addr: SocketAddr,
    tls: bool,
    accepted: Arc<AtomicUsize>,
    peers: mpsc::UnboundedReceiver<Peer>,
    task: JoinHandle<()>,
}

impl PeerListener {
    /// TLS with ALPN `h2`.
    pub async fn tls() -> Self {
        Self::with_tls(Tls::h2().server()).await
    }

    /// TLS of any kind; the peers are those whose handshake succeeded.
    pub async fn with_tls(config: Arc<ServerConfig>) -> Self {
        Self::start(Some(config.into()), false).await
    }

    /// Plain text.
    pub async fn plain() -> Self {
        Self::start(None, false).await
    }

    /// Plain text; a peer that is dropped resets its connection (RST instead of FIN).
    pub async fn plain_resetting() -> Self {
        Self::start(None, true).await
    }

    async fn start(tls: Option<TlsAcceptor>, reset: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let accepted = Arc::<AtomicUsize>::default();
        let (sender, peers) = mpsc::unbounded_channel();
        Self {
            addr: listener.local_addr().unwrap(),
            tls: tls.is_some(),
            peers,
            task: tokio::spawn(accept(listener, tls, reset, Arc::clone(&accepted), sender)),
            accepted,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URI of a path here, by address.
    pub fn uri(&self, path: &str) -> Uri {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.addr).parse().unwrap()
    }

    /// How many TCP connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The next connection, its TLS handshake done, its HTTP/2 preface not read.
    pub async fn accept(&mut self) -> Peer {
        within("a connection", self.peers.recv())
            .await
            .expect("the listener lives")
    }

    /// The connection that is there already, if one is.
    pub fn try_accept(&mut self) -> Option<Peer> {
        self.peers.try_recv().ok()
    }

    /// The next connection, for a task that serves as long as the test lives.
    pub async fn accept_some_time(&mut self) -> Peer {
        self.peers.recv().await.expect("the listener lives")
    }
}

impl Drop for PeerListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    reset: bool,
    accepted: Arc<AtomicUsize>,
    peers: mpsc::UnboundedSender<Peer>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        tcp.set_nodelay(true).unwrap();
        if reset {
            tcp.set_zero_linger().unwrap();
        }
        tokio::spawn(handshake(tcp, tls.clone(), peers.clone()));
    }
}

async fn handshake(tcp: TcpStream, tls: Option<TlsAcceptor>, peers: mpsc::UnboundedSender<Peer>) {
    let peer = match tls {
        None => Peer::new(tcp),
        Some(acceptor) => match acceptor.accept(tcp).await {
            Ok(stream) => Peer::new(stream),
            Err(_) => return,
        },
    };
    // The test may have ended.
    drop(peers.send(peer));
}
