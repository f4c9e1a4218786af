//! One pool and several runtimes (P35, P36).

use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use h2pool::connect::memory::pair;
use h2pool::{Error, H2Pool, Origin};
use http::Version;
use tokio::runtime::{Builder, Runtime};
use tower::Service;

use crate::support::peer::Peer;
use crate::support::server::Server;
use crate::support::within;
use crate::util::*;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::builder().start_on_own_thread());
static POOL: LazyLock<H2Pool> = LazyLock::new(|| tls().build().unwrap());

async fn use_the_static_pool() {
    for _ in 0..3 {
        for read in join_all(fetch_many(&POOL, &SERVER.uri("/delay/1"), 20)).await {
            assert_eq!(read.unwrap().body, "ok");
        }
    }
}

#[tokio::test]
async fn a_static_pool_in_one_test() {
    // P36
    use_the_static_pool().await;
}

#[tokio::test]
async fn a_static_pool_in_another_test() {
    // P36
    use_the_static_pool().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_pool_on_a_runtime_of_several_threads() {
    // P36
    use_the_static_pool().await;
}

#[test]
fn one_runtime_after_the_other() {
    // P36: those whose sessions were driven by it find them gone and replaced.
    let server = Server::builder().start_on_own_thread();
    let pool = tls().build().unwrap();
    for make in [single, multi, single, single, multi, multi] {
        let runtime = make();
        runtime.block_on(async {
            for read in join_all(fetch_many(&pool, &server.uri("/"), 5)).await {
                assert_eq!(read.unwrap().body, "ok");
            }
        });
        drop(runtime);
        assert!(pool.sessions().is_empty(), "{:?}", pool.sessions());
    }
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
    assert!(server.counts().accepted >= 6);
}

#[test]
fn a_runtime_that_ends_with_requests_in_flight_takes_only_them_along() {
    // P36
    let server = Server::builder().h2_max_streams(2).start_on_own_thread();
    let pool = tls().max_sessions(1).build().unwrap();
    for (first, second) in [
        (multi as fn() -> Runtime, multi as fn() -> Runtime),
        (single, multi),
        (multi, single),
    ] {
        let (dying, living) = (first(), second());
        let requests: Vec<_> = dying.block_on(async {
            join(fetch(&pool, get(server.uri("/")))).await.unwrap();
            let requests = fetch_many(&pool, &server.uri("/gate"), 6);
            server.gate("").until_waiting(2).await;
            eventually("four wait", || pool.stats().waiters == 4).await;
            requests
        });
        // Somebody on the other runtime waits behind them.
        let waiting = {
            let _guard = living.enter();
            fetch(&pool, get(server.uri("/")))
        };
        living.block_on(async {
            // Where it stands behind callers of a runtime that nobody blocks on, a session for it is enough to go on.
            eventually("it waits, or has a session of its own", || {
                pool.stats().waiters == 5 || pool.sessions().len() == 2
            })
            .await;
        });
        dying.shutdown_timeout(Duration::from_secs(5));
        assert!(requests.iter().all(tokio::task::JoinHandle::is_finished));
        living.block_on(async {
            assert_eq!(join(waiting).await.unwrap().body, "ok");
            for read in join_all(fetch_many(&pool, &server.uri("/"), 5)).await {
                assert_eq!(read.unwrap().body, "ok");
            }
            eventually("no slot is taken", || pool.stats().streams == 0).await;
            assert_eq!(pool.stats().waiters, 0);
        });
    }
}

#[test]
fn a_session_that_ends_with_its_runtime_takes_no_safe_request_of_others_along() {
    // P22, P36
    for h1 in [false, true] {
        let builder = Server::builder();
        let server = if h1 { builder.h1_only() } else { builder }.start_on_own_thread();
        let pool = tls().max_sessions(1).max_h1_connections(2).build().unwrap();
        let (dying, living) = (multi(), multi());
        // The sessions are there, driven by the one that is going to end.
        dying.block_on(async {
            for read in join_all(fetch_many(&pool, &server.uri("/delay/20"), 2)).await {
                read.unwrap();
            }
        });
        let (safe, unsafe_) = {
            let _guard = living.enter();
            let safe = fetch(&pool, get(server.uri("/gate/safe")));
            (safe, fetch(&pool, post(server.uri("/gate/unsafe"), "once")))
        };
        living.block_on(server.gate("safe").until_waiting(1));
        living.block_on(server.gate("unsafe").until_waiting(1));
        dying.shutdown_timeout(Duration::from_secs(5));
        let error = living.block_on(join(unsafe_)).unwrap_err();
        assert!(!error.is_unprocessed() && error.is_transient(), "{error:?}");
        living.block_on(eventually("it is sent again", || pool.stats().replays == 1));
        server.gate("safe").open();
        assert_eq!(living.block_on(join(safe)).unwrap().body, "ok");
    }
}

#[test]
fn a_request_sent_again_after_its_runtime_ended_is_never_said_to_be_unprocessed() {
    // P22, P36: the server may have processed the first attempt, whatever becomes of the second.
    let (connector, mut listener) = pair::<Origin>();
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let (dying, living) = (multi(), multi());
    let warm = {
        let _guard = dying.enter();
        fetch(&pool, get(uri("https://a/warm")))
    };
    let dial = living.block_on(within("a dial", listener.accept())).unwrap();
    let (request, _peer) = living.block_on(async {
        let mut peer = Peer::new(dial.accept(Version::HTTP_2));
        peer.handshake(&streams(10)).await;
        peer.answer_one(b"ok").await.unwrap();
        join(warm).await.unwrap();
        let request = fetch(&pool, get(uri("https://a/")));
        peer.next_headers().await;
        (request, peer)
    });
    dying.shutdown_timeout(Duration::from_secs(5));
    living.block_on(async {
        let again = within("another dial", listener.accept()).await.unwrap();
        again.refuse(Error::connect("refused"));
        let error = join(request).await.unwrap_err();
        assert!(error.is_connect() && !error.is_unprocessed(), "{error:?}");
    });
}

#[test]
fn the_right_to_dial_passes_on() {
    // P36: the runtime that dials ends; somebody on another waits, and dials.
    let (connector, mut listener) = pair::<Origin>();
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let (dying, living) = (multi(), multi());
    let first = {
        let _guard = dying.enter();
        fetch(&pool, get(uri("https://a/")))
    };
    let dial = living.block_on(within("a dial", listener.accept())).unwrap();
    let second = {
        let _guard = living.enter();
        fetch(&pool, get(uri("https://a/")))
    };
    living.block_on(eventually("both wait", || pool.stats().waiters == 2));
    dying.shutdown_timeout(Duration::from_secs(5));
    assert!(first.is_finished() && dial.is_abandoned());
    living.block_on(async {
        let dial = within("another dial", listener.accept()).await.unwrap();
        let mut peer = Peer::new(dial.accept(Version::HTTP_2));
        peer.handshake(&streams(1)).await;
        peer.answer_one(b"ok").await.unwrap();
        assert_eq!(join(second).await.unwrap().body, "ok");
        assert_eq!((pool.stats().waiters, pool.stats().sessions_dialing), (0, 0));
    });
}

#[test]
fn a_wait_that_moves_to_another_runtime_goes_on_there() {
    // P13, P36: polled first on a runtime that then ends, with the dial and the timers that were made there.
    for (first, second) in [
        (single as fn() -> Runtime, single as fn() -> Runtime),
        (single, multi),
        (multi, single),
        (multi, multi),
    ] {
        let (connector, mut listener) = pair::<Origin>();
        let pool = H2Pool::builder().connector(connector).build().unwrap();
        let mut request = tokio_test::task::spawn(pool.request(get(uri("https://a/"))));
        let (dying, living) = (first(), second());
        let dial = dying.block_on(async {
            assert!(request.poll().is_pending());
            within("a dial", listener.accept()).await.unwrap()
        });
        dying.shutdown_timeout(Duration::from_secs(5));
        assert!(dial.is_abandoned());
        living.block_on(async {
            let serving = tokio::spawn(async move {
                let dial = within("another dial", listener.accept()).await.unwrap();
                let mut peer = Peer::new(dial.accept(Version::HTTP_2));
                peer.handshake(&streams(1)).await;
                peer.answer_one(b"ok").await.unwrap();
                peer
            });
            let response = within("the response", request.into_inner()).await.unwrap();
            assert_eq!(read(response).await.unwrap().body, "ok");
            drop(join(serving).await);
        });
    }
}

#[test]
fn sessions_of_several_threads_serve_everybody_and_those_of_one_only_their_own() {
    // P5, P36
    let server = Server::builder().start_on_own_thread();
    let pool = tls().max_sessions(1).build().unwrap();
    let (shared, one, two) = (multi(), single(), single());
    let session = |runtime: &Runtime| {
        runtime.block_on(async {
            let read = join(fetch(&pool, get(server.uri("/")))).await.unwrap();
            read.info.unwrap().session()
        })
    };
    let of_one = session(&one);
    let of_two = session(&two);
    assert_ne!(of_one, of_two);
    let of_all = session(&shared);
    assert!(of_all != of_one && of_all != of_two);
    for (runtime, own) in [(&one, of_one), (&two, of_two), (&shared, of_all)] {
        let used = session(runtime);
        assert!(used == own || used == of_all, "{used}");
    }
    drop(one);
    let three = single();
    assert_eq!(session(&three), of_all, "no session of its own is needed");
    assert_eq!(
        server.counts().accepted,
        3,
        "`max_sessions` counts for each group"
    );
}

#[test]
fn a_runtime_that_stands_still_strands_nobody() {
    // P9, P36: the origin's timer was armed on a runtime that nobody blocks on any more.
    let (connector, mut listener) = pair::<Origin>();
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    for make in [multi as fn() -> Runtime, single] {
        let (idle, busy) = (single(), make());
        idle.block_on(async {
            let request = fetch(&pool, get(uri("https://a/")));
            within("a dial", listener.accept())
                .await
                .unwrap()
                .refuse(Error::connect("not yet"));
            assert!(join(request).await.unwrap_err().is_connect());
        });
        // The next dial waits for its time; only a timer tells when.
        busy.block_on(async {
            let request = fetch(&pool, get(uri("https://a/")));
            let dial = within("the redial", listener.accept()).await.unwrap();
            let mut peer = Peer::new(dial.accept(Version::HTTP_2));
            peer.handshake(&streams(1)).await;
            peer.answer_one(b"ok").await.unwrap();
            assert_eq!(join(request).await.unwrap().body, "ok");
        });
        drop(busy);
        drop(idle);
    }
}

#[tokio::test]
async fn the_process_wide_pool_has_handles_of_its_own() {
    // P34, P35
    let (one, two) = (H2Pool::shared().unwrap(), H2Pool::shared().unwrap());
    let clone = one.clone();
    one.close();
    one.close();
    assert!(one.is_closed() && clone.is_closed() && !two.is_closed());
    assert!(
        clone
            .request(get(uri("https://127.0.0.1:1/")))
            .await
            .unwrap_err()
            .is_closed()
    );
    assert!(
        two.request(get(uri("https://127.0.0.1:1/")))
            .await
            .unwrap_err()
            .is_connect()
    );
    let other = h2pool::PoolConfig::default().max_sessions(9);
    assert!(H2Pool::shared_with(other.clone()).unwrap_err().is_config());
    two.close();
    let fresh = H2Pool::shared_with(other).unwrap();
    assert!(!fresh.is_closed() && two.is_closed());
    drop(Arc::new(fresh));
}

#[test]
fn whoever_waits_on_outside_of_a_runtime_is_told_so() {
    // P36, P41: nothing would ever wake it there.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (pool, _net) = net(H2Pool::builder());
    let mut request = tokio_test::task::spawn(pool.request(get(uri("https://a/"))));
    let mut service = pool.origin(origin("https://b"));
    {
        let _inside = runtime.enter();
        assert!(request.poll().is_pending());
        assert!(
            tokio_test::task::spawn(Box::pin(service.ready()))
                .poll()
                .is_pending()
        );
        assert_eq!(pool.stats().waiters, 2);
    }
    let told = |answer| match answer {
        Poll::Ready(Err(error)) => h2pool::Error::is_config(&error),
        Poll::Ready(Ok(_)) | Poll::Pending => false,
    };
    assert!(told(request.poll()));
    assert!(matches!(
        tokio_test::task::spawn(Box::pin(service.ready())).poll(),
        Poll::Ready(Ok(_))
    ));
    assert!(told(
        tokio_test::task::spawn(Service::call(&mut service, get(uri("/")))).poll()
    ));
    assert_eq!(pool.stats().waiters, 0);
}
