//! A closed loop: so many callers, each with one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use cpu_time::ProcessTime;
use http::Uri;
use tokio::task::JoinSet;

use crate::transport::Transport;

/// What one round came to.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Requests a second.
    pub rate: f64,
    /// Processor time of this process per request, user and system, in microseconds.
    pub cpu: f64,
    /// The 50th and the 99th percentile of the time to an answer, in microseconds.
    pub latency: (f64, f64),
}

/// Runs `callers` for `time`, each request with this body.
pub async fn run<T: Transport>(
    transport: Arc<T>,
    uri: &Uri,
    upload: &Bytes,
    callers: usize,
    time: Duration,
) -> Result<Round> {
    let stop = Arc::new(AtomicBool::new(false));
    let (began, cpu) = (Instant::now(), ProcessTime::now());
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (transport, stop, uri, upload) = (transport.clone(), stop.clone(), uri.clone(), upload.clone());
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(4096);
            while !stop.load(Relaxed) {
                let began = Instant::now();
                match upload.is_empty() {
                    true => transport.get(&uri).await?,
                    false => transport.post(&uri, upload.clone()).await?,
                };
                times.push(began.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    tokio::time::sleep(time).await;
    stop.store(true, Relaxed);
    let mut times: Vec<Duration> = Vec::new();
    while let Some(task) = tasks.join_next().await {
        times.extend(task??);
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64());
    times.sort_unstable();
    let percentile = |percent: usize| {
        let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    };
    let done = times.len() as f64;
    Ok(Round {
        rate: done / wall,
        cpu: cpu * 1e6 / done,
        latency: (percentile(50), percentile(99)),
    })
}
