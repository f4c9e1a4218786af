//! What is known of single streams: interim responses, unread bytes, quiet, end.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::bounds::{LATE_SLACK, LATE_WINDOWS};
use super::*;

// P44: streams that were given up and are still to be written are bounded; those that are written no longer count.
#[test]
fn given_up_streams_that_nobody_writes_clog_a_session() {
    let mut session = Session::open();
    let ids = (1..).step_by(2).take(CLOGGED + 1);
    for id in ids.clone() {
        assert!(!session.meter.is_clogged(), "{id}");
        assert!(session.meter.forget(id).unwrap().quiet);
        assert_eq!(session.meter.forget(id), None);
    }
    assert!(session.meter.is_clogged());
    // h2 may leave some out.
    for id in ids.skip(1).step_by(2) {
        session.open_stream(id);
        assert!(!session.meter.is_clogged(), "{id}");
        assert_eq!(session.meter.forget(id), None);
    }
}

// P44: 32 interim responses and the final one pass, with and without a body and trailers.
#[test]
fn as_many_interim_responses_as_allowed() {
    let mut session = Session::open();
    for (id, ends) in [(1, false), (3, true)] {
        session.open_stream(id);
        assert_eq!(session.flood(32, kind::HEADERS, END_HEADERS, id, &[0x88]), 32);
        if ends {
            session
                .get(kind::HEADERS, END_HEADERS | END_STREAM, id, &[0x88])
                .unwrap();
        } else {
            session.get(kind::HEADERS, END_HEADERS, id, &[0x88]).unwrap();
            session
                .get(kind::HEADERS, END_HEADERS | END_STREAM, id, &[0x88])
                .unwrap();
        }
        assert_eq!(session.meter.stream_violation(id), None);
        assert!(session.meter.has_ended(id));
    }
}

// P44: the 33rd marks its stream and no other; twice as many end the session.
#[test]
fn too_many_interim_responses() {
    let mut session = Session::open();
    session.open_stream(1);
    session.open_stream(3);
    let flood = session.flood(1_000, kind::HEADERS, END_HEADERS, 1, &[0x88]);
    assert_eq!(flood, 2 * 32 + 1, "the last block of them may be the final one");
    assert_eq!(
        session.meter.stream_violation(1),
        Some(Violation::Informational { stream: 1, max: 32 })
    );
    assert_eq!(session.meter.stream_violation(3), None);
    assert_eq!(
        session.meter.violation(),
        Some(Violation::Informational { stream: 1, max: 64 })
    );

    let mut session = Session::open();
    session.open_stream(1);
    assert_eq!(session.flood(33, kind::HEADERS, END_HEADERS, 1, &[0x88]), 33);
    assert_eq!(session.meter.stream_violation(1), None);
    session.get(kind::HEADERS, END_HEADERS, 1, &[0x88]).unwrap();
    assert_eq!(
        session.meter.stream_violation(1),
        Some(Violation::Informational { stream: 1, max: 32 })
    );
}

// P44: 64 KiB of interim responses; CONTINUATION counts.
#[test]
fn interim_responses_too_long() {
    let mut session = Session::open();
    session.open_stream(1);
    for _ in 0..8 {
        session.get(kind::HEADERS, 0, 1, &[0; 1024]).unwrap();
        session
            .get(kind::CONTINUATION, END_HEADERS, 1, &[0; 7 * 1024])
            .unwrap();
    }
    session.get(kind::HEADERS, END_HEADERS, 1, &[0x88]).unwrap();
    assert_eq!(
        session.meter.stream_violation(1),
        None,
        "exactly 64 KiB, and the final response"
    );
    session.get(kind::HEADERS, END_HEADERS, 1, &[0x88]).unwrap();
    let expected = Violation::InformationalBytes {
        stream: 1,
        max: 64 * 1024,
    };
    assert_eq!(session.meter.stream_violation(1), Some(expected));
    for _ in 0..4 {
        session.get(kind::HEADERS, END_HEADERS, 1, &[0; 16_384]).unwrap();
    }
    let session_end = session.get(kind::HEADERS, END_HEADERS, 1, &[0x88]);
    assert_eq!(
        session_end,
        Err(Violation::InformationalBytes {
            stream: 1,
            max: 128 * 1024
        })
    );
}

// P44: header and trailer size.
#[test]
fn header_block_and_trailers_too_long() {
    for trailers in [false, true] {
        let mut session = Session::open();
        session.open_stream(1);
        if trailers {
            session.get(kind::HEADERS, END_HEADERS, 1, &[0x88]).unwrap();
            session.get(kind::DATA, 0, 1, b"body").unwrap();
        }
        session.get(kind::HEADERS, END_STREAM, 1, &[0; 16_384]).unwrap();
        for _ in 0..3 {
            session.get(kind::CONTINUATION, 0, 1, &[0; 16_384]).unwrap();
        }
        assert_eq!(session.meter.stream_violation(1), None, "64 KiB");
        session.get(kind::CONTINUATION, END_HEADERS, 1, &[0]).unwrap();
        let expected = Violation::HeaderBlock {
            stream: 1,
            max: 64 * 1024,
        };
        assert_eq!(session.meter.stream_violation(1), Some(expected));
        assert_eq!(session.meter.violation(), None, "other streams go on");
    }
}

// P30, P31: unread bytes of a stream and of the session, without padding, until released or forgotten.
#[test]
fn unread_data() {
    let mut session = Session::open();
    for id in [1, 3] {
        session.open_stream(id);
        session.get(kind::HEADERS, END_HEADERS, id, &[0x88]).unwrap();
    }
    session.get(kind::DATA, 0, 1, &[0; 1000]).unwrap();
    session.get(kind::DATA, PADDED, 1, &[9; 1 + 90 + 9]).unwrap();
    session.get(kind::DATA, END_STREAM, 3, &[0; 50]).unwrap();
    let meter = Arc::clone(&session.meter);
    assert_eq!(
        (meter.unread_of(1), meter.unread_of(3), meter.unread()),
        (1090, 50, 1140)
    );
    assert_eq!((meter.has_ended(1), meter.has_ended(3)), (false, true));

    meter.release(1, 1000);
    assert_eq!((meter.unread_of(1), meter.unread()), (90, 140));
    let forgotten = Forgotten {
        unread: 90,
        ended: false,
        quiet: false,
        violation: None,
    };
    assert_eq!(meter.forget(1), Some(forgotten));
    assert_eq!(
        (meter.forget(1), meter.unread_of(1), meter.unread()),
        (None, 0, 50)
    );
    session.get(kind::DATA, 0, 1, &[0; 500]).unwrap();
    meter.release(1, 500);
    assert_eq!(
        meter.unread(),
        50,
        "late DATA of a forgotten stream is h2's to release"
    );
    meter.release(3, 50);
    assert_eq!(meter.forget(3).unwrap().unread, 0);
    assert_eq!((meter.unread(), meter.streams()), (0, 0));
}

// P44, P19: quiet until a frame arrives on the session, of whatever kind and stream.
#[test]
fn quiet() {
    let mut session = Session::open();
    let meter = Arc::clone(&session.meter);
    let quiet = |id| meter.forget(id).unwrap().quiet;
    for id in [1, 3, 5] {
        session.open_stream(id);
    }
    assert!(quiet(5), "nothing came");
    session.get(kind::PING, ACK, 0, &[0; 8]).unwrap();
    session.open_stream(7);
    assert!(quiet(7), "nothing came since");
    assert!(!quiet(3), "the answer to PING came");
    assert_eq!(meter.headers_or_data_seen(), 0);
    session.get(kind::HEADERS, END_HEADERS, 1, &[0x88]).unwrap();
    session.get(kind::DATA, 0, 1, &[]).unwrap();
    assert_eq!(meter.headers_or_data_seen(), 2);
    assert!(!quiet(1));
    assert!(quiet(9), "not written yet");
}

// P30: trailers of an upload open nothing; a stream that was given up while h2 still held it is not kept.
#[test]
fn streams_opened() {
    let mut session = Session::open();
    session.put(kind::HEADERS, END_HEADERS, 1, &[0x82]);
    session.put(kind::DATA, 0, 1, b"body");
    session.get(kind::PING, 0, 0, &[0; 8]).unwrap();
    session.put(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0]);
    assert_eq!((session.meter.opened(), session.meter.data_sent()), (1, 4));

    assert!(session.meter.forget(5).unwrap().quiet);
    assert_eq!(session.meter.forget(5), None);
    assert_eq!(session.meter.streams(), 2);
    session.open_stream(3);
    session.open_stream(5);
    session.get(kind::DATA, 0, 5, &[0; 10]).unwrap();
    assert_eq!(
        (
            session.meter.opened(),
            session.meter.streams(),
            session.meter.unread()
        ),
        (3, 2, 0)
    );
    assert_eq!(session.meter.forget(5), None);
    let trailers = session.meter.forget(1).unwrap();
    assert!(!trailers.quiet, "the headers count, not the trailers");
}

// P30, P44: small frames weigh more than their payload, until they are read; the stream with most of them is accused, and
// h2 reads on once that was heard.
#[test]
fn small_frames() {
    let mut session = Session::open();
    for id in [1, 3, 5] {
        session.open_stream(id);
    }
    let max = Bounds::default().small_frames;
    let small = max / 255;
    for n in 0..small {
        let id = if n % 3 == 0 { 3 } else { 1 };
        session.get(kind::DATA, 0, id, &[1]).unwrap();
        session.get(kind::DATA, 0, 5, &[0; 256]).unwrap();
    }
    assert_eq!(session.meter.take_accused(), None);
    session.get(kind::DATA, 0, 3, &[1]).unwrap();
    assert!(session.meter.has_accused());
    assert_eq!(session.meter.take_accused(), Some(1), "it holds most of them");
    assert!(!session.meter.has_accused());
    let expected = Violation::SmallFrames { stream: 1, max };
    assert_eq!(session.meter.stream_violation(1), Some(expected));
    assert_eq!(session.meter.stream_violation(3), None);
    session.meter.forget(1);
    session.get(kind::DATA, 0, 3, &[1]).unwrap();
    assert_eq!(session.meter.take_accused(), None);
    assert_eq!(session.meter.late_overhead(), 0);
}

// P17: what comes late is never read, and only large frames make up for it.
#[test]
fn late_small_frames() {
    let mut session = Session::open();
    session.open_stream(1);
    session.open_stream(3);
    session.meter.forget(1);
    for _ in 0..10 {
        session.get(kind::DATA, 0, 1, &[1; 56]).unwrap();
    }
    assert_eq!(session.meter.late_overhead(), 2_000);
    session.get(kind::DATA, END_STREAM, 1, &[1]).unwrap();
    session.get(kind::DATA, 0, 3, &[1]).unwrap();
    assert_eq!(
        session.meter.late_overhead(),
        2_000,
        "the last one is free, that of another is not late"
    );
    session.get(kind::DATA, 0, 3, &[1; 1256]).unwrap();
    assert_eq!(session.meter.late_overhead(), 1_000);
    session.get(kind::DATA, 0, 3, &[1; 10_000]).unwrap();
    assert_eq!(session.meter.late_overhead(), 0);
}

// P44: h2 drops fields of trailers beyond the limit; the meter knows how many were sent, however the block is framed
// and cut.
#[test]
fn fields_of_trailers_are_counted() {
    const PRIORITY: u8 = 0x20;
    let block = b"\x00\x01a\x01b\x00\x01c\x01d";
    let whole = wire(kind::HEADERS, END_HEADERS | END_STREAM, 1, block);
    let padded = [&[4, 0, 0, 0, 0, 0][..], block, &[0x88; 4]].concat();
    let padded = wire(
        kind::HEADERS,
        END_HEADERS | END_STREAM | PADDED | PRIORITY,
        1,
        &padded,
    );
    let continued = [
        wire(kind::HEADERS, END_STREAM, 1, &block[..3]),
        wire(kind::CONTINUATION, 0, 1, &[]),
        wire(kind::CONTINUATION, 0, 1, &block[3..]),
        wire(kind::CONTINUATION, END_HEADERS, 1, &[]),
    ]
    .concat();
    for trailers in [whole, padded, continued] {
        for size in [1, 2, 7, 1_000] {
            let mut session = Session::open();
            session.open_stream(1);
            session.get(kind::HEADERS, END_HEADERS, 1, &[0x88]).unwrap();
            assert!(!session.meter.are_trailers_cut(1, 0), "nothing is known yet");
            for piece in [&trailers[..], &wire(kind::PING, 0, 0, &[0x88; 8])]
                .concat()
                .chunks(size)
            {
                session.get_bytes(piece).unwrap();
            }
            assert!(!session.meter.are_trailers_cut(1, 2));
            assert!(session.meter.are_trailers_cut(1, 1));
        }
    }
}

/// How many DATA frames of 16 KiB come through for a stream.
fn data_flood(session: &mut Session, stream: u32) -> u64 {
    session.flood(10_000, kind::DATA, 0, stream, &[0; 16_384]) as u64 * 16_384
}

// P44: a stream that was given up explains as much late DATA as was left of its window; one that had ended, none.
#[test]
fn late_data_is_bounded_by_the_windows() {
    let window = Bounds::default().stream_window;
    for (given_up, unread, explained) in [
        (0, 0, 0),
        (1, 0, window),
        (1, 4 << 20, window - (4 << 20)),
        (2, 0, 2 * window),
    ] {
        let mut session = Session::open();
        session.open_stream(1);
        session.open_stream(3);
        session.open_stream(5);
        for id in [1, 3].into_iter().take(given_up) {
            for _ in 0..unread / 16_384 {
                session.get(kind::DATA, 0, id, &[0; 16_384]).unwrap();
            }
            session.meter.forget(id);
        }
        session.get(kind::DATA, END_STREAM, 5, b"whole").unwrap();
        session.meter.forget(5);
        assert_eq!(data_flood(&mut session, 5), explained + LATE_SLACK);
        assert_eq!(session.meter.violation(), Some(Violation::LateData { window }));
    }
}

// P44: years of cancels buy no endless flood.
#[test]
fn unused_windows_do_not_pile_up() {
    let mut session = Session::open();
    for id in (1..1_000).step_by(2) {
        session.open_stream(id);
        session.meter.forget(id);
    }
    let most = LATE_WINDOWS * Bounds::default().stream_window + LATE_SLACK;
    let mut came = 0;
    while session.get(kind::DATA, 0, 1, &[0; 1 << 20]).is_ok() {
        came += 1 << 20;
        assert!(came <= most, "{came}");
    }
    assert_eq!(came, most);
}

// P44: a body that is held and cannot be read any more (its stream was reset) is not fed for ever.
#[test]
fn unread_data_is_bounded_by_the_window() {
    let mut session = Session::open();
    session.open_stream(1);
    let max = 2 * Bounds::default().stream_window;
    assert_eq!(data_flood(&mut session, 1), max);
    assert_eq!(
        session.meter.violation(),
        Some(Violation::Window { stream: 1, max })
    );

    let mut session = Session::open();
    session.open_stream(1);
    for _ in 0..10_000 {
        session.get(kind::DATA, 0, 1, &[0; 16_384]).unwrap();
        session.meter.release(1, 16_384);
    }
}

// P44: ends and empty frames for streams that are over are rated as resets are.
#[test]
fn late_ends_are_strays() {
    for (flags, payload) in [(END_STREAM, &b""[..]), (END_STREAM, b"x"), (0, b"")] {
        let mut session = Session::open();
        session.open_stream(1);
        session.meter.forget(1);
        assert_eq!(session.flood(5_000, kind::DATA, flags, 1, payload), 1_003);
        assert_eq!(
            session.meter.violation(),
            Some(Violation::StrayRate { per_second: 1_000 })
        );
    }
}

#[derive(Clone, Debug)]
enum Op {
    Open,
    Data { stream: usize, bytes: u16, padded: bool },
    Release { stream: usize },
    Forget { stream: usize },
}

fn any_op() -> impl Strategy<Value = Op> {
    let stream = || 0..8usize;
    prop_oneof![
        Just(Op::Open),
        (stream(), 0..3_000u16, any::<bool>()).prop_map(|(stream, bytes, padded)| Op::Data {
            stream,
            bytes,
            padded
        }),
        stream().prop_map(|stream| Op::Release { stream }),
        stream().prop_map(|stream| Op::Forget { stream }),
    ]
}

proptest! {
    // P30: the session's totals are the sums over its streams, after any operations.
    #[test]
    fn unread_adds_up(ops in prop::collection::vec(any_op(), 0..100)) {
        let mut session = Session::open();
        // The unread frames of each stream.
        let mut model: Vec<(u32, VecDeque<u64>)> = Vec::new();
        let mut next = 1;
        for op in ops {
            match op {
                Op::Open => {
                    session.open_stream(next);
                    model.push((next, VecDeque::new()));
                    next += 2;
                }
                Op::Data { stream, bytes, padded } if stream < model.len() => {
                    let mut payload = vec![3; usize::from(bytes)];
                    if padded {
                        payload.extend([3; 4]);
                    }
                    session.get(kind::DATA, if padded { PADDED } else { 0 }, model[stream].0, &payload).unwrap();
                    model[stream].1.push_back(u64::from(bytes));
                }
                Op::Release { stream } if stream < model.len() => {
                    let (id, unread) = &mut model[stream];
                    if let Some(bytes) = unread.pop_front() {
                        session.meter.release(*id, bytes);
                    }
                }
                Op::Forget { stream } if stream < model.len() => {
                    let (id, unread) = model.remove(stream);
                    prop_assert_eq!(session.meter.forget(id).unwrap().unread, unread.iter().sum::<u64>());
                }
                _ => {}
            }
            for (id, unread) in &model {
                prop_assert_eq!(session.meter.unread_of(*id), unread.iter().sum::<u64>());
            }
            let frames = || model.iter().flat_map(|(_, unread)| unread);
            prop_assert_eq!(session.meter.unread(), frames().sum::<u64>());
            let small = frames().filter(|bytes| (1..256).contains(*bytes));
            prop_assert_eq!(session.meter.overhead(), small.map(|bytes| 256 - bytes).sum::<u64>());
            prop_assert_eq!(session.meter.streams(), model.len());
        }
    }
}
