//! The core of h2pool, and what its retry layer reads in headers, compiled where there is neither tokio nor h2: whatever
//! I/O or clock crept into them would break this build. `whole/` has the targets that need the whole crate.

pub mod retry;

#[path = "../../src/state/mod.rs"]
#[allow(dead_code)] // What the simulation does not call, the pool does.
pub mod state;
