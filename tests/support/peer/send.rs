//! What the peer sends: well-formed frames, raw bytes, floods.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::within;
use super::frame::{self, kind};
use super::{Peer, RawFrame, hpack};

/// The senders fail the test when the client is gone; those of a test that expects just that are
/// [`try_send_raw`](Self::try_send_raw) and [`flood`](Self::flood).
impl Peer {
    /// Any bytes at all.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let sent = within("the client reads", self.try_send_raw(bytes)).await;
        sent.expect("the client is there");
    }

    /// Any bytes at all, to a client that may have gone.
    ///
    /// # Errors
    /// Whatever the byte stream says.
    pub async fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush_acknowledgements().await?;
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Any frame at all.
    pub async fn send_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send_raw(&frame::encode(kind, flags, stream, payload)).await;
    }

    /// SETTINGS; see [`setting`](super::setting) for identifiers.
    pub async fn send_settings(&mut self, values: &[(u16, u32)]) {
        self.send_raw(&frame::settings(values)).await;
    }

    /// The head of a response that has no other fields than its status.
    pub async fn send_headers(&mut self, stream: u32, status: u16, end: bool) {
        self.send_fields(stream, &[(":status", &status.to_string())], end)
            .await;
    }

    /// A head, 1xx or trailers with these fields, pseudo-fields first.
    pub async fn send_fields(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let block = hpack::literals(fields.iter().copied());
        self.send_raw(&frame::headers(stream, &block, end)).await;
    }

    /// DATA in frames of at most 16 KiB. Flow control is the caller's business.
    pub async fn send_data(&mut self, stream: u32, data: &[u8], end: bool) {
        let mut chunks = data.chunks(frame::FRAME_SIZE).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let last = chunks.peek().is_none();
            self.send_raw(&frame::data(stream, chunk, end && last)).await;
            if last {
                return;
            }
        }
    }

    /// A whole response with a body.
    pub async fn respond(&mut self, stream: u32, status: u16, body: &[u8]) {
        self.send_headers(stream, status, false).await;
        self.send_data(stream, body, true).await;
    }

    /// GOAWAY; see [`code`](super::code).
    pub async fn send_goaway(&mut self, last: u32, code: u32, debug: &[u8]) {
        self.send_raw(&frame::goaway(last, code, debug)).await;
    }

    /// RST_STREAM; see [`code`](super::code).
    pub async fn send_rst(&mut self, stream: u32, code: u32) {
        self.send_raw(&frame::reset(stream, code)).await;
    }

    /// PING.
    pub async fn send_ping(&mut self, payload: [u8; 8]) {
        self.send_raw(&frame::ping(payload)).await;
    }

    /// PING's answer, for a peer that is [`silent`](Self::silent).
    pub async fn send_pong(&mut self, payload: [u8; 8]) {
        self.send_frame(kind::PING, frame::flag::ACK, 0, &payload).await;
    }

    /// WINDOW_UPDATE, on the connection when the stream is 0.
    pub async fn send_window_update(&mut self, stream: u32, increment: u32) {
        self.send_raw(&frame::window_update(stream, increment)).await;
    }

    /// Ends our direction.
    pub async fn shutdown(&mut self) {
        self.io.shutdown().await.expect("the client is there");
    }

    /// Repeats `bytes` (whole frames) until the client closes or at least `limit` bytes are written, taking in all
    /// that the client sends meanwhile, so that neither side can block the other. What came in is counted and thrown
    /// away: header blocks among it are lost to the decoder.
    pub async fn flood(&mut self, bytes: &[u8], limit: usize) -> Flood {
        self.flood_while(bytes, limit, |unread| {
            std::iter::from_fn(|| RawFrame::take(unread)).count()
        })
        .await
    }

    /// The same where no frames come back: over HTTP/1.1.
    pub async fn flood_text(&mut self, bytes: &[u8], limit: usize) -> Flood {
        self.flood_while(bytes, limit, |unread| {
            unread.clear();
            0
        })
        .await
    }

    async fn flood_while(
        &mut self,
        bytes: &[u8],
        limit: usize,
        mut take_in: impl FnMut(&mut BytesMut) -> usize,
    ) -> Flood {
        // Many frames to a write, so that it is the client who is tested and not this loop.
        let block = bytes.repeat((32 * 1024 / bytes.len()).max(1));
        let (mut reader, mut writer) = tokio::io::split(&mut self.io);
        let mut flood = Flood {
            written: 0,
            ended: true,
            received: 0,
        };
        let write = async {
            while flood.written < limit {
                writer.write_all(&block).await?;
                writer.flush().await?;
                flood.written += block.len();
                tokio::task::yield_now().await;
            }
            io::Result::Ok(())
        };
        let drain = async {
            loop {
                flood.received += take_in(&mut self.unread);
                // The error of a reset is an end too.
                if !matches!(reader.read_buf(&mut self.unread).await, Ok(1..)) {
                    return;
                }
            }
        };
        tokio::select! {
            written = write => flood.ended = written.is_err(),
            () = drain => {}
        }
        flood
    }
}

/// How a flood went.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Bytes written, in whole blocks.
    pub written: usize,
    /// The client closed before the limit was reached.
    pub ended: bool,
    /// Frames that the client sent meanwhile.
    pub received: usize,
}
