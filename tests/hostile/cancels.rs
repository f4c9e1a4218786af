//! Callers who cancel: the server must not take the pool for an attacker (P19, P44), nor a dead session for a live one.

use std::time::Duration;

use crate::arena::{Arena, chain, ends, settle};
use crate::support::peer::{Frame, Peer, code, setting};

/// Opens `n` streams and cancels them before anything is answered.
async fn cancelled(arena: &Arena, peer: &mut Peer, n: usize) -> Vec<u32> {
    let fetches: Vec<_> = (0..n).map(|_| arena.get("/cancelled")).collect();
    let mut streams = Vec::new();
    for _ in 0..n {
        streams.push(peer.next_headers().await.stream);
    }
    for fetch in fetches {
        fetch.abort();
    }
    let mut reset = Vec::new();
    for _ in 0..n {
        let (stream, code) = peer.next_reset().await;
        assert_eq!(code, code::CANCEL);
        reset.push(stream);
    }
    reset.sort_unstable();
    assert_eq!(streams, reset);
    streams
}

/// The frames that are there now, PINGs apart.
async fn pending(peer: &mut Peer) -> (Vec<[u8; 8]>, Vec<Frame>) {
    settle().await;
    let (mut pings, mut others) = (Vec::new(), Vec::new());
    while let Some(frame) = futures_util::FutureExt::now_or_never(peer.recv()) {
        match frame.unwrap().expect("the client has not closed") {
            Frame::Ping { ack: false, payload } => pings.push(payload),
            frame if frame.is_control() => {}
            frame => others.push(frame),
        }
    }
    (pings, others)
}

/// P19, P44: a cancelled slot is parked until the session shows a sign of life; one PING asks for it.
#[tokio::test(start_paused = true)]
async fn cancelled_slots_wait_for_a_sign_of_life() {
    let mut arena = Arena::with(|builder| builder.max_sessions(1).probe_timeout(Duration::from_secs(60)));
    let first = arena.get("/first");
    let mut peer = arena.greeted(&[(setting::MAX_CONCURRENT_STREAMS, 5)]).await;
    peer.answer_one(b"first").await;
    ends(first).await.unwrap();

    peer.silent();
    let streams = cancelled(&arena, &mut peer, 5).await;
    let next = arena.get("/next");
    let (pings, others) = pending(&mut peer).await;
    assert!(others.is_empty(), "all slots are parked: {others:?}");
    assert_eq!(pings.len(), 1, "one PING asks");

    peer.send_pong(pings[0]).await;
    assert_eq!(peer.answer_one(b"next").await.as_deref(), Some("/next"));
    assert_eq!(ends(next).await.unwrap().body, "next");
    assert_eq!(streams, [3, 5, 7, 9, 11]);
    arena.end().await;
}

/// P44: with a frame since its HEADERS a cancelled slot is free at once, and nobody is pinged for it.
#[tokio::test(start_paused = true)]
async fn a_slot_of_a_session_that_lives_is_free_at_once() {
    let mut arena = Arena::with(|builder| builder.max_sessions(1));
    let first = arena.get("/first");
    let mut peer = arena.greeted(&[(setting::MAX_CONCURRENT_STREAMS, 1)]).await;
    peer.answer_one(b"first").await;
    ends(first).await.unwrap();
    peer.silent();
    let fetch = arena.get("/cancelled");
    let head = peer.next_headers().await;
    peer.send_fields(head.stream, &[(":status", "103")], false).await;
    settle().await;
    fetch.abort();
    assert_eq!(peer.next_reset().await.0, head.stream);
    let next = arena.get("/next");
    assert_eq!(peer.answer_one(b"next").await.as_deref(), Some("/next"));
    assert_eq!(ends(next).await.unwrap().body, "next");
    arena.end().await;
}

/// P44: at most one probe PING until HEADERS or DATA arrive, however many cancels there are.
#[tokio::test(start_paused = true)]
async fn probes_do_not_become_a_ping_flood() {
    let mut arena = Arena::with(|builder| builder.max_sessions(1));
    let first = arena.get("/first");
    let mut peer = arena.greeted(&[(setting::MAX_CONCURRENT_STREAMS, 50)]).await;
    peer.answer_one(b"first").await;
    ends(first).await.unwrap();
    peer.silent();
    let mut asked = 0;
    for _ in 0..10 {
        let fetch = arena.get("/cancelled");
        settle().await;
        fetch.abort();
        let (pings, _) = pending(&mut peer).await;
        asked += pings.len();
        for payload in pings {
            peer.send_pong(payload).await;
        }
    }
    assert_eq!(asked, 1, "answers to PING are no HEADERS or DATA");
    arena.end().await;
}

/// P19: unanswered for `probe_timeout`: no new work there, a replacement is opened, the streams live on.
#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_answer_its_probe_is_replaced_and_keeps_its_streams() {
    let mut arena = Arena::new();
    let long = arena.get("/long");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let cancelled = arena.get("/cancelled");
    peer.next_headers().await;
    peer.silent();
    cancelled.abort();
    peer.next_reset().await;
    settle().await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    let next = arena.get("/next");
    let mut second = arena.greeted(&[]).await;
    assert_eq!(second.answer_one(b"next").await.as_deref(), Some("/next"));
    assert_eq!(ends(next).await.unwrap().body, "next");
    peer.respond(1, 200, b"long").await;
    assert_eq!(ends(long).await.unwrap().body, "long");
    arena.end().await;
}

/// P12, P44: requests that are given up pile up in h2 while the transport takes no bytes: beyond a bound the session gets
/// no more work, and is replaced.
#[tokio::test(start_paused = true)]
async fn a_session_that_takes_no_bytes_is_replaced_before_cancels_pile_up() {
    let mut arena = Arena::new();
    let first = arena.get("/first");
    let mut peer = arena.greeted(&[(setting::MAX_CONCURRENT_STREAMS, 50)]).await;
    peer.answer_one(b"first").await;
    ends(first).await.unwrap();
    // A probe is answered; until HEADERS or DATA come there will be no other.
    cancelled(&arena, &mut peer, 1).await;
    peer.ping_round_trip().await;

    let mut given_up = 0;
    while arena.dials() == 1 {
        let fetch = arena.get("/cancelled");
        settle_a_little().await;
        fetch.abort();
        given_up += 1;
        assert!(given_up < 10_000, "they pile up");
    }
    let next = arena.get("/next");
    let mut second = arena.greeted(&[]).await;
    // The last one that was given up may have been handed over.
    while second.answer_one(b"next").await.expect("it is alive") != "/next" {}
    assert_eq!(ends(next).await.unwrap().body, "next");
    arena.end().await;
}

/// h2-notes: the `h2` crate's server ends a connection after some quick cancels (`too_many_resets`), Go's after more.
#[tokio::test(start_paused = true)]
async fn a_thousand_cancels_do_not_look_like_a_rapid_reset_attack() {
    let mut arena = Arena::new();
    let server = tokio::spawn(accept_all(arena.take_acceptor()));
    for round in 0..1_000 {
        let fetch = arena.get("/hang");
        settle_a_little().await;
        fetch.abort();
        if round % 100 == 0 {
            let answer = ends(arena.get("/served"))
                .await
                .unwrap_or_else(|error| panic!("{round}: {}", chain(&error)));
            assert_eq!(answer.body, "served");
        }
    }
    assert!(!server.is_finished());
    assert!(arena.dials() <= 4, "{} dials", arena.dials());
    arena.end().await;
}

async fn settle_a_little() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// The `h2` crate's server with its defaults, which leaves `/hang` alone; ends at the first connection error.
async fn accept_all(mut acceptor: crate::support::memory::Acceptor) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            io = acceptor.accept() => drop(connections.spawn(serve(io))),
            Some(ended) = connections.join_next() => match ended.unwrap() {
                Ok(()) => {}
                Err(error) => panic!("the server closed: {error}"),
            },
        }
    }
}

async fn serve(io: tokio::io::DuplexStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(io).await?;
    let mut hanging = Vec::new();
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        if request.uri().path() == "/hang" {
            hanging.push(respond);
            continue;
        }
        let mut stream = respond.send_response(http::Response::new(()), false)?;
        stream.send_data(bytes::Bytes::from_static(b"served"), true)?;
    }
    Ok(())
}
