//! Keep-alive: who is asked, when, and what becomes of a session that does not answer (P19).

use std::time::Duration;

use h2pool::{Builder, SessionFilter, SessionState};
use http_body_util::BodyExt;

use crate::bench::{Bench, data, now, response, settle, text};
use crate::support::peer::{Frame, Peer, code, setting};

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(3);
const MILLI: Duration = Duration::from_millis(1);

fn asking(builder: Builder) -> Builder {
    let builder = builder.keep_alive_interval(INTERVAL).keep_alive_timeout(TIMEOUT);
    builder.idle_timeout(Duration::ZERO).drain_timeout(Duration::ZERO)
}

/// Reads for as long as `time`; how many PINGs came.
async fn pings(peer: &mut Peer, time: Duration) -> usize {
    let until = now() + time;
    let mut pings = 0;
    while let Ok(frame) = tokio::time::timeout_at(until, peer.recv()).await {
        match frame.unwrap() {
            Some(Frame::Ping { ack: false, .. }) => pings += 1,
            Some(_) => {}
            None => panic!("the session has ended"),
        }
    }
    pings
}

async fn head(peer: &mut Peer) -> u32 {
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    stream
}

// P19: no answer: the session is dead, with all that runs on it; what waited is served by its replacement.
#[tokio::test(start_paused = true)]
async fn silence_is_death() {
    let mut bench = Bench::new(asking);
    let (held, unanswered) = (bench.get("/held"), bench.get("/unanswered"));
    let mut peer = bench.peer(&[(setting::MAX_CONCURRENT_STREAMS, 2)]).await;
    let stream = head(&mut peer).await;
    peer.next_headers().await;
    let mut body = response(held).await.into_body();
    peer.send_data(stream, b"the last word", false).await;
    assert_eq!(data(&mut body).await, "the last word");
    peer.silent();
    let start = now();
    let waiting = bench.get("/waiting");
    let error = unanswered.await.unwrap().unwrap_err();
    assert!(error.is_keep_alive_timeout() && error.is_timeout(), "{error:?}");
    assert!(!error.is_unprocessed() && !error.is_body(), "{error:?}");
    assert!(error.to_string().contains("`keep_alive_timeout`"), "{error}");
    assert_eq!(start.elapsed().as_secs(), 13);
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(error.is_keep_alive_timeout() && error.is_body(), "{error:?}");
    let asked = peer.until_closed().await;
    let asked = asked.iter().filter(|frame| matches!(frame, Frame::Ping { .. }));
    assert_eq!(asked.count(), 1);
    let mut replacement = bench.peer(&[]).await;
    let request = replacement.next_headers().await;
    replacement.respond(request.stream, 200, b"served").await;
    assert_eq!(text(response(waiting).await.into_body()).await, "served");
    let stats = bench.pool.stats();
    assert_eq!(
        (stats.sessions_closed.keep_alive, stats.sessions_closed.total()),
        (1, 1)
    );
}

// P19: a server that answers is asked once in each interval, for ever.
#[tokio::test(start_paused = true)]
async fn an_answer_is_enough() {
    let mut bench = Bench::new(asking);
    let request = bench.get("/slow");
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    settle().await;
    assert_eq!(pings(&mut peer, INTERVAL - 2 * MILLI).await, 0);
    assert_eq!(pings(&mut peer, 100 * INTERVAL).await, 100);
    peer.respond(stream, 200, b"at last").await;
    assert_eq!(text(response(request).await.into_body()).await, "at last");
}

// P19: any frame is a sign of life: no PING while frames come, and one that comes in place of the answer will do.
#[tokio::test(start_paused = true)]
async fn any_frame_counts() {
    let mut bench = Bench::new(asking);
    let request = bench.get("/events");
    let mut peer = bench.peer(&[]).await;
    let stream = head(&mut peer).await;
    let mut body = response(request).await.into_body();
    for _ in 0..50 {
        assert_eq!(pings(&mut peer, INTERVAL - 10 * MILLI).await, 0);
        peer.send_data(stream, b"event", false).await;
        assert_eq!(data(&mut body).await, "event");
    }
    peer.silent();
    for _ in 0..5 {
        // The first PING is never answered, and h2 knows of one at a time.
        assert!(pings(&mut peer, INTERVAL + TIMEOUT - 10 * MILLI).await <= 1);
        peer.send_window_update(0, 1).await;
        settle().await;
    }
    peer.send_data(stream, b"end", true).await;
    assert_eq!(text(body).await, "end");
}

// P19: a session without streams is left alone, and asked at once when it is used after a long silence.
#[tokio::test(start_paused = true)]
async fn idle_sessions_are_not_asked() {
    let mut bench = Bench::new(asking);
    let request = bench.get("/");
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"done").await;
    text(response(request).await.into_body()).await;
    assert_eq!(pings(&mut peer, 100 * INTERVAL).await, 0);
    peer.silent();
    let start = now();
    let request = bench.get("/");
    let error = request.await.unwrap().unwrap_err();
    assert!(error.is_keep_alive_timeout(), "{error:?}");
    assert_eq!(start.elapsed().as_secs(), 3);
}

// P19: unless that is wanted.
#[tokio::test(start_paused = true)]
async fn idle_sessions_are_asked_where_that_is_wanted() {
    let mut bench = Bench::new(|builder| asking(builder).keep_alive_while_idle(true));
    let request = bench.get("/");
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"done").await;
    text(response(request).await.into_body()).await;
    assert_eq!(pings(&mut peer, 10 * INTERVAL + MILLI).await, 10);
    peer.silent();
    tokio::time::sleep(INTERVAL + TIMEOUT + MILLI).await;
    assert!(bench.pool.sessions().is_empty());
    assert_eq!(bench.pool.stats().sessions_closed.keep_alive, 1);
}

// P19: full and draining sessions are watched like any other.
#[tokio::test(start_paused = true)]
async fn saturated_and_draining_sessions_are_asked() {
    let mut bench = Bench::new(asking);
    let request = bench.get("/");
    let mut peer = bench.peer(&[(setting::MAX_CONCURRENT_STREAMS, 1)]).await;
    let stream = head(&mut peer).await;
    let mut body = response(request).await.into_body();
    assert_eq!(pings(&mut peer, 5 * INTERVAL + MILLI).await, 5, "full");
    peer.send_goaway(stream, code::NO_ERROR, b"").await;
    settle().await;
    let draining: SessionFilter = "state=draining".parse().unwrap();
    assert_eq!(bench.pool.sessions_matching(&draining).len(), 1);
    assert_eq!(bench.pool.sessions()[0].state, SessionState::Draining);
    assert_eq!(pings(&mut peer, 5 * INTERVAL + MILLI).await, 5, "draining");
    peer.silent();
    let start = now();
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(error.is_keep_alive_timeout(), "{error:?}");
    assert!(start.elapsed() <= INTERVAL + TIMEOUT);
}

// P19: off by default.
#[tokio::test(start_paused = true)]
async fn nobody_is_asked_by_default() {
    let mut bench = Bench::new(|builder| builder);
    let request = bench.get("/");
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    assert_eq!(pings(&mut peer, Duration::from_secs(86_400)).await, 0);
    peer.respond(stream, 200, b"patience").await;
    assert_eq!(text(response(request).await.into_body()).await, "patience");
}
