//! The pool's own heap: bytes of a waiter and of an idle origin, the origin's place in the map included.

use std::alloc::System;
use std::time::Duration;

use anyhow::Result;
use h2pool::connect::memory;
use h2pool::{H2Pool, Origin, PoolConfig};
use h2pool_benches::canned;
use http::Version;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WAITERS: usize = 10_000;
const ORIGINS: usize = 10_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    println!("{:<52} {:>8}", "the pool's own heap", "bytes");
    for (name, timeout) in [("acquire_timeout 30s", 30), ("acquire_timeout off", 0)] {
        let bytes = waiter(Duration::from_secs(timeout)).await?;
        println!("{:<52} {bytes:>8}", format!("a waiter, {name}"));
    }
    println!("{:<52} {:>8}", "an idle origin", idle_origin()?);
    Ok(())
}

fn live(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}

fn pool(config: PoolConfig) -> Result<H2Pool> {
    let (connector, mut listener) = memory::pair::<Origin>();
    tokio::spawn(async move {
        while let Some(dial) = listener.accept().await {
            tokio::spawn(canned::serve(dial.accept(Version::HTTP_2)));
        }
    });
    Ok(H2Pool::builder().config(config).connector(connector).build()?)
}

async fn waiter(timeout: Duration) -> Result<usize> {
    let config = PoolConfig::default()
        .max_sessions(1)
        .streams_per_session(1)
        .max_waiters(0)
        .acquire_timeout(timeout);
    let pool = pool(config)?;
    let key: Origin = "https://example.com".parse()?;
    let lease = pool.acquire(&key).await?;
    let mut futures: Vec<_> = (0..WAITERS).map(|_| Box::pin(pool.acquire(&key))).collect();
    let region = Region::new(ALLOCATOR);
    for future in &mut futures {
        anyhow::ensure!(futures_util::poll!(future.as_mut()).is_pending());
    }
    let bytes = live(&region) / WAITERS;
    drop(lease);
    Ok(bytes)
}

fn idle_origin() -> Result<usize> {
    let pool = pool(PoolConfig::default().max_origins(2 * ORIGINS))?;
    let keys: Result<Vec<Origin>, _> = (0..ORIGINS)
        .map(|n| format!("https://host-{n}").parse())
        .collect();
    let keys = keys?;
    let region = Region::new(ALLOCATOR);
    for key in &keys {
        pool.warm(key, 0)?;
    }
    Ok(live(&region) / ORIGINS)
}
