//! When the halves of a stream are over: the request written, the response read.

use std::future::{Future, poll_fn};

use tokio_test::task::{Spawn, spawn};

use super::*;

/// A request with a body is on its way on stream 1; whoever waits for its end.
fn uploading() -> (Session, Spawn<impl Future<Output = ()>>) {
    let mut session = Session::open();
    session.put(kind::HEADERS, END_HEADERS, 1, &[0x83]);
    session.put(kind::DATA, 0, 1, &[7; 10]);
    let meter = session.meter.clone();
    let mut end = spawn(poll_fn(move |cx| meter.poll_written(1, cx)));
    assert!(!session.meter.is_whole(1) && end.poll().is_pending());
    (session, end)
}

// P2, P30: the end of a request: END_STREAM on DATA or on trailers, a reset by either side, or the session's.
#[test]
fn a_request_is_over_when_nothing_of_it_will_be_written() {
    let ends: [fn(&mut Session); 5] = [
        |session| session.put(kind::DATA, END_STREAM, 1, &[7; 10]),
        |session| session.put(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0x83]),
        |session| session.put(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        |session| session.get(kind::RST_STREAM, 0, 1, &[0; 4]).unwrap(),
        |session| assert!(session.meter.forget(1).is_some()),
    ];
    for (at, over) in ends.into_iter().enumerate() {
        let (mut session, mut end) = uploading();
        session.put(kind::DATA, END_STREAM, 3, &[7; 10]);
        session
            .get(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0x88])
            .unwrap();
        session.get(kind::RST_STREAM, 0, 3, &[0; 4]).unwrap();
        assert!(!end.is_woken() && !session.meter.is_whole(1), "{at}");
        over(&mut session);
        assert!(session.meter.is_whole(1), "{at}");
        // Who forgets a stream is who waits.
        assert!(end.is_woken() || at == 4, "{at}");
        assert!(end.poll().is_ready(), "{at}");
    }
    let (session, mut end) = uploading();
    session.meter.end();
    assert!(end.is_woken() && end.poll().is_ready());
    let mut unopened = spawn(poll_fn(|cx| session.meter.poll_written(5, cx)));
    assert!(unopened.poll().is_ready());
}

// P31: a response is read when its end has come and all DATA before it was taken, padding aside. Where trailers may be
// missing it is not, whatever else was read.
#[test]
fn a_response_is_read_when_its_end_has_come_and_its_data_was_taken() {
    let mut session = Session::open();
    for id in [1, 3, 5, 7] {
        session.open_stream(id);
    }
    let head = &[0x88];
    let step = |session: &mut Session, kind, flags, id, payload: &[u8]| {
        session.get(kind, flags, id, payload).unwrap();
        session.meter.is_read(id)
    };
    assert!(
        step(&mut session, kind::HEADERS, END_HEADERS | END_STREAM, 1, head),
        "no DATA"
    );
    assert!(!step(&mut session, kind::HEADERS, END_HEADERS, 3, head));
    assert!(!step(&mut session, kind::DATA, 0, 3, &[7; 10]));
    session.meter.release(3, 10);
    assert!(!session.meter.is_read(3), "no end");
    assert!(!step(
        &mut session,
        kind::DATA,
        PADDED | END_STREAM,
        3,
        &[2, 7, 7, 7, 0, 0]
    ));
    session.meter.release(3, 3);
    assert!(session.meter.is_read(3), "padding is nobody's");
    assert!(!step(&mut session, kind::HEADERS, END_HEADERS, 5, head));
    assert!(step(&mut session, kind::DATA, END_STREAM, 5, &[]), "an empty end");
    assert!(!step(&mut session, kind::HEADERS, END_HEADERS, 7, head));
    assert!(
        !step(&mut session, kind::HEADERS, END_HEADERS | END_STREAM, 7, &[0x83]),
        "trailers"
    );
    session.meter.forget(1);
    assert!(!session.meter.is_read(1) && !session.meter.is_read(9), "nobody's");
}
