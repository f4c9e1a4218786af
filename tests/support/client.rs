//! Bare clients that are none of ours: one connection each, on hyper's `conn`. For proving the fakes, and as the floor
//! that a pool is measured against.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Io;
use super::certs::Tls;
use super::server::body::{BoxError, Boxed};

/// A TLS connection to a loopback server under the name `localhost`.
///
/// # Errors
/// Of TCP and of TLS.
pub async fn dial_tls(addr: SocketAddr, tls: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(tls)).connect(name, tcp).await
}

/// HTTP/2 over any byte stream, driven on this runtime.
pub async fn h2_over(io: impl Io) -> http2::SendRequest<Boxed> {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(io));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// HTTP/1.1 over any byte stream, driven on this runtime, with upgrades.
pub async fn h1_over(io: impl Io) -> http1::SendRequest<Boxed> {
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

/// HTTP/2 over TLS.
pub async fn h2_to(addr: SocketAddr) -> http2::SendRequest<Boxed> {
    h2_over(dial_tls(addr, Tls::h2().client()).await.unwrap()).await
}

/// HTTP/1.1 over TLS.
pub async fn h1_to(addr: SocketAddr) -> http1::SendRequest<Boxed> {
    h1_over(dial_tls(addr, Tls::h1().client()).await.unwrap()).await
}

/// A request body that the test feeds frame by frame; it ends when the sender is dropped. `buffer` frames wait
/// unread before sending does.
pub fn upload(buffer: usize) -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Boxed) {
    let (sender, receiver) = mpsc::channel(buffer);
    let frames = stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}
