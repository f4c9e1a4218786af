//! The whole pool for hours of virtual time, over a network that fails: latency, partitions, hosts that are lost,
//! killed, drained and replaced. Everything is in memory and by seed; nothing waits for real.
//!
//! Whatever happens, every request settles, none is processed twice, an error that says "unprocessed" is right, the
//! pool recovers by itself, and nothing is left when it is closed.

#[path = "../support/mod.rs"]
mod support;

mod load;
mod network;

use std::time::Duration;

use h2pool::connect::from_fn;
use h2pool::{H2Pool, Origin};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use load::Load;
use network::Network;
use support::within;

const SECOND: Duration = Duration::from_secs(1);

async fn pass(seconds: u64) {
    sleep(SECOND * u32::try_from(seconds).unwrap()).await;
}

/// A pool whose every wait is bounded, as one that has to live with such a network needs it.
fn pool(network: &Network) -> H2Pool {
    let network = network.clone();
    let connector = from_fn(move |_: &Origin, _| network.clone().dial());
    let builder = H2Pool::builder()
        .connector(connector)
        .max_sessions(6)
        .connect_timeout(2 * SECOND)
        .acquire_timeout(10 * SECOND)
        .idle_timeout(20 * SECOND)
        .drain_timeout(10 * SECOND)
        .keep_alive_interval(SECOND)
        .keep_alive_timeout(2 * SECOND)
        .keep_alive_while_idle(true)
        .header_timeout(20 * SECOND)
        .body_idle_timeout(10 * SECOND)
        .write_timeout(5 * SECOND);
    builder.build().unwrap()
}

/// Closes the pool and looks at what is left: nothing.
async fn end(pool: H2Pool, network: Network, load: Load, seed: u64) {
    let tally = within("the clients end", load.end()).await;
    for number in 0..tally.numbers() {
        let processed = network.processed(&number.to_string());
        assert!(
            processed <= 1,
            "seed {seed}: {number} was processed {processed} times"
        );
    }
    for (number, error) in &*tally.failed.lock() {
        let processed = network.processed(&number.to_string());
        assert!(
            !error.is_unprocessed() || processed == 0,
            "seed {seed}: {number}: {error:?}"
        );
        assert!(
            !error.is_closed() && !error.is_config(),
            "seed {seed}: {number}: {error:?}"
        );
    }
    pass(1).await;
    let stats = pool.stats();
    assert_eq!((stats.streams, stats.waiters), (0, 0), "seed {seed}: {stats:?}");
    pool.close();
    within("the pool ends", pool.closed()).await;
    let stats = pool.stats();
    assert_eq!(
        stats.sessions_opened,
        stats.sessions_closed.total(),
        "seed {seed}"
    );
    drop(pool);
    pass(1).await;
    let open: usize = network.counts().iter().map(support::server::Counts::open).sum();
    assert_eq!(open, 0, "seed {seed}: connections are left");
    drop(network);
    pass(1).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks, 0, "seed {seed}: tasks are left");
}

#[tokio::test(start_paused = true)]
async fn a_rolling_restart_loses_nothing() {
    // P14, P18, P20, P21
    for seed in 1..=2 {
        let (network, mut random) = (Network::new(), SmallRng::seed_from_u64(seed));
        let pool = pool(&network);
        let load = Load::start(&pool, 12, 2 * SECOND, seed);
        for round in 0..6 {
            let host = &network.hosts[round % 3];
            host.latency(Duration::from_millis(random.random_range(1..60)));
            pass(random.random_range(5..30)).await;
            host.list(false);
            host.shut_down().await;
            host.restart();
            host.list(true);
        }
        let failed = load.tally.failed.lock().first().cloned();
        assert!(failed.is_none(), "seed {seed}: {failed:?}");
        assert!(load.tally.answered() > 300, "{}", load.tally.answered());
        end(pool, network, load, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_hurts_only_what_it_cuts_off() {
    // P9, P14, P19, P21
    for seed in 11..=12 {
        let network = Network::new();
        let pool = pool(&network);
        let load = Load::start(&pool, 12, 2 * SECOND, seed);
        pass(30).await;
        assert_eq!(load.tally.failures(), 0, "seed {seed}");
        network.hosts[1].cut(true);
        // By then the sessions that it cuts off are known to be dead.
        pass(10).await;
        let (answered, failed) = (load.tally.answered(), load.tally.failures());
        pass(200).await;
        let answered = load.tally.answered() - answered;
        let failed = load.tally.failures() - failed;
        assert!(
            answered > 500 && failed * 20 < answered,
            "seed {seed}: {failed} failed, {answered} were answered"
        );
        network.hosts[1].cut(false);
        pass(10).await;
        let failed = load.tally.failures();
        pass(60).await;
        assert_eq!(load.tally.failures(), failed, "seed {seed}: all is well again");
        end(pool, network, load, seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_is_cut_off_every_request_ends_and_when_it_is_back_all_is_well() {
    // P3, P9, P13, P14, P19
    for seed in 21..=22 {
        let network = Network::new();
        let pool = pool(&network);
        let load = Load::start(&pool, 12, 2 * SECOND, seed);
        for _ in 0..3 {
            pass(30).await;
            network.hosts.iter().for_each(|host| host.cut(true));
            pass(40).await;
            network.hosts.iter().for_each(|host| host.cut(false));
            // The last of those who waited, and their back-off.
            pass(20).await;
            let (answered, failed) = (load.tally.answered(), load.tally.failures());
            pass(30).await;
            assert_eq!(load.tally.failures(), failed, "seed {seed}");
            assert!(load.tally.answered() > answered + 50, "seed {seed}");
        }
        end(pool, network, load, seed).await;
    }
}

/// Something happens to a host.
fn mishap(network: &Network, random: &mut SmallRng) {
    let host = &network.hosts[random.random_range(0..3)];
    match random.random_range(0..8) {
        0 => host.cut(true),
        1 => host.cut(false),
        2 => host.lose(),
        3 => host.kill(),
        4 => host.drain(),
        5 => host.list(random.random_bool(0.5)),
        6 => host.latency(Duration::from_millis(random.random_range(0..400))),
        _ => host.restart(),
    }
}

#[tokio::test(start_paused = true)]
async fn hours_of_bad_weather() {
    // P5, P9, P12, P14, P18, P19, P20, P21, P22
    for seed in 31..=33 {
        let (network, mut random) = (Network::new(), SmallRng::seed_from_u64(seed));
        let pool = pool(&network);
        let load = Load::start(&pool, 8, 4 * SECOND, seed);
        for _ in 0..60 {
            mishap(&network, &mut random);
            pass(random.random_range(0..40)).await;
            let stats = pool.stats();
            let sessions = stats.sessions_active + stats.sessions_dialing;
            assert!(
                sessions <= 6 && stats.sessions_draining <= 6,
                "seed {seed}: {stats:?}"
            );
        }
        for host in &*network.hosts {
            host.restart();
            host.latency(Duration::from_millis(10));
            host.list(true);
        }
        pass(20).await;
        let (answered, failed) = (load.tally.answered(), load.tally.failures());
        pass(60).await;
        assert_eq!(load.tally.failures(), failed, "seed {seed}: all is well again");
        assert!(load.tally.answered() > answered + 50, "seed {seed}");
        end(pool, network, load, seed).await;
    }
}
