//! One connection at the server: a loop of frames, things that are due, and mischief.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::watch;

use crate::clock::{self, Instant};
use crate::support::peer::{Data, Frame, Headers, Peer, code, frame, setting};
use crate::world::{Phase, World};

use super::chaos::Mischief;
use super::limit::Limit;
use super::stream::{State, Stream};

/// The limit of a connection that behaves.
pub(super) const LIMIT: u32 = 100;
/// Credit is given back in this many bytes: half of the default window.
const CREDIT: usize = 32 * 1024;
/// The last id of a GOAWAY that only warns (RFC 9113 §6.8).
const WARNING: u32 = 0x7fff_ffff;
/// How long a client may take to close after the last stream of a connection that said GOAWAY.
const LINGER: Duration = Duration::from_secs(1);

/// A connection and what it knows.
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) world: Arc<World>,
    pub(super) rng: SmallRng,
    phases: watch::Receiver<Phase>,
    pub(super) storm: bool,
    pub(super) streams: BTreeMap<u32, Stream>,
    /// The last stream that was opened.
    pub(super) highest: u32,
    /// The last stream that was processed.
    pub(super) processed: u32,
    limit: Limit,
    /// The client's window for the connection, and for new streams.
    window: i64,
    stream_window: i64,
    /// Read, and not given back.
    owed: usize,
    pub(super) leaving: Leaving,
    pub(super) mischief: Mischief,
    /// To be written.
    pub(super) out: BytesMut,
}

/// How far a connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Not at all.
    No,
    /// GOAWAY warned; the final one follows at this time.
    Warned(Instant),
    /// The final GOAWAY was sent. The connection is cut at this time at the latest once it has no streams.
    Final(Option<Instant>),
}

impl Connection {
    pub(super) fn new(peer: Peer, world: Arc<World>, mut rng: SmallRng) -> Self {
        let phases = world.phases();
        let storm = *phases.borrow() == Phase::Storm;
        Self {
            peer,
            phases,
            storm,
            streams: BTreeMap::new(),
            highest: 0,
            processed: 0,
            limit: Limit::default(),
            window: 65_535,
            stream_window: 65_535,
            owed: 0,
            leaving: Leaving::No,
            mischief: Mischief::new(clock::now(), &mut rng),
            out: BytesMut::new(),
            world,
            rng,
        }
    }

    /// Serves until one side ends it.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        let limit = self.first_limit().await;
        self.limit.sent(limit);
        self.peer
            .greet(&[(setting::MAX_CONCURRENT_STREAMS, limit)])
            .await?;
        if let Some(window) = self.peer.client_setting(setting::INITIAL_WINDOW_SIZE) {
            self.stream_window = i64::from(window);
        }
        loop {
            let now = clock::now();
            self.act(now)?;
            if !self.out.is_empty() {
                let out = self.out.split();
                self.peer.try_send_raw(&out).await?;
            }
            if self.is_over(now) {
                return Ok(());
            }
            let silent = self.mischief.silent_until(now);
            let wake = silent.unwrap_or_else(|| self.next_due(now));
            tokio::select! {
                received = self.peer.recv(), if silent.is_none() => match received? {
                    Some(frame) => self.take(frame),
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(wake) => {}
                turned = self.phases.changed() => match turned {
                    Ok(()) => self.turn(),
                    Err(_) => return Ok(()),
                },
            }
        }
    }

    /// Makes the client's limit this one, as soon as it acknowledges.
    pub(super) fn set_limit(&mut self, limit: u32) {
        self.limit.sent(limit);
        let settings = frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, limit)]);
        self.out.extend_from_slice(&settings);
    }

    /// Warns with GOAWAY; the final one follows.
    pub(super) fn leave(&mut self, after: Duration) {
        if self.leaving == Leaving::No {
            self.goaway(WARNING, code::NO_ERROR);
            self.leaving = Leaving::Warned(clock::now() + after);
        }
    }

    pub(super) fn goaway(&mut self, last: u32, code: u32) {
        self.out.extend_from_slice(&frame::goaway(last, code, b""));
    }

    /// The phase is another: in the rest, old connections go.
    fn turn(&mut self) {
        self.storm = *self.phases.borrow_and_update() == Phase::Storm;
        if !self.storm {
            self.mischief.stop();
            self.set_limit(LIMIT);
            self.leave(Duration::from_millis(20));
        }
    }

    fn act(&mut self, now: Instant) -> io::Result<()> {
        if self.storm {
            self.misbehave(now)?;
        }
        if matches!(self.leaving, Leaving::Warned(at) if at <= now) {
            self.goaway(self.highest, code::NO_ERROR);
            self.leaving = Leaving::Final(None);
        }
        let due = |stream: &&Stream| self.due(stream).is_some_and(|at| at <= now);
        let due = self.streams.values().filter(due);
        let due: Vec<u32> = due.map(|stream| stream.stream).collect();
        for id in due {
            self.act_on(id, now);
        }
        if let (Leaving::Final(None), true) = (self.leaving, self.streams.is_empty()) {
            self.leaving = Leaving::Final(Some(now + LINGER));
        }
        Ok(())
    }

    /// When a stream is to be acted on.
    fn due(&self, stream: &Stream) -> Option<Instant> {
        let acts = self.mischief.decides() || !stream.is_undecided();
        stream.due().filter(|_| acts)
    }

    fn act_on(&mut self, id: u32, now: Instant) {
        let refuses = self.storm && self.mischief.refuses(now, &mut self.rng);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.is_undecided() {
            stream.answer(now, &mut self.window, &mut self.out, &mut self.rng);
        } else if refuses {
            self.world.count("server: streams refused");
            self.out
                .extend_from_slice(&frame::reset(id, code::REFUSED_STREAM));
            stream.state = State::Gone;
        } else {
            self.processed = self.processed.max(id);
            self.world.process(stream.id, &stream.method);
            self.world.count("server: requests processed");
            stream.process(now, self.storm, &mut self.rng);
            match stream.state {
                State::Reset { .. } => self.world.count("server: processed, then reset"),
                State::Never => self.world.count("server: processed, never answered"),
                _ => {}
            }
        }
        if stream.is_over() {
            self.streams.remove(&id);
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        matches!(self.leaving, Leaving::Final(Some(at)) if at <= now)
    }

    fn next_due(&self, now: Instant) -> Instant {
        let streams = self.streams.values().filter_map(|stream| self.due(stream));
        let leaving = match self.leaving {
            Leaving::Warned(at) | Leaving::Final(Some(at)) => Some(at),
            _ => None,
        };
        let mischief = self.storm.then(|| self.mischief.due());
        let far = now + Duration::from_secs(60);
        streams.chain(leaving).chain(mischief).min().unwrap_or(far)
    }

    fn take(&mut self, received: Frame) {
        match received {
            Frame::Headers(head) => self.open(&head),
            Frame::Data(data) => self.receive(&data),
            Frame::Reset { stream, .. } => {
                let cancelled = u64::from(self.streams.remove(&stream).is_some());
                self.world
                    .count_many("server: streams cancelled by the client", cancelled);
            }
            Frame::Settings { ack: true, .. } => self.limit.acknowledged(),
            Frame::Settings { values, .. } => {
                for (id, value) in values {
                    if id == setting::INITIAL_WINDOW_SIZE {
                        let delta = i64::from(value) - self.stream_window;
                        self.stream_window += delta;
                        self.streams
                            .values_mut()
                            .for_each(|stream| stream.window += delta);
                    }
                }
            }
            Frame::WindowUpdate { stream: 0, increment } => self.window += i64::from(increment),
            Frame::WindowUpdate { stream, increment } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.window += i64::from(increment);
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, head: &Headers) {
        // After the final GOAWAY new streams are none of ours.
        if matches!(self.leaving, Leaving::Final(_)) {
            return;
        }
        let now = clock::now();
        let Some(stream) = Stream::new(head, self.stream_window, now, &mut self.rng) else {
            return self.world.breach(format!("a head that no client sent: {head:?}"));
        };
        self.world.count("server: HEADERS checked against the limit");
        self.highest = head.stream;
        self.streams.insert(head.stream, stream);
        let open = self.streams.len();
        if let Some(limit) = self.limit.exceeded_by(open) {
            self.world.breach(format!(
                "stream {} is number {open} on its connection, and the client had acknowledged a limit of {limit}",
                head.stream
            ));
        }
    }

    fn receive(&mut self, data: &Data) {
        self.owed += data.flow;
        if self.owed >= CREDIT {
            let increment = u32::try_from(self.owed).unwrap_or(u32::MAX);
            self.out.extend_from_slice(&frame::window_update(0, increment));
            self.owed = 0;
        }
        let Some(stream) = self.streams.get_mut(&data.stream) else {
            return;
        };
        if let Err(breach) = stream.receive(&data.data, data.end, clock::now()) {
            self.world.breach(breach);
        }
        if stream.is_over() {
            self.streams.remove(&data.stream);
        }
    }

    /// Some say SETTINGS late, some begin at zero.
    async fn first_limit(&mut self) -> u32 {
        if !self.storm {
            return LIMIT;
        }
        if self.rng.random_bool(0.1) {
            let late = Duration::from_millis(self.rng.random_range(1..150));
            tokio::time::sleep(late).await;
        }
        self.random_limit()
    }
}
