//! What is told to `tracing`: the events and fields that the documentation promises.
//!
//! A program of its own, in which every test has a subscriber: tracing remembers for each event whether anybody wants it,
//! and a test without a subscriber beside these would make it remember that nobody does.

mod events;
#[path = "../retry/mock.rs"]
#[allow(dead_code, reason = "the tests of the retry layer use the rest")]
mod mock;
mod poll;
mod pool;
mod retry;
#[path = "../support/mod.rs"]
mod support;
