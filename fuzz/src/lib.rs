//! The core of h2pool, compiled where there is neither tokio nor h2: whatever I/O or clock crept into it would break
//! this build.

#[path = "../../src/state/mod.rs"]
#[allow(dead_code)] // What the simulation does not call, the pool does.
pub mod state;
