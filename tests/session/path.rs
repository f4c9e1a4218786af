//! A network path that takes time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::bench::now;
use crate::support::peer::{RawFrame, frame, kind, setting};

/// What passed, as the server sees it.
#[derive(Default)]
pub(crate) struct Seen {
    /// Bytes that reached the client.
    pub(crate) delivered: AtomicU64,
    /// PINGs of the client, by the time of their passing.
    pub(crate) pings: Mutex<Vec<tokio::time::Instant>>,
    /// Each SETTINGS_INITIAL_WINDOW_SIZE of the client.
    pub(crate) stream_windows: Mutex<Vec<u32>>,
    /// Bytes of DATA that the client ever allowed on the connection.
    pub(crate) allowed: AtomicU64,
}

/// Puts a path of `delay` in each direction before `client_end`, and returns its far end.
pub(crate) fn delayed(client_end: DuplexStream, delay: Duration) -> (DuplexStream, Arc<Seen>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let seen = Arc::new(Seen::default());
    seen.allowed.store(65_535, Ordering::Relaxed);
    let (client_read, client_write) = tokio::io::split(client_end);
    let (server_read, server_write) = tokio::io::split(near);
    let (up, down) = (seen.clone(), seen.clone());
    let mut frames = BytesMut::new();
    let mut preface = frame::PREFACE.len();
    carry(client_read, server_write, delay, move |bytes| {
        let skipped = preface.min(bytes.len());
        preface -= skipped;
        frames.extend_from_slice(&bytes[skipped..]);
        while let Some(frame) = RawFrame::take(&mut frames) {
            up.note(&frame);
        }
    });
    carry(server_read, client_write, delay, move |bytes| {
        down.delivered.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    });
    (far, seen)
}

impl Seen {
    fn note(&self, raw: &RawFrame) {
        use frame::Frame;
        match (raw.kind, raw.stream) {
            (kind::PING, _) if !raw.has(frame::flag::ACK) => self.pings.lock().push(now()),
            (kind::SETTINGS, _) => {
                let Frame::Settings { values, .. } = Frame::parse(raw.clone()) else {
                    unreachable!("its kind says so");
                };
                let windows = values
                    .iter()
                    .filter(|(id, _)| *id == setting::INITIAL_WINDOW_SIZE);
                self.stream_windows.lock().extend(windows.map(|(_, size)| *size));
            }
            (kind::WINDOW_UPDATE, 0) => {
                if let Frame::WindowUpdate { increment, .. } = Frame::parse(raw.clone()) {
                    self.allowed.fetch_add(u64::from(increment), Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

/// Moves bytes, `delay` late, however many are on their way; `spy` sees them arrive.
fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    delay: Duration,
    mut spy: impl FnMut(&[u8]) + Send + 'static,
) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(tokio::time::Instant, Bytes)>();
    tokio::spawn(async move {
        loop {
            let mut chunk = BytesMut::with_capacity(64 * 1024);
            match from.read_buf(&mut chunk).await {
                Ok(1..) if sender.send((now() + delay, chunk.freeze())).is_ok() => {}
                _ => return,
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, chunk)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
            spy(&chunk);
        }
        // The end travels too; a client that is gone does not mind.
        let _ = to.shutdown().await;
    });
}
