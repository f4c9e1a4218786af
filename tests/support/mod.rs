//! The fakes of the integration tests: certificates, a counting HTTP server, a scripted `h2` server and a peer that
//! speaks HTTP/2 frame by frame. Nothing here knows the pool, so that examples, benches and fuzz targets can include
//! it too (`#[path = "../tests/support/mod.rs"] mod support;`).
//!
//! | to | take |
//! | --- | --- |
//! | answer real requests and count them | [`server::Server`] (hyper; `/echo`, `/bytes/N`, `/gate`, …) |
//! | decide per stream: refuse, reset, GOAWAY, 1xx | [`scripted::Scripted`] (the `h2` crate's server) |
//! | send any frame, right or wrong | [`peer::Peer`], from [`listener::PeerListener`] or [`memory::memory`] |
//! | run with a paused clock | [`memory::memory`]: dialed and accepted in memory |
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "every test file includes all of the support and uses its own part"
)]

pub mod certs;
pub mod client;
pub mod gate;
pub mod listener;
pub mod memory;
pub mod peer;
pub mod scripted;
pub mod server;

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// How long a test waits for something that must happen: far more than it takes, so that only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A byte stream of any kind.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Awaits what must happen, and fails the test by name when it does not within [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {PATIENCE:?}: {what}"),
    }
}
