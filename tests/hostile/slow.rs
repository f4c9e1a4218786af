//! Servers that are there and do next to nothing. All on a paused clock: a minute takes no time.

use std::time::Duration;

use bytes::Bytes;
use h2pool::retry::RetryPolicy;
use http_body::Frame as BodyFrame;
use http_body_util::Empty;
use tower::{ServiceBuilder, ServiceExt};

use crate::arena::{Arena, chain, ends, get, names, settle};
use crate::support::client::upload;
use crate::support::peer::{Frame, frame, hpack, setting};
use crate::support::server::body::full;

const SECOND: Duration = Duration::from_secs(1);

/// P44: `header_timeout`.
#[tokio::test(start_paused = true)]
async fn no_head_ends_at_the_header_timeout_and_only_that_stream() {
    let mut arena = Arena::with(|builder| builder.header_timeout(10 * SECOND));
    let fetch = arena.get("/no-head");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let error = ends(fetch).await.unwrap_err();
    assert!(
        error.is_timeout() && !error.is_unprocessed() && !error.is_connect(),
        "{}",
        chain(&error)
    );
    let took = arena.elapsed();
    assert!((10 * SECOND..12 * SECOND).contains(&took), "{took:?}");
    assert_eq!(peer.next_reset().await.0, 1);
    arena.end().await;
}

/// P44: it begins at the end of the request, which may wait for the server to read.
#[tokio::test(start_paused = true)]
async fn the_header_timeout_begins_when_the_request_is_written() {
    let mut arena = Arena::with(|builder| builder.header_timeout(10 * SECOND));
    let body = full(vec![7; 300_000]);
    let fetch = arena.post("/up", body);
    let mut peer = arena.greeted(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]).await;
    peer.send_window_update(0, 1 << 20).await;
    tokio::time::sleep(60 * SECOND).await;
    assert!(!fetch.is_finished());
    assert_eq!(peer.next_request().await.body.len(), 300_000);
    let before = arena.elapsed();
    let error = ends(fetch).await.unwrap_err();
    assert!(error.is_timeout(), "{}", chain(&error));
    let took = arena.elapsed() - before;
    assert!((10 * SECOND..12 * SECOND).contains(&took), "{took:?}");
    arena.end().await;
}

/// P44: interim responses do not stretch it.
#[tokio::test(start_paused = true)]
async fn interim_responses_do_not_stretch_the_header_timeout() {
    let mut arena = Arena::with(|builder| builder.header_timeout(10 * SECOND));
    let mut fetch = arena.get("/hinted");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let ended = loop {
        tokio::select! {
            ended = &mut fetch => break ended.unwrap(),
            () = tokio::time::sleep(SECOND) => {
                peer.send_fields(1, &[(":status", "103")], false).await;
            }
        }
    };
    assert!(ended.unwrap_err().is_timeout());
    assert!(arena.elapsed() < 12 * SECOND, "{:?}", arena.elapsed());
    arena.end().await;
}

/// P44: the head comes a byte a minute, within one frame.
#[tokio::test(start_paused = true)]
async fn a_head_of_a_byte_a_minute_ends_at_the_header_timeout() {
    let mut arena = Arena::with(|builder| builder.header_timeout(300 * SECOND));
    let mut fetch = arena.get("/slow-head");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let head = frame::headers(
        1,
        &hpack::literals([(":status", "200"), ("x-padding", "enough bytes for an hour")]),
        true,
    );
    let mut bytes = head.iter();
    let ended = loop {
        tokio::select! {
            ended = &mut fetch => break ended.unwrap(),
            () = tokio::time::sleep(60 * SECOND) => peer.send_raw(&[*bytes.next().unwrap()]).await,
        }
    };
    let error = ended.unwrap_err();
    assert!(error.is_timeout(), "{}", chain(&error));
    let took = arena.elapsed();
    assert!((300 * SECOND..302 * SECOND).contains(&took), "{took:?}");
    arena.end().await;
}

/// P44: `body_idle_timeout`: silence within a body.
#[tokio::test(start_paused = true)]
async fn silence_within_a_body_ends_at_the_idle_timeout() {
    let mut arena = Arena::with(|builder| builder.body_idle_timeout(30 * SECOND));
    let mut fetch = arena.get("/slow-body");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    peer.send_headers(1, 200, false).await;
    // Slow but alive: every 20 s a byte; then it stops.
    for _ in 0..6 {
        tokio::time::sleep(20 * SECOND).await;
        peer.send_data(1, b".", false).await;
    }
    let start = arena.elapsed();
    let error = tokio::time::timeout(60 * SECOND, &mut fetch)
        .await
        .expect("in time")
        .unwrap()
        .unwrap_err();
    assert!(
        error.is_timeout() && error.is_body() && !error.is_unprocessed(),
        "{}",
        chain(&error)
    );
    let silent = arena.elapsed() - start;
    assert!((29 * SECOND..32 * SECOND).contains(&silent), "{silent:?}");
    arena.end().await;
}

/// P44: a window that never opens, on the stream or on the connection.
#[tokio::test(start_paused = true)]
async fn a_window_that_never_opens_ends_the_upload_at_the_write_timeout() {
    for settings in [
        vec![(setting::INITIAL_WINDOW_SIZE, 0)],
        vec![(setting::INITIAL_WINDOW_SIZE, 1 << 20)],
    ] {
        let mut arena = Arena::with(|builder| builder.write_timeout(10 * SECOND));
        // 65,535 bytes fit the connection's window, 100,000 do not.
        let stuck = arena.post("/stuck", full(vec![0; 100_000]));
        let mut peer = arena.greeted(&settings).await;
        assert_eq!(peer.next_headers().await.path(), "/stuck");
        // What needs no window is served meanwhile, on the same session or another.
        let mut small = arena.get("/small");
        let served = loop {
            tokio::select! {
                ended = &mut small => break ended.unwrap(),
                frame = peer.next_stream_frame() => if let Frame::Headers(head) = frame {
                    peer.respond(head.stream, 200, b"small").await;
                },
            }
        };
        assert_eq!(served.unwrap().body, "small");
        let ended = tokio::time::timeout(60 * SECOND, stuck)
            .await
            .expect("in time")
            .unwrap();
        let error = ended.unwrap_err();
        assert!(error.is_timeout(), "{}", chain(&error));
        let took = arena.elapsed();
        assert!((10 * SECOND..15 * SECOND).contains(&took), "{took:?}");
        arena.end().await;
    }
}

/// P44: a peer that never reads: the socket takes nothing more.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_ends_at_the_write_timeout() {
    let mut arena = Arena::with(|builder| builder.write_timeout(10 * SECOND));
    let (feed, body) = upload(1);
    let stuck = arena.post("/unread", body);
    let mut peer = arena.greeted(&[(setting::INITIAL_WINDOW_SIZE, 1 << 30)]).await;
    peer.next_headers().await;
    peer.send_window_update(0, 1 << 30).await;
    peer.ping_round_trip().await;
    // From here on nothing is read any more.
    let feeding = tokio::spawn(async move {
        while feed
            .send(Ok(BodyFrame::data(Bytes::from(vec![0; 16_384]))))
            .await
            .is_ok()
        {}
    });
    let ended = tokio::time::timeout(60 * SECOND, stuck)
        .await
        .expect("in time")
        .unwrap();
    let error = ended.unwrap_err();
    assert!(error.is_timeout() && !error.is_unprocessed(), "{}", chain(&error));
    feeding.await.unwrap();
    drop(peer);
    arena.recovers().await;
    arena.end().await;
}

/// P44: an upload to a server that reads nothing takes little memory, however much there is to send.
#[tokio::test(start_paused = true)]
async fn an_upload_is_not_gathered_while_its_window_is_shut() {
    let mut arena = Arena::new();
    let (feed, body) = upload(1);
    let fetch = arena.post("/gathered", body);
    let mut peer = arena.greeted(&[(setting::INITIAL_WINDOW_SIZE, 0)]).await;
    peer.next_headers().await;
    let mut taken = 0;
    let chunk = Bytes::from(vec![0; 16_384]);
    while let Ok(sent) = tokio::time::timeout(SECOND, feed.send(Ok(BodyFrame::data(chunk.clone())))).await {
        sent.expect("the body is there");
        taken += chunk.len();
        assert!(taken < 2 << 20, "{taken} bytes taken from the body");
    }
    fetch.abort();
    assert_eq!(peer.next_reset().await.0, 1);
    arena.end().await;
}

/// P19: a peer that is gone without a word: keep-alive notices.
#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_given_up() {
    let mut arena = Arena::with(|builder| {
        builder
            .keep_alive_interval(10 * SECOND)
            .keep_alive_timeout(5 * SECOND)
    });
    let fetch = arena.get("/dead");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    peer.silent();
    let ended = async {
        loop {
            match peer.recv().await {
                Ok(Some(_)) => {}
                _ => return,
            }
        }
    };
    let both = async { tokio::join!(ended, fetch) };
    let (_, fetched) = tokio::time::timeout(60 * SECOND, both).await.expect("in time");
    let error = fetched.unwrap().unwrap_err();
    assert!(
        error.is_keep_alive_timeout() && !error.is_unprocessed(),
        "{}",
        chain(&error)
    );
    let took = arena.elapsed();
    assert!((15 * SECOND..17 * SECOND).contains(&took), "{took:?}");
    arena.recovers().await;
    arena.end().await;
}

/// P44: the error of a time bound says which one it was.
#[tokio::test(start_paused = true)]
async fn time_bounds_are_named() {
    let mut arena = Arena::with(|builder| builder.header_timeout(SECOND).body_idle_timeout(SECOND));
    let no_head = arena.get("/no-head");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let error = ends(no_head).await.unwrap_err();
    assert!(names(&error, "header"), "{}", chain(&error));
    let no_body = arena.get("/no-body");
    let head = peer.next_headers().await;
    peer.send_headers(head.stream, 200, false).await;
    settle().await;
    let error = ends(no_body).await.unwrap_err();
    assert!(names(&error, "body"), "{}", chain(&error));
    arena.end().await;
}

/// R7: a server that asks for patience until the end of time gets none: its answer is the answer.
#[tokio::test(start_paused = true)]
async fn a_huge_retry_after_is_not_waited_for() {
    let mut arena = Arena::new();
    for value in [
        "86400",
        "99999999999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let pool = arena.pool.clone();
        let fetch = tokio::spawn(async move {
            let service = ServiceBuilder::new().layer(RetryPolicy::default()).service(pool);
            service
                .oneshot(get(0, "/later").map(|_| Empty::<Bytes>::new()))
                .await
        });
        let mut peer = arena.greeted(&[]).await;
        peer.next_headers().await;
        let start = arena.elapsed();
        peer.send_fields(1, &[(":status", "503"), ("retry-after", value)], true)
            .await;
        let answer = fetch.await.unwrap().unwrap();
        assert_eq!(
            (answer.status().as_u16(), arena.elapsed() - start),
            (503, Duration::ZERO),
            "{value}"
        );
        peer.send_goaway(1, 0, b"").await;
        peer.until_closed().await;
    }
    arena.end().await;
}
