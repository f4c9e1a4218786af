//! The wrapper over in-memory transports: partial and vectored writes, stalls, errors.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, advance};

use super::*;

/// Accepts at most so many bytes at once, across slices.
struct Narrow {
    width: usize,
    written: Vec<u8>,
}

impl AsyncWrite for Narrow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = bufs
            .iter()
            .flat_map(|buf| buf.iter().copied())
            .take(self.width)
            .collect();
        self.written.extend(&all);
        Poll::Ready(Ok(all.len()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// P30: only what the transport accepted counts, in whatever pieces it was offered and taken.
#[tokio::test]
async fn partial_vectored_writes() {
    let head = wire(kind::HEADERS, END_HEADERS, 1, &[0x82]);
    let data = wire(kind::DATA, END_STREAM, 1, &[7; 100]);
    for width in 1..=150 {
        let meter = Meter::new(Bounds::default());
        let mut io = MeteredIo::new(
            Narrow {
                width,
                written: Vec::new(),
            },
            Arc::clone(&meter),
        );
        assert!(io.is_write_vectored());
        let pieces = [&PREFACE[..], &head, &data[..12], &data[12..]];
        let mut left: Vec<&[u8]> = pieces.to_vec();
        while !left.is_empty() {
            let slices: Vec<_> = left.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut accepted = io.write_vectored(&slices).await.unwrap();
            while let Some(first) = left.first_mut() {
                if accepted < first.len() {
                    *first = &first[accepted..];
                    break;
                }
                accepted -= first.len();
                left.remove(0);
            }
        }
        assert_eq!(io.into_inner().written, pieces.concat());
        assert_eq!((meter.opened(), meter.data_sent()), (1, 100), "width {width}");
    }
}

// P44: a write that makes no progress is seen, with the time at which it began to wait.
#[tokio::test(start_paused = true)]
async fn stalled_write() {
    let (io, mut peer) = tokio::io::duplex(16);
    let meter = Meter::new(Bounds::default());
    let mut io = MeteredIo::new(io, Arc::clone(&meter));
    advance(Duration::from_secs(5)).await;
    let mut write = tokio_test::task::spawn(io.write_all(PREFACE));
    assert!(write.poll().is_pending(), "16 of 24 bytes fit");
    let since = meter.write_stalled_since().unwrap();
    assert_eq!(since, meter.epoch + Duration::from_secs(5));
    advance(Duration::from_secs(7)).await;
    assert!(write.poll().is_pending());
    assert_eq!(
        meter.write_stalled_since(),
        Some(since),
        "polled again, still the same stall"
    );

    peer.read_exact(&mut [0; 16]).await.unwrap();
    assert!(write.poll().is_ready());
    assert_eq!(meter.write_stalled_since(), None);
}

// P44: what came before the bound is read, then an error names it and nothing more is read; however the bytes are cut.
#[tokio::test(start_paused = true)]
async fn violation_ends_reading() {
    let mut good = wire(kind::SETTINGS, 0, 0, &[]);
    good.extend(wire(kind::PING, 0, 0, &[0; 8]).repeat(999));
    let bytes = [good.clone(), wire(kind::PING, 0, 0, &[0; 8]).repeat(9)].concat();
    for width in [bytes.len(), 1_000, 7, 1] {
        let meter = Meter::new(Bounds::default());
        let (far, mut peer) = tokio::io::duplex(width);
        let mut io = MeteredIo::new(far, Arc::clone(&meter));
        let bytes = bytes.clone();
        let peer = tokio::spawn(async move { peer.write_all(&bytes).await });
        let mut read = Vec::new();
        let error = io.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let violation = error.get_ref().unwrap().downcast_ref::<Violation>();
        assert_eq!(
            violation.copied(),
            Some(Violation::ControlRate { per_second: 1_000 })
        );
        assert_eq!(violation.copied(), meter.violation());
        let header = read.len().checked_sub(good.len()).unwrap();
        assert!(
            read.starts_with(&good) && header < 9,
            "width {width}: at most a part of the header more"
        );

        let seen = meter.frames_seen();
        assert_eq!(
            io.read(&mut [0; 9]).await.unwrap_err().kind(),
            ErrorKind::InvalidData
        );
        assert_eq!(meter.frames_seen(), seen);
        peer.abort();
    }
}

// P44: the peer's end is an end and no violation, after any number of bytes.
#[tokio::test]
async fn end_at_every_byte() {
    let mut bytes = wire(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 7]);
    bytes.extend(wire(kind::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2]));
    for end in 0..=bytes.len() {
        let meter = Meter::new(Bounds::default());
        let mut io = MeteredIo::new(&bytes[..end], Arc::clone(&meter));
        let mut read = Vec::new();
        io.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, bytes[..end]);
        assert_eq!(
            (meter.frames_seen() > 0, meter.goaway().is_some()),
            (end >= 9, end == bytes.len())
        );
    }
}

// P18, P22: what can be read is read before the error of a write is told; what was swallowed counts as not written.
#[tokio::test]
async fn a_broken_write_lets_the_rest_be_read() {
    let meter = Meter::new(Bounds::default());
    let (far, mut peer) = tokio::io::duplex(1 << 16);
    let mut io = MeteredIo::new(far, Arc::clone(&meter));
    io.write_all(PREFACE).await.unwrap();
    io.write_all(&wire(kind::HEADERS, END_HEADERS, 1, &[0x82]))
        .await
        .unwrap();
    peer.write_all(&wire(kind::SETTINGS, 0, 0, &[])).await.unwrap();
    peer.write_all(&wire(kind::GOAWAY, 0, 0, &[0; 8])).await.unwrap();
    drop(peer);

    let late = wire(kind::HEADERS, END_HEADERS, 3, &[0x82]);
    assert_eq!(
        io.write_vectored(&[IoSlice::new(&late)]).await.unwrap(),
        late.len()
    );
    io.write_all(&late).await.unwrap();
    io.flush().await.unwrap();
    assert!(meter.is_written(1) && !meter.is_written(3));

    let mut read = vec![0; 9 + 17];
    io.read_exact(&mut read).await.unwrap();
    assert_eq!(meter.goaway().unwrap().last_stream_id, 0);
    let error = io.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

/// Its writes fail, and what can be read comes later.
struct Broken(tokio::io::DuplexStream);

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// P18, P22: the runtime may hear of the failed write before it hears of what can be read.
#[tokio::test(start_paused = true)]
async fn what_comes_a_moment_after_a_broken_write_is_read() {
    let meter = Meter::new(Bounds::default());
    let (far, mut peer) = tokio::io::duplex(1 << 16);
    let mut io = MeteredIo::new(Broken(far), Arc::clone(&meter));
    io.write_all(PREFACE).await.unwrap();
    let mut bytes = [0; 9 + 17];
    let mut read = tokio_test::task::spawn(io.read_exact(&mut bytes));
    assert!(read.poll().is_pending());
    peer.write_all(&wire(kind::SETTINGS, 0, 0, &[])).await.unwrap();
    peer.write_all(&wire(kind::GOAWAY, 0, 0, &[0; 8])).await.unwrap();
    assert!(read.is_woken() && read.poll().is_ready());
    drop(read);
    assert!(meter.goaway().is_some());
    drop(peer);
    assert_eq!(
        io.read(&mut bytes).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

// P14: nobody waits for words that do not come.
#[tokio::test(start_paused = true)]
async fn a_broken_write_is_told_when_nothing_can_be_read() {
    let (far, _peer) = tokio::io::duplex(1 << 16);
    let mut io = MeteredIo::new(Broken(far), Meter::new(Bounds::default()));
    io.write_all(PREFACE).await.unwrap();
    let before = crate::clock::now();
    let error = io.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(crate::clock::now() - before, Duration::from_millis(100));
}
