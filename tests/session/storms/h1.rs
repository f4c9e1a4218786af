//! A server of HTTP/1.1 by chance, and what may come of its requests.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Version};
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Asked, Fate, Outcome, run};
use crate::support::server::body::pattern;

// P2, P14, P22, P24, P30, P31
#[test]
fn nothing_is_lost_sent_twice_or_left_over_http_1() {
    run(Version::HTTP_11, serve, judge);
}

/// What no request is answered with.
const POISON: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";

/// A request, as the server knows it.
#[derive(Clone, Debug, Default)]
struct Attempt {
    /// Its upload, where it was read to its end.
    upload: Option<Bytes>,
    /// The response's head was sent, of a body of so many bytes.
    begun: Option<usize>,
    /// The response ends with the connection.
    by_end: bool,
    /// All of it was sent.
    whole: bool,
}

/// How a response tells its length.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Length,
    Chunks,
    End,
    NoContent,
    NotModified,
}

struct Server {
    fate: Fate<Attempt>,
    unread: BytesMut,
    /// The request under way: its number, and that of its attempt.
    now: (usize, usize),
}

/// A request's head.
struct Head {
    method: String,
    length: Option<usize>,
    chunked: bool,
}

async fn serve(fate: Fate<Attempt>) {
    let mut server = Server {
        fate,
        unread: BytesMut::new(),
        now: (0, 0),
    };
    while let Ok(true) = server.serve_one().await {}
}

/// The connection is closed here.
fn closed() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl Server {
    /// False: the connection is not to be used again.
    async fn serve_one(&mut self) -> io::Result<bool> {
        let head = self.head().await?;
        let early = self.chance(0.3);
        if !early {
            self.upload(&head).await?;
        }
        if self.chance(0.1) {
            return Ok(false);
        }
        if self.chance(0.2) {
            self.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n").await?;
        }
        if !self.respond(&head).await? {
            return Ok(false);
        }
        if early {
            match self.fate.rng.random_range(0..3) {
                // It reads no more, and stays. Less than that the client may have got rid of.
                0 if head.length.is_some_and(|length| length > 150_000) => {
                    tokio::time::sleep(Duration::from_secs(1000)).await;
                    return Ok(false);
                }
                1 => return Ok(false),
                _ => self.upload(&head).await?,
            }
        }
        Ok(!self.chance(0.1))
    }

    /// By chance, and never when all is to be calm.
    fn chance(&mut self, chance: f64) -> bool {
        !self.fate.is_calm() && self.fate.rng.random_bool(chance)
    }

    fn note(&self, change: impl FnOnce(&mut Attempt)) {
        let (id, attempt) = self.now;
        change(&mut self.fate.book.lock().get_mut(&id).unwrap()[attempt]);
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.fate.io.read_buf(&mut self.unread).await? {
            0 => Err(closed()),
            _ => Ok(()),
        }
    }

    /// What comes before `end`, which is taken, too.
    async fn until(&mut self, end: &[u8]) -> io::Result<String> {
        loop {
            let found = self.unread.windows(end.len()).position(|part| part == end);
            if let Some(at) = found {
                let text = self.unread.split_to(at);
                self.unread.advance(end.len());
                return Ok(String::from_utf8(text.to_vec()).unwrap().to_ascii_lowercase());
            }
            if self.chance(0.02) {
                return Err(closed());
            }
            self.fill().await?;
        }
    }

    async fn bytes(&mut self, length: usize) -> io::Result<BytesMut> {
        while self.unread.len() < length {
            self.fill().await?;
        }
        Ok(self.unread.split_to(length))
    }

    async fn head(&mut self) -> io::Result<Head> {
        let text = self.until(b"\r\n\r\n").await?;
        let mut words = text.split(' ');
        let method = words.next().unwrap().to_ascii_uppercase();
        let id = words.next().unwrap()[1..].parse().unwrap();
        let length = text.split("content-length: ").nth(1);
        let length = length.map(|length| length.split("\r\n").next().unwrap().parse().unwrap());
        let mut book = self.fate.book.lock();
        let attempts = book.entry(id).or_default();
        attempts.push(Attempt::default());
        self.now = (id, attempts.len() - 1);
        Ok(Head {
            method,
            length,
            chunked: text.contains("transfer-encoding: chunked"),
        })
    }

    async fn upload(&mut self, head: &Head) -> io::Result<()> {
        let mut upload = self.bytes(head.length.unwrap_or(0)).await?;
        let mut more = head.chunked;
        while more {
            let size = usize::from_str_radix(&self.until(b"\r\n").await?, 16).unwrap();
            upload.extend_from_slice(&self.bytes(size).await?);
            assert_eq!(&self.bytes(2).await?[..], b"\r\n");
            more = size > 0;
        }
        self.note(|attempt| attempt.upload = Some(upload.freeze()));
        Ok(())
    }

    /// In pieces, with pauses.
    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let rng = &mut self.fate.rng;
            let most = if rng.random_bool(0.5) {
                bytes.len()
            } else {
                bytes.len().min(3000)
            };
            let (piece, rest) = bytes.split_at(rng.random_range(1..=most));
            let pause = Duration::from_micros(rng.random_range(0..2000));
            let written = tokio::time::timeout(Duration::from_secs(100), self.fate.io.write_all(piece));
            written.await.map_err(|_| closed())??;
            if pause.as_micros() % 3 == 0 {
                tokio::time::sleep(pause).await;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Sends a response, or a part of one. False: nothing comes behind it.
    async fn respond(&mut self, head: &Head) -> io::Result<bool> {
        let kinds = [
            Kind::Length,
            Kind::Chunks,
            Kind::End,
            Kind::NoContent,
            Kind::NotModified,
        ];
        let kind = kinds[self.fate.rng.random_range(0..kinds.len())];
        let length = if self.fate.rng.random_bool(0.3) {
            0
        } else {
            self.fate.rng.random_range(0..60_000)
        };
        let close = kind == Kind::End || self.chance(0.2);
        let mut all = response_head(kind, length, close);
        let begins = all.len();
        let empty = head.method == "HEAD" || matches!(kind, Kind::NoContent | Kind::NotModified);
        let length = if empty { 0 } else { length };
        if !empty {
            let data = pattern(self.now.0 as u64, length);
            let piece = self.fate.rng.random_range(1000..9000);
            response_body(&mut all, kind, &data, piece);
        }
        let cut = self.chance(0.1);
        let end = if cut {
            self.fate.rng.random_range(0..all.len())
        } else {
            all.len()
        };
        self.note(|attempt| {
            attempt.begun = (end >= begins).then_some(length);
            attempt.by_end = kind == Kind::End;
            attempt.whole = !cut;
        });
        // What is more than a response is nobody's.
        let poisons = !cut && kind != Kind::End && self.chance(0.1);
        if poisons {
            all.extend_from_slice(POISON);
        }
        let written = self.write(&all[..if cut { end } else { all.len() }]).await;
        if written.is_err() {
            self.note(|attempt| attempt.whole = false);
        }
        written.map(|()| !(cut || close || poisons))
    }
}

fn response_head(kind: Kind, length: usize, close: bool) -> Vec<u8> {
    let status = match kind {
        Kind::NoContent => "204 No Content",
        Kind::NotModified => "304 Not Modified",
        _ => "200 OK",
    };
    let told = match kind {
        Kind::Length | Kind::NotModified => format!("content-length: {length}\r\n"),
        Kind::Chunks => "transfer-encoding: chunked\r\n".to_owned(),
        Kind::End | Kind::NoContent => String::new(),
    };
    let close = if close { "connection: close\r\n" } else { "" };
    format!("HTTP/1.1 {status}\r\n{close}{told}\r\n").into_bytes()
}

fn response_body(all: &mut Vec<u8>, kind: Kind, data: &[u8], piece: usize) {
    if kind != Kind::Chunks {
        return all.extend_from_slice(data);
    }
    for chunk in data.chunks(piece) {
        all.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
        all.extend_from_slice(chunk);
        all.extend_from_slice(b"\r\n");
    }
    all.extend_from_slice(b"0\r\nx-sum: 7\r\n\r\n");
}

fn judge(asked: &Asked, outcome: &Outcome, attempts: &[Attempt]) -> Option<String> {
    let wrong = |what: &str| Some(format!("{what} ({attempts:?})"));
    let [attempt] = attempts else {
        return match outcome {
            _ if attempts.len() > 1 => wrong("it was sent twice"),
            // What was poisoned before: nothing tells an early answer from one that is none's.
            Outcome::Read { data, .. } if data != "poison" => wrong("it was answered by nobody"),
            _ => None,
        };
    };
    if attempt
        .upload
        .as_ref()
        .is_some_and(|upload| *upload != asked.upload())
    {
        return wrong("its upload is another one");
    }
    let failed = |error: &h2pool::Error| asked.fails && asked.method == Method::POST && error.is_body();
    match (outcome, attempt.begun) {
        (Outcome::Read { .. }, None) => wrong("it was not answered"),
        (Outcome::Read { data, .. }, Some(length)) => {
            let response = pattern(asked.id as u64, length);
            let whole = *data == response;
            let part = attempt.by_end && !attempt.whole && response.starts_with(data);
            (!whole && !part)
                .then(|| wrong("its response is another one"))
                .flatten()
        }
        (Outcome::Failed(error), _) if error.is_unprocessed() => wrong("it is not unprocessed"),
        (Outcome::Failed(error), _) if attempt.whole && !error.is_timeout() && !failed(error) => {
            wrong("its response is whole")
        }
        _ => None,
    }
}
