//! Responses that are whole before their upload is, and what the end of the stream or of the connection makes of them
//! (P22, P31, P41).

use bytes::Bytes;
use h2pool::{Body, Error};
use http::Request;
use http_body_util::{BodyExt, Collected};

use crate::bench::{Answer, Bench, failure, response, settle, uri};
use crate::support::client::upload;
use crate::support::peer::{Peer, code, frame, hpack};
use crate::support::within;

/// HEADERS of the first stream, which end it or not.
fn head(fields: &[(&str, &str)], end: bool) -> Bytes {
    frame::headers(1, &hpack::literals(fields.iter().copied()), end)
}

fn data(bytes: &str, end: bool) -> Bytes {
    frame::data(1, bytes.as_bytes(), end)
}

/// Whole responses, frame by frame.
fn whole() -> Vec<(&'static str, Vec<Bytes>)> {
    let ok = (":status", "413");
    vec![
        ("head", vec![head(&[ok], true)]),
        (
            "data",
            vec![head(&[ok], false), data("who", false), data("le", true)],
        ),
        (
            "empty end",
            vec![head(&[ok], false), data("whole", false), data("", true)],
        ),
        (
            "length",
            vec![
                head(&[ok, ("content-length", "5")], false),
                data("whole", false),
                data("", true),
            ],
        ),
        (
            "trailers",
            vec![
                head(&[ok], false),
                data("whole", false),
                head(&[("x-sum", "1")], true),
            ],
        ),
    ]
}

/// What the bodies of [`whole`] are.
fn check(read: Collected<Bytes>, name: &str) {
    assert_eq!(read.trailers().is_some(), name == "trailers", "{name}");
    assert_eq!(
        read.to_bytes(),
        if name == "head" { "" } else { "whole" },
        "{name}"
    );
}

async fn collect(answer: Answer) -> Result<Collected<Bytes>, Error> {
    let body: Body = within("an answer", answer).await.unwrap()?.into_body();
    within("the body", body.collect()).await
}

/// A request that the peer has read as far as it goes.
async fn asked(bench: &mut Bench, request: Answer) -> (Peer, Answer) {
    let mut peer = bench.peer(&[]).await;
    assert_eq!(peer.next_headers().await.stream, 1);
    (peer, request)
}

// P31: a whole response is a success, however its stream or its connection ends behind it, and whether that comes with it
// or later.
#[tokio::test(start_paused = true)]
async fn a_whole_response_is_one_however_it_goes_on() {
    let ends = [
        frame::reset(1, code::NO_ERROR),
        frame::reset(1, code::CANCEL),
        Bytes::new(),
        frame::goaway(1, code::NO_ERROR, b""),
        frame::goaway(1, code::INTERNAL_ERROR, b""),
        frame::goaway(0, code::NO_ERROR, b""),
    ];
    for (name, frames) in whole() {
        for (end, late) in ends.iter().flat_map(|end| [(end, false), (end, true)]) {
            let mut bench = Bench::new(|builder| builder);
            let (sender, body) = upload(1);
            let answer = bench.send(Request::post(uri("/")).body(body).unwrap());
            let (mut peer, answer) = asked(&mut bench, answer).await;
            if late {
                peer.send_raw(&frames.concat()).await;
                settle().await;
                peer.send_raw(end).await;
            } else {
                peer.send_raw(&[&frames.concat()[..], end].concat()).await;
            }
            if end.get(3) != Some(&3) {
                drop(peer);
            }
            settle().await;
            let read = collect(answer).await;
            check(
                read.unwrap_or_else(|error| panic!("{name}, {end:?}, {late}: {error:?}")),
                name,
            );
            drop(sender);
            settle().await;
            assert_eq!(bench.pool.stats().streams, 0, "{name}, {end:?}, {late}");
        }
    }
}

// P22, P31: where the connection ends at any byte before that, the response is not whole, and nothing is unprocessed.
#[tokio::test(start_paused = true)]
async fn a_response_that_is_cut_at_any_byte_is_none() {
    for (name, frames) in whole() {
        let all = frames.concat();
        for (cut, slow) in (0..=all.len()).flat_map(|cut| [(cut, false), (cut, true)]) {
            let mut bench = Bench::new(|builder| builder);
            let (_sender, body) = upload(1);
            let answer = bench.send(Request::post(uri("/")).body(body).unwrap());
            let (mut peer, answer) = asked(&mut bench, answer).await;
            for piece in all[..cut].chunks(if slow { 1 } else { all.len() }) {
                peer.send_raw(piece).await;
                settle().await;
            }
            drop(peer);
            // All of a told length is enough: its end is not waited for.
            let told = name == "length" && cut >= all.len() - 9;
            match collect(answer).await {
                Ok(read) if told || cut == all.len() => check(read, name),
                Err(error) if cut < all.len() => assert!(!error.is_unprocessed(), "{name}, {cut}: {error:?}"),
                other => panic!("{name}, {cut} of {}, {slow}: {other:?}", all.len()),
            }
            settle().await;
            assert_eq!(bench.pool.stats().streams, 0, "{name}, {cut}");
        }
    }
}

// P41, P22: what GOAWAY covers and leaves behind says so, whether the connection then ends in order or is broken.
#[tokio::test(start_paused = true)]
async fn what_goaway_left_behind_says_so() {
    for (broken, uploads) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut bench = Bench::new(|builder| builder);
        let (_sender, body) = upload(1);
        let answer = match uploads {
            true => bench.send(Request::post(uri("/")).body(body).unwrap()),
            false => bench.get("/"),
        };
        let (mut peer, answer) = asked(&mut bench, answer).await;
        let mut last = frame::goaway(1, code::NO_ERROR, b"").to_vec();
        if broken {
            last.extend_from_slice(&head(&[(":status", "200")], true)[..5]);
        }
        peer.send_raw(&last).await;
        drop(peer);
        let error = failure(answer).await;
        assert!(
            error.is_goaway() && !error.is_unprocessed(),
            "{broken}, {uploads}: {error:?}"
        );
    }
}

// P41: the same on several threads, where a stream may hear of the end before the driver has said why.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_goaway_left_behind_says_so_whoever_hears_of_it_first() {
    let mut bench = Bench::new(|builder| builder);
    for _ in 0..30 {
        // A session that served nothing would be dialed for again after a pause.
        let served = bench.get("/");
        let mut peer = bench.peer(&[]).await;
        peer.next_headers().await;
        peer.respond(1, 200, b"").await;
        response(served).await;
        let answers: Vec<_> = (0..8).map(|_| bench.get("/")).collect();
        for _ in 0..8 {
            peer.next_headers().await;
        }
        peer.send_goaway(17, code::NO_ERROR, b"").await;
        drop(peer);
        for answer in answers {
            let error = failure(answer).await;
            assert!(error.is_goaway() && !error.is_unprocessed(), "{error:?}");
        }
    }
}

// P31: HEADERS in the midst of a body break the protocol, also where RST_STREAM(NO_ERROR) comes before h2's own reset.
#[tokio::test(start_paused = true)]
async fn a_response_with_headers_in_its_midst_is_not_whole() {
    let mut bench = Bench::new(|builder| builder);
    let (_sender, body) = upload(1);
    let answer = bench.send(Request::put(uri("/")).body(body).unwrap());
    let mut peer = bench.peer(&[]).await;
    peer.next_headers().await;
    let ok = [(":status", "200")];
    let stop = frame::reset(1, code::NO_ERROR);
    // In one write: h2 has read all of it before it sends anything.
    let frames = [head(&ok, false), data("some", false), head(&ok, false), stop].concat();
    peer.send_raw(&frames).await;
    let whole = match within("an answer", answer).await.unwrap() {
        Ok(response) => response.into_body().collect().await.map(Collected::to_bytes),
        Err(error) => Err(error),
    };
    assert!(whole.is_err(), "{whole:?}");
}
