//! What the benchmarks of `h2pool` share: a server in a process of its own, the transports that are compared, and a peer
//! in memory that costs next to nothing.

pub mod canned;
pub mod closed_loop;
pub mod server;
pub mod stats;
pub mod transport;
