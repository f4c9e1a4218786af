//! A gate that holds whoever comes until the test lets him pass: instead of sleeping.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::within;

/// Holds callers of [`pass`](Self::pass). Cheap to clone; clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    permits: Arc<Semaphore>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(0)),
            waiting: watch::Sender::new(0),
        }
    }
}

impl Gate {
    /// Waits until released. Dropping the future leaves the gate.
    pub async fn pass(&self) {
        let waiting = Waiting::enter(self.waiting.clone());
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
        drop(waiting);
    }

    /// Lets `n` pass, in the order in which they came; those who are not there yet count too.
    pub fn release(&self, n: usize) {
        self.permits.add_permits(n);
    }

    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        self.permits.close();
    }

    /// How many are held.
    pub fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }

    /// Waits until exactly `n` are held.
    pub async fn until_waiting(&self, n: usize) {
        let mut waiting = self.waiting.subscribe();
        let reached = async { waiting.wait_for(|now| *now == n).await.map(drop) };
        within(&format!("{n} at the gate"), reached).await.unwrap();
    }
}

/// One who is held.
struct Waiting(watch::Sender<usize>);

impl Waiting {
    fn enter(count: watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
