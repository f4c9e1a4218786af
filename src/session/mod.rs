//! One connection to a server.
//!
//! `h2.rs` and `h2_driver.rs` are the session and its task, `exchange.rs`, `upload.rs` and `body.rs` a request on it,
//! `classify.rs` says what errors mean, `meter/` counts what passes, `h1.rs` is the HTTP/1.1 kind. Sessions report to
//! an [`link::Observer`] and know nothing of pools.

mod body;
mod classify;
mod exchange;
#[cfg(any())]
mod h1;
#[cfg(any())]
mod h1_body;
mod h2;
mod h2_driver;
mod head;
pub(crate) mod link;
pub(crate) mod meter;
mod outgoing;
mod upload;

pub use body::Body;
pub(crate) use exchange::{Patience, send as send_h2};
pub(crate) use h2::{Control as H2Control, H2, killed};
pub(crate) use h2_driver::{Driver as H2Driver, Tuning, drive as drive_h2, handshake as handshake_h2};
pub use head::Protocol;
pub use link::ConnectionInfo;
pub(crate) use outgoing::Outgoing;
