//! Work that blocks, kept off the async threads and bounded.
//!
//! A queue of jobs stands in front of tokio's blocking threads. A place travels into the job, so that a caller that
//! gives up frees it only when its job has really ended: a resolver that hangs holds at most `threads` threads
//! however many dials time out on it. A job that has not started when its caller leaves is withdrawn. Whoever ends starts
//! the next: it is jobs that queue and not their callers, one of whose runtimes may stand still.
//!
//! A runtime that has ended drops the job given to it within that very call, and its place with it. Only one thread
//! starts jobs at a time, in a loop: a place that comes free meanwhile is the loop's, and nothing recurses.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    /// Somebody starts jobs, and looks again after each.
    starting: bool,
}

/// The right to run one job. Dropped, it goes to the next.
struct Place {
    pool: BlockingPool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.places.lock().free += 1;
        self.pool.start_waiting();
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
                starting: false,
            })),
        }
    }

    /// Runs a job, first come, first served.
    ///
    /// # Errors
    /// When the job panics, the runtime is shutting down, or the system has no thread for it.
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
        self.start_waiting();
        let started = started
            .await
            .map_err(|_| io::Error::other("the runtime has no thread for a blocking job"))?;
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

    /// Starts the jobs for which there are places, in their order.
    fn start_waiting(&self) {
        let mut places = self.places.lock();
        if places.starting {
            return;
        }
        while places.free > 0 {
            let Some((_, start)) = places.waiting.pop_first() else {
                break;
            };
            places.free -= 1;
            places.starting = true;
            drop(places);
            let place = Place { pool: self.clone() };
            // tokio panics where the system has no thread. The job's own caller hears of it, and nobody else.
            drop(catch_unwind(AssertUnwindSafe(|| start(place))));
            places = self.places.lock();
            places.starting = false;
        }
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::runtime::Runtime;

    use super::*;

    fn runtime() -> Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    }

    /// A pool of one thread that is busy until the sender is dropped.
    fn busy(runtime: &Runtime) -> (BlockingPool, mpsc::Sender<()>) {
        let pool = BlockingPool::new(1);
        let (release, released) = mpsc::channel::<()>();
        let job = pool.clone();
        runtime.spawn(async move { job.run(move || released.recv().unwrap_err()).await });
        runtime.block_on(tokio::task::yield_now());
        assert_eq!(pool.places.lock().free, 0);
        (pool, release)
    }

    /// Fails the test where the pool runs no job any more.
    fn assert_runs_a_job(pool: &BlockingPool, runtime: &Runtime) {
        let job = async { tokio::time::timeout(Duration::from_secs(20), pool.run(|| 7)).await };
        assert_eq!(runtime.block_on(job).expect("it ran").unwrap(), 7);
    }

    #[test]
    fn a_job_of_a_runtime_that_stands_still_holds_up_no_other() {
        // P36, P38: its own threads run it, whoever may look at what it returns.
        let (still, lively) = (runtime(), runtime());
        let (pool, release) = busy(&lively);
        let mut queued = pin!(pool.run(|| 6));
        still.block_on(async { assert!(queued.as_mut().now_or_never().is_none()) });
        drop(release);
        assert_runs_a_job(&pool, &lively);
        assert_eq!(still.block_on(queued).unwrap(), 6);
    }

    #[test]
    fn jobs_of_a_runtime_that_has_ended_fail_and_make_room() {
        // P36, P38: each gives its place to the next while it is started; by recursion, so many would take all the stack.
        let (ended, lively) = (runtime(), runtime());
        let (pool, release) = busy(&lively);
        let mut queued: Vec<_> = (0..50_000).map(|_| Box::pin(pool.run(|| ()))).collect();
        ended.block_on(async {
            for job in &mut queued {
                assert!(job.as_mut().now_or_never().is_none());
            }
        });
        drop(ended);
        drop(release);
        assert_runs_a_job(&pool, &lively);
        for job in queued {
            job.now_or_never().expect("it was started").unwrap_err();
        }
        let places = pool.places.lock();
        assert_eq!((places.free, places.waiting.len()), (1, 0));
    }

    #[test]
    fn a_start_that_panics_is_its_own_callers_business() {
        // P8: as tokio's does where the system has no thread; here while another job's panic unwinds.
        let runtime = runtime();
        let pool = BlockingPool::new(1);
        let (enter, entered) = mpsc::channel::<()>();
        let bad = pool.run(move || {
            entered.recv().unwrap_err();
            panic!("on purpose");
        });
        let mut bad = pin!(bad);
        runtime.block_on(async { assert!(bad.as_mut().now_or_never().is_none()) });
        let _turn = pool.queue(Box::new(|_place| panic!("no thread, on purpose")));
        drop(enter);
        assert_runs_a_job(&pool, &runtime);
        runtime.block_on(bad).unwrap_err();
    }
}
