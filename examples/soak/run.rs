//! The course of a run.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use h2pool::{H2Pool, Origin};
use tokio::runtime::Handle;

use crate::Options;
use crate::client::{Clients, drill};
use crate::heap;
use crate::server::Server;
use crate::world::{Phase, World};

/// The first storm ends after this time, or after half of all.
const FIRST: Duration = Duration::from_secs(10);
/// What the pool may have grown between the rests.
const GROWTH: f64 = 1.1;
/// Everything that must come to pass does so within this time.
const SOON: Duration = Duration::from_secs(40);
const SESSIONS: usize = 4;
/// Requests of a drill: what the sessions take at once.
const DRILL: usize = 400;

/// An open pool keeps one timer on each runtime that uses it.
const TIMERS: usize = 1;

/// A run under way.
struct Run<'a> {
    world: &'a Arc<World>,
    pool: H2Pool,
    server: Server,
    clients: Clients,
    base: String,
    /// Tasks that run as long as the soak does: its own, and the pool's timer.
    idle_tasks: usize,
}

/// Runs the soak. What is breached is in the world's book; `Err` is a breach that ended the run.
pub(crate) async fn run(options: &Options, world: &Arc<World>) -> Result<()> {
    let before = tasks();
    let server = Server::start(Arc::clone(world), options.seed).await?;
    let pool = pool()?;
    let base = format!("http://{}", server.addr());
    let clients = Clients::start(options.clients, &pool, &base, world, options.seed);
    let mut run = Run {
        world,
        pool,
        server,
        clients,
        base,
        idle_tasks: tasks() + TIMERS,
    };
    let all = Duration::from_secs(options.seconds);
    let first = FIRST.min(all / 2);

    run.storm(first).await;
    let early = run.rest().await?;
    run.storm(all - first).await;
    let late = run.rest().await?;
    world.count_many("heap: live bytes after the first storm", as_u64(early));
    world.count_many("heap: live bytes at the end", as_u64(late));
    #[expect(clippy::cast_precision_loss, reason = "a ratio of two heaps")]
    if late as f64 > early as f64 * GROWTH {
        world.breach(format!(
            "the live heap grew from {early} to {late} bytes, more than {GROWTH} times"
        ));
    }

    run.storm(Duration::from_secs(1)).await;
    run.close().await?;
    until("all tasks to end", || {
        none(tasks().saturating_sub(before), "tasks")
    })
    .await
}

/// Tasks on the runtime that have not ended.
fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn pool() -> Result<H2Pool> {
    let pool = H2Pool::builder()
        .max_sessions(SESSIONS)
        .http2_prior_knowledge(true)
        .connect_timeout(Duration::from_secs(2))
        .acquire_timeout(Duration::from_secs(5))
        .keep_alive_interval(Duration::from_millis(500))
        .keep_alive_timeout(Duration::from_secs(2))
        .header_timeout(Duration::from_secs(5))
        .body_idle_timeout(Duration::from_secs(5))
        .write_timeout(Duration::from_secs(5))
        .max_age(Duration::from_secs(5))
        .drain_timeout(Duration::from_secs(3))
        .build()?;
    Ok(pool)
}

impl Run<'_> {
    async fn storm(&self, time: Duration) {
        self.world.turn(Phase::Storm);
        tokio::time::sleep(time).await;
    }

    /// Lets everything settle, has fresh sessions serve a drill, ends them, and returns the bytes of live heap: what
    /// outlives sessions and requests. Both rests do the same, so that what differs has leaked.
    async fn rest(&self) -> Result<usize> {
        self.world.turn(Phase::Rest);
        let (clients, server) = (&self.clients, &self.server);
        until("all requests to settle", || none(clients.busy(), "requests")).await?;
        until("the storm's sessions to go", || {
            none(server.open(), "connections")
        })
        .await?;
        let origin: Origin = self.base.parse()?;
        self.pool.warm(&origin, SESSIONS)?;
        until("fresh sessions", || {
            let stats = self.pool.stats();
            (stats.sessions_active == SESSIONS)
                .then_some(())
                .ok_or_else(|| format!("{stats:?}"))
        })
        .await?;
        drill(DRILL, &self.pool, &self.base, self.world).await;
        until("the streams to end", || {
            none(self.pool.stats().streams, "streams")
        })
        .await?;
        self.world.turn(Phase::Rest);
        until("the drill's sessions to go", || {
            let stats = self.pool.stats();
            none(
                stats.sessions_active + stats.sessions_draining + server.open(),
                "sessions and connections",
            )
        })
        .await?;
        until("the tasks to go", || {
            none(tasks().saturating_sub(self.idle_tasks), "tasks")
        })
        .await?;
        Ok(heap::live() - self.world.ledger_bytes())
    }

    /// Closes the pool while clients send.
    async fn close(&mut self) -> Result<()> {
        self.pool.close();
        let closed = tokio::time::timeout(SOON, self.pool.closed()).await;
        let stats = self.pool.stats();
        closed.with_context(|| format!("the pool did not close: {stats:?}"))?;
        if stats.sessions_active + stats.sessions_dialing + stats.sessions_draining + stats.streams > 0 {
            self.world
                .breach(format!("the pool is closed and has sessions: {stats:?}"));
        }
        self.world
            .count_many("pool: sessions opened", stats.sessions_opened);
        self.world.count_many("pool: dials failed", stats.dials_failed);
        self.world.count_many("pool: replays", stats.replays);
        self.world.count_many("pool: waits", stats.waits);
        self.world.count_many("pool: probes", stats.probes);
        self.world.turn(Phase::End);
        let ended = tokio::time::timeout(SOON, self.clients.ended()).await;
        ended.context("the clients did not end")?;
        let server = &self.server;
        until("the server's connections to close", || {
            none(server.open(), "connections")
        })
        .await?;
        server.stop();
        Ok(())
    }
}

fn none(left: usize, what: &str) -> Result<(), String> {
    if left == 0 {
        Ok(())
    } else {
        Err(format!("{left} {what} left"))
    }
}

/// Waits until it is so, or says what is instead.
async fn until(what: &str, mut is_so: impl FnMut() -> Result<(), String>) -> Result<()> {
    let mut instead = String::new();
    let poll = async {
        while let Err(now) = is_so() {
            instead = now;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let Err(_) = tokio::time::timeout(SOON, poll).await else {
        return Ok(());
    };
    bail!("waited {SOON:?} for {what}: {instead}")
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
