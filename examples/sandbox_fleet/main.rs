//! A fleet of sandboxes that all wake at once, and a client that loses nothing and does nothing twice.
//!
//! ```text
//! cargo run --release --example sandbox_fleet                # needs no argument and no network
//! cargo run --release --example sandbox_fleet -- --seed 7
//! ```
//!
//! The embedded [`gateway`] speaks HTTP/2 over TLS and holds the sandboxes on standby. One that is touched resumes over 1
//! to 3 s, in which the gateway answers 425, 429, 502, 503 or 504, or resets the stream; at all times it now and then
//! refuses a stream, loses an answer, or says GOAWAY.
//!
//! The client ([`fleet`]) creates all sandboxes at once, waits for each to be ready (`poll`), writes to it and reads from
//! it, through `ServiceBuilder`, `RetryPolicy` and `H2Pool` ([`client`]). At the end the gateway is asked how often it
//! executed every POST. Exit code: 0 nothing lost and nothing doubled; 1 something was; 2 usage.

mod client;
mod clock;
mod fleet;
mod gateway;
mod options;
mod report;
mod tally;
mod tls;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::Parser;
use h2pool::H2Pool;
use tokio::net::TcpListener;

use client::Client;
use fleet::Outcome;
use gateway::world::World;
use options::Options;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let world = Arc::new(World::new(options.seed, options.sandboxes));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let base = format!("https://localhost:{}", listener.local_addr()?.port());
    let tls = tls::Both::new()?;
    let gateway = tokio::spawn(gateway::listen(listener, tls.server, world.clone()));

    let pool = H2Pool::builder()
        .max_sessions(options.max_sessions)
        .tls_config(tls.client)
        .build()?;
    let client = Client::new(pool.clone(), base, client::policy(options.sandboxes));
    let outcome = fleet::run(
        &client,
        options.sandboxes,
        report::Progress::new(options.sandboxes),
    )
    .await;
    report::table(options, &client, &pool.stats(), &world.ledger(), &outcome)?;
    pool.close();
    gateway.abort();
    judge(&world, &outcome)
}

/// What must hold at the end of every run.
fn judge(world: &World, outcome: &Outcome) -> Result<()> {
    let ledger = world.ledger();
    let first = outcome.failures.first();
    ensure!(
        outcome.failures.is_empty(),
        "{} failures, the first: {}",
        outcome.failures.len(),
        first.unwrap_or(&String::new())
    );
    ensure!(
        ledger.doubled() == 0,
        "{} POSTs were executed twice",
        ledger.doubled()
    );
    let posts = outcome.created + outcome.written;
    ensure!(
        ledger.executed() == posts,
        "{} POSTs were acknowledged, {} executed",
        posts,
        ledger.executed()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use h2pool::Origin;
    use h2pool::connect::memory;
    use h2pool::retry::RetryPolicy;
    use http::Method;

    use super::*;

    const SANDBOXES: usize = 24;

    /// The whole fleet in memory, on a paused clock: the story without sockets, TLS and waiting.
    async fn in_memory(seed: u64, policy: RetryPolicy) -> (Arc<World>, Client, Outcome) {
        let world = Arc::new(World::new(seed, SANDBOXES));
        let (connector, mut listener) = memory::pair::<Origin>();
        let accepting = world.clone();
        tokio::spawn(async move {
            while let Some(dial) = listener.accept().await {
                let io = dial.accept(http::Version::HTTP_2);
                tokio::spawn(gateway::serve(io, accepting.clone()));
            }
        });
        let pool = H2Pool::builder().connector(connector).build().unwrap();
        let client = Client::new(pool, "https://localhost".into(), policy);
        let outcome = fleet::run(&client, SANDBOXES, report::Progress::silent()).await;
        (world, client, outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_lost_and_nothing_is_done_twice() {
        // R3 R4 R5 R7 R8 R9 W1 W2 W4
        for seed in 1..=20 {
            let (world, client, outcome) = in_memory(seed, client::policy(SANDBOXES)).await;
            judge(&world, &outcome).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
            assert_eq!(outcome.created, SANDBOXES);
            assert_eq!(outcome.read, SANDBOXES * fleet::READS_EACH);
            let totals = client.tally().totals();
            assert!(
                totals.attempts > totals.requests,
                "the gateway was in a bad mood: {totals:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_careless_policy_is_found_out() {
        // R3: POST declared safe to repeat, which it is not.
        let careless = client::policy(SANDBOXES).methods([Method::GET, Method::POST]);
        let (world, _, outcome) = in_memory(1, careless).await;
        assert!(world.ledger().doubled() > 0);
        assert!(judge(&world, &outcome).is_err());

        // R8: three attempts are not enough to bridge the time that a sandbox takes.
        let impatient = client::policy(SANDBOXES)
            .max_attempts(3)
            .max_retry_after(Duration::ZERO);
        let (world, _, outcome) = in_memory(1, impatient).await;
        assert!(judge(&world, &outcome).is_err(), "{outcome:?}");
    }
}
