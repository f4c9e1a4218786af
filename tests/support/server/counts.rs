//! What the server saw: connections by protocol, requests by their `x-id`, streams at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::within;

/// The header that names a request.
pub const ID: &str = "x-id";

/// A snapshot of what was counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// TCP connections accepted, those whose TLS handshake failed included.
    pub accepted: usize,
    /// Connections whose TLS handshake failed.
    pub tls_failed: usize,
    /// Connections that got as far as HTTP, in the order of their handshakes.
    pub connections: Vec<ConnectionCounts>,
    /// Requests that reached a handler: processed, whatever the client saw of it.
    pub requests: usize,
    /// Of these, how many are running now.
    pub active: usize,
    /// The most that ran at once over all connections.
    pub max_active: usize,
    /// Requests whose client went away before the handler had answered.
    pub cancelled: usize,
    /// Requests processed by `x-id`; those without one are not here.
    pub by_id: BTreeMap<String, usize>,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnectionCounts {
    /// `h2` or `http/1.1` by ALPN; `plain` where there was none.
    pub protocol: &'static str,
    /// Not closed yet.
    pub open: bool,
    /// Requests that reached a handler.
    pub requests: usize,
    /// Of these, how many are running now.
    pub active: usize,
    /// The most that ran at once.
    pub max_active: usize,
}

impl Counts {
    /// How many connections agreed on a protocol: `h2`, `http/1.1`, `plain`.
    pub fn by_protocol(&self, protocol: &str) -> usize {
        self.connections
            .iter()
            .filter(|connection| connection.protocol == protocol)
            .count()
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.connections
            .iter()
            .filter(|connection| connection.open)
            .count()
    }

    /// The most requests that any connection ran at once.
    pub fn max_streams(&self) -> usize {
        self.connections
            .iter()
            .map(|connection| connection.max_active)
            .max()
            .unwrap_or(0)
    }

    /// How often the request with this `x-id` was processed.
    pub fn processed(&self, id: &str) -> usize {
        self.by_id.get(id).copied().unwrap_or(0)
    }

    /// The requests that were processed more than once.
    pub fn duplicates(&self) -> Vec<&str> {
        self.by_id
            .iter()
            .filter(|(_, n)| **n > 1)
            .map(|(id, _)| id.as_str())
            .collect()
    }
}

/// The counter behind the snapshots; clones count together.
#[derive(Clone, Default)]
pub struct Counter {
    inner: Arc<Mutex<Counts>>,
    changed: watch::Sender<()>,
}

impl Counter {
    /// What was counted up to now.
    pub fn snapshot(&self) -> Counts {
        self.inner.lock().clone()
    }

    /// Waits until the counts satisfy `enough`, and returns them.
    pub async fn until(&self, what: &str, enough: impl FnMut(&Counts) -> bool) -> Counts {
        within(what, self.reached(enough)).await
    }

    /// Waits, as long as it takes, until no connection is open.
    pub async fn until_closed(&self) {
        self.reached(|counts| counts.open() == 0).await;
    }

    async fn reached(&self, mut enough: impl FnMut(&Counts) -> bool) -> Counts {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let counts = self.snapshot();
            if enough(&counts) {
                return counts;
            }
            changed.changed().await.unwrap();
        }
    }

    pub fn accepted(&self) {
        self.change(|counts| counts.accepted += 1);
    }

    pub fn tls_failed(&self) {
        self.change(|counts| counts.tls_failed += 1);
    }

    pub fn connected(&self, protocol: &'static str) -> Connected {
        let mut index = 0;
        self.change(|counts| {
            index = counts.connections.len();
            counts.connections.push(ConnectionCounts {
                protocol,
                open: true,
                requests: 0,
                active: 0,
                max_active: 0,
            });
        });
        Connected {
            counter: self.clone(),
            index,
            protocol,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.inner.lock());
        self.changed.send_replace(());
    }
}

/// One open connection: counted as closed when dropped.
pub struct Connected {
    counter: Counter,
    pub index: usize,
    pub protocol: &'static str,
}

impl Connected {
    /// Counts a request; its end is the drop of what is returned. Says how often its id was seen, this time included.
    pub fn request(&self, id: Option<&str>) -> (Running, usize) {
        let mut times = 1;
        let index = self.index;
        self.counter.change(|counts| {
            counts.requests += 1;
            counts.active += 1;
            counts.max_active = counts.max_active.max(counts.active);
            let connection = &mut counts.connections[index];
            connection.requests += 1;
            connection.active += 1;
            connection.max_active = connection.max_active.max(connection.active);
            if let Some(id) = id {
                let seen = counts.by_id.entry(id.to_owned()).or_default();
                *seen += 1;
                times = *seen;
            }
        });
        let running = Running {
            counter: self.counter.clone(),
            index,
            answered: false,
        };
        (running, times)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.counter
            .change(|counts| counts.connections[self.index].open = false);
    }
}

/// One request that runs: from the handler's call until its response is sent or dropped.
pub struct Running {
    counter: Counter,
    index: usize,
    answered: bool,
}

impl Running {
    /// The handler has answered; from here on only the body is on its way.
    pub fn answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.counter.change(|counts| {
            counts.active -= 1;
            counts.connections[self.index].active -= 1;
            counts.cancelled += usize::from(!self.answered);
        });
    }
}
