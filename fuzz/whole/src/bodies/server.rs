//! A server that keeps the books of flow control (RFC 9113 §6.9) in both directions.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::callers::{Plan, pattern, piece};
use crate::frame::{self, Frame, PREFACE, RawFrame, flag, kind};
use crate::hpack::Decoder;
use crate::input::Input;

/// What the protocol gives every connection at first.
const WINDOW: i64 = 65_535;

/// What the server tells the client.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// INITIAL_WINDOW_SIZE: what the client may send on a stream before it is given more.
    window: u32,
    streams: u32,
}

pub(super) fn settings(input: &mut Input<'_>) -> Settings {
    Settings {
        window: u32::from(input.u16()),
        streams: 1 + u32::from(input.byte()) % 6,
    }
}

/// One exchange.
struct Stream {
    number: usize,
    /// What the client may still send here, and what it sent.
    receive: i64,
    received: usize,
    request_ended: bool,
    /// What we may still send here, and what we sent.
    send: i64,
    sent: usize,
    head_sent: bool,
    response_ended: bool,
    reset: bool,
}

pub(super) struct Server {
    io: DuplexStream,
    unread: BytesMut,
    /// What is to be written before anything else: whoever wrote may have been cancelled in the midst of a frame.
    unwritten: BytesMut,
    plans: Vec<Plan>,
    settings: Settings,
    streams: BTreeMap<u32, Stream>,
    decoder: Decoder,
    empty_frames: usize,
    /// What the client may still send on the connection, and what we may.
    receive: i64,
    send: i64,
    /// The client's INITIAL_WINDOW_SIZE, and its whole connection window.
    initial: i64,
    window: i64,
    pongs: usize,
}

impl Server {
    pub(super) fn new(io: DuplexStream, plans: &[Plan], settings: Settings) -> Self {
        Self {
            io,
            unread: BytesMut::new(),
            unwritten: BytesMut::new(),
            plans: plans.to_vec(),
            settings,
            streams: BTreeMap::new(),
            decoder: Decoder::default(),
            empty_frames: 0,
            receive: WINDOW,
            send: WINDOW,
            initial: WINDOW,
            window: WINDOW,
            pongs: 0,
        }
    }

    /// Greets the client and does what the bytes say.
    pub(super) async fn play(&mut self, input: &mut Input<'_>) {
        let Settings { window, streams } = self.settings;
        self.write(&frame::settings(&[(3, streams), (4, window)])).await;
        while self.unread.len() < PREFACE.len() {
            self.fill().await;
        }
        assert_eq!(&self.unread[..PREFACE.len()], PREFACE);
        self.unread.advance(PREFACE.len());
        for _ in 0..200 {
            if input.is_empty() {
                return;
            }
            self.step(input).await;
        }
    }

    async fn step(&mut self, input: &mut Input<'_>) {
        let (op, which) = (input.byte(), usize::from(input.byte()));
        let id = self
            .streams
            .keys()
            .nth(which % self.streams.len().max(1))
            .copied();
        match (op % 8, id) {
            (0, _) | (_, None) => self.listen(u64::from(op >> 3)).await,
            (1, Some(id)) => self.head(id).await,
            (2 | 3, Some(id)) => self.data(id, usize::from(input.u16())).await,
            (4, Some(id)) => self.allow(id, 1 + u32::from(input.u16())).await,
            (5, _) => self.allow_all(1 + u32::from(input.u16())).await,
            (6, Some(id)) => self.data(id, usize::MAX).await,
            (_, Some(id)) => self.empty_data(id).await,
        }
    }

    /// Brings everything to its end, and goes on reading.
    pub(super) async fn finish(&mut self) -> Infallible {
        loop {
            let ids: Vec<u32> = self.streams.keys().copied().collect();
            for id in ids {
                self.head(id).await;
                self.data(id, usize::MAX).await;
                if self.streams[&id].receive < WINDOW {
                    self.allow(id, 70_000).await;
                }
            }
            if self.receive < WINDOW {
                self.allow_all(70_000).await;
            }
            self.listen(1).await;
        }
    }

    /// Once all bodies are read or dropped, most of the connection's window is ours again: the client may keep back what
    /// is not worth an update, half of it at most.
    pub(super) async fn settle(&mut self) {
        let before = self.pongs;
        self.write(&frame::ping(*b"settled?")).await;
        while self.pongs == before {
            self.receive_some().await;
        }
        assert!(
            self.send * 2 >= self.window,
            "{} of {} came back",
            self.send,
            self.window
        );
    }

    /// Reads for so many milliseconds.
    async fn listen(&mut self, milliseconds: u64) {
        let time = std::time::Duration::from_millis(milliseconds);
        let listening = async {
            loop {
                self.receive_some().await;
            }
        };
        let _: Result<Infallible, _> = tokio::time::timeout(time, listening).await;
    }

    async fn head(&mut self, id: u32) {
        let stream = self.streams.get_mut(&id).expect("a stream that was opened");
        if stream.head_sent || stream.reset {
            return;
        }
        stream.head_sent = true;
        let plan = self.plans[stream.number];
        let ends = plan.download == 0 && !plan.trailers;
        stream.response_ended = ends;
        self.write(&frame::headers(id, b"\x88", ends)).await;
    }

    /// As much as the windows allow, in one frame; then trailers where they are due.
    async fn data(&mut self, id: u32, most: usize) {
        let stream = self.streams.get_mut(&id).expect("a stream that was opened");
        if !stream.head_sent || stream.response_ended || stream.reset {
            return;
        }
        let plan = self.plans[stream.number];
        let allowed = usize::try_from(self.send.min(stream.send)).unwrap_or(0);
        let length = most
            .min(plan.download - stream.sent)
            .min(allowed)
            .min(frame::FRAME_SIZE);
        let last = stream.sent + length == plan.download;
        if length == 0 && !last {
            return;
        }
        let data = piece(stream.number, stream.sent, length);
        stream.sent += length;
        stream.response_ended = last;
        let spent = i64::try_from(length).unwrap();
        stream.send -= spent;
        self.send -= spent;
        self.write(&frame::data(id, &data, last && !plan.trailers)).await;
        if last && plan.trailers {
            self.write(&frame::headers(id, b"\x00\x03sum\x011", true)).await;
        }
    }

    /// A frame that costs nothing; a hundred of them would end a session.
    async fn empty_data(&mut self, id: u32) {
        let stream = &self.streams[&id];
        if stream.head_sent && !stream.response_ended && !stream.reset && self.empty_frames < 20 {
            self.empty_frames += 1;
            self.write(&frame::data(id, b"", false)).await;
        }
    }

    async fn allow(&mut self, id: u32, increment: u32) {
        let stream = self.streams.get_mut(&id).expect("a stream that was opened");
        if !stream.request_ended && !stream.reset && stream.receive < 1 << 30 {
            stream.receive += i64::from(increment);
            self.write(&frame::window_update(id, increment)).await;
        }
    }

    async fn allow_all(&mut self, increment: u32) {
        if self.receive < 1 << 30 {
            self.receive += i64::from(increment);
            self.write(&frame::window_update(0, increment)).await;
        }
    }

    async fn receive_some(&mut self) {
        match RawFrame::take(&mut self.unread) {
            Some(raw) if raw.kind == kind::HEADERS || raw.kind == kind::CONTINUATION => {
                self.headers(&raw).await
            }
            Some(raw) => self.frame(Frame::parse(raw)).await,
            None => self.fill().await,
        }
    }

    /// A request's head, or its trailers.
    async fn headers(&mut self, raw: &RawFrame) {
        assert!(raw.has(flag::END_HEADERS), "heads are small here");
        let fields = self.decoder.decode(&raw.unpadded());
        let path = fields.iter().find(|(name, _)| name == ":path");
        let number = path.map(|(_, path)| usize::from(path[1] - b'0'));
        let ended = raw.has(flag::END_STREAM);
        let (window, initial) = (self.settings.window.into(), self.initial);
        let stream = self.streams.entry(raw.stream).or_insert_with(|| Stream {
            number: number.expect("a request has a path"),
            receive: window,
            received: 0,
            request_ended: false,
            send: initial,
            sent: 0,
            head_sent: false,
            response_ended: false,
            reset: false,
        });
        stream.request_ended |= ended;
        self.check_end(raw.stream);
    }

    async fn frame(&mut self, frame: Frame) {
        match frame {
            Frame::Data(data) => {
                let cost = i64::try_from(data.flow).unwrap();
                self.receive -= cost;
                let stream = self
                    .streams
                    .get_mut(&data.stream)
                    .expect("a stream that was opened");
                stream.receive -= cost;
                assert!(
                    self.receive >= 0 && stream.receive >= 0,
                    "RFC 9113 §6.9.1: the window was exceeded"
                );
                let (number, at) = (stream.number, stream.received);
                let same = data
                    .data
                    .iter()
                    .enumerate()
                    .all(|(i, byte)| *byte == pattern(number, at + i));
                assert!(same, "the upload arrives byte for byte");
                stream.received += data.data.len();
                stream.request_ended |= data.end;
                self.check_end(data.stream);
            }
            Frame::Reset { stream, .. } => {
                let stream = self.streams.get_mut(&stream).expect("a stream that was opened");
                let plan = self.plans[stream.number];
                let dropped = plan.stops_after.is_some() || stream.response_ended;
                assert!(dropped, "only a body that was dropped resets its stream");
                stream.reset = true;
            }
            Frame::Settings { ack: false, values } => {
                for (_, value) in values.into_iter().filter(|(id, _)| *id == 4) {
                    let change = i64::from(value) - self.initial;
                    self.initial = value.into();
                    self.streams.values_mut().for_each(|stream| stream.send += change);
                }
                self.write(&frame::encode(kind::SETTINGS, flag::ACK, 0, &[]))
                    .await;
            }
            Frame::Ping { ack: false, payload } => {
                self.write(&frame::encode(kind::PING, flag::ACK, 0, &payload))
                    .await;
            }
            Frame::Ping { ack: true, .. } => self.pongs += 1,
            Frame::WindowUpdate { stream: 0, increment } => {
                self.send += i64::from(increment);
                self.window = self.window.max(self.send);
            }
            Frame::WindowUpdate { stream, increment } => {
                let stream = self.streams.get_mut(&stream).expect("a stream that was opened");
                stream.send += i64::from(increment);
            }
            Frame::Goaway { code, debug, .. } => {
                assert_eq!(code, 0, "{debug:?}");
            }
            _ => {}
        }
    }

    fn check_end(&self, id: u32) {
        let stream = &self.streams[&id];
        if stream.request_ended {
            assert_eq!(
                stream.received, self.plans[stream.number].upload,
                "all of the upload"
            );
        }
    }

    async fn fill(&mut self) {
        let read = self.io.read_buf(&mut self.unread).await.unwrap_or(0);
        if read == 0 {
            // The client is gone.
            std::future::pending::<()>().await;
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.unwritten.extend_from_slice(bytes);
        // A client that is gone does not read.
        let _ = self.io.write_all_buf(&mut self.unwritten).await;
    }
}
