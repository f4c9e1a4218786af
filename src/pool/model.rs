//! The part of the pool that loom checks, and nothing else of it.

pub mod lease;
pub mod members;
pub mod registry;
pub mod shared;

pub use crate::sync::Arc;
