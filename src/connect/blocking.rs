//! Work that blocks, kept off the async threads and bounded.
//!
//! A queue of jobs stands in front of tokio's blocking threads. A place travels into the job, so that a caller that
//! gives up frees it only when its job has really ended: a resolver that hangs holds at most `threads` threads
//! however many dials time out on it. A job that has not started when its caller leaves is withdrawn. Whoever ends starts
//! the next: it is jobs that queue and not their callers, one of whose runtimes may stand still.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Connect, Connection, Offer};
use crate::error::Error;
use crate::sync::Mutex;

/// How many blocking jobs run at once unless told otherwise.
pub(crate) const DEFAULT_BLOCKING_THREADS: usize = 200;

/// A bound on blocking jobs; clones share it.
#[derive(Clone)]
pub(crate) struct BlockingPool {
    places: Arc<Mutex<Places>>,
}

/// Gives a job to the threads of its caller's runtime.
type Start = Box<dyn FnOnce(Place) + Send>;

struct Places {
    free: usize,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Start>,
    came: u64,
}

/// The right to run one job. Dropped, it goes to the next.
struct Place {
    pool: BlockingPool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.places.lock().free += 1;
        self.pool.start_next();
    }
}

/// A place in the queue. Dropped, it is given up.
struct Turn<'a> {
    pool: &'a BlockingPool,
    number: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // What it holds is the caller's, and dropped after the unlock.
        let _withdrawn = self.pool.places.lock().waiting.remove(&self.number);
    }
}

impl BlockingPool {
    /// A pool of at least one thread.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            places: Arc::new(Mutex::new(Places {
                free: threads.max(1),
                waiting: BTreeMap::new(),
                came: 0,
            })),
        }
    }

    /// Runs a job, first come, first served.
    ///
    /// # Errors
    /// When the job panics or the runtime is shutting down.
    ///
    /// # Cancel safety
    /// A job that has started runs to its end and keeps its place until then; one that has not is never run.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (report, started) = oneshot::channel();
        let runtime = Handle::current();
        let start = move |place: Place| {
            let task = runtime.spawn_blocking(move || {
                let _place = place;
                job()
            });
            // If nobody waits any more, the job is withdrawn with this.
            let _ = report.send(Job { task });
        };
        let turn = self.queue(Box::new(start));
        self.start_next();
        let started = started.await.map_err(io::Error::other)?;
        drop(turn);
        started.await
    }

    fn queue(&self, start: Start) -> Turn<'_> {
        let mut places = self.places.lock();
        places.came += 1;
        let number = places.came;
        places.waiting.insert(number, start);
        Turn { pool: self, number }
    }

    /// Starts the job that came first, if there is a place for it.
    fn start_next(&self) {
        let mut places = self.places.lock();
        if places.free == 0 {
            return;
        }
        let Some((_, start)) = places.waiting.pop_first() else {
            return;
        };
        places.free -= 1;
        drop(places);
        start(Place { pool: self.clone() });
    }
}

/// A job that is withdrawn when nobody waits for it any more.
struct Job<T> {
    task: JoinHandle<T>,
}

impl<T> Future for Job<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        Pin::new(&mut self.task).poll(cx).map_err(io::Error::other)
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes connections by a function that blocks; see [`blocking`].
#[derive(Clone)]
pub struct Blocking<F> {
    function: Arc<F>,
    pool: BlockingPool,
}

/// Makes a connector from a function that blocks, run on a bounded number of blocking threads (default 200).
///
/// The threads are tokio's (`runtime::Builder::max_blocking_threads`, default 512): a runtime with fewer lets fewer
/// run at once. The runtime's context is entered there, so that `tokio::net::TcpStream::from_std` works.
///
/// ```
/// use h2pool::connect::{Connection, blocking};
/// use h2pool::{Error, Key, Origin};
///
/// let connector = blocking(|key: &Origin, _offer| {
///     let open = || {
///         let stream = std::net::TcpStream::connect((key.host(), key.port()))?;
///         stream.set_nonblocking(true)?;
///         tokio::net::TcpStream::from_std(stream)
///     };
///     Ok(Connection::new(open().map_err(Error::connect)?, http::Version::HTTP_11))
/// })
/// .threads(32);
/// # fn check(_: impl h2pool::Connect<Origin>) {}
/// # check(connector);
/// ```
pub fn blocking<O, F>(function: F) -> Blocking<F>
where
    F: Fn(&O, Offer) -> Result<Connection, Error> + Send + Sync + 'static,
{
    Blocking {
        function: Arc::new(function),
        pool: BlockingPool::new(DEFAULT_BLOCKING_THREADS),
    }
}

impl<F> Blocking<F> {
    /// How many calls run at once; further ones wait their turn, within `connect_timeout`. Default 200, at least 1.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.pool = BlockingPool::new(threads);
        self
    }
}

impl<O, F> Connect<O> for Blocking<F>
where
    O: Clone + Send + 'static,
    F: Fn(&O, Offer) -> Result<Connection, Error> + Send + Sync + 'static,
{
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
        let (function, pool, key) = (self.function.clone(), self.pool.clone(), key.clone());
        async move {
            pool.run(move || function(&key, offer))
                .await
                .map_err(Error::connect)?
        }
    }
}

impl<F> fmt::Debug for Blocking<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").finish_non_exhaustive()
    }
}
