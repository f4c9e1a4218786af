//! Code of others within the pool: errors, wakers, connectors and transports that do what they please.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2pool::connect::{Connection, from_fn};
use h2pool::{Error, H2Pool, Origin, ResponseFuture};
use http::{Request, Version};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::support::peer::Peer;
use crate::support::within;
use crate::util::*;

/// An error whose `Drop` looks at the pool.
#[derive(Debug)]
struct Nosy {
    pool: Arc<OnceLock<H2Pool>>,
    dropped: Arc<AtomicUsize>,
}

impl fmt::Display for Nosy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nosy")
    }
}

impl std::error::Error for Nosy {}

impl Drop for Nosy {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.get() {
            let _seen = pool.stats();
        }
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// A pool whose dials fail with such an error, each once the gate was opened for it; and how many are gone.
fn nosy(gate: &Arc<Notify>) -> (H2Pool, Arc<AtomicUsize>) {
    let (place, dropped) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let (at, count, gate) = (place.clone(), dropped.clone(), gate.clone());
    let connector = from_fn(move |_: &Origin, _| {
        let (pool, dropped, gate) = (at.clone(), count.clone(), gate.clone());
        async move {
            gate.notified().await;
            Err::<Connection, _>(Error::connect(Nosy { pool, dropped }))
        }
    });
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    assert!(place.set(pool.clone()).is_ok());
    (pool, dropped)
}

/// Runs it on a thread of its own, which may come to stand still.
fn in_time(what: &str, run: impl AsyncFnOnce() + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        single().block_on(run());
        done.send(())
    });
    let ended = ended.recv_timeout(Duration::from_secs(30));
    assert!(ended.is_ok(), "{what}: it stands still, or failed");
}

#[test]
fn the_error_of_a_dial_that_nobody_waited_for_is_dropped_after_the_unlock() {
    // P9, P10
    in_time("under the origin's lock", async || {
        let gate = Arc::new(Notify::new());
        let (pool, dropped) = nosy(&gate);
        pool.warm(&origin("https://a"), 1).unwrap();
        gate.notify_one();
        eventually("the error is gone", || dropped.load(Ordering::SeqCst) == 1).await;
    });
}

#[test]
fn the_error_of_a_waiter_that_does_not_look_is_dropped_after_the_unlock() {
    // P9, P12
    in_time("under the origin's lock", async || {
        let gate = Arc::new(Notify::new());
        let (pool, dropped) = nosy(&gate);
        let mut request = tokio_test::task::spawn(pool.request(get(uri("https://a/"))));
        assert!(request.poll().is_pending());
        gate.notify_one();
        eventually("it is woken", || request.is_woken()).await;
        drop(request);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

/// Polls what has to wait; whoever wakes it later panics.
fn wait_with_a_bomb<F: Future>(waits: Pin<&mut F>) {
    let waker = Waker::from(Arc::new(Bomb));
    assert!(waits.poll(&mut Context::from_waker(&waker)).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_costs_the_origin_no_dial() {
    // P8, P14: what was decided with the wake-up is done all the same.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(2));
    let mut first = Box::pin(pool.request(post(uri("https://a/1"), "x")));
    wait_with_a_bomb(first.as_mut());
    let _second = tokio::spawn(pool.request(post(uri("https://a/2"), "x")));
    settle().await;
    // One stream: the first is woken, and a dial is ordered for the second.
    let mut peer = net.peer().await;
    let _refused = peer.greet(&streams(1)).await;
    settle().await;
    drop((peer, first));
    net.dials().await;
    pass(10.0).await;
    let _third = tokio::spawn(pool.request(get(uri("https://a/3"))));
    pass(10.0).await;
    assert!(!net.dials().await.is_empty(), "{:?}", pool.stats());
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_costs_no_other_wake_up() {
    // P12, P14: be they ever so many.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let mut first = Box::pin(pool.request(get(uri("https://a/"))));
    wait_with_a_bomb(first.as_mut());
    let request = || tokio_test::task::spawn(pool.request(get(uri("https://a/"))));
    let mut others: Vec<_> = (0..200).map(|_| request()).collect();
    for other in &mut others {
        assert!(other.poll().is_pending());
    }
    drop(net.dial().await);
    pass(1.0).await;
    assert!(others.iter().all(|other| other.is_woken()));
}

/// A request to which its server has sent the head of its response, and the stream; the session has no room for another.
async fn running(pool: &H2Pool, net: &mut Net) -> (JoinHandle<Result<Read, Error>>, Peer, u32) {
    let request = fetch(pool, get(uri("https://running/")));
    let mut peer = net.ready_peer(1).await;
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    settle().await;
    (request, peer, stream)
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_as_a_session_opens_leaves_it_to_others() {
    // P14, P16
    let builder = H2Pool::builder().idle_timeout(Duration::from_secs(5));
    let (pool, mut net) = net(builder.max_sessions(1));
    let key = origin("https://a");
    let mut first = Box::pin(pool.acquire(&key));
    wait_with_a_bomb(first.as_mut());
    let second = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(10).await;
    peer.answer_one(b"ok").await.unwrap();
    join(second).await.unwrap();
    drop(first);
    peer.until_closed().await;
    assert_eq!(pool.stats().sessions_opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_at_settings_ends_no_session_of_others() {
    // P3, P11
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let (request, mut peer, stream) = running(&pool, &mut net).await;
    let key = origin("https://running");
    let mut waits = Box::pin(pool.acquire(&key));
    wait_with_a_bomb(waits.as_mut());
    peer.send_settings(&streams(2)).await;
    settle().await;
    peer.send_data(stream, b"all of it", true).await;
    assert_eq!(join(request).await.unwrap().body, "all of it");
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_in_the_timer_ends_no_session_of_others() {
    // P16, P36
    let builder = H2Pool::builder().connect_timeout(Duration::from_secs(1));
    let (pool, mut net) = net(builder);
    let (request, mut peer, stream) = running(&pool, &mut net).await;
    let key = origin("https://a");
    let mut waits = Box::pin(pool.acquire(&key));
    wait_with_a_bomb(waits.as_mut());
    // It allows nothing, and by its deadline whoever waits for it fails.
    let _useless = net.ready_peer(0).await;
    pass(5.0).await;
    peer.send_data(stream, b"all of it", true).await;
    assert_eq!(join(request).await.unwrap().body, "all of it");
}

/// Panics when it is dropped.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        panic!("a drop panics");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connector_whose_future_panics_when_it_is_dropped_is_one_failed_dial() {
    // P8, P9, P36: and not the end of its runtime.
    let (memory, mut listener) = h2pool::connect::memory::pair::<Origin>();
    let memory = Arc::new(memory);
    let connector = from_fn(move |origin: &Origin, offer| {
        let (origin, memory) = (origin.clone(), memory.clone());
        async move {
            if origin.host() == "bad" {
                let _mine = Mine;
                std::future::pending::<()>().await;
            }
            h2pool::connect::Connect::connect(&*memory, &origin, offer).await
        }
    });
    let builder = H2Pool::builder().connector(connector);
    let pool = builder.connect_timeout(Duration::from_secs(1)).build().unwrap();
    let good = fetch(&pool, get(uri("https://good/")));
    let mut peer = Peer::new(listener.accept().await.unwrap().accept(Version::HTTP_2));
    peer.handshake(&streams(100)).await;
    let stream = peer.next_headers().await.stream;
    let (bad, took) = timed(join(fetch(&pool, get(uri("https://bad/"))))).await;
    assert!(
        bad.unwrap_err().is_connect() && took < Duration::from_secs(2),
        "{took:?}"
    );
    assert_eq!((pool.stats().sessions_active, pool.stats().dials_failed), (1, 1));
    peer.respond(stream, 200, b"ok").await;
    join(good).await.unwrap();
}

#[test]
fn a_runtime_that_goes_with_a_panic_is_nobodys_failure() {
    // P9, P36: the connector did not panic.
    let dials = Arc::new(AtomicUsize::new(0));
    let count = dials.clone();
    let connector = from_fn(move |_: &Origin, _| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<Connection, Error>>()
    });
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let there = pool.clone();
    let panicked = std::thread::spawn(move || {
        single().block_on(async move {
            let mut request = tokio_test::task::spawn(there.request(get(uri("https://a/"))));
            assert!(request.poll().is_pending());
            tokio::task::yield_now().await;
            panic!("a test fails");
        });
    });
    assert!(panicked.join().is_err());
    assert_eq!(dials.load(Ordering::SeqCst), 1);
    assert_eq!(pool.stats().dials_failed, 0);
}

/// A request that a peer of this version has, whose runtime went with a panic: it may be polled elsewhere.
fn orphaned<B>(version: Version, request: Request<B>) -> (ResponseFuture, H2Pool, Net)
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (pool, mut net) = net(H2Pool::builder());
    let mut request = tokio_test::task::spawn(pool.request(request));
    std::thread::spawn(move || {
        let mut kept = None;
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            single().block_on(async {
                assert!(request.poll().is_pending());
                let mut peer = Peer::new(net.dial().await.accept(version));
                if version == Version::HTTP_2 {
                    peer.handshake(&streams(10)).await;
                }
                eventually("a session", || pool.stats().sessions_active == 1).await;
                assert!(request.poll().is_pending());
                if version == Version::HTTP_2 {
                    peer.next_headers().await;
                } else {
                    within("a request", peer.io().read_u8()).await.unwrap();
                }
                kept = Some(peer);
                panic!("a test fails");
            });
        }));
        assert!(ended.is_err() && kept.is_some());
        (request.into_inner(), pool, net)
    })
    .join()
    .unwrap()
}

#[test]
fn a_session_whose_runtime_goes_with_a_panic_takes_no_safe_request_along() {
    // P22, P36: it did not panic itself.
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let (request, pool, mut net) = orphaned(version, get(uri("https://a/")));
        single().block_on(async {
            let request = tokio::spawn(request);
            let mut peer = net.ready_peer(10).await;
            assert_eq!(peer.answer_one(b"ok").await.unwrap(), "/");
            assert_eq!(join(request).await.unwrap().status(), 200);
        });
        assert_eq!((pool.stats().replays, pool.stats().dials_failed), (1, 0));
    }
}

#[test]
fn an_upload_whose_runtime_goes_with_a_panic_is_no_body_that_panicked() {
    // P22, P36, P41
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let body = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let upload = Request::post("https://a/").body(body).unwrap();
        let (request, _pool, _net) = orphaned(version, upload);
        let error = single().block_on(within("its end", request)).unwrap_err();
        assert!(error.is_transient() && !error.is_body(), "{error:?}");
        assert!(!error.is_unprocessed());
    }
}

/// A transport whose end takes until the gate is opened.
struct Slow<T> {
    io: T,
    ending: Arc<AtomicBool>,
    gate: std::sync::mpsc::Receiver<()>,
}

impl<T> Drop for Slow<T> {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _opened = self.gate.recv();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Slow<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Slow<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_goes_round_while_a_transport_takes_its_time_to_end() {
    // P4: the session's end is reported first, and the next request dials.
    let ending = Arc::new(AtomicBool::new(false));
    let seen = ending.clone();
    let (servers, mut accepted) = mpsc::unbounded_channel();
    let (gates, mut opened) = mpsc::unbounded_channel();
    let connector = from_fn(move |_: &Origin, _| {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (open, gate) = std::sync::mpsc::channel();
        servers.send(theirs).unwrap();
        gates.send(open).unwrap();
        let io = Slow {
            io: ours,
            ending: seen.clone(),
            gate,
        };
        std::future::ready(Ok(Connection::new(io, Version::HTTP_2)))
    });
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let first = tokio::spawn(pool.request(get(uri("https://a/1"))));
    let mut peer = Peer::new(accepted.recv().await.unwrap());
    peer.handshake(&streams(100)).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"").await;
    read(first.await.unwrap().unwrap()).await.unwrap();
    drop(peer);
    eventually("the session ends", || ending.load(Ordering::SeqCst)).await;
    let before = pool.stats().streams_started;
    let second = tokio::spawn(pool.request(get(uri("https://a/2"))));
    let mut peer = Peer::new(within("a dial", accepted.recv()).await.unwrap());
    peer.handshake(&streams(100)).await;
    let stream = peer.next_headers().await.stream;
    peer.respond(stream, 200, b"").await;
    read(second.await.unwrap().unwrap()).await.unwrap();
    let tries = pool.stats().streams_started - before;
    assert!(tries < 10, "{tries} tries, all on a session that had ended");
    while let Ok(open) = opened.try_recv() {
        drop(open);
    }
}

#[test]
fn an_age_of_next_to_nothing_keeps_no_thread_busy() {
    // P16, P42: validation lets it through.
    in_time("the timer spins within one poll", async || {
        let builder = H2Pool::builder().max_age(Duration::from_nanos(5)).max_sessions(1);
        let (pool, mut net) = net(builder);
        let sent = tokio::spawn(pool.request(post(uri("https://a/"), "x")));
        let _peer = net.peer().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        sent.abort();
    });
}
