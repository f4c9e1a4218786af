//! One connection to a server.
//!
//! `h2.rs` and `h2_driver.rs` are the session and its task, `ping.rs`, `keep_alive.rs`, `window.rs` and `writing.rs` what
//! the task watches by itself, `exchange.rs` and `upload.rs` a request on it, `h2_body.rs` and `held.rs` its response,
//! `tail.rs` its slot, `classify.rs` says what errors mean, `meter/` counts what passes; the files `h1*.rs` are the same
//! for HTTP/1.1.
//! Sessions report to an [`link::Observer`] and know nothing of pools.

mod alive;
mod body;
mod bound;
mod classify;
mod exchange;
#[cfg(feature = "http1")]
mod h1;
#[cfg(feature = "http1")]
mod h1_body;
#[cfg(feature = "http1")]
mod h1_driver;
#[cfg(feature = "http1")]
mod h1_exchange;
#[cfg(feature = "http1")]
mod h1_head;
#[cfg(feature = "http1")]
mod h1_held;
#[cfg(all(test, feature = "http1"))]
mod h1_tests;
#[cfg(feature = "http1")]
mod h1_upload;
mod h2;
mod h2_body;
mod h2_driver;
mod head;
mod held;
mod interim;
mod keep_alive;
pub(crate) mod link;
pub(crate) mod meter;
mod outgoing;
mod ping;
mod tail;
mod upload;
mod wear;
mod window;
mod writing;

pub use body::Body;
pub(crate) use exchange::{Patience, Sending as H2Sending};
#[cfg(feature = "http1")]
pub(crate) use h1::H1;
#[cfg(feature = "http1")]
pub(crate) use h1_driver::{H1Driver, drive as drive_h1, handshake as handshake_h1};
#[cfg(feature = "http1")]
pub(crate) use h1_exchange::Sending as H1Sending;
pub(crate) use h2::{Control as H2Control, H2, killed};
pub(crate) use h2_driver::{Driver as H2Driver, Tuning, drive as drive_h2, handshake as handshake_h2};
pub use head::Protocol;
pub(crate) use head::{needs_settings, unusable};
pub(crate) use keep_alive::KeepAlive;
pub use link::ConnectionInfo;
pub(crate) use outgoing::Outgoing;
pub(crate) use window::Sizes;
