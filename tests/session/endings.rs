//! Connections that break while something is on its way: what the server provably never saw is sent again (P4, P18, P21, P22).

use http::Request;

use crate::bench::{Answer, Bench, failure, response, settle, text, uri};
use crate::support::peer::{Peer, setting};
use crate::support::server::body::full;

/// The transport's buffer is smaller than what the windows allow, so that writes wait.
const WIDE: &[(u16, u32)] = &[(setting::INITIAL_WINDOW_SIZE, 1 << 20)];

/// A peer that has read the first of three requests, and the answers: an upload that fills the transport is the second,
/// and nothing of the third was written.
async fn jammed(bench: &mut Bench) -> (Peer, Answer, Answer, Answer) {
    let first = bench.get("/first");
    let mut peer = bench.peer(WIDE).await;
    peer.send_window_update(0, 1 << 20).await;
    assert_eq!(peer.next_headers().await.stream, 1);
    let large = Request::post(uri("/large")).body(full(vec![7; 500_000])).unwrap();
    let upload = bench.send(large);
    settle().await;
    let unsent = bench.send(
        Request::post(uri("/unsent"))
            .body(full(b"once".to_vec()))
            .unwrap(),
    );
    settle().await;
    (peer, first, upload, unsent)
}

// P18, P21: the server's last words count, even where a write fails before they are read.
#[tokio::test(start_paused = true)]
async fn goaway_behind_a_broken_write() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, first, upload, unsent) = jammed(&mut bench).await;
    peer.respond(1, 200, b"first").await;
    peer.send_goaway(1, 0, b"").await;
    drop(peer);
    assert_eq!(text(response(first).await.into_body()).await, "first");
    let error = failure(upload).await;
    assert!(error.is_goaway() && error.is_unprocessed(), "{error:?}");

    let mut next = bench.peer(&[]).await;
    let head = next.next_headers().await;
    assert_eq!(head.path(), "/unsent");
    next.respond(head.stream, 200, b"again").await;
    assert_eq!(text(response(unsent).await.into_body()).await, "again");
}

// P4, P22: without last words, what was written is in doubt and what was not is sent again, whatever its method.
#[tokio::test(start_paused = true)]
async fn only_what_was_written_is_in_doubt() {
    let mut bench = Bench::new(|builder| builder);
    let (mut peer, first, upload, unsent) = jammed(&mut bench).await;
    peer.respond(1, 200, b"first").await;
    drop(peer);
    assert_eq!(text(response(first).await.into_body()).await, "first");
    let error = failure(upload).await;
    assert!(!error.is_goaway() && !error.is_unprocessed(), "{error:?}");

    let mut next = bench.peer(&[]).await;
    let head = next.next_headers().await;
    assert_eq!(head.path(), "/unsent");
    next.respond(head.stream, 200, b"again").await;
    assert_eq!(text(response(unsent).await.into_body()).await, "again");
    assert_eq!(bench.pool.stats().replays, 1);
}
