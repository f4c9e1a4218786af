//! Locks and reference counts: parking_lot's and std's, or loom's when the crate is model-checked.

#[cfg(not(h2pool_loom))]
pub(crate) use parking_lot::{Mutex, RwLock};
#[cfg(not(h2pool_loom))]
pub(crate) use std::sync::Arc;

#[cfg(h2pool_loom)]
pub use loom::sync::Arc;
#[cfg(h2pool_loom)]
use loom::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// loom's mutex with parking_lot's face: nothing poisons it.
#[cfg(h2pool_loom)]
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(h2pool_loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The same for its read-write lock.
#[cfg(h2pool_loom)]
#[derive(Debug)]
pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

#[cfg(h2pool_loom)]
impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
