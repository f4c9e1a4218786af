//! Measures one transport: a cold round, then a warm one.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use h2pool::PoolConfig;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::options::Kind;
use crate::round::{self, Load, Outcome};
use crate::server::{Count, Server};
use crate::target::Target;
use crate::transport::pool::Pool;
use crate::transport::{Transport, bare, hyper};

/// Pause before each round, in which the processes come to rest.
const PAUSE: Duration = Duration::from_millis(100);

/// How many pauses the server is given to close what an earlier transport opened.
const PAUSES: usize = 20;

/// Which round of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Round {
    /// No connection is open, but for those of the floor.
    Cold,
    /// The connections of the cold round are open.
    Warm,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        })
    }
}

/// One line of the results.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) transport: Kind,
    pub(crate) round: Round,
    pub(crate) requests: usize,
    pub(crate) ok: usize,
    pub(crate) errors: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) wall_ms: f64,
    /// That carried the round or were opened in it, as the server counted; with `--url`, opened by the client so far.
    pub(crate) connections: u64,
}

/// A line of the results with what stands behind it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    /// In microseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) first_error: Option<anyhow::Error>,
}

/// Measures both rounds of a transport, with a client and a runtime of its own.
pub(crate) fn measure(
    kind: Kind,
    target: &Target,
    server: Option<&mut Server>,
    load: Load,
    pool: PoolConfig,
) -> Result<Vec<Measured>> {
    let runtime = Runtime::new()?;
    let bench = Bench {
        kind,
        runtime,
        server,
        load,
    };
    match kind {
        Kind::H1 => bench.rounds(async { Ok(hyper::h1(target)) }),
        Kind::H2Single => bench.rounds(async { Ok(hyper::h2(target)) }),
        Kind::H2Bare => bench.rounds(bare::Bare::open(target)),
        Kind::H2Pool => bench.rounds(async { Pool::new(target, pool) }),
    }
}

struct Bench<'a> {
    kind: Kind,
    runtime: Runtime,
    server: Option<&'a mut Server>,
    load: Load,
}

impl Bench<'_> {
    fn rounds<T: Transport>(mut self, open: impl Future<Output = Result<T>>) -> Result<Vec<Measured>> {
        self.rest()?;
        let transport = Arc::new(self.runtime.block_on(open)?);
        [Round::Cold, Round::Warm]
            .into_iter()
            .map(|round| self.round(round, &transport))
            .collect()
    }

    /// Waits until the server has no connection of an earlier transport any more, and none that it has yet to accept.
    fn rest(&mut self) -> Result<()> {
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        for _ in 0..PAUSES {
            let count = server.next_round()?;
            if count == Count::default() {
                break;
            }
            pause(&self.runtime);
        }
        Ok(())
    }

    fn round<T: Transport>(&mut self, round: Round, transport: &Arc<T>) -> Result<Measured> {
        pause(&self.runtime);
        if let Some(server) = &mut self.server {
            server.next_round()?;
        }
        let bar = progress(self.kind, round, self.load.requests);
        let outcome = self
            .runtime
            .block_on(round::run(transport.clone(), self.load, bar.clone()))?;
        bar.finish_and_clear();
        let connections = match &mut self.server {
            Some(server) => server.next_round()?.used,
            None => transport.opened(),
        };
        Ok(self.measured(round, outcome, connections))
    }

    fn measured(&self, round: Round, outcome: Outcome, connections: u64) -> Measured {
        let quantile = |q| hundredths(outcome.latency.value_at_quantile(q) as f64 / 1e3);
        let row = Row {
            transport: self.kind,
            round,
            requests: self.load.requests,
            ok: outcome.ok,
            errors: outcome.errors,
            p50_ms: quantile(0.50),
            p90_ms: quantile(0.90),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            wall_ms: hundredths(outcome.wall.as_secs_f64() * 1e3),
            connections,
        };
        Measured {
            row,
            latency: outcome.latency,
            first_error: outcome.first_error,
        }
    }
}

fn pause(runtime: &Runtime) {
    runtime.block_on(async { tokio::time::sleep(PAUSE).await });
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A bar on a terminal, nothing elsewhere.
fn progress(kind: Kind, round: Round, requests: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:16} {wide_bar} {pos:>7}/{len} {elapsed}");
    let bar = ProgressBar::new(requests as u64).with_message(format!("{} {round}", kind.name()));
    style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style))
}
