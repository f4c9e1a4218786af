//! Servers in memory that cost next to nothing: one knows frame headers and nothing else, and answers every request with
//! the same response once it has ended; one of HTTP/1.1 knows where a head ends. So what is counted around them is the client's work.

use anyhow::Result;
use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const PREFACE: usize = 24;
const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
/// The connection's window for what is sent to it: it gives no more.
const WINDOW: u32 = 1 << 30;
/// END_HEADERS and END_STREAM.
const LAST: u8 = 5;
/// `:status: 200` of HPACK's static table.
const OK: u8 = 0x88;

/// Answers until the client goes. All memory is taken before the first request.
pub async fn serve(mut io: DuplexStream) -> Result<()> {
    let (mut input, mut output) = (BytesMut::with_capacity(1 << 20), BytesMut::with_capacity(1 << 20));
    // MAX_CONCURRENT_STREAMS 10,000.
    frame(&mut output, SETTINGS, 0, 0, &[0, 3, 0, 0, 0x27, 0x10]);
    frame(&mut output, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
    io.write_all_buf(&mut output).await?;
    let mut preface = [0; PREFACE];
    io.read_exact(&mut preface).await?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = io.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        input.extend_from_slice(&buffer[..read]);
        while let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = input.first_chunk::<HEADER>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if input.len() < HEADER + length {
                break;
            }
            let stream = u32::from_be_bytes([s0, s1, s2, s3]);
            match kind {
                DATA | HEADERS if flags & END_STREAM != 0 => frame(&mut output, HEADERS, LAST, stream, &[OK]),
                SETTINGS if flags & ACK == 0 => frame(&mut output, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => {
                    let payload: [u8; 8] = input[HEADER..HEADER + 8].try_into()?;
                    frame(&mut output, PING, ACK, 0, &payload);
                }
                _ => {}
            }
            input.advance(HEADER + length);
        }
        io.write_all(&output).await?;
        output.clear();
    }
}

/// The same over HTTP/1.1, one request at a time.
pub async fn serve_h1(mut io: DuplexStream) -> Result<()> {
    let mut head = BytesMut::with_capacity(4096);
    while io.read_buf(&mut head).await? > 0 {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
    }
    Ok(())
}

fn frame(output: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    output.put_uint(payload.len() as u64, 3);
    output.put_slice(&[kind, flags]);
    output.put_u32(stream);
    output.put_slice(payload);
}
