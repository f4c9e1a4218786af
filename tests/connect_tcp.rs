//! TCP: happy eyeballs, name look-ups on a bounded number of threads, errors that name the cause.
#![cfg(feature = "tcp")]

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use h2pool::connect::{Connect, Connection, Offer, TcpConnector};
use h2pool::{Error, Origin};
use http::Version;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::net::TcpListener;
use tokio::sync::mpsc as events;
use tokio::task::{JoinSet, spawn_blocking};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn addr(ip: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(ip.into(), 0)
}

/// A dial that does not borrow, so that it can be spawned.
fn dial(
    tcp: &TcpConnector,
    origin: &Origin,
    offer: Offer,
) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
    tcp.connect(origin, offer)
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

fn runtime(blocking_threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(blocking_threads)
        .build()
        .unwrap()
}

#[tokio::test]
async fn plain_text_speaks_h1_or_h2_by_prior_knowledge() {
    // P28
    let (listener, port) = listen().await;
    let origin = Origin::http("127.0.0.1", port).unwrap();
    let plain = TcpConnector::new();
    let prior = TcpConnector::new().http2_prior_knowledge(true);
    for (tcp, offer, version) in [
        (&plain, Offer::Any, Version::HTTP_11),
        (&plain, Offer::H2, Version::HTTP_11),
        (&prior, Offer::Any, Version::HTTP_2),
        (&prior, Offer::H2, Version::HTTP_2),
        (&prior, Offer::H1, Version::HTTP_11),
    ] {
        let connection = dial(tcp, &origin, offer).await.unwrap();
        let (_server, client) = listener.accept().await.unwrap();
        assert_eq!(connection.version(), version, "{offer:?}");
        assert_eq!(connection.peer(), listener.local_addr().ok());
        assert_eq!(connection.local(), Some(client));
        // P25: plain text never enters the negative cache.
        assert!(!connection.is_authenticated());
    }
}

#[tokio::test]
async fn https_without_tls_is_refused_before_anything_is_sent() {
    // P37, P41
    let (listener, port) = listen().await;
    let origin = Origin::https("127.0.0.1", port).unwrap();
    let error = dial(&TcpConnector::new(), &origin, Offer::Any).await.unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("TlsConnector"),
        "{error}"
    );
    assert_eq!(error.origin(), Some(origin.to_string().as_str()));
    let mut accepted = tokio_test::task::spawn(listener.accept());
    assert!(accepted.poll().is_pending(), "no connection was opened");
}

#[tokio::test]
async fn a_refused_port_is_a_connect_error_with_its_cause() {
    // P22, P41
    let (listener, port) = listen().await;
    drop(listener);
    let origin = Origin::http("127.0.0.1", port).unwrap();
    let error = dial(&TcpConnector::new(), &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && error.is_unprocessed() && error.is_transient() && !error.is_timeout());
    assert_eq!(error.origin(), Some(origin.to_string().as_str()));
    let refused = causes(&error)
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_named() {
    // P41
    let origin = Origin::http("nowhere.test", 80).unwrap();
    let nothing = TcpConnector::new().resolver(|_| Ok(Vec::new()));
    let error = dial(&nothing, &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && error.is_transient());
    assert!(
        error.to_string().contains("`nowhere.test` has no address"),
        "{error}"
    );

    let failing = TcpConnector::new().resolver(|_| Err(io::Error::other("the DNS server is on fire")));
    let error = dial(&failing, &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && error.to_string().contains("`nowhere.test` could not be resolved"));
    let causes: Vec<_> = causes(&error).map(ToString::to_string).collect();
    let telling = |part: &str| causes.iter().filter(|text| text.contains(part)).count();
    assert_eq!((telling("on fire"), telling("resolved")), (1, 0), "{causes:?}");

    let slow = TcpConnector::new().resolver(|_| Err(io::ErrorKind::TimedOut.into()));
    let error = dial(&slow, &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn ipv4_serves_where_ipv6_leads_nowhere() {
    // P38: RFC 8305. The discard prefix (RFC 6666) is unreachable, or swallows packets: both must do.
    let (listener, port) = listen().await;
    let discard = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);
    let origin = Origin::http("dual.test", port).unwrap();
    for first in [discard, Ipv6Addr::LOCALHOST] {
        let tcp = TcpConnector::new()
            .happy_eyeballs(Some(Duration::from_millis(1)))
            .resolver(move |_| Ok(vec![addr(first), addr(LOOPBACK)]));
        let connection = dial(&tcp, &origin, Offer::Any).await.unwrap();
        assert_eq!(connection.peer(), listener.local_addr().ok(), "{first}");
    }
}

/// A listener whose queue is full, so that nobody connects any more; with what fills it.
#[cfg(target_os = "linux")]
async fn deaf(ip: impl Into<IpAddr>) -> (TcpListener, Vec<std::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(addr(ip)).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let fill = move || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50));
    let queue = spawn_blocking(move || std::iter::from_fn(|| fill().ok()).take(64).collect());
    (listener, queue.await.unwrap())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_swallows_packets_leaves_time_for_the_next() {
    // P38, RFC 8305: of the same family, too.
    let (silent, _queue) = deaf(LOOPBACK).await;
    let second = IpAddr::from([127, 0, 0, 2]);
    let port = silent.local_addr().unwrap().port();
    let listener = TcpListener::bind((second, port)).await.unwrap();
    let origin = Origin::http("two.test", port).unwrap();
    let tcp = TcpConnector::new()
        .connect_timeout(Some(Duration::from_millis(100)))
        .resolver(move |_| Ok(vec![addr(LOOPBACK), addr(second)]));
    let connection = dial(&tcp, &origin, Offer::Any).await.unwrap();
    assert_eq!(connection.peer(), listener.local_addr().ok());

    let alone = tcp.resolver(|_| Ok(vec![addr(LOOPBACK)]));
    let error = dial(&alone, &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && error.is_timeout(), "{error:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_local_address_is_bound() {
    let (listener, port) = listen().await;
    let local = IpAddr::from([127, 0, 0, 2]);
    let tcp = TcpConnector::new().local_address(Some(local));
    let origin = Origin::http("127.0.0.1", port).unwrap();
    let _connection = dial(&tcp, &origin, Offer::Any).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().1.ip(), local);
}

#[tokio::test]
async fn an_async_resolver_serves_and_the_origins_port_counts() {
    let (listener, port) = listen().await;
    let tcp = TcpConnector::new().resolver_service(tower::service_fn(|name: Name| async move {
        assert_eq!(name.as_str(), "async.test");
        Ok::<_, Infallible>([SocketAddr::new(LOOPBACK, 1)])
    }));
    let origin = Origin::http("async.test", port).unwrap();
    let connection = dial(&tcp, &origin, Offer::Any).await.unwrap();
    assert_eq!(connection.peer(), listener.local_addr().ok());
}

#[test]
fn eight_look_ups_run_at_once() {
    // P38: no look-up returns before all eight are under way.
    runtime(512).block_on(async {
        let (listener, port) = listen().await;
        let together = Arc::new(Barrier::new(8));
        let tcp = TcpConnector::new().resolver(move |_| {
            together.wait();
            Ok(vec![addr(LOOPBACK)])
        });
        let mut dials = JoinSet::new();
        for n in 0..8 {
            let origin = Origin::http(&format!("host{n}.test"), port).unwrap();
            dials.spawn(dial(&tcp, &origin, Offer::Any));
        }
        let connections = dials.join_all().await;
        assert!(connections.iter().all(Result::is_ok));
        drop(listener);
    });
}

/// A resolver that reports each look-up and holds it until the test says so.
struct Gate {
    tcp: TcpConnector,
    entered: events::UnboundedReceiver<()>,
    release: mpsc::Sender<()>,
}

fn gate(blocking_threads: usize) -> Gate {
    let (enter, entered) = events::unbounded_channel();
    let (release, released) = mpsc::channel();
    let released = parking_lot::Mutex::new(released);
    let tcp = TcpConnector::new()
        .blocking_threads(blocking_threads)
        .resolver(move |_| {
            enter.send(()).unwrap();
            released.lock().recv().unwrap();
            Ok(vec![addr(LOOPBACK)])
        });
    Gate {
        tcp,
        entered,
        release,
    }
}

/// tokio starts blocking jobs in order: when this one has run, all that were given to it before have started.
async fn assert_no_further_look_up(gate: &mut Gate) {
    tokio::select! {
        biased;
        _ = gate.entered.recv() => panic!("a look-up went beyond the bound"),
        done = spawn_blocking(|| ()) => done.unwrap(),
    }
    assert!(
        gate.entered.try_recv().is_err(),
        "a look-up went beyond the bound"
    );
}

#[test]
fn blocking_threads_bound_the_look_ups() {
    // P38: one thread more than the bound, which a fourth look-up would take before the probe does.
    runtime(4).block_on(async {
        let (_listener, port) = listen().await;
        let mut gate = gate(3);
        let origin = Origin::http("slow.test", port).unwrap();
        let mut dials = JoinSet::new();
        for _ in 0..8 {
            dials.spawn(dial(&gate.tcp, &origin, Offer::Any));
        }
        for _ in 0..3 {
            gate.entered.recv().await.unwrap();
        }
        assert_no_further_look_up(&mut gate).await;

        // One ends, exactly one follows.
        gate.release.send(()).unwrap();
        gate.entered.recv().await.unwrap();
        assert_no_further_look_up(&mut gate).await;

        for _ in 0..7 {
            gate.release.send(()).unwrap();
        }
        assert!(dials.join_all().await.iter().all(Result::is_ok));
    });
}

#[test]
fn an_abandoned_look_up_keeps_its_place_until_it_ends() {
    // P8, P38: dials that time out on a resolver that hangs never hold more than the bound.
    runtime(2).block_on(async {
        let (_listener, port) = listen().await;
        let mut gate = gate(1);
        let origin = Origin::http("slow.test", port).unwrap();
        let abandoned = tokio::spawn(dial(&gate.tcp, &origin, Offer::Any));
        gate.entered.recv().await.unwrap();
        abandoned.abort();
        assert!(abandoned.await.unwrap_err().is_cancelled());

        let next = tokio::spawn(dial(&gate.tcp, &origin, Offer::Any));
        tokio::task::yield_now().await;
        assert_no_further_look_up(&mut gate).await;

        gate.release.send(()).unwrap();
        gate.entered.recv().await.unwrap();
        gate.release.send(()).unwrap();
        next.await.unwrap().unwrap();
    });
}

#[test]
fn a_look_up_that_has_not_started_is_withdrawn() {
    // P38: within the bound, but tokio has only one thread, and that is busy.
    runtime(1).block_on(async {
        let (_listener, port) = listen().await;
        let mut gate = gate(2);
        let origin = Origin::http("slow.test", port).unwrap();
        let first = tokio::spawn(dial(&gate.tcp, &origin, Offer::Any));
        gate.entered.recv().await.unwrap();
        let second = tokio::spawn(dial(&gate.tcp, &origin, Offer::Any));
        tokio::task::yield_now().await;
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());

        gate.release.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert_no_further_look_up(&mut gate).await;
    });
}

#[test]
fn a_resolver_that_panics_fails_its_dial_and_frees_its_place() {
    // P8
    runtime(2).block_on(async {
        let (_listener, port) = listen().await;
        let tcp = TcpConnector::new().blocking_threads(1).resolver(|name| {
            assert_ne!(name, "bad.test", "on purpose");
            Ok(vec![addr(LOOPBACK)])
        });
        let bad = Origin::http("bad.test", port).unwrap();
        let error = dial(&tcp, &bad, Offer::Any).await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
        let good = Origin::http("good.test", port).unwrap();
        dial(&tcp, &good, Offer::Any).await.unwrap();
    });
}
