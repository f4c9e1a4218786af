//! Large bodies, several at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use cpu_time::ProcessTime;
use h2pool::PoolConfig;
use h2pool_benches::server::{Server, Settings};
use h2pool_benches::stats::median;
use h2pool_benches::transport::{self, Bare, Transport};
use http::Uri;
use tokio::task::JoinSet;

use super::Options;

#[derive(Args, Debug)]
pub(crate) struct Download {
    /// Bytes of each body, at most 8 MiB.
    #[arg(long, default_value_t = 8 << 20)]
    bytes: usize,
    /// How many at once.
    #[arg(long, default_value_t = 8)]
    streams: usize,
}

#[derive(Default)]
struct Figures {
    /// Megabytes a second.
    rate: Vec<f64>,
    /// Milliseconds of processor time per megabyte.
    cpu: Vec<f64>,
}

pub(crate) async fn compare(command: &Download, options: &Options) -> Result<()> {
    let server = Server::start(Settings {
        streams: 128,
        delay: Duration::ZERO,
    })?;
    let uri: Uri = server.url(&format!("/{}", command.bytes)).parse()?;
    let one = |frame| {
        let config = PoolConfig::default().max_sessions(1).max_frame_size(frame);
        transport::pool(&server, config).map(Arc::new)
    };
    let (pool_16, pool_64) = (one(16_384)?, one(65_536)?);
    let bare_16 = Arc::new(Bare::open(&server, 1, 16_384).await?);
    let bare_64 = Arc::new(Bare::open(&server, 1, 65_536).await?);
    let hyper_h2 = Arc::new(transport::hyper_util(&server, true)?);
    let hyper_h1 = Arc::new(transport::hyper_util(&server, false)?);
    let pool_h1 = Arc::new(transport::pool_h1(&server, command.streams)?);
    let names = [
        "bare, 16 KiB frames",
        "bare, 64 KiB frames",
        "h2pool, 16 KiB frames",
        "h2pool, 64 KiB frames (default)",
        "hyper-util, h2",
        "hyper-util, h1",
        "h2pool, h1",
    ];
    let mut all = names.map(|name| (name, Figures::default()));
    for round in 0..=options.rounds {
        let figures = [
            turn(&bare_16, &uri, command).await?,
            turn(&bare_64, &uri, command).await?,
            turn(&pool_16, &uri, command).await?,
            turn(&pool_64, &uri, command).await?,
            turn(&hyper_h2, &uri, command).await?,
            turn(&hyper_h1, &uri, command).await?,
            turn(&pool_h1, &uri, command).await?,
        ];
        // The first round opens connections and windows.
        if round > 0 {
            for ((_, all), (rate, cpu)) in all.iter_mut().zip(figures) {
                all.rate.push(rate);
                all.cpu.push(cpu);
            }
        }
    }
    println!(
        "{} × {} bytes on one connection (h1: one each)",
        command.streams, command.bytes
    );
    println!(
        "{:<32} {:>8} {:>10} {:>12} {:>10}",
        "transport", "MB/s", "ms CPU/MB", "/bare 64 KiB", "/hyper h2"
    );
    let (bare, hyper) = (all[1].1.rate.clone(), all[4].1.rate.clone());
    for (name, figures) in &all {
        let ratio = |to: &[f64]| median(figures.rate.iter().zip(to).map(|(a, b)| a / b));
        println!(
            "{name:<32} {:>8.0} {:>10.3} {:>12.3} {:>10.3}",
            median(figures.rate.iter().copied()),
            median(figures.cpu.iter().copied()),
            ratio(&bare),
            ratio(&hyper),
        );
    }
    Ok(())
}

async fn turn<T: Transport>(transport: &Arc<T>, uri: &Uri, command: &Download) -> Result<(f64, f64)> {
    let (began, cpu) = (Instant::now(), ProcessTime::now());
    let mut tasks = JoinSet::new();
    for _ in 0..command.streams {
        let (transport, uri) = (transport.clone(), uri.clone());
        tasks.spawn(async move { transport.get(&uri).await });
    }
    let mut total = 0;
    while let Some(task) = tasks.join_next().await {
        total += task??;
    }
    ensure!(total == command.bytes * command.streams, "{total} bytes came");
    let megabytes = total as f64 / 1e6;
    Ok((
        megabytes / began.elapsed().as_secs_f64(),
        cpu.elapsed().as_secs_f64() * 1e3 / megabytes,
    ))
}
