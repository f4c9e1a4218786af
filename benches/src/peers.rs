//! What is acquired and given back, by each who offers that.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use deadpool::{managed, unmanaged};
use h2pool::connect::memory;
use h2pool::{H2Pool, Lease, Origin, OriginPool, PoolConfig};
use http::Version;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::canned;
use crate::transport::Transport;

/// Who is compared.
pub trait Peer: Send + Sync + 'static {
    /// Dropped, it is given back.
    type Held: Send + 'static;

    /// Acquires one.
    fn acquire(&'static self) -> impl Future<Output = Self::Held> + Send;
}

/// Nothing at all: what the loop around it costs.
pub struct Nothing;

impl Peer for Nothing {
    type Held = ();

    async fn acquire(&'static self) {}
}

/// A semaphore and the permits of its `acquire_owned`: the least that a limit on streams can cost.
pub struct Permits(pub Arc<Semaphore>);

impl Peer for Permits {
    type Held = OwnedSemaphorePermit;

    async fn acquire(&'static self) -> OwnedSemaphorePermit {
        self.0.clone().acquire_owned().await.expect("never closed")
    }
}

/// What the other pools hold.
pub struct Thing;

/// Makes nothing but [`Thing`]s, which are always good.
pub struct Maker;

impl managed::Manager for Maker {
    type Type = Thing;
    type Error = Infallible;

    async fn create(&self) -> Result<Thing, Infallible> {
        Ok(Thing)
    }

    async fn recycle(&self, _: &mut Thing, _: &managed::Metrics) -> managed::RecycleResult<Infallible> {
        Ok(())
    }
}

impl Peer for managed::Pool<Maker> {
    type Held = managed::Object<Maker>;

    async fn acquire(&'static self) -> managed::Object<Maker> {
        self.get().await.expect("never closed")
    }
}

impl Peer for unmanaged::Pool<Thing> {
    type Held = unmanaged::Object<Thing>;

    async fn acquire(&'static self) -> unmanaged::Object<Thing> {
        self.get().await.expect("never closed")
    }
}

impl bb8::ManageConnection for Maker {
    type Connection = Thing;
    type Error = Infallible;

    async fn connect(&self) -> Result<Thing, Infallible> {
        Ok(Thing)
    }

    async fn is_valid(&self, _: &mut Thing) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Thing) -> bool {
        false
    }
}

impl Peer for bb8::Pool<Maker> {
    type Held = bb8::PooledConnection<'static, Maker>;

    async fn acquire(&'static self) -> Self::Held {
        self.get().await.expect("made without errors")
    }
}

/// A pool of `size`, with all that it will hold.
pub async fn bb8(size: u32) -> Result<bb8::Pool<Maker>> {
    let builder = bb8::Pool::builder().max_size(size).min_idle(size);
    Ok(builder.build(Maker).await?)
}

/// A pool of `size`, with all that it will hold.
pub async fn deadpool(size: usize) -> Result<managed::Pool<Maker>> {
    let pool = managed::Pool::builder(Maker).max_size(size).build()?;
    let mut held = Vec::new();
    for _ in 0..size {
        held.push(pool.get().await?);
    }
    Ok(pool)
}

/// One origin of a pool, its sessions open.
pub struct Sessions {
    pub pool: H2Pool,
    pub key: Origin,
}

impl Peer for Sessions {
    type Held = Lease;

    async fn acquire(&'static self) -> Lease {
        self.pool.acquire(&self.key).await.expect("an open session")
    }
}

/// The readiness of its service: a clone that is ready.
pub struct Readiness(pub OriginPool);

impl Peer for Readiness {
    type Held = OriginPool;

    async fn acquire(&'static self) -> OriginPool {
        let mut service = self.0.clone();
        service.ready().await.expect("an open pool");
        service
    }
}

impl Sessions {
    /// Opens as many sessions as `config` allows, over in-memory IO to the canned peer, and waits for their SETTINGS.
    pub async fn open(config: PoolConfig) -> Result<Self> {
        let (sessions, streams) = (config.max_sessions, config.streams_per_session);
        let (connector, mut listener) = memory::pair::<Origin>();
        tokio::spawn(async move {
            while let Some(dial) = listener.accept().await {
                tokio::spawn(canned::serve(dial.accept(Version::HTTP_2)));
            }
        });
        let pool = H2Pool::builder().config(config).connector(connector).build()?;
        let key: Origin = "https://example.com".parse()?;
        // The first tells the pool what an origin of this kind allows, and the others follow.
        pool.get(&"https://example.com/".parse()?).await?;
        for _ in 0..10_000 {
            pool.warm(&key, sessions)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            let open = pool.sessions();
            if open.len() == sessions && open.iter().all(|session| session.limit == streams) {
                return Ok(Self { pool, key });
            }
        }
        let open = pool.stats().sessions_active;
        None.with_context(|| format!("{open} of {sessions} sessions are open"))
    }

    /// Adds idle origins until there are so many in all.
    pub fn with_origins(self, count: usize) -> Result<Self> {
        for n in 1..count {
            self.pool
                .warm(&format!("https://host-{n}.example.com").parse()?, 0)?;
        }
        let known = self.pool.stats().origins;
        ensure!(known == count, "{known} origins of {count} are known");
        Ok(self)
    }
}
