//! The pool, end to end: over real loopback TLS against counting servers, and in memory with a paused clock against
//! peers whose every frame the test decides.

#[path = "../support/mod.rs"]
mod support;

mod capacity;
mod dialing;
mod limits;
mod replay;
mod smoke;
mod util;
mod waiters;
