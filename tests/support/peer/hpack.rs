//! Header blocks (RFC 7541): decoding by a library, encoding as plain literals, and a look at the representations,
//! which says what a sender allowed to be indexed.

use bytes::{BufMut, Bytes};

/// A block of literals without indexing and without Huffman coding: valid, stateless, and as long as it looks.
pub fn literals<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: impl IntoIterator<Item = (N, V)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.put_u8(0);
        string(&mut block, name.as_ref());
        string(&mut block, value.as_ref());
    }
    block
}

/// A block that repeats one field of the dynamic table `n` times: a header bomb, one byte a field.
/// The field itself is put into the table by the block's first bytes.
pub fn bomb(name: &str, value: &[u8], n: usize) -> Vec<u8> {
    let mut block = literals([(":status", "200")]);
    block.put_u8(0x40);
    string(&mut block, name.as_bytes());
    string(&mut block, value);
    block.extend(std::iter::repeat_n(0x80 | 62, n));
    block
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    integer(block, 7, 0, text.len());
    block.put_slice(text);
}

/// RFC 7541 §5.1.
fn integer(block: &mut Vec<u8>, prefix: u32, pattern: u8, value: usize) {
    let limit = (1usize << prefix) - 1;
    if value < limit {
        block.put_u8(pattern | u8::try_from(value).unwrap());
        return;
    }
    block.put_u8(pattern | u8::try_from(limit).unwrap());
    let mut rest = value - limit;
    while rest >= 128 {
        block.put_u8(0x80 | u8::try_from(rest % 128).unwrap());
        rest /= 128;
    }
    block.put_u8(u8::try_from(rest).unwrap());
}

/// The decoder of one connection.
pub struct Decoder(loona_hpack::Decoder<'static>);

impl Default for Decoder {
    fn default() -> Self {
        Self(loona_hpack::Decoder::new())
    }
}

impl Decoder {
    /// Decodes a whole block; panics when it is not valid, since then the client is wrong.
    pub fn decode(&mut self, block: &[u8]) -> Vec<(String, Bytes)> {
        let fields = self.0.decode(block).expect("a valid header block");
        let text = |name: Vec<u8>| String::from_utf8(name).expect("field names are ASCII");
        fields
            .into_iter()
            .map(|(name, value)| (text(name), Bytes::from(value)))
            .collect()
    }
}

/// How a field was sent (RFC 7541 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    /// From a table, whole.
    Indexed,
    /// A literal that enters the dynamic table.
    Incremental,
    /// A literal that this hop does not index.
    NotIndexed,
    /// A literal that no hop may index.
    NeverIndexed,
}

/// The representations of a block, one per field and in the fields' order.
pub fn representations(block: &[u8]) -> Vec<Representation> {
    let mut rest = block;
    let mut found = Vec::new();
    while let Some(&first) = rest.first() {
        let (representation, prefix) = match first {
            0x80.. => (Some(Representation::Indexed), 7),
            0x40..0x80 => (Some(Representation::Incremental), 6),
            0x20..0x40 => (None, 5),
            0x10..0x20 => (Some(Representation::NeverIndexed), 4),
            _ => (Some(Representation::NotIndexed), 4),
        };
        let index = take_integer(&mut rest, prefix);
        match representation {
            Some(Representation::Indexed) | None => {}
            Some(_) => {
                for _ in 0..if index == 0 { 2 } else { 1 } {
                    let length = take_integer(&mut rest, 7);
                    rest = &rest[length..];
                }
            }
        }
        found.extend(representation);
    }
    found
}

fn take_integer(rest: &mut &[u8], prefix: u32) -> usize {
    let limit = (1usize << prefix) - 1;
    let mut value = usize::from(rest[0]) & limit;
    *rest = &rest[1..];
    if value < limit {
        return value;
    }
    for shift in (0..).step_by(7) {
        let byte = usize::from(rest[0]);
        *rest = &rest[1..];
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
