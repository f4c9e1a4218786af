//! Everything at once, by a seed: callers come and leave, dials fail and hang, servers drain and die. Whatever
//! happens, each request ends, none is processed twice, an error that says "unprocessed" is right, and nothing is left
//! (P9, P12, P14, P18, P21, P22).

use std::sync::Arc;
use std::time::Duration;

use h2pool::{Builder, Error, H2Pool};
use http::Version;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use crate::support::server::Server;
use crate::support::within;
use crate::util::*;

/// What is wrong with the network; nothing, once the storm is over.
#[derive(Clone, Copy, Default)]
struct Weather {
    refused: f64,
    hanging: f64,
    silent: f64,
    cut: f64,
}

const STORM: Weather = Weather {
    refused: 0.1,
    hanging: 0.05,
    silent: 0.05,
    cut: 0.05,
};

/// Answers dials as the weather is.
fn network(
    mut net: Net,
    server: Arc<Server>,
    version: Version,
    weather: Arc<Mutex<Weather>>,
    seed: u64,
) -> JoinHandle<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Some(dial) = net.next_dial().await {
            let now = *weather.lock();
            let chance = random.random::<f64>();
            if chance < now.refused {
                dial.refuse(Error::connect("refused by chance"));
            } else if chance < now.refused + now.hanging {
                let server = server.clone();
                tokio::spawn(async move {
                    pass(1.5).await;
                    server.attach(dial.accept(version));
                });
            } else if chance < now.refused + now.hanging + now.silent {
                silent.push(dial.accept(version));
            } else if chance < now.refused + now.hanging + now.silent + now.cut {
                drop(dial.accept(version));
            } else {
                server.attach(dial.accept(version));
            }
        }
    })
}

/// A caller: what it asks for, and whether it stays for the answer.
fn caller(pool: &H2Pool, random: &mut SmallRng, id: usize) -> JoinHandle<Option<Result<Read, Error>>> {
    let task = match random.random_range(0..4) {
        0 => fetch(
            pool,
            named(
                post(uri("https://a/echo"), vec![b'x'; random.random_range(0..40_000)]),
                id,
            ),
        ),
        1 => fetch(
            pool,
            named(
                get(uri(&format!(
                    "https://a/bytes/{}",
                    random.random_range(0..200_000)
                ))),
                id,
            ),
        ),
        _ => fetch(
            pool,
            named(
                get(uri(&format!("https://a/delay/{}", random.random_range(0..400)))),
                id,
            ),
        ),
    };
    let stays = random.random_bool(0.7);
    let patience = Duration::from_millis(random.random_range(0..600));
    tokio::spawn(async move {
        if stays {
            return Some(task.await.unwrap());
        }
        tokio::time::sleep(patience).await;
        task.abort();
        task.await.ok()
    })
}

async fn storm(seed: u64, builder: Builder, version: Version) {
    let mut random = SmallRng::seed_from_u64(seed);
    let server = Server::builder().h2_max_streams(random.random_range(1..6));
    let server = if version == Version::HTTP_2 {
        server.h2_only()
    } else {
        server.h1_only()
    };
    let server = Arc::new(server.start_in_memory());
    let builder = builder
        .max_sessions(random.random_range(1..4))
        .max_h1_connections(random.random_range(1..4))
        .connect_timeout(Duration::from_secs(2))
        .idle_timeout(Duration::from_millis(700))
        .drain_timeout(Duration::from_secs(3))
        .acquire_timeout(Duration::ZERO)
        .max_waiters(0);
    let (pool, net) = net(builder);
    let weather = Arc::new(Mutex::new(STORM));
    let network = network(net, server.clone(), version, weather.clone(), seed);
    let mut callers = Vec::new();
    while callers.len() < 250 {
        match random.random_range(0..100) {
            0..2 => server.drain(),
            2..4 => server.kill(),
            _ => callers.push(caller(&pool, &mut random, callers.len())),
        }
        if random.random_bool(0.3) {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        }
        if random.random_bool(0.02) {
            pass(1.0).await;
        }
    }
    *weather.lock() = Weather::default();
    let outcomes = join_all(callers).await;
    let counts = server.counts();
    assert_eq!(counts.duplicates(), Vec::<&str>::new(), "seed {seed}");
    for (id, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Some(Ok(read)) => assert_eq!(read.status, 200, "seed {seed}"),
            Some(Err(error)) => {
                assert!(
                    !error.is_closed() && !error.is_saturated() && !error.is_config(),
                    "seed {seed}: {error:?}"
                );
                assert_eq!(error.origin(), Some("https://a:443"), "seed {seed}: {error:?}");
                let processed = counts.processed(&id.to_string());
                assert!(
                    !error.is_unprocessed() || processed == 0,
                    "seed {seed}: {error:?}"
                );
            }
            None => {}
        }
    }
    // Once what hangs has timed out, everything is there again, and at last nobody is left.
    pass(3.0).await;
    for read in join_all(fetch_many(&pool, &uri("https://a/"), 30)).await {
        assert_eq!(read.unwrap().body, "ok", "seed {seed}");
    }
    pass(1.0).await;
    let stats = pool.stats();
    assert_eq!(
        (stats.streams, stats.waiters, stats.sessions_dialing),
        (0, 0, 0),
        "seed {seed}: {stats:?}"
    );
    pool.close();
    within("the pool ends", pool.closed()).await;
    drop(pool);
    within("the network ends", network).await.unwrap();
    settle().await;
    assert_eq!(server.counts().open(), 0, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn over_h2() {
    for seed in 0..6 {
        storm(seed, H2Pool::builder(), Version::HTTP_2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn over_http1() {
    // P24
    for seed in 100..104 {
        // A server that says nothing at all can be told from a slow one only by this.
        let builder = H2Pool::builder().header_timeout(Duration::from_secs(3));
        storm(seed, builder, Version::HTTP_11).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_limit_over_the_whole_pool() {
    // P15
    for seed in 200..203 {
        storm(seed, H2Pool::builder().limit_concurrency(3), Version::HTTP_2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_sessions_that_wear_out() {
    // P17
    for seed in 300..303 {
        let builder = H2Pool::builder()
            .max_streams_per_session(7)
            .max_age(Duration::from_secs(2));
        storm(seed, builder, Version::HTTP_2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_keep_alive() {
    // P19
    for seed in 400..402 {
        let builder = H2Pool::builder()
            .keep_alive_interval(Duration::from_millis(200))
            .keep_alive_timeout(Duration::from_millis(500))
            .keep_alive_while_idle(true);
        storm(seed, builder, Version::HTTP_2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_services_that_hold_slots_and_do_nothing_with_them() {
    // P29
    use tower::ServiceExt;
    type Request = http::Request<http_body_util::Empty<bytes::Bytes>>;
    for seed in 500..503 {
        let mut random = SmallRng::seed_from_u64(seed);
        let builder = H2Pool::builder()
            .max_sessions(2)
            .idle_timeout(Duration::from_millis(300));
        let (pool, server) = with_server(builder, Server::builder().h2_max_streams(2));
        let service = pool.origin(origin("https://a"));
        let mut tasks = Vec::new();
        for id in 0..200 {
            let (mut service, kind) = (service.clone(), random.random_range(0..4));
            let (pause, patience) = (random.random_range(0..80), random.random_range(0..50));
            tasks.push(tokio::spawn(async move {
                let call = async {
                    let ready = ServiceExt::<Request>::ready(&mut service).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    if kind > 0 {
                        let request = named(get(uri("https://a/delay/5")), id);
                        let response = tower::Service::call(ready, request).await.unwrap();
                        assert_eq!(read(response).await.unwrap().body, "ok");
                    }
                };
                if kind == 1 {
                    drop(tokio::time::timeout(Duration::from_millis(patience), call).await);
                } else {
                    call.await;
                }
            }));
            if random.random_bool(0.2) {
                settle().await;
            }
        }
        join_all(tasks).await;
        settle().await;
        assert_eq!(
            (pool.stats().streams, pool.stats().waiters),
            (0, 0),
            "seed {seed}"
        );
        assert_eq!(server.counts().duplicates().len(), 0, "seed {seed}");
        let requests = fetch_many(&pool, &uri("https://a/gate"), 4);
        server.gate("").until_waiting(4).await;
        server.gate("").open();
        for read in join_all(requests).await {
            read.unwrap();
        }
    }
}
