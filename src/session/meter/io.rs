//! The transport, with a [`Meter`] in its way.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::super::bound::LAST_WORDS;
use super::Meter;
use super::traffic::{FromPeer, ToPeer};
use crate::connect::Fault;

/// Passes everything through and tells the [`Meter`] of the frames in it.
///
/// Once the peer went over a bound, what came before is still read, then reading fails with `InvalidData` and a
/// [`Violation`](super::Violation) inside. While a stream is to be cut for its small frames, nothing is read.
///
/// A write that fails does not end the connection at once: a server that said GOAWAY and closed makes writes fail while its
/// last words, which tell what was processed, lie unread. Writes are swallowed from then on (nobody hears of what was in
/// them), what can be read within [`LAST_WORDS`] is read, and then the error of the write is the error of the connection.
#[derive(Debug)]
pub(crate) struct MeteredIo<T> {
    io: T,
    meter: Attached,
    from_peer: FromPeer,
    to_peer: ToPeer,
    /// Streams handed to h2 when reading last waited for writing.
    held_for: u64,
    broken: Option<Broken>,
    fault: Fault,
}

/// The meter of a transport. Dropped with it, it tells that nothing is written any more.
#[derive(Debug)]
struct Attached(Arc<Meter>);

impl Deref for Attached {
    type Target = Meter;

    fn deref(&self) -> &Meter {
        &self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A write failed.
#[derive(Debug)]
struct Broken {
    error: io::Error,
    until: Pin<Box<Sleep>>,
}

impl Broken {
    /// The error, for the connection.
    fn tell(&mut self) -> io::Error {
        let kind = self.error.kind();
        std::mem::replace(&mut self.error, kind.into())
    }
}

impl<T> MeteredIo<T> {
    /// Wraps a transport on which nothing of HTTP/2 was sent yet.
    pub(crate) fn new(io: T, meter: Arc<Meter>) -> Self {
        Self {
            io,
            from_peer: FromPeer::new(&meter.bounds),
            to_peer: ToPeer::new(),
            held_for: 0,
            broken: None,
            fault: Fault::default(),
            meter: Attached(meter),
        }
    }

    /// What the transport tells of its failures.
    pub(crate) fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    #[cfg(test)]
    pub(super) fn into_inner(self) -> T {
        self.io
    }

    fn refused(&self) -> io::Result<()> {
        match self.meter.violation() {
            Some(violation) => Err(io::Error::new(ErrorKind::InvalidData, violation)),
            None => Ok(()),
        }
    }

    /// From now on writes are swallowed; the connection is polled once more to read what there is.
    fn break_off(&mut self, error: io::Error, cx: &Context<'_>) {
        let until = Box::pin(tokio::time::sleep(LAST_WORDS));
        self.broken = Some(Broken { error, until });
        self.meter.write_moves();
        cx.waker().wake_by_ref();
    }

    /// Notes the outcome of a flush.
    fn flushed(&mut self, result: Poll<io::Result<()>>, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match result {
            Poll::Pending => {
                self.meter.write_waits(crate::clock::now);
                return Poll::Pending;
            }
            Poll::Ready(Ok(())) => self.meter.write_moves(),
            Poll::Ready(Err(error)) => self.break_off(error, cx),
        }
        Poll::Ready(Ok(()))
    }

    /// Notes the outcome of a write of `pieces`.
    fn wrote<'a>(
        &mut self,
        result: Poll<io::Result<usize>>,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Pending => self.meter.write_waits(crate::clock::now),
            Poll::Ready(Ok(accepted)) if accepted > 0 => {
                self.meter.write_moves();
                let mut left = accepted;
                for piece in pieces {
                    let piece = &piece[..piece.len().min(left)];
                    self.to_peer.feed(&self.meter, piece);
                    left -= piece.len();
                    if left == 0 {
                        break;
                    }
                }
            }
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => {
                // A transport that writes in parts, as TLS does record by record, may have sent some of it.
                if self.fault.is_torn() {
                    for piece in pieces.clone() {
                        self.to_peer.feed(&self.meter, piece);
                    }
                }
                self.break_off(error, cx);
                return Poll::Ready(Ok(total(pieces)));
            }
        }
        result
    }
}

fn total<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> usize {
    pieces.map(<[u8]>::len).sum()
}

impl<T: AsyncRead + Unpin> AsyncRead for MeteredIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.refused()?;
        if this.meter.has_accused() || this.meter.writes_first(&mut this.held_for) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(result) => result?,
            Poll::Pending => {
                return match &mut this.broken {
                    Some(broken) => broken.until.as_mut().poll(cx).map(|()| Err(broken.tell())),
                    None => Poll::Pending,
                };
            }
        }
        let read = &buf.filled()[before..];
        if let Some(broken) = this.broken.as_mut().filter(|_| read.is_empty()) {
            return Poll::Ready(Err(broken.tell()));
        }
        let passed = this.from_peer.feed(&this.meter, read, crate::clock::now);
        if passed < read.len() {
            buf.set_filled(before + passed);
            if passed == 0 {
                this.refused()?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for MeteredIo<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.broken.is_some() {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(result, std::iter::once(buf), cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let pieces = bufs.iter().map(|buf| &**buf);
        if this.broken.is_some() {
            return Poll::Ready(Ok(total(pieces)));
        }
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(result, pieces, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.broken.is_some() {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.flushed(result, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_shutdown(cx);
        match result {
            Poll::Pending => this.meter.write_waits(crate::clock::now),
            Poll::Ready(_) => this.meter.write_moves(),
        }
        result
    }
}
