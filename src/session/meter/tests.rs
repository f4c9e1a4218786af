//! The accounting, frame by frame, with explicit times.

mod connection;
mod halves;
mod streams;
mod transport;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::parser::kind;
use super::traffic::{FromPeer, ToPeer};
use super::*;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 2;

/// A frame as it is on the wire.
fn wire(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What only tests ask for.
impl Meter {
    fn unread_of(&self, id: u32) -> u64 {
        self.streams.lock().get(id).map_or(0, |stream| stream.unread)
    }

    fn has_ended(&self, id: u32) -> bool {
        self.streams.lock().get(id).is_some_and(|stream| stream.ended)
    }

    fn overhead(&self) -> u64 {
        self.streams.lock().overhead()
    }

    fn streams(&self) -> usize {
        self.streams.lock().len()
    }
}

/// Both directions of a session without a transport, and a clock to be set.
struct Session {
    meter: Arc<Meter>,
    from_peer: FromPeer,
    to_peer: ToPeer,
    now: Instant,
}

impl Session {
    /// The preface is written, nothing came back yet.
    fn new() -> Self {
        let meter = Meter::new(Bounds::default());
        let (from_peer, mut to_peer) = (FromPeer::new(&meter.bounds), ToPeer::new());
        to_peer.feed(&meter, PREFACE);
        let now = meter.epoch;
        Self {
            meter,
            from_peer,
            to_peer,
            now,
        }
    }

    /// The peer's SETTINGS have come, too.
    fn open() -> Self {
        let mut session = Self::new();
        session.get(kind::SETTINGS, 0, 0, &[]).unwrap();
        session
    }

    fn get(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Violation> {
        self.get_bytes(&wire(kind, flags, stream, payload))
    }

    fn get_bytes(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let now = self.now;
        let passed = self.from_peer.feed(&self.meter, bytes, || now);
        assert_eq!(passed == bytes.len(), self.meter.violation().is_none());
        self.meter.violation().map_or(Ok(()), Err)
    }

    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.to_peer
            .feed(&self.meter, &wire(kind, flags, stream, payload));
    }

    fn open_stream(&mut self, id: u32) {
        self.put(kind::HEADERS, END_HEADERS | END_STREAM, id, &[0x82]);
    }

    /// How many of `n` frames come through now.
    fn flood(&mut self, n: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> usize {
        (0..n)
            .take_while(|_| self.get(kind, flags, stream, payload).is_ok())
            .count()
    }
}

// P3: SETTINGS are applied once we acknowledge them.
#[test]
fn settings() {
    let mut session = Session::new();
    session.get(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 7]).unwrap();
    assert_eq!(session.meter.settings_applied(), 0);
    session.put(kind::SETTINGS, ACK, 0, &[]);
    session.get(kind::SETTINGS, ACK, 0, &[]).unwrap();
    assert_eq!(session.meter.settings_applied(), 1);
    assert_eq!(session.meter.frames_seen(), 2);
}

// P3, RFC 9113 §3.4
#[test]
fn first_frame_must_be_settings() {
    let mut session = Session::new();
    let ping = session.get(kind::PING, 0, 0, &[0; 8]);
    assert_eq!(ping, Err(Violation::FirstFrame { kind: kind::PING }));
    assert_eq!(
        session.meter.violation(),
        Some(Violation::FirstFrame { kind: kind::PING })
    );

    let ack = Session::new().get(kind::SETTINGS, ACK, 0, &[]);
    assert_eq!(ack, Err(Violation::FirstFrame { kind: kind::SETTINGS }));

    let http1 = Session::new().get_bytes(b"HTTP/1.1 400 Bad Request\r\n");
    assert_eq!(http1, Err(Violation::Http1));
}

// P44: SETTINGS + PING (and answers) + PRIORITY + unknown frames share 1,000 a second.
#[test]
fn control_frames() {
    for (kind, flags) in [
        (kind::SETTINGS, 0),
        (kind::PING, 0),
        (kind::PING, ACK),
        (PRIORITY, 0),
        (0xfa, 0),
    ] {
        let mut session = Session::open();
        assert_eq!(
            session.flood(2_000, kind, flags, 0, &[0; 8]),
            999,
            "SETTINGS of the opening were the first"
        );
        assert_eq!(
            session.meter.violation(),
            Some(Violation::ControlRate { per_second: 1_000 })
        );
    }
    let mut session = Session::open();
    for round in 0..60 {
        session.now += Duration::from_secs(1);
        for kind in [kind::SETTINGS, kind::PING, PRIORITY, 0xfa] {
            assert_eq!(session.flood(249, kind, 0, 0, &[]), 249, "second {round}");
        }
    }
    assert_eq!(session.meter.violation(), None);
}

// P44: after a long idle time a burst is one second's worth.
#[test]
fn idle_buys_no_flood() {
    let mut session = Session::open();
    session.now += Duration::from_secs(3_600);
    assert_eq!(session.flood(5_000, kind::PING, 0, 0, &[0; 8]), 1_000);
}

// P44: PING in answer to DATA (bandwidth measurement) is no flood.
#[test]
fn data_that_we_send_explains_pings() {
    let mut session = Session::open();
    session.open_stream(1);
    for _ in 0..20_000 {
        session.put(kind::DATA, 0, 1, b"x");
        session.get(kind::PING, 0, 0, &[0; 8]).unwrap();
    }
    assert_eq!(session.flood(2_000, kind::PING, 0, 0, &[0; 8]), 999);
}

// P44: 1,000 WINDOW_UPDATE a second, one per KiB of DATA sent, two per DATA frame.
#[test]
fn window_updates() {
    let update = [0, 0, 0, 1];
    let mut session = Session::open();
    assert_eq!(session.flood(2_000, kind::WINDOW_UPDATE, 0, 0, &update), 1_000);
    assert_eq!(
        session.meter.violation(),
        Some(Violation::WindowUpdateRate { per_second: 1_000 })
    );

    let mut session = Session::open();
    session.open_stream(1);
    for _ in 0..10 {
        session.put(kind::DATA, 0, 1, &[0; 16 * 1024]);
    }
    assert_eq!(
        session.flood(5_000, kind::WINDOW_UPDATE, 0, 0, &update),
        10 * (16 + 2) + 1_000
    );

    let mut session = Session::open();
    for second in 0..60 {
        session.now += Duration::from_secs(1);
        assert_eq!(
            session.flood(999, kind::WINDOW_UPDATE, 0, 0, &update),
            999,
            "second {second}"
        );
    }
}

// P44, RFC 9113 §5.1: h2 knows of a request before it is written, and would take an answer that came even before that.
#[test]
fn an_answer_to_a_request_that_was_not_sent() {
    for (kind, payload) in [(kind::HEADERS, &b"\x88"[..]), (kind::DATA, b"ok")] {
        let mut session = Session::open();
        session.open_stream(1);
        session.get(kind::HEADERS, END_HEADERS, 1, &[0x88]).unwrap();
        let early = session.get(kind, 0, 3, payload);
        assert_eq!(early, Err(Violation::Unasked { stream: 3 }));
        assert_eq!(session.meter.violation(), Some(Violation::Unasked { stream: 3 }));
    }
}

// P44
#[test]
fn resets_and_goaways() {
    let mut session = Session::open();
    for i in 0..100 {
        session.open_stream(2 * i + 1);
    }
    let reset = [0, 0, 0, 7];
    assert_eq!(
        session.flood(5_000, kind::RST_STREAM, 0, 1, &reset),
        3 * 100 + 1_000
    );
    assert_eq!(
        session.meter.violation(),
        Some(Violation::StrayRate { per_second: 1_000 })
    );

    let mut session = Session::open();
    session.open_stream(1);
    session.meter.forget(1);
    assert_eq!(
        session.flood(5_000, kind::HEADERS, END_HEADERS, 1, &[0x88]),
        3 + 1_000,
        "nobody holds stream 1"
    );

    let mut session = Session::open();
    let flood = wire(kind::GOAWAY, 0, 0, &[0; 8]).repeat(100);
    let now = session.now;
    assert_eq!(
        session.from_peer.feed(&session.meter, &flood, || now),
        16 * 17,
        "what came before is passed on"
    );
    assert_eq!(session.meter.violation(), Some(Violation::Goaways { max: 16 }));
}

// P18: what h2 keeps to itself.
#[test]
fn goaway() {
    let mut session = Session::open();
    assert_eq!(session.meter.goaway(), None);
    session
        .get(kind::GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])
        .unwrap();
    let warning = Goaway {
        last_stream_id: 0x7fff_ffff,
        code: 0,
        count: 1,
    };
    assert_eq!(session.meter.goaway(), Some(warning));
    session
        .get(
            kind::GOAWAY,
            0,
            0,
            &[0, 0, 0, 9, 0, 0, 0, 11, b'c', b'a', b'l', b'm'],
        )
        .unwrap();
    assert_eq!(
        session.meter.goaway(),
        Some(Goaway {
            last_stream_id: 9,
            code: 11,
            count: 2
        })
    );
}

// P17: h2 ends the session at 100 empty DATA frames, padding or not, and counts the resets it sends by itself.
#[test]
fn rotation_counters() {
    let mut session = Session::open();
    session.open_stream(1);
    session.get(kind::DATA, 0, 1, &[]).unwrap();
    session.get(kind::DATA, PADDED, 1, &[2, 0, 0]).unwrap();
    session.get(kind::DATA, PADDED, 1, &[2, 7, 0, 0]).unwrap();
    session.get(kind::DATA, END_STREAM, 1, &[]).unwrap();
    assert_eq!(session.meter.empty_data_frames(), 2);

    for code in [0, 8, 5] {
        session.put(kind::RST_STREAM, 0, 1, &[0, 0, 0, code]);
    }
    assert_eq!(session.meter.error_resets_sent(), 1);
}
