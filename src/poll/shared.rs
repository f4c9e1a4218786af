//! One poll for many callers.
//!
//! The loop of rounds is one future that all callers hold (`futures_util`'s `Shared`): whichever is polled drives it, and
//! all are woken when it can go on. Nothing is spawned. The last caller that leaves drops it, and the call in flight with
//! it; the next one starts another. The callers' deadlines are kept in the crew, where every round reads the longest.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::time::timeout_at;
use tower::BoxError;

use super::error::{Cause, WaitError};
use super::rounds::{self, Crew};
use super::{LongPoll, Reply, Round, deadline_in};

/// A wait for one thing that many callers share: one poll at a time, however many wait.
///
/// Clones are handles on the same poll. Each [`wait`](Self::wait) has a timeout of its own; each round is held for the
/// longest time that any caller has left when it begins. Callers come and go without disturbing the others; when the
/// last one leaves, the poll ends. They should live on one runtime, since the call's timers and connections do.
///
/// ```
/// use std::time::Duration;
/// use h2pool::poll::{Reply, SharedWait};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// let ready = SharedWait::new(
///     |round| async move { Ok::<_, std::io::Error>(Reply::Value(round.number())) },
///     |number| *number == 2,
/// );
/// let (one, two) = tokio::join!(ready.wait(Duration::from_secs(5)), ready.wait(Duration::from_secs(9)));
/// assert_eq!((one?, two?), (2, 2));
/// # Ok::<(), tower::BoxError>(())
/// # })?;
/// # Ok::<(), tower::BoxError>(())
/// ```
pub struct SharedWait<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    start: Box<Start<T>>,
    current: Mutex<Option<Current<T>>>,
}

/// The loop of rounds as one future, and what makes it.
type Poll<T> = BoxFuture<'static, Result<T, Cause>>;
type Start<T> = dyn Fn(Arc<Crew<T>>) -> Poll<T> + Send + Sync;

/// The poll under way, while anybody holds it, and its crew.
type Current<T> = (WeakShared<Poll<T>>, Arc<Crew<T>>);

impl<T: Clone + Send + Sync + 'static> SharedWait<T> {
    /// With the defaults of [`LongPoll`]; [`LongPoll::share`] is for others.
    ///
    /// `call` and `done` are as in [`wait_for_status`](super::wait_for_status). Should one of them panic, the wait ends with
    /// an error for everybody.
    pub fn new<C, F, E, D>(call: C, done: D) -> Self
    where
        C: Fn(Round) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Reply<T>, E>> + Send + 'static,
        E: Into<BoxError>,
        D: Fn(&T) -> bool + Send + Sync + 'static,
    {
        Self::with(LongPoll::new(), call, done)
    }

    pub(super) fn with<C, F, E, D>(settings: LongPoll, call: C, done: D) -> Self
    where
        C: Fn(Round) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Reply<T>, E>> + Send + 'static,
        E: Into<BoxError>,
        D: Fn(&T) -> bool + Send + Sync + 'static,
    {
        let both = Arc::new((call, done));
        let start = move |crew: Arc<Crew<T>>| {
            let (settings, both) = (settings.clone(), both.clone());
            let rounds = async move { rounds::run(&settings, &crew, &both.0, &both.1).await };
            // A panic would leave the others waiting for somebody who never wakes them.
            AssertUnwindSafe(rounds)
                .catch_unwind()
                .map(|ended| {
                    ended.unwrap_or_else(|_| Err(Cause::from(BoxError::from("the shared call panicked"))))
                })
                .boxed()
        };
        Self {
            inner: Arc::new(Inner {
                start: Box::new(start),
                current: Mutex::new(None),
            }),
        }
    }

    /// Joins the poll, or starts a new one; the timeout counts from this call. Nothing is sent before the future is polled.
    ///
    /// # Errors
    /// As [`wait_for_status`](super::wait_for_status); the last value and the number of rounds are those of the poll that
    /// was joined.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the others' poll running. Where it was the only one, the call in flight is dropped.
    pub fn wait(&self, timeout: Duration) -> impl Future<Output = Result<T, WaitError<T>>> + Send + use<T> {
        let deadline = deadline_in(timeout);
        let (poll, crew) = self.inner.join();
        let seat = crew.sit(deadline);
        async move {
            match timeout_at(deadline, poll).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(seat.crew.progress().copy().failed(error)),
                Err(_) => Err(seat.crew.progress().copy().timed_out()),
            }
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Inner<T> {
    /// The poll under way, unless it has ended, or a new one.
    fn join(&self) -> (Shared<Poll<T>>, Arc<Crew<T>>) {
        let mut current = self.current.lock();
        let known = current
            .as_ref()
            .and_then(|(poll, crew)| Some((poll.upgrade()?, crew.clone())));
        let ended = match known {
            Some(running) if running.0.peek().is_none() => return running,
            ended => ended,
        };
        let crew = Arc::new(Crew::new());
        let poll = (self.start)(crew.clone()).shared();
        let former = match poll.downgrade() {
            Some(weak) => current.replace((weak, crew.clone())),
            None => current.take(),
        };
        drop(current);
        drop((ended, former));
        (poll, crew)
    }
}

impl<T> Clone for SharedWait<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<T> fmt::Debug for SharedWait<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWait").finish_non_exhaustive()
    }
}
