//! Origins that speak only HTTP/1.1, and the memory of them (P24–P28).

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use h2pool::connect::Offer;
use h2pool::{H2Pool, SessionProtocol};
use http::{Request, Version};
use http_body_util::Empty;

use crate::support::client::upload;
use crate::support::peer::{Frame, Peer, code};
use crate::support::scripted::{Answer, Scripted};
use crate::support::server::Server;
use crate::util::*;

#[tokio::test]
async fn the_answer_of_alpn_costs_nothing() {
    // P24, P25: the connection that said "http/1.1" carries the first request, and all that follow one by one.
    let server = Server::builder().h1_only().start().await;
    let pool = tls().build().unwrap();
    let key = origin(&format!("https://{}", server.addr()));
    for nth in 0..20 {
        let read = join(fetch(&pool, get(server.uri("/")))).await.unwrap();
        assert_eq!(read.body, "ok");
        let info = read.info.unwrap();
        assert_eq!((info.version(), info.is_reused()), (Version::HTTP_11, nth > 0));
        assert!(pool.is_h1_only(&key));
    }
    let counts = server.counts();
    assert_eq!(
        (counts.accepted, counts.by_protocol("http/1.1"), counts.requests),
        (1, 1, 20)
    );
    let sessions = pool.sessions();
    assert_eq!(
        (sessions.len(), sessions[0].protocol, sessions[0].limit),
        (1, Some(SessionProtocol::H1), 1)
    );
}

#[tokio::test]
async fn one_request_after_the_other_needs_one_connection() {
    // P5, P24: a caller that sends the next one as soon as it has read the last asks for no second connection.
    let server = Server::builder().h1_only().start().await;
    let pool = tls().build().unwrap();
    for _ in 0..20 {
        read(pool.request(get(server.uri("/"))).await.unwrap())
            .await
            .unwrap();
    }
    assert_eq!(server.counts().accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn requests_that_were_given_up_make_no_origin_a_dead_one() {
    // P3, P9, P24: each ends its connection, and that is not the server's doing.
    let (pool, server, offers) = offers(H2Pool::builder());
    for round in 1..=8 {
        let request = fetch(&pool, get(uri("https://a/gate")));
        server.gate("").until_waiting(1).await;
        request.abort();
        settle().await;
        assert_eq!(offers.lock().len(), round, "dialed for at once");
    }
    let before = now();
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
    assert_eq!((before.elapsed(), pool.stats().dials_failed), (Duration::ZERO, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded_and_shared() {
    // P11, P24
    let server = Server::builder().h1_only().start().await;
    let pool = tls().max_h1_connections(5).max_sessions(2).build().unwrap();
    join(fetch(&pool, get(server.uri("/")))).await.unwrap();
    let requests = fetch_many(&pool, &server.uri("/gate"), 30);
    server.gate("").until_waiting(5).await;
    eventually("the others wait", || pool.stats().waiters == 25).await;
    for _ in 0..30 {
        server.gate("").release(1);
    }
    for read in join_all(requests).await {
        assert_eq!(read.unwrap().body, "ok");
    }
    let counts = server.counts();
    assert_eq!(
        (counts.accepted, counts.max_active, counts.max_streams()),
        (5, 5, 1)
    );
    eventually("all slots are free", || pool.stats().streams == 0).await;
    assert_eq!(pool.stats().waiters, 0);
}

/// A server of HTTP/1.1 and a pool that dials it in memory; what the dials offered is kept.
fn offers(
    builder: h2pool::Builder,
) -> (
    H2Pool,
    std::sync::Arc<Server>,
    std::sync::Arc<parking_lot::Mutex<Vec<Offer>>>,
) {
    let (pool, mut net) = net(builder);
    let server = std::sync::Arc::new(Server::builder().h1_only().start_in_memory());
    let seen = std::sync::Arc::<parking_lot::Mutex<Vec<Offer>>>::default();
    let (accepting, offers) = (server.clone(), seen.clone());
    tokio::spawn(async move {
        while let Some(dial) = net.next_dial().await {
            offers.lock().push(dial.offer());
            accepting.attach(dial.accept(Version::HTTP_11));
        }
    });
    (pool, server, seen)
}

#[tokio::test(start_paused = true)]
async fn it_is_never_tried_over_h2_again_before_its_time() {
    // P25
    let (pool, _server, offers) = offers(H2Pool::builder().idle_timeout(Duration::from_secs(10)));
    let key = origin("https://a");
    for round in 0..14 {
        join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
        assert!(pool.is_h1_only(&key));
        // Longer than the connection is kept.
        pass(20.0).await;
        assert_eq!(offers.lock().len(), round + 1);
    }
    assert_eq!(offers.lock()[0], Offer::Any);
    assert_eq!(offers.lock()[1..], [Offer::H1; 13]);
    pass(25.0).await;
    assert!(!pool.is_h1_only(&key), "five minutes are over");
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
    assert_eq!(offers.lock()[14..], [Offer::Any]);
    assert!(pool.is_h1_only(&key));
}

#[tokio::test(start_paused = true)]
async fn remembered_it_is_dialed_in_parallel() {
    // P7, P25: the first goes alone; then as many as are needed.
    let (pool, server, offers) = offers(H2Pool::builder());
    let requests = fetch_many(&pool, &uri("https://a/gate"), 20);
    server.gate("").until_waiting(16).await;
    let offered = offers.lock().clone();
    assert_eq!((offered[0], &offered[1..]), (Offer::Any, &[Offer::H1; 15][..]));
    assert_eq!(pool.stats().waiters, 4);
    server.gate("").open();
    for read in join_all(requests).await {
        read.unwrap();
    }
    assert_eq!(offers.lock().len(), 16);
}

#[tokio::test(start_paused = true)]
async fn an_h2_answer_clears_the_memory() {
    // P25
    let (pool, mut net) = net(H2Pool::builder().h1_only_ttl(Duration::from_secs(60)));
    let key = origin("https://a");
    pool.mark_h1_only(&key);
    assert_eq!((pool.is_h1_only(&key), pool.stats().origins_h1_only), (true, 1));
    let request = fetch(&pool, get(uri("https://a/")));
    let dial = net.dial().await;
    assert_eq!(dial.offer(), Offer::H1);
    // A hyper connector cannot narrow its offer: what is answered counts.
    let mut peer = Peer::new(dial.accept(Version::HTTP_2));
    peer.handshake(&streams(10)).await;
    peer.answer_one(b"ok").await.unwrap();
    join(request).await.unwrap();
    assert_eq!((pool.is_h1_only(&key), pool.stats().origins_h1_only), (false, 0));
    let requests = fetch_many(&pool, &uri("https://a/"), 5);
    let serving = tokio::spawn(async move { peer.serve(b"ok").await });
    for read in join_all(requests).await {
        read.unwrap();
    }
    assert_eq!(net.dials().await.len(), 0);
    drop(pool);
    assert_eq!(join(serving).await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_memory_can_be_set_and_cleared() {
    // P25, P40
    let (pool, _server, offers) = offers(H2Pool::builder().idle_timeout(Duration::from_secs(1)));
    let key = origin("https://a");
    assert!(!pool.is_h1_only(&key) && !pool.clear_h1_only(&key));
    pool.mark_h1_only(&key);
    assert!(pool.is_h1_only(&key) && !pool.is_h1_only(&origin("https://b")));
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
    pass(2.0).await;
    assert!(pool.clear_h1_only(&key) && !pool.is_h1_only(&key));
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
    assert_eq!(*offers.lock(), [Offer::H1, Offer::Any]);
    assert_eq!(pool.stats().h1_only_hits, 1);
}

#[tokio::test(start_paused = true)]
async fn the_memory_is_bounded() {
    // P25
    let pool = H2Pool::builder().h1_only_capacity(2).build().unwrap();
    let keys = ["https://a", "https://b", "https://c"].map(origin);
    pool.mark_h1_only(&keys[0]);
    pool.mark_h1_only(&keys[1]);
    assert!(pool.is_h1_only(&keys[0]));
    pool.mark_h1_only(&keys[2]);
    assert_eq!(
        keys.map(|key| pool.is_h1_only(&key)),
        [true, false, true],
        "the least recently used left"
    );
}

#[tokio::test(start_paused = true)]
async fn what_left_the_memory_is_offered_http2_again_and_what_is_used_stays() {
    // P25: a dial is a use.
    let builder = H2Pool::builder()
        .h1_only_capacity(2)
        .idle_timeout(Duration::from_secs(10));
    let (pool, _server, offers) = offers(builder);
    let ask = async |host: &str| {
        join(fetch(&pool, get(uri(&format!("https://{host}/")))))
            .await
            .unwrap();
        pass(20.0).await;
        std::mem::take(&mut *offers.lock())
    };
    assert_eq!(ask("a").await, [Offer::Any]);
    assert_eq!(ask("b").await, [Offer::Any]);
    assert_eq!(ask("a").await, [Offer::H1]);
    assert_eq!(ask("c").await, [Offer::Any]);
    let remembered = ["https://a", "https://b", "https://c"].map(|key| pool.is_h1_only(&origin(key)));
    assert_eq!(remembered, [true, false, true]);
    assert_eq!(ask("b").await, [Offer::Any]);
}

#[tokio::test(start_paused = true)]
async fn only_an_authenticated_server_is_believed() {
    // P25
    let (pool, mut net) = net(H2Pool::builder());
    let request = fetch(&pool, get(uri("https://a/")));
    let dial = net.dial().await.authenticated(false);
    let server = Server::builder().h1_only().start_in_memory();
    server.attach(dial.accept(Version::HTTP_11));
    assert_eq!(join(request).await.unwrap().body, "ok");
    assert!(!pool.is_h1_only(&origin("https://a")));
}

#[tokio::test]
async fn plain_http_speaks_http1() {
    // P25, P28
    let server = Server::builder().plain().start().await;
    let pool = H2Pool::builder().build().unwrap();
    for _ in 0..5 {
        let read = join(fetch(&pool, get(server.uri("/")))).await.unwrap();
        assert_eq!(
            (&read.body[..], read.info.unwrap().version()),
            (&b"ok"[..], Version::HTTP_11)
        );
    }
    assert!(!pool.is_h1_only(&origin(&format!("http://{}", server.addr()))));
    assert_eq!(server.counts().accepted, 1);
}

#[tokio::test]
async fn plain_http_speaks_h2_by_prior_knowledge() {
    // P28
    let server = Server::builder().plain().h2_only().start().await;
    let pool = H2Pool::builder().http2_prior_knowledge(true).build().unwrap();
    let reads = join_all(fetch_many(&pool, &server.uri("/"), 20)).await;
    for read in reads {
        assert_eq!(read.unwrap().info.unwrap().version(), Version::HTTP_2);
    }
    assert_eq!(server.counts().accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_needs_http1_gets_it() {
    // P26: by RST_STREAM, and by GOAWAY, one that covers the request among them; with a body that was kept.
    for by in ["reset", "goaway", "end"] {
        let (pool, mut net) = net(H2Pool::builder());
        let request = fetch(&pool, post(uri("https://a/echo"), "a body"));
        let mut peer = net.ready_peer(10).await;
        let stream = peer.next_request().await.head.stream;
        match by {
            "reset" => peer.send_rst(stream, code::HTTP_1_1_REQUIRED).await,
            "goaway" => peer.send_goaway(0, code::HTTP_1_1_REQUIRED, b"").await,
            _ => {
                peer.send_goaway(stream, code::HTTP_1_1_REQUIRED, b"").await;
                peer.shutdown().await;
            }
        }
        let dial = net.dial().await;
        assert_eq!(dial.offer(), Offer::H1);
        let server = Server::builder().h1_only().start_in_memory();
        server.attach(dial.accept(Version::HTTP_11));
        let read = join(request).await.unwrap();
        assert_eq!(
            (&read.body[..], read.info.unwrap().version()),
            (&b"a body"[..], Version::HTTP_11)
        );
        assert!(pool.is_h1_only(&origin("https://a")));
        let next = join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
        assert_eq!(next.info.unwrap().version(), Version::HTTP_11);
        peer.until_closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_connector_has_http1_the_error_says_so() {
    // P26: this one answers in HTTP/2, whatever it is asked for; and that is no replay.
    for replays in [0, 3] {
        let (pool, mut net) = net(H2Pool::builder().max_replays(replays));
        let request = fetch(&pool, post(uri("https://a/"), "a body"));
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            while let Some(dial) = net.next_dial().await {
                asked.push(dial.offer());
                let mut peer = Peer::new(dial.accept(Version::HTTP_2));
                peer.handshake(&streams(10)).await;
                let stream = peer.next_request().await.head.stream;
                peer.send_rst(stream, code::HTTP_1_1_REQUIRED).await;
                peer.until_closed().await;
            }
            asked
        });
        let error = join(request).await.unwrap_err();
        assert!(
            error.is_h1_only() && error.is_unprocessed() && !error.is_transient(),
            "{error:?}"
        );
        assert!(error.source().unwrap().to_string().contains("HTTP_1_1_REQUIRED"));
        drop(pool);
        let asked = join(server).await;
        assert!((2..=4).contains(&asked.len()), "{asked:?}");
        assert_eq!(asked[1], Offer::H1);
    }
}

#[tokio::test]
async fn http1_required_over_tls() {
    // P26: the real thing, for a server that speaks both and insists.
    let h2 = Scripted::start(|_| Answer::Reset(h2::Reason::HTTP_1_1_REQUIRED)).await;
    let pool = tls().build().unwrap();
    // This server offers nothing but h2, so that the second dial cannot agree on HTTP/1.1.
    let error = join(fetch(&pool, get(h2.uri("/")))).await.unwrap_err();
    assert!(error.is_unprocessed(), "{error:?}");
    assert!(pool.is_h1_only(&origin(&format!("https://{}", h2.addr()))));
    assert!(h2.counts().accepted <= 3, "{:?}", h2.counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_sessions_end_like_all_others() {
    // P14, P16, P20, P24
    let server = Server::builder().h1_only().start().await;
    let pool = tls().max_h1_connections(2).build().unwrap();
    let running = fetch_many(&pool, &server.uri("/gate"), 2);
    server.gate("").until_waiting(2).await;
    let waiting = fetch_many(&pool, &server.uri("/"), 4);
    eventually("four wait", || pool.stats().waiters == 4).await;
    server.kill();
    for read in join_all(waiting).await {
        assert_eq!(read.unwrap().body, "ok", "served by replacements");
    }
    for read in join_all(running).await {
        assert!(!read.unwrap_err().is_unprocessed(), "HTTP/1.1 cannot tell");
    }
    // A server that closes after its answer is no failure.
    for _ in 0..3 {
        assert_eq!(
            join(fetch(&pool, get(server.uri("/close")))).await.unwrap().body,
            "ok"
        );
    }
    let held = fetch(&pool, get(server.uri("/gate")));
    server.gate("").until_waiting(1).await;
    pool.close();
    assert!(pool.request(get(server.uri("/"))).await.unwrap_err().is_closed());
    server.gate("").release(1);
    assert_eq!(join(held).await.unwrap().body, "ok");
    crate::support::within("it is closed", pool.closed()).await;
    server
        .until("the server sees it", |counts| counts.open() == 0)
        .await;
}

#[tokio::test(start_paused = true)]
async fn idle_connections_close_and_cancelled_ones_too() {
    // P12, P16, P24
    let (pool, server, _) = offers(H2Pool::builder().idle_timeout(Duration::from_secs(10)));
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
    pass(9.0).await;
    assert_eq!(server.counts().open(), 1);
    pass(2.0).await;
    assert_eq!(
        (server.counts().open(), pool.stats().sessions_closed.idle),
        (0, 1)
    );
    let cancelled = fetch(&pool, get(uri("https://a/hang")));
    server.until("it runs", |counts| counts.active == 1).await;
    cancelled.abort();
    settle().await;
    assert_eq!(
        (server.counts().open(), pool.stats().streams),
        (0, 0),
        "there is no other way to cancel"
    );
    join(fetch(&pool, get(uri("https://a/")))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_for_h2_is_not_lost_on_the_way_to_http1() {
    // P21, P26: refused in the middle of an upload that goes on.
    let (pool, mut net) = net(H2Pool::builder());
    let (sender, body) = upload(4);
    let request = fetch(&pool, Request::post("https://a/echo").body(body).unwrap());
    let mut peer = net.ready_peer(10).await;
    let stream = peer.next_headers().await.stream;
    let frame = |text: &'static str| Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes())));
    sender.send(frame("first, ")).await.unwrap();
    assert!(matches!(peer.next_stream_frame().await, Frame::Data(_)));
    peer.send_rst(stream, code::HTTP_1_1_REQUIRED).await;
    let server = Server::builder().h1_only().start_in_memory();
    server.attach(net.dial().await.accept(Version::HTTP_11));
    sender.send(frame("second")).await.unwrap();
    drop(sender);
    assert_eq!(join(request).await.unwrap().body, "first, second");
}

#[tokio::test]
async fn both_protocols_at_one_server_are_two_origins_at_most() {
    // P25: an origin that turns from HTTP/1.1 to h2 after its time.
    let server = Server::start().await;
    let pool = tls().h1_only_ttl(Duration::from_millis(50)).build().unwrap();
    let key = origin(&format!("https://{}", server.addr()));
    pool.mark_h1_only(&key);
    let read = join(fetch(&pool, get(server.uri("/")))).await.unwrap();
    assert_eq!(read.info.unwrap().version(), Version::HTTP_11);
    eventually("the memory fades", || !pool.is_h1_only(&key)).await;
    // The connection over HTTP/1.1 may still serve; once it is gone, h2 is offered again.
    server.kill();
    eventually("it is gone", || pool.sessions().is_empty()).await;
    let read = join(fetch(&pool, get(server.uri("/")))).await.unwrap();
    assert_eq!(read.info.unwrap().version(), Version::HTTP_2);
    let empty = Request::get(server.uri("/")).body(Empty::<Bytes>::new()).unwrap();
    join(fetch(&pool, empty)).await.unwrap();
    assert_eq!(server.counts().by_protocol("h2"), 1);
}
