//! What the benchmarks of `h2pool` share: a server in a process of its own, the transports that are compared, a peer in
//! memory that costs next to nothing, and what `acquire` is compared with.

pub mod acquire;
pub mod canned;
pub mod closed_loop;
pub mod peers;
pub mod pipe;
pub mod server;
pub mod stats;
pub mod transport;
