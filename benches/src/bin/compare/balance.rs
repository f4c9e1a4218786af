//! Which session takes the next request: `LeastLoaded` beside `Pack`, over four open sessions, alone and while large bodies
//! share the connections.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use h2pool::{Balance, H2Pool, Origin, PoolConfig};
use h2pool_benches::closed_loop::{self, Round};
use h2pool_benches::server::{Server, Settings};
use h2pool_benches::stats::median;
use h2pool_benches::transport::{self, Transport};
use http::Uri;
use tokio::task::AbortHandle;

use super::Options;

pub(crate) async fn compare(options: &Options) -> Result<()> {
    let server = Server::start(Settings {
        streams: 256,
        delay: Duration::ZERO,
    })?;
    println!("four sessions of 256 streams");
    println!(
        "{:<10} {:>9} {:<12} {:>10} {:>8} {:>8} {:>8}",
        "in flight", "downloads", "policy", "requests/s", "µs CPU", "p50 µs", "p99 µs"
    );
    for (callers, downloads) in [(8, 0), (128, 0), (512, 0), (8, 2), (128, 2)] {
        let policies = [Balance::LeastLoaded, Balance::Pack];
        let mut rounds = [Vec::new(), Vec::new()];
        let mut pools = Vec::new();
        for policy in policies {
            pools.push(warm(&server, policy).await?);
        }
        for _ in 0..options.rounds {
            for (pool, rounds) in pools.iter().zip(&mut rounds) {
                rounds.push(turn(pool, &server, callers, downloads, options).await?);
            }
        }
        for (policy, rounds) in policies.iter().zip(&rounds) {
            let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
            println!(
                "{callers:<10} {downloads:>9} {:<12} {:>10.0} {:>8.2} {:>8.0} {:>8.0}",
                format!("{policy:?}"),
                of(|round| round.rate),
                of(|round| round.cpu),
                of(|round| round.latency.0),
                of(|round| round.latency.1),
            );
        }
    }
    Ok(())
}

async fn warm(server: &Server, policy: Balance) -> Result<H2Pool> {
    let pool = transport::pool(server, PoolConfig::default().balance(policy).max_waiters(0))?;
    let uri = server.url("/");
    pool.warm(&uri.parse::<Origin>()?, 4)?;
    while pool.stats().sessions_active < 4 {
        pool.get(&uri.parse()?).await?;
    }
    Ok(pool)
}

async fn turn(
    pool: &H2Pool,
    server: &Server,
    callers: usize,
    downloads: usize,
    options: &Options,
) -> Result<Round> {
    let large: Uri = server.url(&format!("/{}", 8 << 20)).parse()?;
    let running: Vec<AbortHandle> = (0..downloads)
        .map(|_| {
            let (pool, large) = (pool.clone(), large.clone());
            tokio::spawn(async move { while pool.get(&large).await.is_ok() {} }).abort_handle()
        })
        .collect();
    let time = Duration::from_millis(options.millis);
    let (pool, small) = (Arc::new(pool.clone()), server.url("/").parse()?);
    let round = closed_loop::run(pool, &small, &Bytes::new(), callers, time).await;
    running.iter().for_each(AbortHandle::abort);
    round
}
