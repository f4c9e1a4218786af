//! The transport, with a [`Meter`] in its way.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Meter;
use super::traffic::{FromPeer, ToPeer};

/// Passes everything through and tells the [`Meter`] of the frames in it.
///
/// Once the peer went over a bound, what came before is still read, then reading fails with `InvalidData` and a
/// [`Violation`](super::Violation) inside. While a stream is to be cut for its small frames, nothing is read.
#[derive(Debug)]
pub(crate) struct MeteredIo<T> {
    io: T,
    meter: Arc<Meter>,
    from_peer: FromPeer,
    to_peer: ToPeer,
    /// Streams handed to h2 when reading last waited for writing.
    held_for: u64,
}

impl<T> MeteredIo<T> {
    /// Wraps a transport on which nothing of HTTP/2 was sent yet.
    pub(crate) fn new(io: T, meter: Arc<Meter>) -> Self {
        Self {
            io,
            from_peer: FromPeer::new(&meter.bounds),
            to_peer: ToPeer::new(),
            held_for: 0,
            meter,
        }
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

    /// Notes the outcome of a flush or shutdown.
    fn flushed(&self, result: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match result {
            Poll::Pending => self.meter.write_waits(crate::clock::now),
            Poll::Ready(_) => self.meter.write_moves(),
        }
        result
    }

    /// Notes the outcome of a write of `pieces`.
    fn wrote<'a>(
        &mut self,
        result: Poll<io::Result<usize>>,
        pieces: impl Iterator<Item = &'a [u8]>,
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
            Poll::Ready(_) => {}
        }
        result
    }
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
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
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
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(result, std::iter::once(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(result, bufs.iter().map(|buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.flushed(result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_shutdown(cx);
        this.flushed(result)
    }
}
