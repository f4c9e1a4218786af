//! What is done with the fleet: for every sandbox, all at the same time, create it, write to it, read from it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2pool::poll::SharedWait;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::clock;
use crate::report::Progress;

/// Files written to every sandbox, and how often its first file is read besides.
const FILES: usize = 4;
const READS: usize = 4;

/// Reads of every sandbox, when all goes well.
#[cfg(test)]
pub(crate) const READS_EACH: usize = 1 + READS + FILES;

/// How long a sandbox may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) created: usize,
    pub(crate) written: usize,
    pub(crate) read: usize,
    /// From the creation of each sandbox until it was ready.
    pub(crate) ready: Vec<Duration>,
    /// Operations that failed, reads that brought something else than was written.
    pub(crate) failures: Vec<String>,
}

/// One sandbox's tasks.
struct Sandbox {
    number: usize,
    client: Client,
    /// Its writer and its reader wait for it with one poll.
    ready: SharedWait<Bytes>,
    outcome: Arc<Mutex<Outcome>>,
    progress: Progress,
}

/// Does everything, with all sandboxes at once.
pub(crate) async fn run(client: &Client, sandboxes: usize, progress: Progress) -> Outcome {
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let mut tasks = JoinSet::new();
    for number in 0..sandboxes {
        let sandbox = Sandbox::new(number, client.clone(), outcome.clone(), progress.clone());
        tasks.spawn(async move { sandbox.live().await });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            outcome.lock().failures.push(error.to_string());
        }
    }
    progress.finish();
    std::mem::take(&mut outcome.lock())
}

impl Sandbox {
    fn new(number: usize, client: Client, outcome: Arc<Mutex<Outcome>>, progress: Progress) -> Self {
        let asking = client.clone();
        let ready = SharedWait::new(
            move |round| {
                let client = asking.clone();
                async move { client.status(number, round).await }
            },
            |status: &Bytes| status == "ready",
        );
        Self {
            number,
            client,
            ready,
            outcome,
            progress,
        }
    }

    async fn live(self) {
        let began = clock::now();
        if let Err(error) = self.client.create(self.number).await {
            return self.failed(error.context("create"));
        }
        self.outcome.lock().created += 1;
        tokio::join!(self.write(), self.read(began), self.read_early());
        for file in 1..=FILES {
            self.expect(file, content(self.number, file)).await;
        }
        self.progress.done();
    }

    /// The first file is written though the sandbox still wakes, the others when it is ready.
    async fn write(&self) {
        for file in 1..=FILES {
            if file == 2 {
                // The reader reports it if the wait fails.
                let _ = self.ready.wait(PATIENCE).await;
            }
            match self
                .client
                .write(self.number, file, content(self.number, file))
                .await
            {
                Ok(()) => self.outcome.lock().written += 1,
                Err(error) => self.failed(error.context("write")),
            }
        }
    }

    /// Every sandbox has a file 0 to begin with.
    async fn read(&self, began: clock::Instant) {
        match self.ready.wait(PATIENCE).await {
            Ok(_) => self.outcome.lock().ready.push(clock::now() - began),
            Err(error) => self.failed(anyhow::Error::new(error).context("wait")),
        }
        self.progress.ready();
        for _ in 0..READS {
            self.expect(0, content(self.number, 0)).await;
        }
    }

    /// Reads though the sandbox still wakes: the retry layer alone bridges the time.
    async fn read_early(&self) {
        self.expect(0, content(self.number, 0)).await;
    }

    async fn expect(&self, file: usize, expected: Bytes) {
        let read = async {
            let read = self.client.read(self.number, file).await?;
            ensure!(read == expected, "{read:?} instead of {expected:?}");
            Ok(())
        };
        let read: Result<()> = read.await;
        match read.with_context(|| format!("read of file {file}")) {
            Ok(()) => self.outcome.lock().read += 1,
            Err(error) => self.failed(error),
        }
    }

    fn failed(&self, error: anyhow::Error) {
        let failure = format!("sandbox {}: {error:#}", self.number);
        self.outcome.lock().failures.push(failure);
    }
}

/// What a file of a sandbox holds.
pub(crate) fn content(sandbox: usize, file: usize) -> Bytes {
    format!("file {file} of sandbox {sandbox}").into()
}
