//! The closed loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use h2pool::PoolConfig;
use h2pool_benches::closed_loop::{self, Round};
use h2pool_benches::server::{Server, Settings};
use h2pool_benches::stats::median;
use h2pool_benches::transport::{self, Bare, Transport};
use http::Uri;

use super::Options;

#[derive(Args, Debug)]
pub(crate) struct Loop {
    /// Requests in flight.
    #[arg(long, default_value_t = 128)]
    callers: usize,
    /// Bytes of each response's body.
    #[arg(long, default_value_t = 0)]
    body: usize,
    /// Only these, by name.
    #[arg(long)]
    only: Vec<String>,
}

type Turn = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Round>>>>>;

struct Contestant {
    name: &'static str,
    turn: Turn,
    rounds: Vec<Round>,
}

impl Contestant {
    fn new(name: &'static str, transport: impl Transport, uri: &Uri, callers: usize, time: Duration) -> Self {
        let (transport, uri) = (Arc::new(transport), uri.clone());
        Self {
            name,
            turn: Box::new(move || {
                let (transport, uri) = (transport.clone(), uri.clone());
                Box::pin(async move { closed_loop::run(transport, &uri, callers, time).await })
            }),
            rounds: Vec::new(),
        }
    }
}

pub(crate) async fn compare(command: &Loop, options: &Options) -> Result<()> {
    let server = Server::start(Settings {
        streams: 1024,
        delay: Duration::ZERO,
    })?;
    let uri: Uri = server.url(&format!("/{}", command.body)).parse()?;
    let (callers, time) = (command.callers, Duration::from_millis(options.millis));
    let frame = PoolConfig::default().max_frame_size;
    let pool = |sessions, streams| {
        let config = PoolConfig::default()
            .max_sessions(sessions)
            .streams_per_session(streams)
            .max_waiters(0);
        transport::pool(&server, config)
    };
    let mut all = vec![
        Contestant::new(
            "bare-1",
            Bare::open(&server, 1, frame).await?,
            &uri,
            callers,
            time,
        ),
        Contestant::new("h2pool-1", pool(1, 1024)?, &uri, callers, time),
        Contestant::new(
            "hyper-util",
            transport::hyper_util(&server, true)?,
            &uri,
            callers,
            time,
        ),
        Contestant::new("reqwest", transport::reqwest(&server)?, &uri, callers, time),
        Contestant::new(
            "bare-4",
            Bare::open(&server, 4, frame).await?,
            &uri,
            callers,
            time,
        ),
        Contestant::new("h2pool-4", pool(4, callers.div_ceil(4))?, &uri, callers, time),
    ];
    if !command.only.is_empty() {
        all.retain(|one| command.only.iter().any(|name| name == one.name));
    }
    for one in &all {
        (one.turn)().await?;
    }
    for _ in 0..options.rounds {
        for one in &mut all {
            let round = (one.turn)().await?;
            one.rounds.push(round);
        }
    }
    println!("{callers} in flight, bodies of {} bytes", command.body);
    report(&all);
    Ok(())
}

fn report(all: &[Contestant]) {
    println!(
        "{:<12} {:>10} {:>8} {:>10} {:>9} {:>8} {:>8}",
        "transport", "requests/s", "µs CPU", "rate/bare", "CPU/bare", "p50 µs", "p99 µs"
    );
    for one in all {
        let base = if one.name.ends_with("-4") {
            "bare-4"
        } else {
            "bare-1"
        };
        let bare = all.iter().find(|other| other.name == base).unwrap_or(one);
        let pairs = || one.rounds.iter().zip(&bare.rounds);
        println!(
            "{:<12} {:>10.0} {:>8.2} {:>10.3} {:>9.3} {:>8.0} {:>8.0}",
            one.name,
            median(one.rounds.iter().map(|round| round.rate)),
            median(one.rounds.iter().map(|round| round.cpu)),
            median(pairs().map(|(a, b)| a.rate / b.rate)),
            median(pairs().map(|(a, b)| a.cpu / b.cpu)),
            median(one.rounds.iter().map(|round| round.latency.0)),
            median(one.rounds.iter().map(|round| round.latency.1)),
        );
    }
}
