//! The connection ends after every single byte of a good answer: an answer or an error each time, never a hang.

use bytes::Bytes;

use crate::arena::{Answer, Arena, chain, get, settle};
use crate::support::client::upload;
use crate::support::peer::{Peer, frame, hpack};
use crate::support::server::body::full;

/// SETTINGS, the head, a body in two frames, trailers.
fn good_answer() -> Vec<Bytes> {
    vec![
        frame::settings(&[(3, 100)]),
        frame::headers(1, &hpack::literals([(":status", "200"), ("x-head", "1")]), false),
        frame::data(1, b"first ", false),
        frame::data(1, b"second", false),
        frame::headers(1, &hpack::literals([("x-trailer", "end")]), true),
    ]
}

fn is_whole(answer: &Answer) -> bool {
    answer.body == "first second"
        && answer
            .trailers
            .as_ref()
            .is_some_and(|fields| fields["x-trailer"] == "end")
}

/// Sends these bytes, SETTINGS at once and the rest when the request is there, then closes.
async fn cut(mut peer: Peer, bytes: Bytes) {
    let settings = bytes.len().min(good_answer()[0].len());
    let greeted = peer.greet_raw(&bytes[..settings]).await;
    if greeted.is_some() && bytes.len() > settings && peer.next_complete().await.is_some() {
        drop(peer.try_send_raw(&bytes[settings..]).await);
    }
}

/// P44, P22: a request without a body and one with, each to an origin of its own.
#[tokio::test(start_paused = true)]
async fn an_end_at_any_byte_is_an_answer_or_an_error() {
    ends_at_every_byte(Arena::new()).await;
}

/// The same by a reset of the connection.
#[tokio::test(start_paused = true)]
async fn a_reset_at_any_byte_is_an_answer_or_an_error() {
    ends_at_every_byte(Arena::resetting()).await;
}

async fn ends_at_every_byte(mut arena: Arena) {
    let whole: Bytes = good_answer().concat().into();
    for length in 0..=whole.len() {
        for post in [false, true] {
            let mut request = get(u16::try_from(2 * length).unwrap() + u16::from(post), "/cut");
            if post {
                *request.method_mut() = http::Method::POST;
                request = request.map(|_| full("upload"));
            }
            let before = arena.dials();
            let mut fetch = arena.fetch(request);
            let mut peers = tokio::task::JoinSet::new();
            let ended = async {
                loop {
                    tokio::select! {
                        ended = &mut fetch => return ended.unwrap(),
                        peer = arena.accept_any() => drop(peers.spawn(cut(peer, whole.slice(..length)))),
                    }
                }
            };
            let ended = tokio::time::timeout(std::time::Duration::from_secs(60), ended).await;
            let ended = ended.unwrap_or_else(|_| panic!("{length} bytes, post {post}: no end"));
            match ended {
                Ok(answer) => assert!(
                    length == whole.len() && is_whole(&answer),
                    "{length} bytes: {answer:?}"
                ),
                Err(error) => {
                    assert!(length < whole.len(), "{}", chain(&error));
                    // Whoever has seen a byte of the head knows that it was processed.
                    let head_began = length > good_answer()[0].len();
                    assert!(
                        !(head_began && error.is_unprocessed()),
                        "{length} bytes: {}",
                        chain(&error)
                    );
                }
            }
            let dials = arena.dials() - before;
            assert!(dials <= 6, "{length} bytes, post {post}: {dials} dials");
        }
    }
    arena.end().await;
}

/// P44: the server closes its direction and goes on reading, at every stage of a request with a body that does not end:
/// an answer or an error, never a wait for what cannot come.
#[tokio::test(start_paused = true)]
async fn half_a_connection_is_none() {
    let mut arena = Arena::new();
    let parts = good_answer();
    for sent in 0..=parts.len() {
        let (feed, body) = upload(1);
        let fetch = arena.post("/half", body);
        let mut peer = arena.accept().await;
        // Without SETTINGS no request with a body is sent: then it is the dials that fail.
        let whole = sent == parts.len();
        if sent > 0 {
            peer.greet(&[(3, 100)]).await.unwrap();
            peer.next_headers().await;
            peer.send_raw(&parts[1..sent].concat()).await;
        }
        peer.shutdown().await;
        let others = async {
            loop {
                arena.accept_any().await.shutdown().await;
            }
        };
        let reading = async { while let Ok(Some(_)) = peer.recv().await {} };
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            tokio::select! {
                ended = fetch => ended.unwrap(),
                ((), ()) = async { tokio::join!(others, reading) } => unreachable!("others never end"),
            }
        });
        match ended.await.unwrap_or_else(|_| panic!("{sent} frames: no end")) {
            Ok(answer) => assert!(whole && is_whole(&answer), "{sent} frames: {answer:?}"),
            Err(error) => assert!(
                !whole && (sent < 2 || !error.is_unprocessed()),
                "{sent} frames: {}",
                chain(&error)
            ),
        }
        drop((peer, feed));
        arena.recovers().await;
    }
    arena.end().await;
}

/// P14, P44: the server closes its direction while nothing is asked: what is asked then goes elsewhere.
#[tokio::test(start_paused = true)]
async fn half_an_idle_connection_is_replaced() {
    let mut arena = Arena::new();
    let first = arena.get("/first");
    let mut peer = arena.greeted(&[]).await;
    assert!(peer.answer_one(b"first").await.is_some());
    first.await.unwrap().unwrap();
    peer.shutdown().await;
    settle().await;
    arena.recovers().await;
    assert_eq!(arena.dials(), 2);
    arena.end().await;
}
