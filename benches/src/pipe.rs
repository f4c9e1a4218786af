//! hyper-util's client over in-memory IO to a canned peer.

use std::future::ready;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;

use crate::canned;

/// One end of a pipe, as hyper-util wants it.
struct Pipe(TokioIo<DuplexStream>);

/// A client that speaks HTTP/2 by prior knowledge, or HTTP/1.1.
pub fn hyper_util(h2: bool) -> Client<impl Connect + Clone + Send + Sync + 'static, Full<Bytes>> {
    let connector = tower::service_fn(move |_: Uri| {
        let (io, server) = tokio::io::duplex(64 << 10);
        tokio::spawn(async move {
            match h2 {
                true => canned::serve(server).await,
                false => canned::serve_h1(server).await,
            }
        });
        ready(io::Result::Ok(Pipe(TokioIo::new(io))))
    });
    Client::builder(TokioExecutor::new())
        .http2_only(h2)
        .build(connector)
}

impl Pipe {
    fn io(self: Pin<&mut Self>) -> Pin<&mut TokioIo<DuplexStream>> {
        Pin::new(&mut self.get_mut().0)
    }
}

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buffer)
    }
}

impl Write for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}
