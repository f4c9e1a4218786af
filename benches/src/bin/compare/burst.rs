//! Cold bursts against a server that takes 20 ms for an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use h2pool::PoolConfig;
use h2pool_benches::server::{Server, Settings};
use h2pool_benches::stats::median;
use h2pool_benches::transport::{self, Bare, Transport};
use http::Uri;
use tokio::task::JoinSet;

use super::Options;

#[derive(Args, Debug)]
pub(crate) struct Burst {
    #[arg(long, default_value_t = 1_000)]
    requests: usize,
    /// The server's limit on streams.
    #[arg(long, default_value_t = 128)]
    streams: u32,
}

/// The wall times of one transport in milliseconds, and the connections that it opened.
#[derive(Default)]
struct Times {
    wall: Vec<f64>,
    connections: u64,
}

pub(crate) async fn compare(command: &Burst, options: &Options) -> Result<()> {
    let server = Server::start(Settings {
        streams: command.streams,
        delay: Duration::from_millis(20),
    })?;
    let uri: Uri = server.url("/").parse()?;
    let config = PoolConfig::default().max_waiters(0);
    let (mut hyper, mut four, mut eight, mut bare) = (
        Times::default(),
        Times::default(),
        Times::default(),
        Times::default(),
    );
    for _ in 0..options.rounds {
        hyper
            .wall
            .push(burst(transport::hyper_util(&server, true)?, &uri, command.requests).await?);
        hyper.connections = 1;
        for (times, sessions) in [(&mut four, 4), (&mut eight, 8)] {
            let pool = transport::pool(&server, config.clone().max_sessions(sessions))?;
            times
                .wall
                .push(burst(pool.clone(), &uri, command.requests).await?);
            times.connections = times.connections.max(pool.stats().sessions_opened);
        }
        let warm = Bare::open(&server, 8, 16_384).await?;
        bare.wall.push(burst(warm, &uri, command.requests).await?);
        bare.connections = 8;
    }
    println!(
        "{} requests of 20 ms at once, at most {} streams",
        command.requests, command.streams
    );
    println!(
        "{:<20} {:>8} {:>11} {:>11} {:>12}",
        "transport", "ms", "/hyper-util", "/bare-8", "connections"
    );
    for (name, times) in [
        ("hyper-util", &hyper),
        ("h2pool (default 4)", &four),
        ("h2pool (8 sessions)", &eight),
        ("bare-8, warm", &bare),
    ] {
        let ratio = |to: &Times| median(times.wall.iter().zip(&to.wall).map(|(a, b)| a / b));
        println!(
            "{name:<20} {:>8.1} {:>11.3} {:>11.3} {:>12}",
            median(times.wall.iter().copied()),
            ratio(&hyper),
            ratio(&bare),
            times.connections
        );
    }
    Ok(())
}

/// Milliseconds until the last answer.
async fn burst(transport: impl Transport, uri: &Uri, requests: usize) -> Result<f64> {
    let transport = Arc::new(transport);
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..requests {
        let (transport, uri) = (transport.clone(), uri.clone());
        tasks.spawn(async move { transport.get(&uri).await });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
