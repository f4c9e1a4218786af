//! Flow control: bodies that nobody reads, uploads that stand still, what comes late (P30, P31, P44).

use std::time::Duration;

use bytes::Bytes;
use h2pool::{ConnectionInfo, H2Pool};
use http::{Request, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::client::upload;
use crate::support::peer::{Frame as PeerFrame, code, frame};
use crate::support::server::Server;
use crate::support::within;
use crate::util::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_held_body_stalls_nobody() {
    // P30
    let server = Server::start().await;
    let pool = tls().max_sessions(1).build().unwrap();
    let held = pool.request(get(server.uri("/bytes/20000000"))).await.unwrap();
    for _ in 0..30 {
        let read = join(fetch(&pool, get(server.uri("/bytes/1000000"))))
            .await
            .unwrap();
        assert_eq!(read.body.len(), 1_000_000);
    }
    assert_eq!(read(held).await.unwrap().body.len(), 20_000_000);
    assert_eq!(server.counts().accepted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_full_of_held_bodies_gets_no_work_until_they_are_read_or_dropped() {
    // P30
    let server = Server::start().await;
    let pool = tls().max_sessions(2).build().unwrap();
    let pool = &pool;
    let mut held = Vec::new();
    let mut session = None;
    // Two windows of 2 MiB fill most of 5 MiB.
    for _ in 0..2 {
        let response = pool.request(get(server.uri("/bytes/20000000"))).await.unwrap();
        let on = response.extensions().get::<ConnectionInfo>().unwrap().session();
        session.get_or_insert(on);
        held.push(response);
    }
    let session = session.unwrap();
    let others = || async {
        let mut on = Vec::new();
        for _ in 0..10 {
            let read = join(fetch(pool, get(server.uri("/bytes/300000")))).await.unwrap();
            assert_eq!(read.body.len(), 300_000);
            on.push(read.info.unwrap().session());
        }
        on
    };
    // The windows fill while these run; soon all go to a second session.
    within("another session serves", async {
        while others().await.contains(&session) {}
    })
    .await;
    assert!(server.counts().accepted == 2);
    held.clear();
    within("the first one serves again", async {
        let many = |n| fetch_many(pool, &server.uri("/bytes/300000"), n);
        while !join_all(many(8))
            .await
            .into_iter()
            .any(|read| read.unwrap().info.unwrap().session() == session)
        {}
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_body_resets_its_stream_and_returns_its_credit() {
    // P30, P31: RFC 9113 §6.9
    let (pool, mut net) = net(H2Pool::builder().stream_window(65_535).connection_window(65_535));
    let first = tokio::spawn(pool.request(get(uri("https://a/first"))));
    let mut peer = net.ready_peer(10).await;
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    peer.send_data(stream, &[1; 60_000], false).await;
    drop(join(first).await.unwrap());
    let mut credit = 0;
    let mut reset = None;
    // What comes late for it costs, and is given back, too.
    let late = frame::data(stream, &[1; 5_000], false);
    peer.send_raw(&late).await;
    // The answer to a PING overtakes what it gave rise to; that to the second does not.
    let mut frames = peer.ping_round_trip().await;
    frames.extend(peer.ping_round_trip().await);
    for frame in frames {
        match frame {
            PeerFrame::WindowUpdate { stream: 0, increment } => credit += increment,
            PeerFrame::Reset { stream, .. } => reset = Some(stream),
            _ => {}
        }
    }
    assert_eq!(reset, Some(stream));
    // h2 holds small amounts back; the next response needs most of the window.
    assert!(credit >= 32_000, "{credit} of 65,000");
    let next = fetch(&pool, get(uri("https://a/next")));
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    peer.send_data(stream, &[2; 30_000], true).await;
    assert_eq!(join(next).await.unwrap().body.len(), 30_000);
    assert_eq!(pool.stats().sessions_opened, 1);
}

#[tokio::test(start_paused = true)]
async fn frames_that_come_late_are_ignored() {
    // P31, RFC 9113 §5.1: HEADERS, DATA, trailers, WINDOW_UPDATE and RST_STREAM of a stream that the client cancelled.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let request = tokio::spawn(pool.request(get(uri("https://a/cancelled"))));
    let mut peer = net.ready_peer(10).await;
    let stream = peer.next_headers().await.stream;
    request.abort();
    assert_eq!(peer.next_reset().await.0, stream);
    peer.send_headers(stream, 200, false).await;
    peer.send_data(stream, b"late", false).await;
    peer.send_window_update(stream, 10).await;
    peer.send_fields(stream, &[("x-late", "trailer")], true).await;
    peer.send_rst(stream, code::NO_ERROR).await;
    let next = fetch(&pool, get(uri("https://a/next")));
    assert_eq!(peer.answer_one(b"ok").await.unwrap(), "/next");
    assert_eq!(join(next).await.unwrap().body, "ok");
    assert_eq!(pool.stats().sessions_opened, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_upload_holds_no_window() {
    // P30: 65,535 bytes for the whole connection, and the peer gives nothing back.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let (idle, body) = upload(4);
    let first = fetch(&pool, Request::post("https://a/idle").body(body).unwrap());
    let mut peer = net.ready_peer(10).await;
    let one = peer.next_headers().await.stream;
    idle.send(Ok(Frame::data(Bytes::from_static(b"0123456789"))))
        .await
        .unwrap();
    settle().await;
    let second = fetch(&pool, post(uri("https://a/busy"), vec![7; 65_525]));
    let mut busy = 0;
    let two = loop {
        match peer.next_stream_frame().await {
            PeerFrame::Data(data) if data.stream != one => {
                busy += data.data.len();
                if data.end {
                    break data.stream;
                }
            }
            _ => {}
        }
    };
    assert_eq!(busy, 65_525);
    peer.respond(two, 200, b"ok").await;
    assert_eq!(join(second).await.unwrap().body, "ok");
    peer.send_window_update(0, 100).await;
    idle.send(Ok(Frame::data(Bytes::from_static(b"more"))))
        .await
        .unwrap();
    drop(idle);
    while !matches!(peer.next_stream_frame().await, PeerFrame::Data(data) if data.end) {}
    peer.respond(one, 200, b"ok").await;
    assert_eq!(join(first).await.unwrap().body, "ok");
}

#[tokio::test(start_paused = true)]
async fn silence_within_a_body_ends_with_its_timeout() {
    // P30, P44
    let builder = H2Pool::builder().body_idle_timeout(Duration::from_secs(5));
    let (pool, server) = with_server(builder, Server::builder());
    let mut body = pool
        .request(get(uri("https://a/sse/3?gate=sse")))
        .await
        .unwrap()
        .into_body();
    for _ in 0..2 {
        pass(4.0).await;
        server.gate("sse").release(1);
        body.frame().await.unwrap().unwrap();
    }
    let (last, took) = timed(body.frame()).await;
    let error = last.unwrap().unwrap_err();
    assert!(
        error.is_timeout() && error.is_body() && !error.is_unprocessed(),
        "{error:?}"
    );
    assert!(error.to_string().contains("body_idle_timeout"), "{error}");
    assert_eq!(took.as_secs(), 5);
    assert_eq!(pool.stats().streams, 0);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_never_opens_ends_with_the_write_timeout() {
    // P44
    let (pool, mut net) = net(H2Pool::builder().write_timeout(Duration::from_secs(5)));
    let request = fetch(&pool, post(uri("https://a/"), vec![7; 100_000]));
    let mut peer = net.ready_peer(10).await;
    let stream = peer.next_headers().await.stream;
    let reading = tokio::spawn(async move { peer.next_reset().await.0 });
    let (read, took) = timed(join(request)).await;
    let error = read.unwrap_err();
    assert!(error.is_timeout() && !error.is_unprocessed(), "{error:?}");
    assert!(error.to_string().contains("write_timeout"), "{error}");
    assert_eq!(took.as_secs(), 5);
    assert_eq!(join(reading).await, stream);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_after_one_that_was_cut_is_watched_too() {
    // P30, P44: the first is still held, and nobody has looked at it.
    let (pool, mut net) = net(H2Pool::builder().body_idle_timeout(Duration::from_secs(40)));
    pool.warm(&origin("https://a"), 1).unwrap();
    let mut peer = net.ready_peer(100).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let response = tokio::spawn(pool.request(get(uri("https://a/"))));
        let stream = peer.next_headers().await.stream;
        peer.send_headers(stream, 200, false).await;
        held.push(response.await.unwrap().unwrap());
        pass(81.0).await;
        assert_eq!(pool.stats().streams, 0, "{} held", held.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_held_when_its_http1_connection_ends_keeps_no_permit() {
    // P15, P30, P44: nobody watches over it any more.
    let builder = H2Pool::builder()
        .limit_concurrency(1)
        .body_idle_timeout(Duration::from_secs(1));
    let (pool, mut net) = net(builder);
    let request = tokio::spawn(pool.request(get(uri("https://a/"))));
    let mut io = net.dial().await.accept(Version::HTTP_11);
    let _head = io.read(&mut [0; 1024]).await.unwrap();
    io.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello")
        .await
        .unwrap();
    drop(io);
    let held = request.await.unwrap().unwrap();
    pass(10.0).await;
    let other = fetch(&pool, get(uri("https://b/")));
    let mut peer = net.ready_peer(10).await;
    peer.answer_one(b"ok").await.unwrap();
    join(other).await.unwrap();
    drop(held);
}
