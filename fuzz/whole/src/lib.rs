//! h2pool from arbitrary bytes: what each fuzz target does, and what must hold whatever the bytes are.

pub mod bodies;
pub mod configuration;
mod input;
pub mod replay_body;
pub mod server;
mod wire;

#[path = "../../../tests/support/peer/frame.rs"]
#[allow(dead_code)] // The tests of the pool use all of it.
mod frame;

#[path = "../../../tests/support/peer/hpack.rs"]
#[allow(dead_code)] // The same.
mod hpack;
