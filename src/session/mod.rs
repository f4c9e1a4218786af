//! One connection to a server.

#[allow(dead_code, unused_imports, reason = "the session that uses it comes next")]
pub(crate) mod meter;
