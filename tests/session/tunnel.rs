//! CONNECT and extended CONNECT (RFC 9110 §9.3.6, RFC 8441): bytes both ways on one stream (P33, P45).

use std::time::Duration;

use bytes::Bytes;
use h2pool::{ConnectionInfo, Origin, Protocol};
use http::{Request, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tower::ServiceExt;

use crate::bench::{Bench, data, failure, now, response, settle, text, uri};
use crate::support::client::upload;
use crate::support::peer::{Frame, Peer, code, setting};
use crate::support::server::body::{BoxError, Boxed, empty, full};
use crate::support::server::{Server, pattern};

type Sender = mpsc::Sender<Result<http_body::Frame<Bytes>, BoxError>>;

const ALLOWED: &[(u16, u32)] = &[(setting::ENABLE_CONNECT_PROTOCOL, 1)];

fn websocket(path: &str, body: Boxed) -> Request<Boxed> {
    let request = Request::connect(uri(path)).header("sec-websocket-version", "13");
    let request = request.extension(Protocol::from_static("websocket"));
    request.body(body).unwrap()
}

async fn say(sender: &Sender, words: impl Into<Bytes>) {
    sender
        .send(Ok(http_body::Frame::data(words.into())))
        .await
        .unwrap();
}

async fn heard(peer: &mut Peer) -> (Bytes, bool) {
    match peer.next_stream_frame().await {
        Frame::Data(data) => (data.data, data.end),
        other => panic!("DATA comes next, not {other:?}"),
    }
}

// P33, P45: it waits for SETTINGS, which allow it; then bytes go both ways until both sides have ended.
#[tokio::test(start_paused = true)]
async fn extended_connect() {
    let mut bench = Bench::new(|builder| builder);
    let (sender, body) = upload(4);
    let answer = bench.send(websocket("/chat?room=1", body));
    let mut peer = Peer::new(bench.raw().await);
    peer.silent();
    peer.expect_preface().await;
    let early = async {
        loop {
            if let Frame::Headers(head) = peer.next().await {
                return head;
            }
        }
    };
    let early = tokio::time::timeout(Duration::from_secs(2), early).await;
    assert!(
        early.is_err(),
        "nobody knows yet whether it is allowed: {early:?}"
    );
    peer.send_settings(ALLOWED).await;
    peer.talking();
    let head = peer.next_headers().await;
    let fields = [":method", ":protocol", ":scheme", ":path", ":authority"];
    assert_eq!(
        fields.map(|name| head.get(name).unwrap()),
        ["CONNECT", "websocket", "https", "/chat?room=1", "server"]
    );
    assert_eq!(head.get("sec-websocket-version"), Some("13"));
    assert_eq!(head.get("content-length"), None);
    assert!(!head.end);
    peer.send_headers(head.stream, 200, false).await;
    let mut down = response(answer).await.into_body();
    for word in ["ping", "pong", "last words"] {
        say(&sender, word).await;
        assert_eq!(heard(&mut peer).await, (word.into(), false));
        peer.send_data(head.stream, word.as_bytes(), false).await;
        assert_eq!(data(&mut down).await, word);
    }
    drop(sender);
    assert_eq!(heard(&mut peer).await, (Bytes::new(), true));
    assert_eq!(bench.pool.stats().streams, 1, "the way down is open");
    peer.send_data(head.stream, b"bye", true).await;
    assert_eq!(text(down).await, "bye");
    settle().await;
    assert_eq!(bench.pool.stats().streams, 0);
}

// P33, P4: a lease that was granted before SETTINGS waits for them all the same.
#[tokio::test(start_paused = true)]
async fn extended_connect_on_a_lease() {
    let mut bench = Bench::new(|builder| builder);
    let pool = bench.pool.clone();
    let (granted, leased) = tokio::sync::oneshot::channel();
    let answer = tokio::spawn(async move {
        let lease = pool.acquire(&"https://server".parse().unwrap()).await?;
        granted.send(()).unwrap();
        lease.send(websocket("/chat", empty())).await
    });
    let mut peer = Peer::new(bench.raw().await);
    leased.await.unwrap();
    settle().await;
    peer.handshake(ALLOWED).await;
    let head = peer.next_headers().await;
    assert_eq!(head.get(":protocol"), Some("websocket"));
    peer.respond(head.stream, 200, b"welcome").await;
    assert_eq!(text(response(answer).await.into_body()).await, "welcome");
}

// P33: a server that does not allow it: an error of the request, of which the server hears nothing.
#[tokio::test(start_paused = true)]
async fn extended_connect_is_not_allowed() {
    let mut bench = Bench::new(|builder| builder);
    let answer = bench.send(websocket("/chat", empty()));
    let mut peer = bench.peer(&[]).await;
    let error = failure(answer).await;
    assert!(
        error.is_config() && error.is_unprocessed() && !error.is_transient(),
        "{error:?}"
    );
    assert!(error.to_string().contains("RFC 8441"), "{error}");
    let (_sender, body) = upload(1);
    let error = failure(bench.send(websocket("/chat", body))).await;
    assert!(error.is_config(), "{error:?}");
    let frames = peer.ping_round_trip().await;
    assert!(
        !frames.iter().any(|frame| matches!(frame, Frame::Headers(_))),
        "{frames:?}"
    );
    let next = bench.get("/next");
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"the session lives").await;
    assert_eq!(text(response(next).await.into_body()).await, "the session lives");
    assert_eq!(bench.pool.stats().streams, 0);
}

// P33: the extension makes sense with CONNECT alone.
#[tokio::test(start_paused = true)]
async fn protocol_without_connect() {
    let mut bench = Bench::new(|builder| builder);
    let request = Request::get(uri("/")).extension(Protocol::from("websocket"));
    let answer = bench.send(request.body(empty()).unwrap());
    let _peer = bench.peer(ALLOWED).await;
    let error = failure(answer).await;
    assert!(error.is_config(), "{error:?}");
}

// P45: a tunnel through a proxy: the session is the proxy's, the authority names the target.
#[tokio::test(start_paused = true)]
async fn plain_connect() {
    let mut bench = Bench::new(|builder| builder);
    let proxy: Origin = "https://proxy:3128".parse().unwrap();
    let (sender, body) = upload(4);
    let request = Request::connect("target.example:22").body(body).unwrap();
    let answer = tokio::spawn(bench.pool.origin(proxy).oneshot(request));
    let mut peer = bench.peer(&[]).await;
    let head = peer.next_headers().await;
    assert_eq!(head.get(":method"), Some("CONNECT"));
    assert_eq!(head.get(":authority"), Some("target.example:22"));
    assert_eq!(
        (head.get(":scheme"), head.get(":path"), head.get(":protocol")),
        (None, None, None)
    );
    // The target may speak first, and the tunnel's ends end one by one.
    peer.send_headers(head.stream, 200, false).await;
    peer.send_data(head.stream, b"SSH-2.0", false).await;
    let mut down = response(answer).await.into_body();
    assert_eq!(data(&mut down).await, "SSH-2.0");
    say(&sender, "hello").await;
    assert_eq!(heard(&mut peer).await, ("hello".into(), false));
    peer.send_data(head.stream, b"closing", true).await;
    assert_eq!(data(&mut down).await, "closing");
    assert!(down.frame().await.is_none());
    say(&sender, "still here").await;
    assert_eq!(heard(&mut peer).await, ("still here".into(), false));
    drop(down);
    assert_eq!(peer.next_reset().await, (head.stream, code::CANCEL));
}

// P45: a refusal is a response like any other.
#[tokio::test(start_paused = true)]
async fn connect_refused() {
    let mut bench = Bench::new(|builder| builder);
    let (_sender, body) = upload(1);
    let answer = bench.send(Request::connect("https://server:443").body(body).unwrap());
    let mut peer = bench.peer(&[]).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 403, b"not to there").await;
    let refused = response(answer).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(text(refused.into_body()).await, "not to there");
    assert_eq!(peer.next_reset().await, (stream, code::CANCEL));
}

// P44: a tunnel has no end before its response: `header_timeout` counts from its head.
#[tokio::test(start_paused = true)]
async fn connect_unanswered() {
    let mut bench = Bench::new(|builder| builder.header_timeout(Duration::from_secs(5)));
    let (_sender, body) = upload(1);
    let answer = bench.send(Request::connect("https://server:443").body(body).unwrap());
    let mut peer = bench.peer(&[]).await;
    peer.next_headers().await;
    let start = now();
    let error = failure(answer).await;
    assert!(
        error.is_timeout() && error.to_string().contains("`header_timeout`"),
        "{error}"
    );
    assert_eq!(start.elapsed().as_secs(), 5);
}

// P33, P45: the same over a real server, with more than a window at once in both directions.
#[tokio::test(start_paused = true)]
async fn both_ways_at_once_over_hyper() {
    const SIZE: usize = 5_000_000;
    let server = Server::builder().h2_only().connect_protocol().start_in_memory();
    let mut bench = Bench::new(|builder| builder);
    for tunnel in [false, true] {
        let (sender, body) = upload(1);
        let request = if tunnel {
            Request::connect("https://server:443").body(body).unwrap()
        } else {
            websocket("/echo", body)
        };
        let answer = bench.send(request);
        if server.counts().connections.is_empty() {
            server.attach(bench.raw().await);
        }
        let opened = response(answer).await;
        assert_eq!(opened.status(), StatusCode::OK);
        let info = opened.extensions().get::<ConnectionInfo>().unwrap();
        assert_eq!(info.version(), Version::HTTP_2);
        let sending = tokio::spawn(async move {
            let all = pattern(0, SIZE);
            for chunk in all.chunks(30_000) {
                say(&sender, all.slice_ref(chunk)).await;
            }
        });
        let echoed = text(opened.into_body()).await;
        assert!(echoed == pattern(0, SIZE), "{} bytes", echoed.len());
        sending.await.unwrap();
    }
    assert_eq!(server.counts().connections.len(), 1);
}

// P30, P33, P45: the first bytes of a tunnel go out behind its head, and wait for their window like any others, with time
// limits and without.
#[tokio::test(start_paused = true)]
async fn what_a_tunnel_begins_with_goes_out_with_its_head() {
    let limit = Duration::from_secs(5);
    for (limited, extended) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut bench = Bench::new(|builder| match limited {
            true => builder.header_timeout(limit).write_timeout(limit),
            false => builder,
        });
        let answer = match extended {
            true => bench.send(websocket("/", full("hello"))),
            false => bench.send(
                Request::connect("https://server:443")
                    .body(full("hello"))
                    .unwrap(),
            ),
        };
        let settings = [ALLOWED, &[(setting::INITIAL_WINDOW_SIZE, 0)]].concat();
        let mut peer = bench.peer(&settings).await;
        let head = peer.next_headers().await;
        assert_eq!((head.get("content-length"), head.end), (None, false));
        peer.send_headers(head.stream, 200, false).await;
        let down = response(answer).await.into_body();
        peer.send_window_update(head.stream, 5).await;
        assert_eq!(heard(&mut peer).await.0, "hello", "{limited}, {extended}");
        peer.send_data(head.stream, b"bye", true).await;
        assert_eq!(text(down).await, "bye");
        settle().await;
        assert_eq!(bench.pool.stats().streams, 0, "{limited}, {extended}");
    }
}
