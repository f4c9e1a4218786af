//! The frame-level peer, its listeners, and the server whose streams are scripted.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::HeaderValue;
use http_body_util::BodyExt;
use tokio::net::TcpStream;

use super::support::certs::Tls;
use super::support::client::{dial_tls, h2_over, h2_to};
use super::support::listener::PeerListener;
use super::support::memory::memory;
use super::support::peer::{Frame, code, flag, frame, hpack, kind, setting};
use super::support::scripted::{Answer, Scripted};
use super::support::server::body::full;
use super::{get, read, request};

#[tokio::test]
async fn the_scripted_server_does_what_the_script_says() {
    let server = Scripted::start(|seen| match seen.request.uri.path() {
        "/refuse" => Answer::refuse(),
        "/reset" => Answer::Reset(h2::Reason::HTTP_1_1_REQUIRED),
        "/body" => Answer::ResetInBody(h2::Reason::INTERNAL_ERROR),
        "/early" => Answer::RespondAndReset("whole".into()),
        "/hint" => Answer::Respond {
            informational: vec![103, 103],
            status: 200,
            body: "hinted".into(),
            trailers: None,
        },
        "/goaway" => Answer::Goaway(Box::new(Answer::ok("last"))),
        "/abort" => Answer::Abort(h2::Reason::ENHANCE_YOUR_CALM),
        _ => Answer::status(404),
    })
    .await;
    let mut h2 = h2_to(server.addr()).await;
    for (path, reason) in [
        ("/refuse", h2::Reason::REFUSED_STREAM),
        ("/reset", h2::Reason::HTTP_1_1_REQUIRED),
    ] {
        let error = h2.send_request(get(path)).await.unwrap_err();
        assert_eq!(reason_of(&error), Some(reason), "{path}");
    }
    let body = h2.send_request(get("/body")).await.unwrap();
    assert!(body.into_body().collect().await.is_err());
    let early = h2
        .send_request(request("POST", "/early", full("x")))
        .await
        .unwrap();
    assert_eq!(read(early).await.to_bytes(), "whole");
    let hint = h2.send_request(get("/hint")).await.unwrap();
    assert_eq!(read(hint).await.to_bytes(), "hinted");
    let last = h2.send_request(get("/goaway")).await.unwrap();
    assert_eq!(read(last).await.to_bytes(), "last");
    server.until("it closes", |counts| counts.open() == 0).await;

    let mut h2 = h2_to(server.addr()).await;
    let error = h2.send_request(get("/abort")).await.unwrap_err();
    // GOAWAY covers the stream, so its end is that of the connection.
    assert!(reason_of(&error).is_none() && h2.is_closed(), "{error:?}");
    let counts = server.counts();
    assert_eq!(
        (
            counts.processed("/refuse"),
            counts.processed("/hint"),
            counts.accepted
        ),
        (0, 1, 2)
    );
}

#[tokio::test]
async fn the_peer_reads_and_writes_frames_over_tls() {
    let mut listener = PeerListener::tls().await;
    let client = dial_tls(listener.addr(), Tls::h2().client()).await.unwrap();
    let mut h2 = h2_over(client).await;
    let mut peer = listener.accept().await;
    peer.handshake(&[(setting::MAX_CONCURRENT_STREAMS, 7)]).await;
    assert_eq!(peer.client_setting(setting::ENABLE_PUSH), Some(0));

    let mut secret = request("POST", "/upload", full("0123456789"));
    let mut value = HeaderValue::from_static("very secret");
    value.set_sensitive(true);
    secret.headers_mut().insert("authorization", value);
    let answer = tokio::spawn(h2.send_request(secret));
    let exchange = peer.next_request().await;
    assert_eq!(
        (exchange.head.stream, exchange.head.path(), &exchange.body[..]),
        (1, "/upload", &b"0123456789"[..])
    );
    assert_eq!(exchange.head.get("authorization"), Some("very secret"));
    let kinds = hpack::representations(&exchange.head.block);
    assert_eq!(kinds.len(), exchange.head.fields.len());
    let index = exchange
        .head
        .fields
        .iter()
        .position(|(name, _)| name == "authorization")
        .unwrap();
    assert_eq!(kinds[index], hpack::Representation::NeverIndexed);

    peer.send_fields(1, &[(":status", "103"), ("link", "x")], false)
        .await;
    peer.respond(1, 200, &[7; 40_000]).await;
    assert_eq!(
        read(answer.await.unwrap().unwrap()).await.to_bytes(),
        vec![7; 40_000]
    );

    let refused = tokio::spawn(h2.send_request(get("/refused")));
    let head = peer.next_headers().await;
    assert_eq!((head.stream, head.end), (3, true));
    peer.send_rst(head.stream, code::REFUSED_STREAM).await;
    let error = refused.await.unwrap().unwrap_err();
    assert_eq!(reason_of(&error), Some(h2::Reason::REFUSED_STREAM));

    let cancelled = tokio::spawn(h2.send_request(get("/cancelled")));
    let head = peer.next_headers().await;
    cancelled.abort();
    assert_eq!(peer.next_reset().await, (head.stream, code::CANCEL));
    assert!(peer.ping_round_trip().await.iter().all(Frame::is_control));

    let lost = tokio::spawn(h2.send_request(get("/lost")));
    peer.next_headers().await;
    peer.send_goaway(5, code::NO_ERROR, b"bye").await;
    assert!(lost.await.unwrap().is_err());
    peer.until_closed().await;
    assert_eq!(listener.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_peer_serves_in_memory_and_reading_it_is_cancel_safe() {
    let (dialer, mut acceptor) = memory(16);
    let mut big = get("/big");
    big.headers_mut()
        .insert("x-big", "b".repeat(40_000).parse().unwrap());
    let client = tokio::spawn(async move {
        let mut h2 = h2_over(dialer.dial().unwrap()).await;
        let (one, two) = (
            h2.send_request(big),
            h2.send_request(request("POST", "/two", full("x"))),
        );
        let (one, two) = tokio::join!(one, two);
        (
            read(one.unwrap()).await.to_bytes(),
            read(two.unwrap()).await.to_bytes(),
        )
    });
    let mut peer = acceptor.peer().await;
    peer.handshake(&[]).await;
    // Sixteen bytes at a time: the block of 40 kB is cancelled in the middle over and over.
    let head = loop {
        match peer.recv().now_or_never() {
            Some(frame) => {
                if let Frame::Headers(head) = frame.unwrap().unwrap() {
                    break head;
                }
            }
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!((head.path(), head.continuations > 0), ("/big", true));
    assert_eq!(head.get("x-big").map(str::len), Some(40_000));
    peer.respond(head.stream, 200, b"first").await;
    assert_eq!(peer.answer_one(b"second").await.as_deref(), Some("/two"));
    assert_eq!(
        client.await.unwrap(),
        (Bytes::from("first"), Bytes::from("second"))
    );
    assert!(peer.serve(b"").await.is_empty());
}

#[tokio::test]
async fn floods_end_with_the_client_or_at_their_limit() {
    let mut listener = PeerListener::plain().await;
    let _h2 = h2_over(TcpStream::connect(listener.addr()).await.unwrap()).await;
    let mut peer = listener.accept().await;
    peer.handshake(&[]).await;
    let flood = peer.flood(&frame::ping([1; 8]), 100_000).await;
    assert!(flood.written >= 100_000 && !flood.ended, "{flood:?}");
    peer.ping_round_trip().await;
    // A frame on stream 0 that must not be there ends the connection.
    let flood = peer.flood(&frame::data(0, b"wrong", false), usize::MAX).await;
    assert!(flood.ended, "{flood:?}");
}

#[test]
fn header_blocks_decode_to_what_they_say() {
    let mut decoder = hpack::Decoder::default();
    let fields = decoder.decode(&hpack::literals([
        (":status", "200"),
        ("x-long", &"v".repeat(300)),
    ]));
    assert_eq!((fields[0].1.as_ref(), fields[1].1.len()), (&b"200"[..], 300));
    let bomb = hpack::bomb("x-bomb", &[b'x'; 1000], 500);
    assert!(bomb.len() < 2_000);
    let fields = decoder.decode(&bomb);
    assert_eq!((fields.len(), fields[501].1.len()), (502, 1000));

    let headers = frame::headers(1, &[0; 40_000], true);
    let mut buffer = BytesMut::from(&headers[..]);
    let frames: Vec<_> = std::iter::from_fn(|| frame::RawFrame::take(&mut buffer)).collect();
    let shape: Vec<_> = frames
        .iter()
        .map(|frame| (frame.kind, frame.flags, frame.payload.len()))
        .collect();
    assert_eq!(
        shape,
        [
            (kind::HEADERS, flag::END_STREAM, 16_384),
            (kind::CONTINUATION, flag::NONE, 16_384),
            (kind::CONTINUATION, flag::END_HEADERS, 7_232)
        ]
    );
}

fn reason_of(error: &hyper::Error) -> Option<h2::Reason> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<h2::Error>()?.reason()
}
