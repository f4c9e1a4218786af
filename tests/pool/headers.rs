//! Heads: what HTTP/2 forbids, what is never indexed, what is too large (P32, P45).

use bytes::Bytes;
use h2pool::{H2Pool, Protocol};
use http::{HeaderValue, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::client::upload;
use crate::support::server::Server;
use crate::support::within;
use crate::util::*;

#[tokio::test]
async fn what_concerns_one_hop_is_stripped() {
    // P32, RFC 9113 §8.2.2
    let server = Server::start().await;
    let pool = tls().build().unwrap();
    let mut request = post(server.uri("/echo?a=b"), "body");
    for (name, value) in [
        ("connection", "keep-alive, x-hop"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("x-hop", "1"),
        ("te", "gzip, trailers"),
        ("x-kept", "2"),
        ("host", "virtual.example:8443"),
    ] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let read = join(fetch(&pool, request)).await.unwrap();
    assert_eq!(read.body, "body");
    let echoed: Vec<_> = read
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("echo-"))
        .collect();
    for gone in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "x-hop",
        "host",
        "transfer-encoding",
    ] {
        assert!(
            !read.headers.contains_key(format!("echo-{gone}")),
            "{gone}: {echoed:?}"
        );
    }
    for (name, value) in [
        ("echo-te", "trailers"),
        ("echo-x-kept", "2"),
        ("echo-authority", "virtual.example:8443"),
        ("echo-path", "/echo?a=b"),
        ("echo-method", "POST"),
        ("echo-content-length", "4"),
    ] {
        assert_eq!(read.headers[name], value);
    }
}

#[tokio::test]
async fn over_http1_the_head_says_the_same() {
    // P28, P32
    let server = Server::builder().h1_only().start().await;
    let pool = tls().build().unwrap();
    let mut request = post(server.uri("/echo?a=b"), "body");
    request
        .headers_mut()
        .insert("x-kept", HeaderValue::from_static("2"));
    // The version of a request says nothing about the connection that it will go out on.
    *request.version_mut() = Version::HTTP_2;
    let read = join(fetch(&pool, request)).await.unwrap();
    for (name, value) in [
        ("echo-x-kept", "2"),
        ("echo-path", "/echo?a=b"),
        ("echo-host", &server.addr().to_string()),
        ("echo-version", "HTTP/1.1"),
        ("echo-content-length", "4"),
    ] {
        assert_eq!(read.headers[name], value, "{name}");
    }
    assert_eq!(read.body, "body");
}

#[tokio::test(start_paused = true)]
async fn secrets_are_never_indexed() {
    // P32, RFC 7541 §7.1.3: what enters the dynamic table shrinks to one byte the second time; a secret never does.
    let secrets = ["authorization", "cookie", "proxy-authorization", "x-marked"];
    for name in secrets.iter().chain(&["x-plain"]) {
        let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
        let requests = [(); 3].map(|()| {
            let mut value = HeaderValue::from_static("0123456789abcdefghijklmnopqrstuvwxyz0123456789");
            value.set_sensitive(*name == "x-marked");
            let mut request = get(uri("https://a/"));
            request.headers_mut().insert(*name, value);
            fetch(&pool, request)
        });
        let mut peer = net.ready_peer(10).await;
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let head = peer.next_headers().await;
            assert!(head.get(name).is_some_and(|value| value.len() == 46));
            sizes.push(head.block.len());
            peer.respond(head.stream, 200, b"").await;
        }
        assert_eq!(sizes[2] > 30, secrets.contains(name), "{name}: {sizes:?}");
        for read in join_all(requests).await {
            read.unwrap();
        }
    }
}

#[tokio::test]
async fn large_response_heads_are_refused_by_name() {
    // P32
    for h1 in [false, true] {
        let builder = Server::builder();
        let server = if h1 { builder.h1_only() } else { builder }.start().await;
        let pool = tls().build().unwrap();
        assert_eq!(
            join(fetch(&pool, get(server.uri("/headers/60000"))))
                .await
                .unwrap()
                .body,
            "ok"
        );
        let error = join(fetch(&pool, get(server.uri("/headers/70000"))))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("max_header_list_size"), "{error}");
        assert!(!error.is_unprocessed());
        assert_eq!(join(fetch(&pool, get(server.uri("/")))).await.unwrap().body, "ok");
        let larger = tls().max_header_list_size(100_000).build().unwrap();
        let read = join(fetch(&larger, get(server.uri("/headers/70000"))))
            .await
            .unwrap();
        assert_eq!(read.headers["x-big"].len(), 70_000);
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_the_requests_fault() {
    // P41
    let server = Server::start().await;
    let pool = tls().build().unwrap();
    for target in ["/no-origin", "ftp://host/"] {
        let error = pool.request(get(uri(target))).await.unwrap_err();
        assert!(
            error.is_config() && error.is_unprocessed() && !error.is_transient(),
            "{target}: {error:?}"
        );
    }
    let mut request = get(server.uri("/"));
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("not an authority"));
    let error = pool.request(request).await.unwrap_err();
    assert!(error.is_config(), "{error:?}");
    assert_eq!((server.counts().requests, pool.stats().streams), (0, 0));
}

#[tokio::test]
async fn responses_say_which_connection_they_came_by() {
    // P45
    let server = Server::start().await;
    let pool = tls().build().unwrap();
    let first = join(fetch(&pool, get(server.uri("/"))))
        .await
        .unwrap()
        .info
        .unwrap();
    let second = join(fetch(&pool, get(server.uri("/"))))
        .await
        .unwrap()
        .info
        .unwrap();
    assert_eq!(
        (first.version(), first.peer_addr()),
        (Version::HTTP_2, Some(server.addr()))
    );
    assert!(first.local_addr().is_some_and(|addr| addr.ip().is_loopback()));
    assert_eq!((first.is_reused(), second.is_reused()), (false, true));
    assert_eq!(
        (first.session(), pool.sessions()[0].id),
        (second.session(), first.session())
    );
    server.kill();
    server.until("it is closed", |counts| counts.open() == 0).await;
    eventually("the pool knows", || pool.sessions().is_empty()).await;
    let third = join(fetch(&pool, get(server.uri("/"))))
        .await
        .unwrap()
        .info
        .unwrap();
    assert!(third.session() != first.session() && !third.is_reused());
}

#[tokio::test]
async fn an_extended_connect_is_a_tunnel() {
    // P33, P45, RFC 8441
    let server = Server::builder().connect_protocol().start().await;
    let pool = tls().build().unwrap();
    // The first request learns that the server allows it.
    join(fetch(&pool, get(server.uri("/")))).await.unwrap();
    let (sender, body) = upload(4);
    let mut request = Request::connect(server.uri("/chat")).body(body).unwrap();
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    let response = within("the tunnel", pool.request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    for text in ["ping", "pong"] {
        sender
            .send(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))
            .await
            .unwrap();
        let echo = within("the echo", body.frame()).await.unwrap().unwrap();
        assert_eq!(echo.into_data().unwrap(), text);
    }
    drop(sender);
    assert!(within("the end", body.frame()).await.is_none());
    eventually("the slot is free", || pool.stats().streams == 0).await;
}

#[tokio::test]
async fn an_http1_connection_can_be_upgraded() {
    // P45, RFC 9110 §7.8
    let server = Server::builder().h1_only().start().await;
    let pool = tls().build().unwrap();
    let request = Request::get(server.uri("/upgrade"))
        .header("connection", "upgrade")
        .header("upgrade", "echo");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = within("the head", pool.request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = within("the upgrade", hyper::upgrade::on(response)).await.unwrap();
    let mut io = TokioIo::new(upgraded);
    io.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    within("the echo", io.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"hello");
    // Others go on meanwhile, on another connection.
    assert_eq!(join(fetch(&pool, get(server.uri("/")))).await.unwrap().body, "ok");
    drop(io);
    eventually("the slot is free", || pool.stats().streams == 0).await;
}

#[tokio::test]
async fn any_body_type_will_do() {
    // P29: data that is not `Bytes`, an error that is not `std::io::Error`.
    let server = Server::start().await;
    let pool: H2Pool = tls().build().unwrap();
    let chain = Full::new(std::io::Cursor::new(b"cursor".to_vec()));
    let request = Request::post(server.uri("/echo")).body(chain).unwrap();
    assert_eq!(join(fetch(&pool, request)).await.unwrap().body, "cursor");
    let text = Request::post(server.uri("/echo"))
        .body(String::from("text"))
        .unwrap();
    assert_eq!(join(fetch(&pool, text)).await.unwrap().body, "text");
    let boxed = Full::new(Bytes::from_static(b"boxed"))
        .map_err(std::io::Error::other)
        .boxed();
    let request = Request::post(server.uri("/echo")).body(boxed).unwrap();
    assert_eq!(join(fetch(&pool, request)).await.unwrap().body, "boxed");
}

#[tokio::test(start_paused = true)]
async fn more_headers_than_there_may_be_are_an_error() {
    // P32, P41: of one name over HTTP/1.1, and of many over HTTP/2, where the length is added.
    let (pool, mut net) = net(H2Pool::builder());
    let mut values = get(uri("http://a/"));
    for _ in 0..25_000 {
        values.headers_mut().append("x", "1".parse().unwrap());
    }
    let sent = fetch(&pool, values);
    let _end = net.dial().await.accept(Version::HTTP_11);
    settle().await;
    if sent.is_finished() {
        assert!(join(sent).await.unwrap_err().is_config());
    }

    let mut names = post(uri("https://a/"), "x");
    for number in 0..24_576 {
        let name: http::HeaderName = format!("x{number}").parse().unwrap();
        names.headers_mut().append(name, "1".parse().unwrap());
    }
    let sent = fetch(&pool, names);
    let _peer = net.ready_peer(10).await;
    let error = join(sent).await.unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("headers"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn te_over_http1_is_named_by_connection() {
    // P32, RFC 9110 §10.1.4
    let (pool, mut net) = net(H2Pool::builder());
    let mut request = get(uri("https://a/"));
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    let _request = fetch(&pool, request);
    let mut end = net.dial().await.accept(Version::HTTP_11);
    let mut head = vec![0; 4096];
    let length = end.read(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
    let says = |line: &str| head.lines().any(|said| said == line);
    assert!(says("te: trailers") && says("connection: te"), "{head}");
}
