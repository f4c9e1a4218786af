//! The pool over real loopback TLS, against a counting server.

#[path = "../support/mod.rs"]
mod support;

mod smoke;
