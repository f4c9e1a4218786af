//! The frame headers of a byte stream (RFC 9113 §4.1), whatever the pieces it comes in.
//!
//! [`FrameHeaders`] is fed the bytes of one direction as they pass and yields one [`Frame`] per frame header. Payloads
//! are skipped by subtraction, never looked at or kept, but for the first few bytes of some kinds: the pad length of
//! padded DATA (padding is flow controlled, yet no reader ever releases it) and HEADERS, the error code of RST_STREAM,
//! and the last stream id and error code of GOAWAY. Such a frame is yielded once those bytes are there, every other one with the
//! last byte of its header.

/// Frame types (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// The client's connection preface, which is no frame (RFC 9113 §3.4).
const PREFACE: usize = 24;
const HEADER: usize = 9;
/// The most payload that is looked at: GOAWAY's last stream id and error code.
const PREFIX: usize = 8;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const PADDED: u8 = 0x8;

/// One frame header, and the first payload bytes of the kinds that need them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Length of the payload in bytes, padding included.
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// 0 is the connection.
    pub(crate) stream: u32,
    prefix: [u8; PREFIX],
}

impl Frame {
    /// DATA or HEADERS that end their side of the stream.
    pub(crate) fn is_end_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0
    }

    /// An answer to SETTINGS or PING.
    pub(crate) fn is_ack(&self) -> bool {
        matches!(self.kind, kind::SETTINGS | kind::PING) && self.flags & ACK != 0
    }

    /// Bytes of the payload without its padding (RFC 9113 §6.1, §6.2): of DATA, what a reader will see.
    pub(crate) fn data_len(&self) -> u32 {
        if self.flags & PADDED == 0 || !matches!(self.kind, kind::DATA | kind::HEADERS) {
            return self.length;
        }
        // More padding than payload is a connection error, which h2 raises: nothing of it reaches a reader, hence 0.
        self.length.saturating_sub(1 + u32::from(self.prefix[0]))
    }

    /// The error code of RST_STREAM.
    pub(crate) fn reset_code(&self) -> u32 {
        self.word(0)
    }

    /// The last stream id of GOAWAY.
    pub(crate) fn goaway_last_stream(&self) -> u32 {
        self.word(0) & 0x7fff_ffff
    }

    /// The error code of GOAWAY.
    pub(crate) fn goaway_code(&self) -> u32 {
        self.word(4)
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([
            self.prefix[at],
            self.prefix[at + 1],
            self.prefix[at + 2],
            self.prefix[at + 3],
        ])
    }

    fn parse(head: [u8; HEADER]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = head;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            prefix: [0; PREFIX],
        }
    }

    /// Whether the header block, of which `payload` is what has come, begins with a status of HPACK's static table (RFC
    /// 7541 appendix A): 200, 204, 206, 304, 400, 404 or 500.
    pub(super) fn has_static_status(&self, payload: &[u8]) -> bool {
        let plain = self.flags & (PADDED | super::fields::PRIORITY) == 0;
        plain && payload.first().is_some_and(|first| (0x88..=0x8e).contains(first))
    }

    /// Bytes of the header, and of the payload as far as it was looked at.
    pub(crate) fn header_len(&self) -> usize {
        HEADER + self.wants()
    }

    /// How much of the payload has to be seen.
    fn wants(&self) -> usize {
        let wanted = match self.kind {
            kind::DATA | kind::HEADERS if self.flags & PADDED != 0 => 1,
            kind::RST_STREAM => 4,
            kind::GOAWAY => PREFIX,
            _ => 0,
        };
        wanted.min(self.length as usize)
    }
}

/// Finds the frame headers in one direction of a connection.
#[derive(Debug)]
pub(crate) struct FrameHeaders {
    /// Bytes of payload (or preface) still to pass by.
    skip: usize,
    /// A header, and the wanted part of its payload, of which not everything is here yet.
    partial: [u8; HEADER + PREFIX],
    have: usize,
}

impl FrameHeaders {
    /// What a server sends: frames from the first byte on.
    pub(crate) fn from_server() -> Self {
        Self {
            skip: 0,
            partial: [0; HEADER + PREFIX],
            have: 0,
        }
    }

    /// What a client sends: its 24-byte preface, then frames.
    pub(crate) fn from_client() -> Self {
        Self {
            skip: PREFACE,
            ..Self::from_server()
        }
    }

    /// Bytes of payload still to pass by.
    pub(crate) fn pending(&self) -> usize {
        self.skip
    }

    /// Consumes from `bytes` up to and including the next frame header; `None` once all of `bytes` is consumed.
    #[inline]
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        if self.skip >= bytes.len() {
            self.skip -= bytes.len();
            *bytes = &[];
            return None;
        }
        *bytes = &bytes[self.skip..];
        self.skip = 0;
        self.header(bytes)
    }

    fn header(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        if self.have == 0 {
            if let Some(&head) = bytes.first_chunk::<HEADER>() {
                let frame = Frame::parse(head);
                if frame.wants() == 0 {
                    *bytes = &bytes[HEADER..];
                    self.skip = frame.length as usize;
                    return Some(frame);
                }
            }
        }
        self.fill(bytes, HEADER)?;
        let mut frame = Frame::parse(std::array::from_fn(|i| self.partial[i]));
        let wants = frame.wants();
        self.fill(bytes, HEADER + wants)?;
        frame.prefix[..wants].copy_from_slice(&self.partial[HEADER..HEADER + wants]);
        self.have = 0;
        self.skip = frame.length as usize - wants;
        Some(frame)
    }

    /// Collects bytes until `want` of them are in `partial`.
    fn fill(&mut self, bytes: &mut &[u8], want: usize) -> Option<()> {
        if self.have < want {
            let (taken, rest) = bytes.split_at(bytes.len().min(want - self.have));
            self.partial[self.have..self.have + taken.len()].copy_from_slice(taken);
            self.have += taken.len();
            *bytes = rest;
        }
        (self.have >= want).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn parse<'a>(mut parser: FrameHeaders, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
        let mut frames = Vec::new();
        for mut piece in pieces {
            while let Some(frame) = parser.next(&mut piece) {
                frames.push(frame);
            }
            assert!(piece.is_empty(), "None means that everything was consumed");
        }
        frames
    }

    #[test]
    fn header_fields() {
        let frames = parse(
            FrameHeaders::from_server(),
            [&*wire(1, 0x25, 0x8000_0005, &[7; 300])],
        );
        assert_eq!(
            frames,
            [Frame {
                length: 300,
                kind: 1,
                flags: 0x25,
                stream: 5,
                prefix: [0; PREFIX]
            }],
            "the reserved bit is no part of the stream id"
        );
        assert!(frames[0].is_end_stream());
        assert!(!frames[0].is_ack());
    }

    #[test]
    fn payload_that_matters() {
        let mut bytes = wire(
            kind::GOAWAY,
            0,
            0,
            &[0x80, 0, 1, 2, 0, 0, 0, 11, b'w', b'h', b'y'],
        );
        bytes.extend(wire(kind::RST_STREAM, 0, 3, &[0, 0, 0, 8]));
        bytes.extend(wire(kind::DATA, PADDED, 3, &[4, 1, 2, 3, 0, 0, 0, 0]));
        bytes.extend(wire(kind::DATA, 0, 3, &[4, 1, 2]));
        let frames = parse(FrameHeaders::from_server(), [&*bytes]);
        assert_eq!(
            (frames[0].goaway_last_stream(), frames[0].goaway_code()),
            (0x102, 11)
        );
        assert_eq!(frames[1].reset_code(), 8);
        assert_eq!(frames[2].data_len(), 3);
        assert_eq!(frames[3].data_len(), 3);
    }

    #[test]
    fn payload_too_short_for_its_kind() {
        let mut bytes = wire(kind::GOAWAY, 0, 0, &[0, 0, 0]);
        bytes.extend(wire(kind::RST_STREAM, 0, 3, &[]));
        bytes.extend(wire(kind::DATA, PADDED, 3, &[]));
        bytes.extend(wire(kind::DATA, PADDED, 3, &[200, 1]));
        let frames = parse(FrameHeaders::from_server(), [&*bytes]);
        assert_eq!(frames.iter().map(|f| f.length).collect::<Vec<_>>(), [3, 0, 0, 2]);
        assert_eq!((frames[2].data_len(), frames[3].data_len()), (0, 0));
    }

    #[test]
    fn longest_frame() {
        let mut bytes = vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1];
        bytes.resize(9 + 0xff_ffff, 0xee);
        bytes.extend(wire(kind::PING, ACK, 0, &[0; 8]));
        let frames = parse(FrameHeaders::from_server(), bytes.chunks(16_384));
        assert_eq!(
            frames.iter().map(|f| (f.kind, f.length)).collect::<Vec<_>>(),
            [(0, 0xff_ffff), (6, 8)]
        );
    }

    fn any_frame() -> impl Strategy<Value = (u8, u8, u32, Vec<u8>)> {
        let kind = prop_oneof![
            Just(kind::DATA),
            Just(kind::RST_STREAM),
            Just(kind::GOAWAY),
            any::<u8>()
        ];
        (
            kind,
            any::<u8>(),
            any::<u32>(),
            prop::collection::vec(any::<u8>(), 0..40),
        )
    }

    proptest! {
        // Any chunking of the bytes, down to one at a time, gives the frames that were written.
        #[test]
        fn chunking_does_not_matter(
            frames in prop::collection::vec(any_frame(), 0..12),
            sizes in prop::collection::vec(1usize..30, 1..40),
            from_client: bool,
        ) {
            let parser = || if from_client { FrameHeaders::from_client() } else { FrameHeaders::from_server() };
            let mut bytes = if from_client { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec() } else { vec![] };
            for (kind, flags, stream, payload) in &frames {
                bytes.extend(wire(*kind, *flags, *stream, payload));
            }
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = &*bytes;
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, more) = rest.split_at(rest.len().min(*size));
                pieces.push(piece);
                rest = more;
            }
            let whole = parse(parser(), [&*bytes]);
            prop_assert_eq!(&parse(parser(), pieces), &whole);
            prop_assert_eq!(&parse(parser(), bytes.chunks(1)), &whole);
            prop_assert_eq!(whole.len(), frames.len());
            for (found, (kind, flags, stream, payload)) in whole.iter().zip(&frames) {
                prop_assert_eq!(
                    (found.kind, found.flags, found.stream, found.length),
                    (*kind, *flags, stream & 0x7fff_ffff, payload.len() as u32)
                );
                let wants = found.wants();
                prop_assert_eq!(&found.prefix[..wants], &payload[..wants]);
            }
        }
    }
}
