//! The same fight over HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;

use crate::arena::{Answer, Arena, Fetch, chain, ends, fails, get, names, settle};
use crate::support::peer::Peer;
use crate::support::server::body::full;

const SECOND: Duration = Duration::from_secs(1);

fn arena() -> Arena {
    Arena::h1(|builder| builder)
}

/// A connection on which a request was read to the end of its head.
async fn asked(arena: &mut Arena) -> Peer {
    let mut peer = arena.accept().await;
    peer.next_h1_head().await.expect("a request");
    peer
}

/// The origin still works: by a new connection.
async fn recovers(arena: &mut Arena) {
    settle().await;
    let fetch = arena.get("/recovers");
    let mut peer = asked(arena).await;
    peer.send_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nrecovered")
        .await;
    let answer = fetch
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(answer.body, "recovered");
}

/// P44, P22: the end after every byte of a good answer, by its length and in chunks.
#[tokio::test(start_paused = true)]
async fn an_end_at_any_byte_is_an_answer_or_an_error() {
    let by_length = &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole"[..];
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nwh\r\n3\r\nole\r\n0\r\n\r\n";
    let mut arena = arena();
    for (n, whole) in [by_length, chunked].into_iter().enumerate() {
        for length in 0..=whole.len() {
            let fetch = arena.fetch(get(u16::try_from(200 * n + length).unwrap(), "/cut"));
            let mut peer = asked(&mut arena).await;
            peer.send_raw(&whole[..length]).await;
            drop(peer);
            match tokio::time::timeout(60 * SECOND, fetch)
                .await
                .expect("in time")
                .unwrap()
            {
                Ok(answer) => assert!(
                    length == whole.len() && answer.body == "whole",
                    "{length}: {answer:?}"
                ),
                Err(error) => {
                    assert!(length < whole.len(), "{}", chain(&error));
                    assert!(!error.is_unprocessed(), "{length}: {}", chain(&error));
                }
            }
        }
    }
    assert_eq!(
        arena.dials(),
        2 + by_length.len() + chunked.len(),
        "nothing is sent twice"
    );
    arena.end().await;
}

/// RFC 9112 §6.3, §9.2: an answer that nobody asked for is never given to the next request.
#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_asked_for_goes_to_nobody() {
    let mut arena = arena();
    for together in [true, false] {
        let fetch = arena.get("/first");
        let mut peer = asked(&mut arena).await;
        let good = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
        let poison = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
        if together {
            peer.send_raw(&[&good[..], poison].concat()).await;
        } else {
            peer.send_raw(good).await;
        }
        assert_eq!(fetch.await.unwrap().unwrap().body, "good");
        if !together {
            peer.send_raw(poison).await;
        }
        settle().await;
        recovers(&mut arena).await;
    }
    arena.end().await;
}

/// RFC 9112 §2.2, §6, §7: what is no response is an error at once.
#[tokio::test(start_paused = true)]
async fn malformed_responses_fail_their_request() {
    let mut arena = arena();
    let malformed: &[&[u8]] = &[
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nna me: value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a size\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nwhole",
    ];
    for bytes in malformed {
        let shown = String::from_utf8_lossy(bytes);
        let fetch = arena.post("/malformed", full("x"));
        let mut peer = asked(&mut arena).await;
        let start = arena.elapsed();
        peer.send_raw(bytes).await;
        let error = fails(fetch).await;
        assert!(
            !error.is_unprocessed() && !error.is_timeout(),
            "{shown}: {}",
            chain(&error)
        );
        assert_eq!(arena.elapsed(), start, "{shown}: at once");
        drop(peer);
        recovers(&mut arena).await;
    }
    assert_eq!(arena.dials(), 2 * malformed.len());
    arena.end().await;
}

/// P44: heads without an end, interim responses without an end.
#[tokio::test(start_paused = true)]
async fn endless_heads_and_interim_responses_are_bounded() {
    let mut arena = arena();
    for (start, more) in [
        (
            &b"HTTP/1.1 200 OK\r\n"[..],
            format!("x-more: {}\r\n", "m".repeat(1_000)),
        ),
        (b"HTTP/1.1 200 OK\r\nx-long: ", "l".repeat(1_000)),
        (
            b"",
            "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n".to_owned(),
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
            "x-trailer: 1\r\n".to_owned(),
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;",
            "extension".to_owned(),
        ),
    ] {
        let fetch = arena.get("/endless");
        let mut peer = asked(&mut arena).await;
        peer.send_raw(start).await;
        let flood = peer.flood_text(more.as_bytes(), 64 << 20).await;
        assert!(flood.ended && flood.written < 4 << 20, "{more:.40}: {flood:?}");
        let error = fails(fetch).await;
        assert!(!error.is_unprocessed(), "{more:.40}: {}", chain(&error));
        recovers(&mut arena).await;
    }
    arena.end().await;
}

/// P44: the bound on interim responses is the same as over HTTP/2, and named.
#[tokio::test(start_paused = true)]
async fn too_many_interim_responses_fail_the_request() {
    let mut arena = arena();
    for (count, fine) in [(32, true), (40, false)] {
        let fetch = arena.get("/hinted");
        let mut peer = asked(&mut arena).await;
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(count);
        peer.send_raw(hints.as_bytes()).await;
        if fine {
            peer.send_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                .await;
            assert_eq!(fetch.await.unwrap().unwrap().body, "ok");
        } else {
            let error = fails(fetch).await;
            assert!(names(&error, "(1xx)"), "{}", chain(&error));
        }
        settle().await;
    }
    recovers(&mut arena).await;
    arena.end().await;
}

/// P44: `header_timeout` and `body_idle_timeout`, a byte at a time.
#[tokio::test(start_paused = true)]
async fn slow_heads_and_silent_bodies_end_in_time() {
    let limits =
        |builder: h2pool::Builder| builder.header_timeout(10 * SECOND).body_idle_timeout(10 * SECOND);
    let head = &b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"[..];
    for (at_once, trickled) in [(&b""[..], head), (head, b"")] {
        let mut arena = Arena::h1(limits);
        let mut fetch: Fetch = arena.get("/slow");
        let mut peer = asked(&mut arena).await;
        peer.send_raw(at_once).await;
        let mut bytes = trickled.iter();
        let ended: Result<Answer, _> = loop {
            tokio::select! {
                ended = &mut fetch => break ended.unwrap(),
                () = tokio::time::sleep(SECOND) => if let Some(byte) = bytes.next() {
                    peer.send_raw(&[*byte]).await;
                },
            }
        };
        let error = ended.expect_err("the bound passes first");
        assert!(error.is_timeout() && !error.is_unprocessed(), "{}", chain(&error));
        let took = arena.elapsed();
        assert!((10 * SECOND..12 * SECOND).contains(&took), "{took:?}");
        drop(peer);
        recovers(&mut arena).await;
        arena.end().await;
    }
}

/// P24, P44: connections that hang are no more than `max_h1_connections`, whoever waits.
#[tokio::test(start_paused = true)]
async fn hanging_connections_are_bounded() {
    let mut arena = Arena::h1(|builder| builder.max_h1_connections(3).acquire_timeout(5 * SECOND));
    let fetches: Vec<_> = (0..20).map(|_| arena.get("/hangs")).collect();
    let mut held = Vec::new();
    while let Ok(mut peer) = tokio::time::timeout(SECOND, arena.accept_any()).await {
        peer.next_h1_head().await.expect("a request");
        held.push(peer);
    }
    assert_eq!((held.len(), arena.dials()), (3, 3));
    tokio::time::sleep(6 * SECOND).await;
    let (ended, hanging): (Vec<_>, Vec<_>) = fetches.into_iter().partition(Fetch::is_finished);
    assert_eq!((ended.len(), hanging.len()), (17, 3));
    for fetch in ended {
        let error = fails(fetch).await;
        assert!(error.is_timeout() && error.is_unprocessed(), "{}", chain(&error));
    }
    drop(held);
    for fetch in hanging {
        let error = fails(fetch).await;
        assert!(
            !error.is_timeout() && !error.is_unprocessed(),
            "{}",
            chain(&error)
        );
    }
    arena.end().await;
}

/// An upgrade that nobody asked for is an answer, and the connection is never used again.
#[tokio::test(start_paused = true)]
async fn an_upgrade_that_nobody_asked_for_costs_its_connection() {
    let mut arena = arena();
    let fetch = arena.get("/upgraded");
    let mut peer = asked(&mut arena).await;
    peer.send_raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n")
        .await;
    if let Ok(answer) = ends(fetch).await {
        assert_eq!(answer.status, 101);
    }
    settle().await;
    recovers(&mut arena).await;
    assert_eq!(arena.dials(), 2);
    arena.end().await;
}

/// A body without an end is the caller's to stop; dropping it closes the connection, since nothing else can.
#[tokio::test(start_paused = true)]
async fn an_endless_body_that_is_dropped_closes_its_connection() {
    let mut arena = arena();
    let pool = arena.pool.clone();
    let response = tokio::spawn(async move { pool.request(get(0, "/endless")).await });
    let mut peer = asked(&mut arena).await;
    peer.send_raw(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let response = response.await.unwrap().unwrap();
    let flooding =
        tokio::spawn(async move { peer.flood_text(&Bytes::from(vec![b'b'; 8_192]), usize::MAX).await });
    settle().await;
    drop(response);
    let flood = flooding.await.unwrap();
    assert!(flood.ended && flood.written < 16 << 20, "{flood:?}");
    recovers(&mut arena).await;
    arena.end().await;
}

/// P44: small chunks with large extensions, trailers of many fields: a body of nothing does not come for ever.
#[tokio::test(start_paused = true)]
async fn chunks_of_nothing_but_extensions_are_bounded() {
    let mut arena = arena();
    let extension = format!("1;{}\r\nx\r\n", "e".repeat(1_000));
    let trailer = format!("x-trailer: {}\r\n", "t".repeat(1_000));
    for (start, more) in [("", extension), ("0\r\n", trailer)] {
        let fetch = arena.get("/chunks");
        let mut peer = asked(&mut arena).await;
        let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{start}");
        peer.send_raw(head.as_bytes()).await;
        let flood = peer.flood_text(more.as_bytes(), 64 << 20).await;
        assert!(flood.ended && flood.written < 4 << 20, "{more:.20}: {flood:?}");
        let error = fails(fetch).await;
        assert!(
            error.is_body() && !error.is_unprocessed() && !error.is_timeout(),
            "{more:.20}: {}",
            chain(&error)
        );
        recovers(&mut arena).await;
    }
    arena.end().await;
}

/// P44: the server closes its direction of an idle connection, or of one that waits for its answer.
#[tokio::test(start_paused = true)]
async fn half_a_connection_is_none() {
    let mut arena = arena();
    let fetch = arena.get("/half");
    let mut peer = asked(&mut arena).await;
    peer.shutdown().await;
    let error = fails(fetch).await;
    assert!(
        !error.is_unprocessed() && !error.is_timeout(),
        "{}",
        chain(&error)
    );

    let fetch = arena.get("/whole");
    let mut idle = asked(&mut arena).await;
    idle.send_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    assert_eq!(fetch.await.unwrap().unwrap().body, "ok");
    idle.shutdown().await;
    settle().await;
    recovers(&mut arena).await;
    assert_eq!(arena.dials(), 3);
    arena.end().await;
}
