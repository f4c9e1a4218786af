//! The closed loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
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
    /// Bytes of each request's body.
    #[arg(long, default_value_t = 0)]
    upload: usize,
    /// Over HTTP/1.1.
    #[arg(long)]
    h1: bool,
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
    fn new(name: &'static str, transport: impl Transport, of: &Turns) -> Self {
        let (transport, of) = (Arc::new(transport), of.clone());
        Self {
            name,
            turn: Box::new(move || {
                let (transport, of) = (transport.clone(), of.clone());
                Box::pin(async move {
                    closed_loop::run(transport, &of.uri, &of.upload, of.callers, of.time).await
                })
            }),
            rounds: Vec::new(),
        }
    }
}

/// What each does in its turn.
#[derive(Clone)]
struct Turns {
    uri: Uri,
    upload: Bytes,
    callers: usize,
    time: Duration,
}

pub(crate) async fn compare(command: &Loop, options: &Options) -> Result<()> {
    let server = Server::start(Settings {
        streams: 1024,
        delay: Duration::ZERO,
    })?;
    let turns = Turns {
        uri: server.url(&format!("/{}", command.body)).parse()?,
        upload: vec![b'.'; command.upload].into(),
        callers: command.callers,
        time: Duration::from_millis(options.millis),
    };
    let mut all = if command.h1 {
        over_h1(&server, &turns)?
    } else {
        over_h2(&server, &turns).await?
    };
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
    println!("{}", title(command));
    report(&all);
    Ok(())
}

fn title(command: &Loop) -> String {
    let mut title = format!("{} in flight, bodies of {} bytes", command.callers, command.body);
    if command.upload > 0 {
        title += &format!(", uploads of {} bytes", command.upload);
    }
    if command.h1 {
        title += ", HTTP/1.1";
    }
    title
}

async fn over_h2(server: &Server, turns: &Turns) -> Result<Vec<Contestant>> {
    let frame = PoolConfig::default().max_frame_size;
    let pool = |sessions, streams| {
        let config = PoolConfig::default()
            .max_sessions(sessions)
            .streams_per_session(streams)
            .max_waiters(0);
        transport::pool(server, config)
    };
    let each = turns.callers.div_ceil(4);
    Ok(vec![
        Contestant::new("bare-1", Bare::open(server, 1, frame).await?, turns),
        Contestant::new("h2pool-1", pool(1, 1024)?, turns),
        Contestant::new("hyper-util", transport::hyper_util(server, true)?, turns),
        Contestant::new("reqwest", transport::reqwest(server, true)?, turns),
        Contestant::new("bare-4", Bare::open(server, 4, frame).await?, turns),
        Contestant::new("h2pool-4", pool(4, each)?, turns),
    ])
}

/// The first is what the others are compared to.
fn over_h1(server: &Server, turns: &Turns) -> Result<Vec<Contestant>> {
    Ok(vec![
        Contestant::new("hyper-util", transport::hyper_util(server, false)?, turns),
        Contestant::new("h2pool", transport::pool_h1(server, turns.callers)?, turns),
        Contestant::new("reqwest", transport::reqwest(server, false)?, turns),
    ])
}

fn report(all: &[Contestant]) {
    println!(
        "{:<12} {:>10} {:>8} {:>10} {:>9} {:>8} {:>8}",
        "transport", "requests/s", "µs CPU", "rate/base", "CPU/base", "p50 µs", "p99 µs"
    );
    for one in all {
        // The bare connections of as many sessions, or the first.
        let bare = all
            .iter()
            .find(|other| one.name.ends_with("-4") && other.name == "bare-4");
        let base = bare.or(all.first()).unwrap_or(one);
        let pairs = || one.rounds.iter().zip(&base.rounds);
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
