//! An HTTP/2 server that does nothing by itself: the test reads the client's frames one by one and answers with any
//! bytes it likes, right or wrong.
//!
//! ```text
//! let mut peer = listener.accept().await;              // or Peer::new(any stream)
//! peer.handshake(&[(setting::MAX_CONCURRENT_STREAMS, 1)]).await;
//! let request = peer.next_headers().await;             // skips SETTINGS, PING, WINDOW_UPDATE
//! peer.send_goaway(0, code::NO_ERROR, b"").await;
//! peer.respond(request.stream, 200, b"done").await;
//! ```
//!
//! SETTINGS and PING are acknowledged while reading, unless switched off by [`Peer::silent`]. `recv` is cancel-safe;
//! the writing methods are not.

pub mod frame;
pub mod hpack;
mod send;
mod serve;

use std::collections::BTreeMap;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use self::frame::{Data, Frame, Headers, RawFrame, code, flag, kind, setting};
pub use self::send::Flood;
pub use self::serve::Exchange;
use super::{Io, within};

/// One connection, seen from the server.
pub struct Peer {
    io: Box<dyn Io>,
    unread: BytesMut,
    /// Acknowledgements that are not written yet.
    unsent: BytesMut,
    decoder: hpack::Decoder,
    acknowledge: bool,
    /// The client's settings as far as they were read, in the order of arrival.
    settings: Vec<(u16, u32)>,
    /// For `serve`: the paths of requests whose end has not come yet, by stream.
    incomplete: BTreeMap<u32, String>,
}

impl Peer {
    /// A peer on the server's end of any byte stream.
    pub fn new(io: impl Io) -> Self {
        Self {
            io: Box::new(io),
            unread: BytesMut::new(),
            unsent: BytesMut::new(),
            decoder: hpack::Decoder::default(),
            acknowledge: true,
            settings: Vec::new(),
            incomplete: BTreeMap::new(),
        }
    }

    /// From now on acknowledges neither SETTINGS nor PING.
    pub fn silent(&mut self) {
        self.acknowledge = false;
    }

    /// From now on acknowledges SETTINGS and PING again; those in between stay unanswered.
    pub fn talking(&mut self) {
        self.acknowledge = true;
    }

    /// The byte stream, for what no frame can express.
    pub fn io(&mut self) -> &mut dyn Io {
        &mut *self.io
    }

    /// Reads the client's preface (RFC 9113 §3.4); its SETTINGS frame follows.
    pub async fn expect_preface(&mut self) {
        within("the client's preface", self.read_preface()).await.unwrap();
    }

    /// Sends our SETTINGS, reads the preface and the client's SETTINGS, and acknowledges them.
    pub async fn handshake(&mut self, settings: &[(u16, u32)]) {
        within("the handshake", self.greet(settings)).await.unwrap();
    }

    /// The same with a client that may go away meanwhile.
    ///
    /// # Errors
    /// Whatever the byte stream says; `UnexpectedEof` at its end.
    pub async fn greet(&mut self, settings: &[(u16, u32)]) -> io::Result<()> {
        self.try_send_raw(&frame::settings(settings)).await?;
        self.read_preface().await?;
        match self.recv().await? {
            Some(Frame::Settings { ack: false, .. }) => Ok(()),
            Some(other) => panic!("the first frame must be SETTINGS, not {other:?}"),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Sends these bytes in place of SETTINGS and reads the preface; `None` when the client went away.
    pub async fn greet_raw(&mut self, bytes: &[u8]) -> Option<()> {
        self.try_send_raw(bytes).await.ok()?;
        self.read_preface().await.ok()
    }

    async fn read_preface(&mut self) -> io::Result<()> {
        while self.unread.len() < frame::PREFACE.len() {
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let preface = self.unread.split_to(frame::PREFACE.len());
        assert_eq!(&preface[..], frame::PREFACE);
        Ok(())
    }

    /// What the client last said of a setting.
    pub fn client_setting(&self, id: u16) -> Option<u32> {
        let mut newest_first = self.settings.iter().rev();
        newest_first
            .find(|(setting, _)| *setting == id)
            .map(|(_, value)| *value)
    }

    /// The next frame, or `None` once the client has closed. Cancel-safe.
    ///
    /// # Errors
    /// Whatever the byte stream says, a connection reset for example.
    pub async fn recv(&mut self) -> io::Result<Option<Frame>> {
        self.flush_acknowledgements().await?;
        let Some(raw) = self.recv_raw().await? else {
            return Ok(None);
        };
        let frame = if raw.kind == kind::HEADERS {
            match self.header_block(raw).await? {
                Some(headers) => Frame::Headers(headers),
                None => return Ok(None),
            }
        } else {
            Frame::parse(raw)
        };
        self.note(&frame);
        self.flush_acknowledgements().await?;
        Ok(Some(frame))
    }

    /// The next frame; fails the test at EOF.
    pub async fn next(&mut self) -> Frame {
        let frame = within("a frame from the client", self.recv()).await;
        frame
            .expect("the connection lives")
            .expect("the client has not closed")
    }

    /// The next frame that is no SETTINGS, PING, WINDOW_UPDATE, PRIORITY or unknown one.
    pub async fn next_stream_frame(&mut self) -> Frame {
        loop {
            let frame = self.next().await;
            if !frame.is_control() {
                return frame;
            }
        }
    }

    /// The next header block; frames of other kinds are skipped.
    pub async fn next_headers(&mut self) -> Headers {
        loop {
            if let Frame::Headers(headers) = self.next().await {
                return headers;
            }
        }
    }

    /// The next RST_STREAM as (stream, code); frames of other kinds are skipped.
    pub async fn next_reset(&mut self) -> (u32, u32) {
        loop {
            if let Frame::Reset { stream, code } = self.next().await {
                return (stream, code);
            }
        }
    }

    /// The next GOAWAY as (last stream, code); frames of other kinds are skipped.
    pub async fn next_goaway(&mut self) -> (u32, u32) {
        loop {
            if let Frame::Goaway { last, code, .. } = self.next().await {
                return (last, code);
            }
        }
    }

    /// Reads until the client closes, and says which frames came before that; a reset counts as closing.
    pub async fn until_closed(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let read = async {
            while let Ok(Some(frame)) = self.recv().await {
                frames.push(frame);
            }
        };
        within("the client closes", read).await;
        frames
    }

    /// One PING round trip of our own: all that the client sent before the answer is returned. Proves that what we
    /// sent earlier has been read.
    pub async fn ping_round_trip(&mut self) -> Vec<Frame> {
        const PAYLOAD: [u8; 8] = *b"peer was";
        self.send_ping(PAYLOAD).await;
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Frame::Ping {
                    ack: true,
                    payload: PAYLOAD,
                } => return before,
                frame => before.push(frame),
            }
        }
    }

    /// The next frame as it lies on the wire, or `None` at the end. Nothing is acknowledged.
    async fn recv_raw(&mut self) -> io::Result<Option<RawFrame>> {
        loop {
            if let Some(frame) = RawFrame::take(&mut self.unread) {
                return Ok(Some(frame));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.io.read_buf(&mut self.unread).await? > 0)
    }

    /// Gathers HEADERS and its CONTINUATIONs. Cancelled in the middle, it puts back what it took.
    async fn header_block(&mut self, first: RawFrame) -> io::Result<Option<Headers>> {
        let mut gathered = Gathered::new(self, first);
        while !gathered.complete() {
            match gathered.peer.recv_raw().await? {
                Some(frame) => gathered.frames.push(frame),
                None => return Ok(None),
            }
        }
        Ok(Some(gathered.decode()))
    }

    fn note(&mut self, frame: &Frame) {
        match frame {
            Frame::Settings { ack: false, values } => {
                self.settings.extend_from_slice(values);
                if self.acknowledge {
                    let ack = frame::encode(kind::SETTINGS, flag::ACK, 0, &[]);
                    self.unsent.extend_from_slice(&ack);
                }
            }
            Frame::Ping { ack: false, payload } if self.acknowledge => {
                let ack = frame::encode(kind::PING, flag::ACK, 0, payload);
                self.unsent.extend_from_slice(&ack);
            }
            _ => {}
        }
    }

    async fn flush_acknowledgements(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            self.io.write_buf(&mut self.unsent).await?;
        }
        self.io.flush().await
    }
}

/// A header block in the making; dropped before its end, it returns its frames to the peer.
struct Gathered<'a> {
    peer: &'a mut Peer,
    frames: Vec<RawFrame>,
}

impl<'a> Gathered<'a> {
    fn new(peer: &'a mut Peer, first: RawFrame) -> Self {
        Self {
            peer,
            frames: vec![first],
        }
    }

    fn complete(&self) -> bool {
        self.frames
            .last()
            .is_some_and(|frame| frame.has(flag::END_HEADERS))
    }

    fn decode(mut self) -> Headers {
        let frames = std::mem::take(&mut self.frames);
        let mut block = frames[0].unpadded();
        if frames[0].has(flag::PRIORITY) {
            block = block.slice(5..);
        }
        let mut whole = BytesMut::from(&block[..]);
        for frame in &frames[1..] {
            assert_eq!((frame.kind, frame.stream), (kind::CONTINUATION, frames[0].stream));
            whole.extend_from_slice(&frame.payload);
        }
        Headers {
            stream: frames[0].stream,
            end: frames[0].has(flag::END_STREAM),
            continuations: frames.len() - 1,
            fields: self.peer.decoder.decode(&whole),
            block: whole.freeze(),
        }
    }
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        let later = std::mem::take(&mut self.peer.unread);
        for RawFrame {
            kind,
            flags,
            stream,
            payload,
        } in self.frames.drain(..)
        {
            self.peer
                .unread
                .extend_from_slice(&frame::encode(kind, flags, stream, &payload));
        }
        self.peer.unread.extend_from_slice(&later);
    }
}
