//! One round: sends all requests and takes the times.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use crate::clock::{Instant, now};
use crate::transport::{Answer, Transport};

/// Time after which a request counts as failed; above every timeout of the transports themselves.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What is sent in a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) requests: usize,
    pub(crate) concurrency: usize,
    /// The length that an answer must have, where it is known.
    pub(crate) body_bytes: Option<usize>,
}

/// What came of a round.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ok: usize,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<anyhow::Error>,
    /// Of the answered requests, in microseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) wall: Duration,
}

/// Sends the requests of one round.
///
/// Each of `concurrency` tasks sends one request after another. A latency counts from the moment at which the task was
/// free to send (for the first ones the start of the round), so that time spent waiting for the processor is in it.
pub(crate) async fn run<T: Transport>(transport: Arc<T>, load: Load, bar: ProgressBar) -> Result<Outcome> {
    let left = Arc::new(AtomicUsize::new(load.requests));
    let start = now();
    // Spawned from a task, so that the tasks start from the runtime's own queue.
    let senders = tokio::spawn(async move {
        let mut senders = JoinSet::new();
        for _ in 0..load.concurrency {
            senders.spawn(send(transport.clone(), load, left.clone(), start, bar.clone()));
        }
        senders.join_all().await
    });
    let mut outcome = Outcome {
        ok: 0,
        errors: 0,
        first_error: None,
        latency: Histogram::new(3)?,
        wall: Duration::ZERO,
    };
    for sent in senders.await?.into_iter().flatten() {
        outcome.wall = outcome.wall.max(sent.end - start);
        match sent.result {
            Ok(latency) => {
                outcome.ok += 1;
                outcome.latency.record(u64::try_from(latency.as_micros())?)?;
            }
            Err(error) => {
                outcome.errors += 1;
                outcome.first_error.get_or_insert(error);
            }
        }
    }
    Ok(outcome)
}

/// One request that has ended.
struct Sent {
    end: Instant,
    result: Result<Duration>,
}

async fn send<T: Transport>(
    transport: Arc<T>,
    load: Load,
    left: Arc<AtomicUsize>,
    start: Instant,
    bar: ProgressBar,
) -> Vec<Sent> {
    let mut free = start;
    let mut sent = Vec::with_capacity(load.requests / load.concurrency);
    while left
        .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok()
    {
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, transport.get()).await;
        let end = now();
        let result = answer
            .context("no answer in time")
            .and_then(|answer| check(answer?, load.body_bytes));
        sent.push(Sent {
            end,
            result: result.map(|()| end - free),
        });
        free = end;
        bar.inc(1);
    }
    sent
}

fn check(answer: Answer, body_bytes: Option<usize>) -> Result<()> {
    let good = answer.status.is_success() || answer.status.is_redirection();
    ensure!(good, "answered with {}", answer.status);
    if let Some(expected) = body_bytes {
        ensure!(
            answer.body_bytes == expected,
            "{} of {expected} bytes",
            answer.body_bytes
        );
    }
    Ok(())
}
