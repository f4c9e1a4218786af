//! Dials that fail, hang, panic or lead nowhere (P3, P8, P9, P22).

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2pool::connect::{Connection, Offer, TlsConnector, from_fn, memory};
use h2pool::{Error, H2Pool, Origin};
use http::Version;
use http_body_util::Full;
use tokio_rustls::TlsAcceptor;

use crate::support::certs::{Tls, client_config};
use crate::support::peer::{Peer, code};
use crate::support::server::Server;
use crate::support::within;
use crate::util::*;

#[tokio::test]
async fn a_dead_address_is_a_connect_error() {
    // P9, P22, P41
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = closed.local_addr().unwrap();
    drop(closed);
    let pool = tls().build().unwrap();
    let target = uri(&format!("https://{addr}/"));
    let error = within("an answer", pool.request(get(target.clone())))
        .await
        .unwrap_err();
    assert!(
        error.is_connect() && error.is_unprocessed() && error.is_transient(),
        "{error:?}"
    );
    assert!(!error.is_timeout() && !error.is_certificate());
    assert_eq!(error.origin(), Some(format!("https://{addr}").as_str()));
    assert!(refusal(&error), "the cause is kept: {error:?}");
    assert_eq!(pool.stats().dials_failed, 1);
    // A lease and a service of the origin say the same.
    let key = origin(&format!("https://{addr}"));
    assert!(pool.acquire(&key).await.unwrap_err().is_connect());
}

/// Whether somewhere down the chain of causes a connection was refused.
fn refusal(error: &Error) -> bool {
    let first = std::error::Error::source(error);
    std::iter::successors(first, |cause| cause.source()).any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
    })
}

#[tokio::test]
async fn a_wrong_certificate_is_a_certificate_error() {
    // P22, P41
    let server = Server::builder()
        .tls(Tls::any().wrong_name().server())
        .start()
        .await;
    let pool = tls().build().unwrap();
    let error = within("an answer", pool.request(get(server.uri("/"))))
        .await
        .unwrap_err();
    assert!(
        error.is_certificate() && error.is_connect() && error.is_unprocessed(),
        "{error:?}"
    );
    assert!(!error.is_transient(), "trying again cannot help");
    assert!(!pool.is_h1_only(&origin(&format!("https://{}", server.addr()))));
}

#[tokio::test]
async fn our_certificate_refused_after_the_handshake_is_a_certificate_error() {
    // P9, P22, P41: in TLS 1.3 the server says so only once the session is there; what was sent by then, it never read.
    for protocol in [Tls::h2(), Tls::h1()] {
        let server = Server::builder()
            .tls(protocol.client_auth().tls13().server())
            .start()
            .await;
        let pool = tls().build().unwrap();
        for request in [
            get(server.uri("/")).map(|_| Full::default()),
            post(server.uri("/"), "a body"),
        ] {
            let error = join(fetch(&pool, request)).await.unwrap_err();
            assert!(error.is_certificate() && !error.is_transient(), "{error:?}");
        }
        assert_eq!((server.counts().requests, pool.stats().replays), (0, 0));
    }
}

#[tokio::test]
async fn a_server_without_tls_is_a_connect_error() {
    // P22, P25, P41
    let server = Server::builder().plain().start().await;
    let pool = tls().build().unwrap();
    let target = format!("https://{}", server.addr());
    let error = within("an answer", pool.request(get(uri(&format!("{target}/")))))
        .await
        .unwrap_err();
    assert!(
        error.is_connect() && error.is_unprocessed() && !error.is_timeout(),
        "{error:?}"
    );
    assert!(!pool.is_h1_only(&origin(&target)), "a failed dial proves nothing");
}

#[tokio::test]
async fn a_server_that_breaks_off_the_handshake_is_a_connect_error() {
    // P22, P41
    let mut listener = crate::support::listener::PeerListener::plain().await;
    let pool = tls().build().unwrap();
    let target = uri(&format!("https://{}/", listener.addr()));
    let request = fetch(&pool, get(target));
    drop(listener.accept().await);
    let error = join(request).await.unwrap_err();
    assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
}

/// A pool whose dials lead over TLS to whatever the test does with the plain end of a pipe.
fn tls_in_memory() -> (H2Pool, memory::MemoryListener<Origin>) {
    let (connector, listener) = memory::pair::<Origin>();
    let connector = TlsConnector::new(client_config()).over(connector);
    (H2Pool::builder().connector(connector).build().unwrap(), listener)
}

#[tokio::test(start_paused = true)]
async fn silence_after_tcp_ends_with_the_connect_timeout() {
    // P8, P9, P22
    let (pool, mut listener) = tls_in_memory();
    let requests = fetch_many(&pool, &uri("https://localhost/"), 20);
    let silent = listener.accept().await.unwrap().accept(Version::HTTP_11);
    let (reads, took) = timed(join_all(requests)).await;
    for read in reads {
        let error = read.unwrap_err();
        assert!(
            error.is_connect() && error.is_timeout() && error.is_unprocessed(),
            "{error:?}"
        );
        assert_eq!(error.origin(), Some("https://localhost:443"));
    }
    assert_eq!(took.as_secs(), 10);
    assert_eq!(pool.stats().sessions_dialing, 0);
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn silence_after_tls_ends_with_the_connect_timeout() {
    // P3, P8, P9, P22: h2 is agreed on, and no SETTINGS come.
    let (pool, mut listener) = tls_in_memory();
    let empty = fetch(&pool, get(uri("https://localhost/")));
    let with_body = fetch(&pool, post(uri("https://localhost/"), "body"));
    let accept = async {
        let pipe = listener.accept().await.unwrap().accept(Version::HTTP_2);
        TlsAcceptor::from(Tls::h2().server()).accept(pipe).await.unwrap()
    };
    let silent = within("TLS", accept).await;
    let (with_body, took) = timed(join(with_body)).await;
    let error = with_body.unwrap_err();
    assert!(
        error.is_connect() && error.is_timeout() && error.is_unprocessed(),
        "{error:?}"
    );
    assert_eq!(took.as_secs(), 10);
    // The one without a body was sent at once; nobody can say what became of it.
    let (empty, took) = timed(join(empty)).await;
    let error = empty.unwrap_err();
    assert!(error.is_timeout() && !error.is_unprocessed(), "{error:?}");
    assert_eq!(took.as_secs(), 0);
    assert!(error.to_string().contains("SETTINGS"), "{error}");
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn silence_after_the_preface_ends_with_the_header_timeout() {
    // P44
    let (pool, mut net) = net(H2Pool::builder().header_timeout(Duration::from_secs(5)));
    let request = fetch(&pool, post(uri("https://a/"), "body"));
    let mut silent = net.ready_peer(10).await;
    let head = silent.next_headers().await;
    let (read, took) = timed(join(request)).await;
    let error = read.unwrap_err();
    assert!(
        error.is_timeout() && !error.is_unprocessed() && !error.is_connect(),
        "{error:?}"
    );
    assert!(error.to_string().contains("header_timeout"), "{error}");
    assert_eq!(took.as_secs(), 5);
    assert_eq!(silent.next_reset().await, (head.stream, code::CANCEL));
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_never_returns_frees_its_slot() {
    // P8, P9
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let requests = fetch_many(&pool, &uri("https://a/"), 50);
    let hanging = net.dial().await;
    let (reads, took) = timed(join_all(requests)).await;
    for read in reads {
        let error = read.unwrap_err();
        assert!(
            error.is_connect() && error.is_timeout() && error.is_unprocessed(),
            "{error:?}"
        );
    }
    assert_eq!(
        took.as_secs(),
        10,
        "all with the one dial, not one after the other"
    );
    assert!(hanging.is_abandoned());
    let next = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(10).await;
    peer.answer_one(b"ok").await.unwrap();
    assert_eq!(join(next).await.unwrap().body, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_panics_frees_its_slot() {
    // P8, P9
    let calls = Arc::new(AtomicUsize::new(0));
    let (inner, listener) = memory::pair::<Origin>();
    let connector = {
        let calls = calls.clone();
        from_fn(move |key: &Origin, offer: Offer| {
            let (call, inner, key) = (calls.fetch_add(1, Ordering::SeqCst), inner.clone(), key.clone());
            async move {
                // One that panics when it is called, one within its future, then a good one.
                assert!(call > 0, "the connector's own panic, which the test wants");
                h2pool::Connect::connect(&inner, &key, offer).await
            }
        })
    };
    let pool = H2Pool::builder()
        .max_sessions(1)
        .connector(connector)
        .build()
        .unwrap();
    let requests = fetch_many(&pool, &uri("https://a/"), 5);
    for read in join_all(requests).await {
        let error = read.unwrap_err();
        assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
        assert!(error.to_string().contains("panicked"), "{error}");
    }
    assert_eq!(
        (calls.load(Ordering::SeqCst), pool.stats().sessions_dialing),
        (1, 0)
    );
    let next = fetch(&pool, get(uri("https://a/")));
    let mut listener = listener;
    let mut peer = Peer::new(listener.accept().await.unwrap().accept(Version::HTTP_2));
    peer.handshake(&streams(1)).await;
    peer.answer_one(b"ok").await.unwrap();
    assert_eq!(join(next).await.unwrap().body, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_panics_before_its_future_frees_its_slot() {
    // P8
    let connector = from_fn(|_: &Origin, _| {
        assert!(
            std::env::args().count() == 0,
            "the connector's own panic, which the test wants"
        );
        async { Err::<Connection, _>(Error::connect("never reached")) }
    });
    let pool = H2Pool::builder()
        .max_sessions(1)
        .connector(connector)
        .build()
        .unwrap();
    for _ in 0..3 {
        let error = join(fetch(&pool, get(uri("https://a/")))).await.unwrap_err();
        assert!(
            error.is_connect() && error.to_string().contains("panicked"),
            "{error:?}"
        );
    }
    assert_eq!(pool.stats().sessions_dialing, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_origin_fails_all_who_wait_with_one_cause() {
    // P9
    let (pool, mut net) = net(H2Pool::builder());
    let requests = fetch_many(&pool, &uri("https://a/"), 1000);
    let dial = net.dial().await;
    settle().await;
    dial.refuse(Error::connect("the cause of it all"));
    let (reads, took) = timed(join_all(requests)).await;
    assert!(took < Duration::from_millis(10), "{took:?}");
    for read in reads {
        let error = read.unwrap_err();
        assert!(error.is_connect() && error.is_unprocessed());
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "the cause of it all");
    }
    assert_eq!(net.dials().await.len(), 0, "nobody is left to dial for");
    assert_eq!((pool.stats().dials_failed, pool.stats().waiters), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn dials_to_a_dead_origin_back_off_and_harm_nobody_else() {
    // P9: callers come all the time; the dials become rare, every caller hears of the next one's failure.
    let (pool, mut net) = net(H2Pool::builder().max_waiters(0));
    let alive = fetch(&pool, get(uri("https://alive/")));
    let mut peer = net.ready_peer(100).await;
    peer.answer_one(b"ok").await.unwrap();
    join(alive).await.unwrap();
    let alive = tokio::spawn(async move { peer.serve(b"ok").await.len() });
    let (start, mut dials, mut tasks) = (now(), Vec::new(), Vec::new());
    while now() - start < Duration::from_secs(60) {
        tasks.push(fetch(&pool, get(uri("https://dead/"))));
        let (read, took) = timed(join(fetch(&pool, get(uri("https://alive/"))))).await;
        assert!(read.is_ok() && took < Duration::from_millis(5), "{took:?}");
        pass(0.05).await;
        for dial in net.dials().await {
            dials.push(now() - start);
            dial.refuse(Error::connect("dead"));
        }
    }
    // 0.1 s doubled to 2 s, each jittered down to half at most.
    assert!((25..=70).contains(&dials.len()), "{dials:?}");
    let gaps: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        gaps.iter().skip(6).all(|gap| *gap > Duration::from_millis(900)),
        "{gaps:?}"
    );
    tasks.retain(|task| !task.is_finished());
    let (reads, took) = timed(async {
        while tasks.iter().any(|task| !task.is_finished()) {
            for dial in net.dials().await {
                dial.refuse(Error::connect("dead"));
            }
        }
        join_all(tasks).await
    })
    .await;
    assert!(
        took < Duration::from_secs(3),
        "those who are left share the next dial: {took:?}"
    );
    assert!(reads.into_iter().all(|read| read.unwrap_err().is_connect()));
    drop(pool);
    assert!(join(alive).await > 500);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_recovers_is_dialed_as_before() {
    // P7, P9
    let (pool, mut net) = net(H2Pool::builder());
    for _ in 0..3 {
        let request = fetch(&pool, get(uri("https://a/")));
        net.dial().await.refuse(Error::connect("down"));
        assert!(join(request).await.unwrap_err().is_connect());
    }
    let requests = fetch_many(&pool, &uri("https://a/"), 100);
    let mut first = net.ready_peer(10).await;
    let mut dials = net.dials().await;
    assert_eq!(dials.len(), 1, "one at a time until something was served");
    first.answer_one(b"ok").await.unwrap();
    dials.extend(net.dials().await);
    assert_eq!(dials.len(), 3);
    tokio::spawn(async move { first.serve(b"ok").await });
    for read in join_all(requests).await {
        read.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_dial_beside_a_live_session_fails_nobody() {
    // P9, P14
    let (pool, mut net) = net(H2Pool::builder().max_sessions(2));
    let requests = fetch_many(&pool, &uri("https://a/"), 9);
    let mut first = net.ready_peer(2).await;
    let second = net.dial().await;
    second.refuse(Error::connect("only the first one works"));
    settle().await;
    assert_eq!(pool.stats().dials_failed, 1);
    let serving = tokio::spawn(async move { first.serve(b"ok").await });
    for read in join_all(requests).await {
        assert_eq!(read.unwrap().body, "ok");
    }
    drop((pool, net));
    assert_eq!(join(serving).await.len(), 9);
}
