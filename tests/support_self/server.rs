//! The HTTP server, its gates and its certificates.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::certs::{Tls, certs};
use super::support::client::{dial_tls, h1_over, h1_to, h2_over, h2_to, upload};
use super::support::memory::memory;
use super::support::server::body::with_trailers;
use super::support::server::{Server, is_pattern, pattern};
use super::support::within;
use super::{get, header, read, request};

#[tokio::test]
async fn the_server_answers_on_both_protocols_and_counts() {
    let server = Server::start().await;
    let mut h2 = h2_to(server.addr()).await;
    let mut h1 = h1_to(server.addr()).await;

    let response = h2.send_request(get("/bytes/40000")).await.unwrap();
    assert_eq!(header(&response, "x-protocol"), "h2");
    let body = read(response).await.to_bytes();
    assert!(body.len() == 40_000 && is_pattern(0, &body));

    for path in [
        "/bytes/40000",
        "/status/204",
        "/status/429?retry-after=3",
        "/redirect",
        "/headers/100",
    ] {
        let response = h1.send_request(get(path)).await.unwrap();
        match path {
            "/status/204" => assert_eq!(response.status(), 204),
            "/redirect" => assert_eq!(
                (response.status().as_u16(), header(&response, "location")),
                (302, "/bytes/3")
            ),
            "/headers/100" => assert_eq!(header(&response, "x-big").len(), 100),
            "/bytes/40000" => assert_eq!(header(&response, "content-length"), "40000"),
            _ => assert_eq!(
                (response.status().as_u16(), header(&response, "retry-after")),
                (429, "3")
            ),
        }
        read(response).await;
    }

    let counts = server.until("all ended", |counts| counts.active == 0).await;
    assert_eq!(
        (
            counts.accepted,
            counts.by_protocol("h2"),
            counts.by_protocol("http/1.1")
        ),
        (2, 1, 1)
    );
    assert_eq!(
        (
            counts.requests,
            counts.processed("/bytes/40000"),
            counts.processed("/redirect")
        ),
        (6, 2, 1)
    );
    assert_eq!(
        (counts.duplicates(), counts.max_active, counts.cancelled),
        (vec!["/bytes/40000"], 1, 0)
    );
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways() {
    let server = Server::start().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let upload = |path: &str| {
        let mut request = request("POST", path, with_trailers(pattern(0, 30_000), trailers.clone()));
        request
            .headers_mut()
            .insert("te", HeaderValue::from_static("trailers"));
        request
            .headers_mut()
            .insert("trailer", HeaderValue::from_static("x-sum"));
        request
    };
    let mut h2 = h2_to(server.addr()).await;
    let mut h1 = h1_to(server.addr()).await;
    for protocol in ["h2", "http/1.1"] {
        for path in ["/echo?q", "/upload-count", "/trailers", "/early", "/sse/2"] {
            let response = match protocol {
                "h2" => h2.send_request(upload(path)).await.unwrap(),
                _ => h1.send_request(upload(path)).await.unwrap(),
            };
            let head = response.headers().clone();
            assert_eq!(head["x-protocol"], protocol);
            let collected = read(response).await;
            let ended = collected.trailers().cloned().unwrap_or_default();
            let body = collected.to_bytes();
            match path {
                "/echo?q" => {
                    assert!(body == pattern(0, 30_000) && ended == trailers, "{protocol}");
                    assert_eq!(
                        (&head["echo-method"], &head["echo-path"], &head["echo-x-id"]),
                        (
                            &"POST".parse().unwrap(),
                            &"/echo?q".parse().unwrap(),
                            &"/echo?q".parse().unwrap()
                        )
                    );
                }
                "/upload-count" => {
                    assert_eq!(
                        (&body[..], &head["pattern"], &head["trailer-x-sum"]),
                        (&b"30000"[..], &"true".parse().unwrap(), &"42".parse().unwrap())
                    );
                }
                "/trailers" => assert_eq!(
                    (&body[..], &ended["x-last"]),
                    (&b"body"[..], &"end".parse().unwrap())
                ),
                "/early" => assert_eq!(body, "early 30000"),
                _ => assert_eq!(body, "data: 0\n\ndata: 1\n\n"),
            }
        }
    }
}

#[tokio::test]
async fn gates_hold_and_streams_at_once_are_counted() {
    let server = Server::builder().h2_max_streams(3).start().await;
    let h2 = h2_to(server.addr()).await;
    let requests: Vec<_> = (0..3)
        .map(|_| tokio::spawn(h2.clone().send_request(get("/gate"))))
        .collect();
    server.gate("").until_waiting(3).await;
    let mut held = get("/");
    held.headers_mut()
        .insert("x-gate", HeaderValue::from_static("other"));
    server.gate("").release(1);
    server.gate("").until_waiting(2).await;
    let other = tokio::spawn(h2.clone().send_request(held));
    server.gate("other").until_waiting(1).await;
    assert_eq!((server.counts().max_streams(), server.counts().active), (3, 3));
    other.abort();
    server.gate("other").until_waiting(0).await;
    server.gate("").open();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    let counts = server.until("all ended", |counts| counts.active == 0).await;
    assert_eq!((counts.cancelled, counts.requests), (1, 4));
}

#[tokio::test]
async fn a_sequence_answers_by_id_and_hang_counts_as_cancelled() {
    let server = Server::start().await;
    let mut h2 = h2_to(server.addr()).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(
            h2.send_request(get("/sequence/503,429,200"))
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [503, 429, 200, 200]);
    let hanging = tokio::spawn(h2.send_request(get("/hang")));
    server
        .until("it hangs", |counts| counts.processed("/hang") == 1)
        .await;
    hanging.abort();
    server
        .until("it is cancelled", |counts| {
            counts.cancelled == 1 && counts.active == 0
        })
        .await;
}

#[tokio::test]
async fn draining_finishes_streams_and_killing_does_not() {
    let server = Server::start().await;
    let mut draining = h2_to(server.addr()).await;
    let running = tokio::spawn(draining.send_request(get("/gate")));
    server.gate("").until_waiting(1).await;
    server.drain();
    server.gate("").release(1);
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    server
        .until("the drained connection closes", |counts| counts.open() == 0)
        .await;
    assert!(draining.send_request(get("/")).await.is_err());

    let mut killed = h1_to(server.addr()).await;
    let running = tokio::spawn(killed.send_request(get("/gate")));
    server.gate("").until_waiting(1).await;
    server.kill();
    assert!(within("the end", running).await.unwrap().is_err());

    let mut last = h2_to(server.addr()).await;
    assert_eq!(last.send_request(get("/")).await.unwrap().status(), 200);
    within("the end", server.shut_down()).await;
    assert!(TcpStream::connect(server.addr()).await.is_err());
}

#[tokio::test]
async fn a_broken_body_breaks_and_an_early_answer_comes_before_the_upload_ends() {
    let server = Server::start().await;
    let mut h1 = h1_to(server.addr()).await;
    let broken = h1.send_request(get("/break")).await.unwrap();
    assert!(broken.into_body().collect().await.is_err());

    let mut h2 = h2_to(server.addr()).await;
    let broken = h2.send_request(get("/break")).await.unwrap();
    assert!(broken.into_body().collect().await.is_err());

    for path in ["/early", "/early-drop"] {
        let (feed, body) = upload(1);
        let mut response = h2.send_request(request("POST", path, body)).await.unwrap();
        let first = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "early");
        if path == "/early" {
            feed.send(Ok(Frame::data(Bytes::from_static(b"late"))))
                .await
                .unwrap();
            drop(feed);
            assert_eq!(read(response).await.to_bytes(), " 4");
        } else {
            assert!(read(response).await.to_bytes().is_empty());
        }
    }
}

#[tokio::test]
async fn plain_text_speaks_what_the_client_begins_with() {
    let server = Server::builder().plain().start().await;
    let mut h1 = h1_over(TcpStream::connect(server.addr()).await.unwrap()).await;
    let mut h2 = h2_over(TcpStream::connect(server.addr()).await.unwrap()).await;
    let old = h1.send_request(get("/echo")).await.unwrap();
    let new = h2.send_request(get("/echo")).await.unwrap();
    assert_eq!(
        (header(&old, "echo-version"), header(&new, "echo-version")),
        ("HTTP/1.1", "HTTP/2.0")
    );
    assert_eq!(server.uri("/x").scheme_str(), Some("http"));
}

#[tokio::test(start_paused = true)]
async fn in_memory_a_paused_clock_makes_the_delay_exact() {
    let server = Server::builder()
        .delay(Duration::from_secs(3600))
        .start_in_memory();
    let (dialer, mut acceptor) = memory(64 * 1024);
    let ours = dialer.dial().unwrap();
    server.attach(acceptor.accept().await);
    let mut h2 = h2_over(ours).await;
    let answer = tokio::time::timeout(Duration::from_millis(3_600_100), h2.send_request(get("/")));
    assert_eq!(answer.await.expect("in time").unwrap().status(), 200);
    dialer.refuse(true);
    assert!(dialer.dial().is_err());
    assert_eq!((dialer.dials(), server.counts().accepted), (2, 1));
}

#[test]
fn a_server_on_its_own_thread_outlives_runtimes() {
    let server = Server::builder().start_on_own_thread();
    for n in 1..=2 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut h2 = h2_to(server.addr()).await;
            assert_eq!(h2.send_request(get("/")).await.unwrap().status(), 200);
            assert_eq!(server.counts().accepted, n);
        });
    }
}

#[tokio::test]
async fn certificates_hold_only_where_they_should() {
    let wrong = Server::builder()
        .tls(Tls::any().wrong_name().server())
        .start()
        .await;
    assert!(dial_tls(wrong.addr(), Tls::any().client()).await.is_err());
    wrong
        .until("the failure is counted", |counts| counts.tls_failed == 1)
        .await;

    for (tls, version) in [
        (Tls::any().tls12(), rustls::ProtocolVersion::TLSv1_2),
        (Tls::any().tls13(), rustls::ProtocolVersion::TLSv1_3),
    ] {
        let server = Server::builder().tls(tls.client_auth().server()).start().await;
        let stream = dial_tls(server.addr(), Tls::any().client_as(&certs().alice))
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(
            h2_over(stream)
                .await
                .send_request(get("/"))
                .await
                .unwrap()
                .status(),
            200
        );
        // With TLS 1.3 the client learns only later that it was refused.
        drop(dial_tls(server.addr(), Tls::any().client()).await);
        server
            .until("no certificate is refused", |counts| counts.tls_failed == 1)
            .await;
    }
}

#[tokio::test]
async fn upgrades_echo() {
    let server = Server::builder().connect_protocol().start().await;
    let mut h1 = h1_to(server.addr()).await;
    let mut upgrade = get("/upgrade");
    upgrade
        .headers_mut()
        .insert("connection", HeaderValue::from_static("upgrade"));
    upgrade
        .headers_mut()
        .insert("upgrade", HeaderValue::from_static("echo"));
    let response = h1.send_request(upgrade).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), header(&response, "upgrade")),
        (101, "echo")
    );
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    let mut io = TokioIo::new(upgraded);
    io.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    io.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
}
