//! The pool, end to end: over real loopback TLS against counting servers, and in memory with a paused clock against
//! peers whose every frame the test decides.
#![cfg(all(feature = "tls", feature = "http1"))]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod capacity;
mod chaos;
mod closing;
mod current_thread;
mod dialing;
mod errors;
mod fallback;
mod flow;
mod foreign;
mod h1;
mod headers;
mod leases;
mod lifecycle;
mod limits;
mod misdirected;
mod origin_service;
mod permits;
mod programs;
mod replay;
mod runtimes;
mod sharing;
mod silence;
mod smoke;
mod stats;
mod storms;
mod torn;
mod useless;
mod util;
mod waiters;
