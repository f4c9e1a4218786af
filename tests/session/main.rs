//! What happens on one HTTP/2 session, seen from both ends: a pool in memory on a paused clock, against a peer that
//! speaks frame by frame.

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod bodies;
mod early;
mod endings;
mod flow;
mod frames;
mod keep_alive;
mod path;
mod small_bodies;
mod storms;
mod tunnel;
mod uploads;
mod windows;
mod writes;
