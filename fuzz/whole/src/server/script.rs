//! The server: a sequence of operations on its connections, each a byte that says what and some that say how.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2pool::connect::memory::{Dial, MemoryListener};
use h2pool::{Error, Origin};
use http::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::frame::{self, PREFACE, RawFrame, flag, kind};
use crate::input::Input;

/// How many operations are carried out at most.
const OPS: usize = 200;

/// What the server has open.
pub(super) struct Server {
    listener: MemoryListener<Origin>,
    connections: Vec<Connection>,
    /// The connection that operations are about.
    current: usize,
    hanging: Vec<Dial<Origin>>,
}

/// One connection: a task of its own reads what the client sends, and writes what it is told.
struct Connection {
    bytes: UnboundedSender<Bytes>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn play(listener: MemoryListener<Origin>, input: &mut Input<'_>) -> Server {
    let mut server = Server {
        listener,
        connections: Vec::new(),
        current: 0,
        hanging: Vec::new(),
    };
    for _ in 0..OPS {
        if input.is_empty() {
            break;
        }
        server.step(input).await;
    }
    server
}

impl Server {
    async fn step(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        match op % 20 {
            0 | 1 => self.accept(input).await,
            2 => sleep(Duration::from_millis(u64::from(input.byte()) * 8)).await,
            3 => self.hang_up(),
            4 => self.current = input.byte().into(),
            5 => {
                let length = input.byte();
                let bytes = input.take(length.into());
                self.send(Bytes::copy_from_slice(bytes));
            }
            6 => {
                let (kind, flags, stream, length) = (input.byte(), input.byte(), stream(input), input.byte());
                let payload = input.take(length.into());
                self.send(frame::encode(kind % 12, flags, stream, payload));
            }
            7 => {
                let text = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                self.send(Bytes::from_static(text));
            }
            8 => {
                let size = usize::from(input.u16());
                self.send(Bytes::from(vec![op; size]));
            }
            _ => {
                let bytes = well_formed(op, input);
                self.send(bytes);
                if op >= 128 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Answers the next dial, if one comes soon: in one of the two protocols, by refusing it, or not at all.
    async fn accept(&mut self, input: &mut Input<'_>) {
        let Ok(Some(dial)) = timeout(Duration::from_millis(700), self.listener.accept()).await else {
            return;
        };
        let how = input.byte();
        let version = if how & 16 != 0 {
            Version::HTTP_11
        } else {
            Version::HTTP_2
        };
        match how % 8 {
            0 => dial.refuse(Error::connect("refused")),
            1 => self.hanging.push(dial),
            _ => {
                let io = dial.authenticated(how & 32 != 0).accept(version);
                self.connections
                    .push(Connection::start(io, version, how & 64 == 0, how & 128 == 0));
                self.current = self.connections.len() - 1;
                if version == Version::HTTP_2 && how % 8 < 7 {
                    self.send(frame::settings(&[(3, u32::from(how % 8))]));
                }
            }
        }
    }

    fn hang_up(&mut self) {
        if !self.connections.is_empty() {
            let current = self.current % self.connections.len();
            self.connections.swap_remove(current);
        }
    }

    fn send(&self, bytes: Bytes) {
        if !self.connections.is_empty() {
            let current = self.current % self.connections.len();
            // A client that is gone does not read.
            let _ = self.connections[current].bytes.send(bytes);
        }
    }

    /// How it goes on when the script is over: the connections hang or end; dials hang, are refused, or lead to
    /// connections that end at once or say nothing. For as long as the task lives.
    pub(super) fn ending(mut self, input: &mut Input<'_>) -> JoinHandle<()> {
        let how = input.byte();
        if how & 4 != 0 {
            self.connections.clear();
        }
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Some(dial) = self.listener.accept().await {
                match how % 4 {
                    0 => self.hanging.push(dial),
                    1 => dial.refuse(Error::connect("refused")),
                    2 => drop(dial.accept(Version::HTTP_2)),
                    _ => open.push(dial.accept(Version::HTTP_2)),
                }
            }
            // Until the pool is gone, and longer.
            std::future::pending().await
        })
    }
}

impl Connection {
    fn start(io: DuplexStream, version: Version, reads: bool, answers: bool) -> Self {
        let (bytes, told) = unbounded_channel();
        let (reader, writer) = tokio::io::split(io);
        let answer = (answers && version == Version::HTTP_2).then(|| bytes.clone());
        let task = tokio::spawn(async move {
            let read = async {
                if reads {
                    read(reader, answer).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::join!(read, write(writer, told));
        });
        Self { bytes, task }
    }
}

/// Reads to the end, and answers SETTINGS and PING where it is polite.
async fn read(mut reader: ReadHalf<DuplexStream>, answer: Option<UnboundedSender<Bytes>>) {
    let mut unread = BytesMut::new();
    let mut greeted = false;
    while reader.read_buf(&mut unread).await.is_ok_and(|read| read > 0) {
        let Some(answer) = &answer else {
            unread.clear();
            continue;
        };
        if !greeted {
            if unread.len() < PREFACE.len() {
                continue;
            }
            assert_eq!(&unread.split_to(PREFACE.len())[..], PREFACE, "RFC 9113 §3.4");
            greeted = true;
        }
        while let Some(raw) = RawFrame::take(&mut unread) {
            if matches!(raw.kind, kind::SETTINGS | kind::PING) && !raw.has(flag::ACK) {
                let payload = if raw.kind == kind::PING {
                    &raw.payload[..]
                } else {
                    &[]
                };
                let _ = answer.send(frame::encode(raw.kind, flag::ACK, 0, payload));
            }
        }
    }
}

async fn write(mut writer: WriteHalf<DuplexStream>, mut told: UnboundedReceiver<Bytes>) {
    while let Some(bytes) = told.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// A stream that may well be open; rarely any other.
fn stream(input: &mut Input<'_>) -> u32 {
    match input.byte() {
        small @ 0..=250 => u32::from(small) % 16,
        251..=253 => u32::from(input.u16()),
        _ => input.u32(),
    }
}

/// A frame of a kind that servers send, its fields as the input says.
fn well_formed(op: u8, input: &mut Input<'_>) -> Bytes {
    // RFC 7541 §6.1: from the static table 200, 204, 206, 304, 400, 404, 500; literals for the others.
    const HEADS: [&[u8]; 12] = [
        b"\x88",
        b"\x89",
        b"\x8a",
        b"\x8b",
        b"\x8d",
        b"\x8e",
        b"\x08\x03100",
        b"\x08\x03103",
        b"\x08\x03421",
        b"\x88\x0f\x0d\x023\x30",
        b"\x88\x0f\x0d\x010",
        b"\x08\x03503",
    ];
    match op % 20 {
        9 | 10 => {
            let (stream, head, end) = (stream(input), input.below(HEADS.len()), input.flag());
            frame::headers(stream, HEADS[head], end)
        }
        11 | 12 => {
            let (stream, size, end) = (stream(input), usize::from(input.u16()) % 20_000, input.flag());
            frame::data(stream, &vec![b'x'; size], end)
        }
        13 => frame::reset(stream(input), u32::from(input.byte()) % 15),
        14 => {
            let (last, code) = (stream(input), u32::from(input.byte()) % 15);
            frame::goaway(last, code, input.take(3))
        }
        15 => {
            const VALUES: [u32; 8] = [0, 1, 2, 100, 16_384, 65_535, 0x7fff_ffff, u32::MAX];
            let id = u16::from(input.byte()) % 10;
            frame::settings(&[(id, VALUES[input.below(VALUES.len())])])
        }
        16 => frame::window_update(stream(input), input.u32() >> input.below(32)),
        17 => frame::ping([input.byte(); 8]),
        // Trailers: a field that is no pseudo-field.
        18 => frame::headers(stream(input), b"\x00\x01t\x01v", true),
        _ => {
            let streams = u32::from(input.byte());
            frame::settings(&[(3, streams)])
        }
    }
}
