//! Proof against servers that none of us wrote, started by this program itself: nginx, Envoy, Apache, HAProxy, nghttpd,
//! Caddy, lighttpd, Varnish behind hitch, Go and Node. `scripts/install-servers` installs them.
//!
//! It has a `main` of its own rather than one test per case, so that cases with the same settings share one start of the
//! server, and so that the run ends with one table and one line.
//!
//! - `cargo test --test servers` runs all; `cargo test --test servers nginx 'go/restart'` what the words match, each
//!   being `server`, `server/case` or `/case`, with any part of the names
//! - `H2POOL_SKIP_SERVERS=caddy,envoy` leaves servers out; the last line says so
//! - `H2POOL_WRITE_TABLE=1` writes `docs/servers.md`
//! - `H2POOL_CLIENT=hyper` drives hyper-util's client instead of the pool, to tell a server's fault from ours
//! - `H2POOL_TRACE=1` prints the pool's events, `H2POOL_TRACE=h2` the frames too
//!
//! A server that cannot be started fails the run. On failure the servers' configuration and logs are left behind.

mod back_end;
mod baseline;
mod cases;
#[path = "../support/certs.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "shared with other tests, which use the rest"
)]
mod certs;
mod client;
mod context;
mod fixtures;
mod matrix;
mod pooled;
mod process;
mod report;
mod run;
mod running;
mod settings;
mod site;

use std::process::ExitCode;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::baseline::Baseline;
use crate::pooled::Pooled;
use crate::report::say;
use crate::run::Plan;

/// Any failure: of a server, a request or a check.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    trace();
    let done = match Plan::from_environment() {
        Ok(plan) if plan.baseline() => plan.carry_out::<Baseline>().await,
        Ok(plan) => plan.carry_out::<Pooled>().await,
        Err(error) => Err(error),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("servers: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints the pool's events, and with `H2POOL_TRACE=h2` the frames too.
fn trace() {
    let Ok(wanted) = std::env::var("H2POOL_TRACE") else {
        return;
    };
    let mut targets = Targets::new().with_target("h2pool", LevelFilter::TRACE);
    if wanted == "h2" {
        targets = targets.with_target("h2::codec", LevelFilter::DEBUG);
    }
    tracing_subscriber::registry()
        .with(fmt::layer().with_writer(std::io::stderr))
        .with(targets)
        .init();
}
