//! HTTP/1.1 sessions against a server written by hand, in memory and on a paused clock.

mod bodies;
mod early;
mod endings;
mod fake;
mod requests;
