//! The same for real: threads, sockets, and runtimes that come and go (P12, P15, P36).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2pool::H2Pool;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Builder;

use crate::support::server::Server;
use crate::util::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellations_leak_no_permit() {
    // P12, P15
    let server = Server::builder().h2_max_streams(6).start_on_own_thread();
    let pool = tls().max_sessions(2).limit_concurrency(5).build().unwrap();
    let storms: Vec<_> = (0..3)
        .map(|seed| {
            let (pool, target) = (pool.clone(), server.uri("/delay/1"));
            tokio::spawn(async move {
                let mut random = SmallRng::seed_from_u64(seed);
                for _ in 0..40 {
                    let tasks: Vec<_> = (0..8).map(|_| fetch(&pool, get(target.clone()))).collect();
                    for task in tasks {
                        for _ in 0..random.random_range(0..20) {
                            tokio::task::yield_now().await;
                        }
                        if random.random_bool(0.6) {
                            task.abort();
                        }
                        if let Ok(read) = task.await {
                            assert_eq!(read.unwrap().body, "ok");
                        }
                    }
                }
            })
        })
        .collect();
    join_all(storms).await;
    eventually("nothing runs", || {
        pool.stats().streams == 0 && pool.stats().waiters == 0
    })
    .await;
    let requests = fetch_many(&pool, &server.uri("/gate"), 8);
    server.gate("").until_waiting(5).await;
    eventually("the others wait", || pool.stats().waiters == 3).await;
    server.gate("").open();
    for read in join_all(requests).await {
        read.unwrap();
    }
}

#[test]
fn runtimes_come_and_go_with_requests_in_flight() {
    // P14, P36
    runtimes_come_and_go(&tls().max_sessions(2).build().unwrap());
}

#[test]
fn runtimes_that_come_and_go_leave_no_permit_behind() {
    // P14, P15, P36
    runtimes_come_and_go(&tls().max_sessions(2).limit_concurrency(4).build().unwrap());
}

/// Each thread makes runtimes of both kinds, uses the one pool, and drops them in the middle of it.
fn runtimes_come_and_go(pool: &H2Pool) {
    let server = Server::builder().h2_max_streams(4).start_on_own_thread();
    let (served, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (server, served, lost) = (&server, &served, &lost);
            scope.spawn(move || {
                let mut random = SmallRng::seed_from_u64(thread);
                for _ in 0..8 {
                    let mut builder = if random.random_bool(0.5) {
                        Builder::new_current_thread()
                    } else {
                        Builder::new_multi_thread()
                    };
                    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
                    runtime.block_on(async {
                        let abandoned = fetch_many(pool, &server.uri("/delay/5"), 5);
                        for read in join_all(fetch_many(pool, &server.uri("/delay/1"), 10)).await {
                            match read {
                                Ok(read) => {
                                    assert_eq!(read.body, "ok");
                                    served.fetch_add(1, Ordering::SeqCst);
                                }
                                // Its session was driven by a runtime of another thread, which ended.
                                Err(error) => {
                                    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
                                    lost.fetch_add(1, Ordering::SeqCst);
                                }
                            }
                        }
                        drop(abandoned);
                    });
                    runtime.shutdown_timeout(Duration::from_secs(5));
                }
            });
        }
    });
    let (served, lost) = (served.into_inner(), lost.into_inner());
    assert_eq!(served + lost, 240);
    assert!(
        served > 150,
        "{served} served, {lost} lost with the runtimes of others"
    );
    assert!(pool.sessions().is_empty(), "{:?}", pool.sessions());
    let stats = pool.stats();
    assert_eq!(
        (stats.streams, stats.waiters, stats.sessions_dialing),
        (0, 0, 0),
        "{stats:?}"
    );
    assert_eq!(stats.acquire_timeouts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_drain_and_nobody_notices() {
    // P14, P18, P21: GOAWAY after GOAWAY under load; every request is answered, once.
    let server = Server::builder().h2_max_streams(10).start_on_own_thread();
    let pool = tls().max_sessions(2).build().unwrap();
    let mut tasks = Vec::new();
    for round in 0..20 {
        for n in 0..25 {
            let id = round * 25 + n;
            let body = vec![b'x'; 100];
            tasks.push(fetch(&pool, named(post(server.uri("/echo"), body), id)));
        }
        let before = server.counts().requests;
        server
            .until("some more are processed", |counts| {
                counts.requests > before || counts.requests == 500
            })
            .await;
        server.drain();
    }
    for read in join_all(tasks).await {
        assert_eq!(read.unwrap().body.len(), 100);
    }
    let counts = server.counts();
    assert_eq!(
        (counts.by_id.len(), counts.duplicates().len()),
        (500, 0),
        "{counts:?}"
    );
    assert!(counts.accepted > 2, "two sessions were replaced");
}
