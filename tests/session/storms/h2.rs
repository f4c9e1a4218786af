//! A server of frames by chance, and what may come of its requests.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Asked, Fate, Outcome, run};
use crate::support::peer::{Frame, Headers, Peer, code, frame, hpack, kind, setting};
use crate::support::server::body::pattern;

// P2, P14, P18, P21, P22, P30, P31
#[test]
fn nothing_is_lost_sent_twice_or_left_over_http_2() {
    run(Version::HTTP_2, serve, judge);
}

/// One stream with a request, as the server knows it.
#[derive(Clone, Default)]
struct Attempt {
    head_only: bool,
    upload: Vec<u8>,
    upload_ended: bool,
    /// The client reset it.
    cancelled: bool,
    /// The head of the response was sent, of a body of so many bytes; this much of it was, too.
    begun: Option<usize>,
    sent: usize,
    trailers: bool,
    /// All of the response was sent.
    whole: bool,
    reset: Option<u32>,
    /// GOAWAY says that it was not processed.
    excluded: bool,
    /// The connection ended before the response had.
    cut: bool,
}

impl Attempt {
    /// The server may have done something, for all that it said.
    fn is_processed(&self) -> bool {
        let refused = self.excluded || self.reset == Some(code::REFUSED_STREAM);
        self.begun.is_some() || !refused
    }

    fn describe(&self) -> String {
        format!(
            "begun {:?}, sent {}, whole {}, reset {:?}, excluded {}, cut {}, upload {} to its end {}",
            self.begun,
            self.sent,
            self.whole,
            self.reset,
            self.excluded,
            self.cut,
            self.upload.len(),
            self.upload_ended
        )
    }
}

struct Server {
    peer: Peer,
    fate: Fate<Attempt>,
    /// Streams by id, with the number of the request and of its attempt.
    live: BTreeMap<u32, (usize, usize)>,
    dead: Vec<u32>,
    /// Credit for what was read, by stream; 0 is the connection.
    owed: BTreeMap<u32, u32>,
    highest: u32,
    goaway: Option<u32>,
    /// How often it does what a good server does.
    good: f64,
}

async fn serve(mut fate: Fate<Attempt>) {
    let (io, _) = tokio::io::duplex(1);
    let peer = Peer::new(std::mem::replace(&mut fate.io, io));
    let mut server = Server {
        peer,
        live: BTreeMap::new(),
        dead: Vec::new(),
        owed: BTreeMap::new(),
        highest: 0,
        goaway: None,
        good: [0.0, 0.8, 0.95][fate.connection % 3],
        fate,
    };
    let _ = server.serve().await;
    for stream in server.live.keys() {
        server.note(*stream, |attempt| attempt.cut |= !attempt.whole);
    }
}

impl Server {
    async fn serve(&mut self) -> io::Result<()> {
        let window = [0, 1000, 65_535, 100_000][self.fate.rng.random_range(0..4)];
        let limit = self.fate.rng.random_range(1..8);
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, limit),
            (setting::INITIAL_WINDOW_SIZE, window),
        ];
        self.peer.greet(&settings).await?;
        let mut was_calm = false;
        loop {
            let calm = self.fate.is_calm();
            if calm && !was_calm {
                let wide = [
                    (setting::MAX_CONCURRENT_STREAMS, 100),
                    (setting::INITIAL_WINDOW_SIZE, 1 << 20),
                ];
                self.send(&frame::settings(&wide)).await?;
            }
            was_calm = calm;
            let pause = Duration::from_micros(self.fate.rng.random_range(0..3000));
            tokio::select! {
                biased;
                frame = self.peer.recv() => match frame? {
                    Some(frame) => self.take(frame),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(pause) => match calm {
                    true => self.calm().await?,
                    false => self.wild().await?,
                },
            }
            if calm && self.goaway.is_some() && self.live.is_empty() {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = tokio::time::timeout(Duration::from_secs(200), self.peer.try_send_raw(bytes)).await;
        sent.expect("the client reads")
    }

    fn note(&self, stream: u32, change: impl FnOnce(&mut Attempt)) {
        if let Some((id, attempt)) = self.live.get(&stream) {
            change(&mut self.fate.book.lock().get_mut(id).unwrap()[*attempt]);
        }
    }

    fn attempt(&self, stream: u32) -> Attempt {
        let (id, attempt) = self.live[&stream];
        self.fate.book.lock()[&id][attempt].clone()
    }

    fn over(&mut self, stream: u32) {
        self.live.remove(&stream);
        self.dead.push(stream);
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Headers(head) if head.stream > self.highest => self.open(&head),
            Frame::Headers(trailers) => {
                assert!(trailers.end);
                self.note(trailers.stream, |attempt| attempt.upload_ended = true);
            }
            Frame::Data(data) => {
                for stream in [0, data.stream] {
                    *self.owed.entry(stream).or_default() += data.flow as u32;
                }
                self.note(data.stream, |attempt| {
                    attempt.upload.extend_from_slice(&data.data);
                    attempt.upload_ended |= data.end;
                });
            }
            Frame::Reset { stream, .. } => {
                self.note(stream, |attempt| attempt.cancelled = true);
                self.over(stream);
            }
            _ => {}
        }
    }

    fn open(&mut self, head: &Headers) {
        self.highest = head.stream;
        let id = head.path()[1..].parse().unwrap();
        let excluded = self.goaway.is_some_and(|last| head.stream > last);
        let mut book = self.fate.book.lock();
        let attempts = book.entry(id).or_default();
        attempts.push(Attempt {
            head_only: head.get(":method") == Some("HEAD"),
            upload_ended: head.end,
            excluded,
            ..Attempt::default()
        });
        if !excluded {
            self.live.insert(head.stream, (id, attempts.len() - 1));
        }
    }

    /// Everything gets its credit, and is answered when its upload has come, or a little before.
    async fn calm(&mut self) -> io::Result<()> {
        self.credit(1.0).await?;
        for stream in self.live.keys().copied().collect::<Vec<_>>() {
            let attempt = self.attempt(stream);
            match (attempt.whole, attempt.upload_ended) {
                (true, true) => self.over(stream),
                (false, ended) if ended || self.fate.rng.random_bool(0.05) => self.answer(stream).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn credit(&mut self, chance: f64) -> io::Result<()> {
        for (stream, owed) in std::mem::take(&mut self.owed) {
            if !self.fate.rng.random_bool(chance) {
                self.owed.insert(stream, owed);
            } else if owed > 0 && (stream == 0 || self.live.contains_key(&stream)) {
                self.send(&frame::window_update(stream, owed)).await?;
            }
        }
        Ok(())
    }

    /// One thing that a server may do.
    async fn wild(&mut self) -> io::Result<()> {
        let streams: Vec<u32> = self.live.keys().copied().collect();
        let stream = streams.choose(&mut self.fate.rng).copied();
        let good = self.fate.rng.random_bool(self.good);
        let dice = if good {
            100
        } else {
            self.fate.rng.random_range(0..100)
        };
        let number = self.fate.rng.random_range(0..100_000);
        match (dice, stream) {
            (0..6, _) => {
                let limit = [(setting::MAX_CONCURRENT_STREAMS, number % 6)];
                self.send(&frame::settings(&limit)).await
            }
            (6..12, _) => {
                let window = if number % 3 == 0 { 0 } else { number };
                let windows = [
                    (setting::INITIAL_WINDOW_SIZE, window),
                    (setting::HEADER_TABLE_SIZE, number % 5000),
                ];
                self.send(&frame::settings(&windows)).await
            }
            (12..14, _) => self.send(&frame::encode(0x2a, 7, 0, b"unknown")).await,
            (14..24, Some(stream)) => self.reset(stream).await,
            (24..27, _) => self.go_away().await,
            (27..29, _) => Err(io::ErrorKind::Interrupted.into()),
            (29..45, _) => match self.dead.choose(&mut self.fate.rng).copied() {
                Some(dead) if number % 3 == 0 => self.send(&frame::reset(dead, code::CANCEL)).await,
                Some(dead) => self.send(&frame::window_update(dead, 7)).await,
                None => Ok(()),
            },
            (45..60, _) => self.credit(0.5).await,
            (60..63, _) => self.send(&frame::ping([7; 8])).await,
            (_, Some(stream)) if !self.attempt(stream).whole => self.answer(stream).await,
            _ => self.credit(0.5).await,
        }
    }

    async fn reset(&mut self, stream: u32) -> io::Result<()> {
        if self.attempt(stream).whole {
            return Ok(());
        }
        let codes = [
            code::REFUSED_STREAM,
            code::CANCEL,
            code::NO_ERROR,
            code::ENHANCE_YOUR_CALM,
        ];
        let code = codes[self.fate.rng.random_range(0..codes.len())];
        self.note(stream, |attempt| attempt.reset = Some(code));
        self.over(stream);
        self.send(&frame::reset(stream, code)).await
    }

    /// What was begun to be answered is not excluded.
    async fn go_away(&mut self) -> io::Result<()> {
        let before = self.goaway.unwrap_or(0x7fff_ffff);
        let mut last = match self.goaway.is_none() && self.fate.rng.random_bool(0.4) {
            true => before,
            false => self.fate.rng.random_range(0..=before.min(self.highest)),
        };
        for stream in self.live.keys().copied().collect::<Vec<_>>() {
            if self.attempt(stream).begun.is_some() {
                last = last.max(stream).min(before);
            }
        }
        self.goaway = Some(last);
        for stream in self
            .live
            .keys()
            .copied()
            .filter(|stream| *stream > last)
            .collect::<Vec<_>>()
        {
            self.note(stream, |attempt| attempt.excluded = true);
            self.live.remove(&stream);
        }
        let codes = [code::NO_ERROR, code::ENHANCE_YOUR_CALM, code::INTERNAL_ERROR];
        let code = codes[self.fate.rng.random_range(0..codes.len())];
        self.send(&frame::goaway(last, code, b"bye")).await
    }

    /// The next frame of a response.
    async fn answer(&mut self, stream: u32) -> io::Result<()> {
        let attempt = self.attempt(stream);
        match attempt.begun {
            None if self.fate.rng.random_bool(0.2) => {
                let hints = hpack::literals([(":status", "103"), ("x", "y")]);
                self.send(&frame::headers(stream, &hints, false)).await
            }
            None => self.begin(stream, attempt.head_only).await,
            Some(length) if attempt.sent < length => self.more(stream, length, attempt.sent).await,
            Some(_) => {
                let trailers = self.fate.rng.random_bool(0.5);
                self.note(stream, |attempt| {
                    (attempt.whole, attempt.trailers) = (true, trailers)
                });
                let end = match trailers {
                    true => frame::headers(stream, &hpack::literals([("x-sum", "7")]), true),
                    false => self.padded(stream, b"", true),
                };
                self.send(&end).await?;
                self.finish(stream).await
            }
        }
    }

    async fn begin(&mut self, stream: u32, head_only: bool) -> io::Result<()> {
        let rng = &mut self.fate.rng;
        let length = if rng.random_bool(0.3) {
            0
        } else {
            rng.random_range(0..60_000)
        };
        let end = (head_only || length == 0) && rng.random_bool(0.6);
        let text = length.to_string();
        let told = rng.random_bool(0.5).then_some(("content-length", text.as_str()));
        let block = hpack::literals([(":status", "200")].into_iter().chain(told));
        self.note(stream, |attempt| {
            attempt.begun = Some(if head_only { 0 } else { length });
            attempt.whole = end;
        });
        self.send(&frame::headers(stream, &block, end)).await?;
        if end { self.finish(stream).await } else { Ok(()) }
    }

    async fn more(&mut self, stream: u32, length: usize, sent: usize) -> io::Result<()> {
        let left = length - sent;
        let empty = self.fate.rng.random_bool(0.1);
        let size = if empty {
            0
        } else {
            self.fate.rng.random_range(1..=left.min(8000))
        };
        let end = size == left && self.fate.rng.random_bool(0.5);
        self.note(stream, |attempt| {
            attempt.sent += size;
            attempt.whole = end;
        });
        let data = pattern((self.live[&stream].0 + sent) as u64, size);
        let bytes = self.padded(stream, &data, end);
        self.send(&bytes).await?;
        if end { self.finish(stream).await } else { Ok(()) }
    }

    fn padded(&mut self, stream: u32, data: &[u8], end: bool) -> Bytes {
        if self.fate.rng.random_bool(0.8) {
            return frame::data(stream, data, end);
        }
        let padding = self.fate.rng.random_range(0..20);
        let mut payload = vec![padding];
        payload.extend_from_slice(data);
        payload.resize(payload.len() + usize::from(padding), 0);
        frame::encode(kind::DATA, 8 | u8::from(end), stream, &payload)
    }

    /// The response is whole: the rest of the request is read, or not wanted (RFC 9113 §8.1).
    async fn finish(&mut self, stream: u32) -> io::Result<()> {
        if !self.attempt(stream).upload_ended {
            match self.fate.rng.random_range(0..3) {
                0 => return Ok(()),
                1 => self.send(&frame::reset(stream, code::NO_ERROR)).await?,
                _ => self.send(&frame::reset(stream, code::CANCEL)).await?,
            }
        }
        self.over(stream);
        Ok(())
    }
}

fn judge(asked: &Asked, outcome: &Outcome, attempts: &[Attempt]) -> Option<String> {
    let said = || {
        attempts
            .iter()
            .map(Attempt::describe)
            .collect::<Vec<_>>()
            .join("; ")
    };
    let wrong = |what: &str| Some(format!("{what} ({})", said()));
    let torn = |attempt: &&Attempt| attempt.upload_ended && attempt.upload != asked.upload();
    if attempts
        .iter()
        .any(|attempt| torn(&attempt) && !attempt.cancelled)
    {
        return wrong("its upload is another one");
    }
    let mut processed = attempts.iter().filter(|attempt| attempt.is_processed());
    let attempt = processed.next();
    if processed.next().is_some() {
        return wrong("it was sent twice");
    }
    match (outcome, attempt) {
        (Outcome::Read { .. }, None) => wrong("it was answered by nobody"),
        (Outcome::Read { data, trailers }, Some(attempt)) => {
            let Some(length) = attempt.begun else {
                return wrong("it was not answered");
            };
            // What NO_ERROR ends may be taken for whole where the request has a body.
            let stopped = attempt.reset == Some(code::NO_ERROR) && asked.method == Method::POST;
            if attempt.whole && attempt.trailers != *trailers {
                return wrong("trailers");
            }
            let same = *data == pattern(asked.id as u64, length);
            (!same && !stopped)
                .then(|| wrong("its response is another one"))
                .flatten()
        }
        (Outcome::Failed(error), Some(_)) if error.is_unprocessed() => wrong("it is not unprocessed"),
        (Outcome::Failed(error), _) if error.is_timeout() || (asked.fails && error.is_body()) => None,
        (Outcome::Failed(error), None) if !error.is_unprocessed() && !attempts.is_empty() => {
            wrong("it is unprocessed")
        }
        (Outcome::Failed(error), Some(attempt)) => {
            let whole = attempt.whole && !attempt.cut;
            let reset = attempt.reset.is_some() && !attempt.cut && !error.is_reset();
            match (whole, reset) {
                (true, _) => wrong("its response is whole"),
                (_, true) => wrong("it was reset"),
                _ => None,
            }
        }
        _ => None,
    }
}
