//! A hostile or broken server must not win (P44, RFC 9113 §10.5).
//!
//! Every case plays a bad server frame by frame, in memory, and asks the same of the pool: each request ends with an
//! answer or a clear error in its time; what the server could make the client take in is bounded, and so are the
//! connections; a second origin of the same pool is served all the while; and once the server behaves, it is used
//! again. Cases about time run on a paused clock, so that a minute takes no time; floods run on the real one.

mod arena;
mod cancels;
mod data;
mod eof;
mod floods;
mod frames;
#[cfg(feature = "http1")]
mod h1;
mod headers;
#[cfg(feature = "http1")]
mod poison;
mod resets;
mod sessions;
mod settings;
mod slow;
#[path = "../support/mod.rs"]
mod support;
