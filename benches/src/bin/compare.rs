//! Compares `h2pool` with its peers over loopback TLS, side by side: rounds interleaved, medians of one run.

#[path = "compare/balance.rs"]
mod balance;
#[path = "compare/burst.rs"]
mod burst;
#[path = "compare/closed.rs"]
mod closed;
#[path = "compare/download.rs"]
mod download;

use anyhow::Result;
use clap::Parser;
use h2pool_benches::server;

#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
    /// Worker threads of the client.
    #[arg(long, default_value_t = 2, global = true)]
    threads: usize,
    #[arg(long, default_value_t = 9, global = true)]
    rounds: usize,
    /// Milliseconds of one transport's turn in a round, where that is what is measured.
    #[arg(long, default_value_t = 500, global = true)]
    millis: u64,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// So many callers, each with one request at a time.
    Loop(closed::Loop),
    /// So many requests at once, on a client that has no connection yet.
    Burst(burst::Burst),
    /// Large bodies.
    Download(download::Download),
    /// `LeastLoaded` beside `Pack`.
    Balance,
}

fn main() -> Result<()> {
    if server::is_server()? {
        return Ok(());
    }
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &options.command {
            Command::Loop(command) => closed::compare(command, &options).await,
            Command::Burst(command) => burst::compare(command, &options).await,
            Command::Download(command) => download::compare(command, &options).await,
            Command::Balance => balance::compare(&options).await,
        }
    })
}
