//! h2pool: a bounded, fair and cancel-safe HTTP/2 client pool.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod clock;
mod config;
pub mod connect;
mod error;
mod metrics;
mod origin;
mod pool;
mod session;
#[allow(unreachable_pub, reason = "other crates include it by path")]
mod state;
mod stats;
mod sync;

pub use builder::Builder;
pub use config::{Balance, PoolConfig};
pub use connect::Connect;
pub use error::Error;
pub use origin::{Key, Origin};
pub use pool::{H2Pool, Lease, OriginPool, RequestBody, ResponseFuture};
pub use session::{Body, ConnectionInfo, Protocol};
pub use stats::{SessionFilter, SessionInfo, SessionProtocol, SessionState, SessionsClosed, Stats};
