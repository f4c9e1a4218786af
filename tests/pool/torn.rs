//! A write that fails in its midst: what went out before was sent.

use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2pool::connect::{Connection, TlsConnector, from_fn};
use h2pool::{Error, H2Pool, Origin};
use http::{Request, Version};
use http_body::Frame;
use http_body_util::Empty;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::support::certs::client_config;
use crate::support::client::upload;
use crate::support::server::Server;
use crate::util::*;

/// A socket that breaks, after so many more writes, once it is told how many.
struct Fragile {
    /// Never closed: the server hears nothing of it.
    io: ManuallyDrop<TcpStream>,
    /// One more than may still be written; 0: it was not told.
    left: Arc<AtomicUsize>,
}

fn broken() -> std::io::Error {
    std::io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Fragile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.left.load(Ordering::SeqCst) {
            1 => Poll::Ready(Err(broken())),
            _ => Pin::new(&mut *self.io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Fragile {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.left.load(Ordering::SeqCst) {
            0 => {}
            1 => return Poll::Ready(Err(broken())),
            left => self.left.store(left - 1, Ordering::SeqCst),
        }
        Pin::new(&mut *self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_request_in_a_record_that_was_sent_is_not_sent_again() {
    // P21, P22: rustls sends record by record; the write fails as a whole when the second one does.
    let server = Server::builder().h2_only().start().await;
    let (address, left) = (server.addr(), Arc::new(AtomicUsize::new(0)));
    let shared = left.clone();
    let transport = from_fn(move |_: &Origin, _| {
        let left = shared.clone();
        async move {
            let io = TcpStream::connect(address).await.map_err(Error::connect)?;
            let io = ManuallyDrop::new(io);
            Ok(Connection::new(Fragile { io, left }, Version::HTTP_2))
        }
    });
    let tls = TlsConnector::new(client_config()).over(transport);
    let pool = H2Pool::builder().connector(tls).build().unwrap();
    let (sender, body) = upload(8);
    let uploading = Request::post(server.uri("/echo")).body(body).unwrap();
    let uploading = fetch(&pool, named(uploading, 2));
    eventually("the upload is under way", || server.counts().processed("2") == 1).await;
    left.store(2, Ordering::SeqCst);
    let small = Request::delete(server.uri("/bytes/1")).body(Empty::<Bytes>::new());
    let small = fetch(&pool, named(small.unwrap(), 1));
    let data = Frame::data(Bytes::from(vec![7; 60_000]));
    sender.try_send(Ok(data)).unwrap();
    let error = join(small).await.unwrap_err();
    assert!(!error.is_unprocessed(), "{error:?}");
    assert!(join(uploading).await.is_err());
    assert!(server.counts().processed("1") <= 1);
}
