//! Frames as values (RFC 9113 §4 and §6): reading them from bytes, writing their headers.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The client's first 24 bytes (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The frame size that everybody must accept (RFC 9113 §4.2).
pub const FRAME_SIZE: usize = 16_384;

/// Frame types (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags (RFC 9113 §6).
pub mod flag {
    pub const NONE: u8 = 0;
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// Error codes (RFC 9113 §7).
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
    pub const HTTP_1_1_REQUIRED: u32 = 13;
}

/// SETTINGS identifiers (RFC 9113 §6.5.2, RFC 8441 §3).
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// A frame as it lies on the wire, its header read and its payload whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Bytes,
}

impl RawFrame {
    /// Takes the first frame from `buffer`, if all of it is there.
    pub fn take(buffer: &mut BytesMut) -> Option<Self> {
        let length = usize::try_from(buffer.get(..3)?.get_uint(3)).unwrap();
        if buffer.len() < 9 + length {
            return None;
        }
        let mut header = buffer.split_to(9);
        header.advance(3);
        Some(Self {
            kind: header.get_u8(),
            flags: header.get_u8(),
            stream: header.get_u32() & 0x7fff_ffff,
            payload: buffer.split_to(length).freeze(),
        })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload without padding (RFC 9113 §6.1).
    pub fn unpadded(&self) -> Bytes {
        if !self.has(flag::PADDED) {
            return self.payload.clone();
        }
        let padding = usize::from(self.payload[0]);
        self.payload.slice(1..self.payload.len() - padding)
    }
}

/// What the client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Data(Data),
    Headers(Headers),
    Priority {
        stream: u32,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    Settings {
        ack: bool,
        values: Vec<(u16, u32)>,
    },
    Ping {
        ack: bool,
        payload: [u8; 8],
    },
    Goaway {
        last: u32,
        code: u32,
        debug: Bytes,
    },
    WindowUpdate {
        stream: u32,
        increment: u32,
    },
    /// A CONTINUATION that follows no HEADERS; the others are part of [`Frame::Headers`].
    Continuation(RawFrame),
    Unknown(RawFrame),
}

/// A DATA frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    pub stream: u32,
    pub data: Bytes,
    pub end: bool,
    /// What it costs in flow control: the payload with its padding.
    pub flow: usize,
}

/// A whole header block: HEADERS and its CONTINUATIONs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    pub stream: u32,
    pub fields: Vec<(String, Bytes)>,
    pub end: bool,
    /// How many CONTINUATION frames it took.
    pub continuations: usize,
    /// The block as it was encoded, for looking at representations.
    pub block: Bytes,
}

impl Headers {
    /// The first value of a field, pseudo-fields with their colon.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        std::str::from_utf8(value).ok()
    }

    /// `:path`.
    pub fn path(&self) -> &str {
        self.get(":path").unwrap_or_default()
    }
}

impl Frame {
    /// Reads a frame that carries no header block.
    pub fn parse(raw: RawFrame) -> Self {
        let mut payload = raw.payload.clone();
        match raw.kind {
            kind::DATA => Self::Data(Data {
                stream: raw.stream,
                data: raw.unpadded(),
                end: raw.has(flag::END_STREAM),
                flow: raw.payload.len(),
            }),
            kind::PRIORITY => Self::Priority { stream: raw.stream },
            kind::RST_STREAM => Self::Reset {
                stream: raw.stream,
                code: payload.get_u32(),
            },
            kind::SETTINGS => Self::Settings {
                ack: raw.has(flag::ACK),
                values: settings_values(payload),
            },
            kind::PING => Self::Ping {
                ack: raw.has(flag::ACK),
                payload: payload[..].try_into().expect("8 bytes in a PING"),
            },
            kind::GOAWAY => Self::Goaway {
                last: payload.get_u32() & 0x7fff_ffff,
                code: payload.get_u32(),
                debug: payload,
            },
            kind::WINDOW_UPDATE => Self::WindowUpdate {
                stream: raw.stream,
                increment: payload.get_u32() & 0x7fff_ffff,
            },
            kind::CONTINUATION => Self::Continuation(raw),
            _ => Self::Unknown(raw),
        }
    }

    /// SETTINGS, PING, WINDOW_UPDATE, PRIORITY, unknown: what concerns no request.
    pub fn is_control(&self) -> bool {
        !matches!(
            self,
            Self::Data(_) | Self::Headers(_) | Self::Reset { .. } | Self::Goaway { .. }
        )
    }
}

fn settings_values(mut payload: Bytes) -> Vec<(u16, u32)> {
    let mut values = Vec::new();
    while payload.len() >= 6 {
        values.push((payload.get_u16(), payload.get_u32()));
    }
    values
}

/// The bytes of one frame, whatever they are: nothing is checked but that the length fits its 24 bits.
pub fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    assert!(payload.len() < 1 << 24, "a frame has at most 2^24 - 1 bytes");
    let mut out = BytesMut::with_capacity(9 + payload.len());
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(payload);
    out.freeze()
}

/// A SETTINGS frame.
pub fn settings(values: &[(u16, u32)]) -> Bytes {
    let mut payload = Vec::new();
    for (id, value) in values {
        payload.put_u16(*id);
        payload.put_u32(*value);
    }
    encode(kind::SETTINGS, flag::NONE, 0, &payload)
}

/// A PING frame.
pub fn ping(payload: [u8; 8]) -> Bytes {
    encode(kind::PING, flag::NONE, 0, &payload)
}

/// A RST_STREAM frame.
pub fn reset(stream: u32, code: u32) -> Bytes {
    encode(kind::RST_STREAM, flag::NONE, stream, &code.to_be_bytes())
}

/// A WINDOW_UPDATE frame.
pub fn window_update(stream: u32, increment: u32) -> Bytes {
    encode(kind::WINDOW_UPDATE, flag::NONE, stream, &increment.to_be_bytes())
}

/// A GOAWAY frame.
pub fn goaway(last: u32, code: u32, debug: &[u8]) -> Bytes {
    let mut payload = Vec::with_capacity(8 + debug.len());
    payload.put_u32(last);
    payload.put_u32(code);
    payload.put_slice(debug);
    encode(kind::GOAWAY, flag::NONE, 0, &payload)
}

/// A DATA frame.
pub fn data(stream: u32, data: &[u8], end: bool) -> Bytes {
    let flags = if end { flag::END_STREAM } else { flag::NONE };
    encode(kind::DATA, flags, stream, data)
}

/// HEADERS and as many CONTINUATIONs as the block needs.
pub fn headers(stream: u32, block: &[u8], end: bool) -> Bytes {
    let mut out = BytesMut::new();
    let mut chunks = block.chunks(FRAME_SIZE).peekable();
    let mut kind = kind::HEADERS;
    loop {
        let chunk = chunks.next().unwrap_or_default();
        let mut flags = if end && kind == kind::HEADERS {
            flag::END_STREAM
        } else {
            flag::NONE
        };
        if chunks.peek().is_none() {
            flags |= flag::END_HEADERS;
        }
        out.put_slice(&encode(kind, flags, stream, chunk));
        if chunks.peek().is_none() {
            return out.freeze();
        }
        kind = kind::CONTINUATION;
    }
}
