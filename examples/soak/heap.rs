//! The live heap of the whole process, counted by the global allocator.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes allocated now and not freed.
pub(crate) fn live() -> usize {
    HEAP.allocated()
}
