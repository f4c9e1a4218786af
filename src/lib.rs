//! h2pool: a bounded, fair and cancel-safe HTTP/2 client pool.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod clock;
mod config;
pub mod connect;
mod error;
mod metrics;
mod origin;
#[allow(dead_code, unused_imports)]
mod session;
#[allow(dead_code)]
mod state;
mod sync;
#[allow(dead_code, unused_imports)]
mod stats;

pub use builder::Builder;
pub use config::{Balance, PoolConfig};
pub use connect::Connect;
pub use error::Error;
pub use origin::{Key, Origin};
pub use stats::{SessionFilter, SessionInfo, SessionProtocol, SessionState, SessionsClosed, Stats};
