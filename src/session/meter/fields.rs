//! Counts the fields of trailers (RFC 7541 §6), decoding none of them.
//!
//! h2 drops the fields of trailers that are beyond `max_header_list_size`, and says nothing. So the fields are counted
//! on their way in: when fewer come out of h2, some were dropped.

use super::parser::{Frame, kind};

const END_HEADERS: u8 = 0x4;
pub(super) const PRIORITY: u8 = 0x20;

/// The trailers of one stream, while they pass.
#[derive(Debug)]
pub(super) struct Trailers {
    pub(super) stream: u32,
    fields: Fields,
    /// Bytes before the block, of the priority that nobody uses any more (RFC 9113 §6.2).
    front: usize,
    /// Bytes of the block within this frame; padding follows.
    left: usize,
    last: bool,
}

impl Trailers {
    /// Their HEADERS frame begins.
    pub(super) fn new(frame: Frame) -> Self {
        let mut trailers = Self {
            stream: frame.stream,
            fields: Fields::default(),
            front: 0,
            left: 0,
            last: false,
        };
        trailers.frame(frame);
        trailers
    }

    /// One more frame of them begins, HEADERS or CONTINUATION.
    pub(super) fn frame(&mut self, frame: Frame) {
        let first = frame.kind == kind::HEADERS;
        self.front = if first && frame.flags & PRIORITY != 0 {
            5
        } else {
            0
        };
        self.left = (frame.data_len() as usize).saturating_sub(self.front);
        self.last = frame.flags & END_HEADERS != 0;
    }

    /// These bytes of the frame's payload passed. The number of fields, once all are there.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<u64> {
        let (front, bytes) = bytes.split_at(self.front.min(bytes.len()));
        self.front -= front.len();
        let block = &bytes[..self.left.min(bytes.len())];
        self.left -= block.len();
        self.fields.feed(block);
        (self.last && self.left == 0).then_some(self.fields.count)
    }
}

/// Finds where one field ends and the next begins.
#[derive(Debug, Default)]
struct Fields {
    at: Part,
    /// Strings still to come of this field.
    strings: u8,
    count: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    /// The first byte of a representation.
    #[default]
    First,
    /// More bytes of its index.
    Index,
    /// The first byte of a string's length.
    Length,
    /// More bytes of it.
    MoreLength { length: u64, shift: u32 },
    /// So many bytes of a string.
    String(u64),
}

impl Fields {
    fn feed(&mut self, mut bytes: &[u8]) {
        while let [byte, rest @ ..] = bytes {
            if let Part::String(left) = self.at {
                let skipped = left.min(bytes.len() as u64);
                bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
                self.string(left - skipped);
                continue;
            }
            self.byte(*byte);
            bytes = rest;
        }
    }

    fn byte(&mut self, byte: u8) {
        match self.at {
            Part::First => self.first(byte),
            Part::Index if byte & 0x80 == 0 => self.next(),
            Part::Index | Part::String(_) => {}
            Part::Length => {
                self.strings -= 1;
                match byte & 0x7f {
                    0x7f => {
                        self.at = Part::MoreLength {
                            length: 0x7f,
                            shift: 0,
                        }
                    }
                    length => self.string(length.into()),
                }
            }
            Part::MoreLength { length, shift } => {
                let more = u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(u64::MAX / 2);
                let length = length.saturating_add(more);
                if byte & 0x80 == 0 {
                    self.string(length);
                } else {
                    self.at = Part::MoreLength {
                        length,
                        shift: shift + 7,
                    };
                }
            }
        }
    }

    /// RFC 7541 §6.1 to §6.3: the kind of representation, by its highest bits, and the width of its index.
    fn first(&mut self, byte: u8) {
        let (mask, strings, counts) = match byte.leading_zeros() {
            0 => (0x7f, 0, 1),
            1 => (0x3f, 1, 1),
            // A new size of the table is no field.
            2 => (0x1f, 0, 0),
            _ => (0x0f, 1, 1),
        };
        self.count += counts;
        // No index: the name is a string, too.
        self.strings = strings + u8::from(strings > 0 && byte & mask == 0);
        if byte & mask == mask {
            self.at = Part::Index;
        } else {
            self.next();
        }
    }

    fn string(&mut self, left: u64) {
        if left > 0 {
            self.at = Part::String(left);
        } else {
            self.next();
        }
    }

    fn next(&mut self) {
        self.at = if self.strings > 0 {
            Part::Length
        } else {
            Part::First
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u64 {
        let mut fields = Fields::default();
        pieces.into_iter().for_each(|piece| fields.feed(piece));
        fields.count
    }

    // P44: every representation of RFC 7541 §6 and its appendix C.
    #[test]
    fn representations() {
        let cases: [(&[u8], u64); 9] = [
            (b"", 0),
            (&[0x82, 0x86, 0x84], 3),
            (b"\x40\x0acustom-key\x0dcustom-header", 1),
            (b"\x04\x0c/sample/path", 1),
            (b"\x10\x08password\x06secret", 1),
            (b"\x00\x01a\x00\x00\x00\x00", 2),
            (&[0x3f, 0xe1, 0x1f, 0x88, 0x20], 1),
            (
                &[
                    0xff, 0x80, 0x01, 0x7f, 0x9a, 0x01, 0x81, 0xff, 0x0f, 0x30, 0x01, b'x',
                ],
                3,
            ),
            (
                &[&[0x00, 0x01, b'a', 0x7f, 0x81, 0x01][..], &[0; 256], &[0x88]].concat(),
                2,
            ),
        ];
        for (block, fields) in cases {
            assert_eq!(count([block]), fields, "{block:x?}");
            assert_eq!(count(block.chunks(1)), fields, "{block:x?}, a byte at a time");
        }
    }

    proptest! {
        // However wrong the bytes, and however they are cut.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1usize..20) {
            prop_assert_eq!(count([&*bytes]), count(bytes.chunks(size)));
        }
    }
}
