//! Waiting for a status: a long-poll loop over any async call, alone or shared by many callers.
//!
//! A long poll asks a server to answer when something has changed, and to hold the request until then. Every *round* is one
//! call. It is told how long the server may hold it, `min(time left, 30 s)`, and is given 5 s more than that to come back.
//! What it brings decides:
//!
//! | the round brings | then |
//! | --- | --- |
//! | the value awaited | the wait ends with it |
//! | another value | it is remembered, and the next round begins |
//! | nothing ([`Reply::Nothing`]: a 408), or its own timeout | the next round begins |
//! | a connection error (transient to the [retry layer](crate::retry)), in a body too | the next round, after a back-off |
//! | another error | the wait ends with it |
//!
//! A server that answers at once instead of holding (sooner than it was told to, and within a second), time after time, is
//! met with the same back-off from the second such round on, so that no wait ever becomes a hot loop. The overall
//! timeout runs on tokio's monotonic clock and is met exactly; a value that is there at that very instant still
//! counts. A wait belongs to the runtime that polls it first, since its timers do.
//!
//! ```no_run
//! use std::time::Duration;
//! use h2pool::poll::{Reply, Round, wait_for_status};
//! # #[derive(PartialEq)] enum Status { Starting, Ready }
//! # async fn get(id: u32, wait: u64) -> Result<http::Response<Status>, tower::BoxError> {
//! #     Ok(http::Response::new(Status::Ready))
//! # }
//!
//! # async fn wait() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let status = wait_for_status(
//!     Duration::from_secs(120),
//!     async |round: Round| {
//!         // GET /sandboxes/7?wait=30
//!         let response = get(7, round.hold().as_secs()).await?;
//!         Ok::<_, tower::BoxError>(Reply::of_response(response).map(http::Response::into_body))
//!     },
//!     |status| *status == Status::Ready,
//! )
//! .await?;
//! # let _ = status; Ok(()) }
//! ```
//!
//! Many callers that wait for one thing share one poll through [`SharedWait`].
//!
//! # Other clients
//!
//! The call may use any client. Which of its errors are connection errors is what the retry layer
//! [knows of them](crate::retry#which-errors-are-known), the cargo features included; others need a classifier. reqwest's
//! own time limits are among those:
//!
//! ```text
//! let poll = LongPoll::new().classify_error(|error| {
//!     let timeout = error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
//!     timeout.then(Outcome::transient)
//! });
//! let status = poll.wait(Duration::from_secs(120), call, |status| *status == Status::Ready).await?;
//! ```
//!
//! # Events
//!
//! Every round that does not end the wait is a `tracing` event (target `h2pool::poll`, level DEBUG, fields `round`,
//! `ended` = `reply`, `timed_out` or `connection_error`, `pause_ms`).

mod error;
mod rounds;
mod shared;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use tower::BoxError;
use tower::util::rng::{HasherRng, Rng};

pub use self::error::WaitError;
use self::rounds::Crew;
pub use self::shared::SharedWait;
use crate::retry::Outcome;
use crate::retry::backoff::Backoff;
use crate::retry::clock;

/// Polls until `done` likes a value, with the defaults of [`LongPoll`].
///
/// `call` is made once for each round; see the [module documentation](self) for what follows from its result. The timeout
/// counts from this call.
///
/// # Errors
/// [`WaitError`], with the last value seen: when `timeout` has passed ([`WaitError::is_timeout`]), or when `call` failed
/// with anything but a connection error. A timeout of zero makes no round.
///
/// # Cancel safety
/// Dropping the future drops the call in flight and sends nothing more.
pub fn wait_for_status<T, C, F, E, D>(
    timeout: Duration,
    call: C,
    done: D,
) -> impl Future<Output = Result<T, WaitError<T>>>
where
    C: FnMut(Round) -> F,
    F: Future<Output = Result<Reply<T>, E>>,
    E: Into<BoxError>,
    D: FnMut(&T) -> bool,
{
    LongPoll::new().wait(timeout, call, done)
}

/// What a call is told of its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Round {
    number: u32,
    hold: Duration,
}

impl Round {
    /// The number of the round, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How long the server may hold the request: never longer than the time left.
    #[must_use]
    pub fn hold(&self) -> Duration {
        self.hold
    }
}

/// What a call brings when it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reply<T> {
    /// The server said something.
    Value(T),
    /// The server held the request for as long as it was allowed to, and had nothing to say (a 408).
    Nothing,
}

impl<T> Reply<T> {
    /// The same with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Reply<U> {
        match self {
            Self::Value(value) => Reply::Value(change(value)),
            Self::Nothing => Reply::Nothing,
        }
    }
}

impl<B> Reply<Response<B>> {
    /// A 408 is nothing, any other response a value. To be judged by the caller: is a 404 a value, or an error?
    pub fn of_response(response: Response<B>) -> Self {
        match response.status() {
            StatusCode::REQUEST_TIMEOUT => Self::Nothing,
            _ => Self::Value(response),
        }
    }
}

type Classify = dyn Fn(&(dyn StdError + 'static)) -> Option<Outcome> + Send + Sync;

/// How a wait is conducted, where the defaults of [`wait_for_status`] do not fit. Cheap to clone.
#[derive(Clone)]
pub struct LongPoll {
    hold: Duration,
    grace: Duration,
    backoff: Backoff,
    classify: Option<Arc<Classify>>,
    random: Arc<dyn Fn() -> f64 + Send + Sync>,
}

impl Default for LongPoll {
    fn default() -> Self {
        Self::new()
    }
}

impl LongPoll {
    /// All defaults, as each setter names them.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hold: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            backoff: Backoff::DEFAULT,
            classify: None,
            random: Arc::new(|| HasherRng::default().next_f64()),
        }
    }

    /// The longest time that a server is asked to hold one request. Default: 30 s.
    #[must_use]
    pub fn hold(mut self, longest: Duration) -> Self {
        self.hold = longest;
        self
    }

    /// How much longer than that a round may take. Default: 5 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The pauses after connection errors, and after rounds that a server ends at once: exponential with full jitter, as in
    /// [`RetryPolicy::backoff`](crate::retry::RetryPolicy::backoff), though never less than 1 ms. Default: 0.2 s and 2 s.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.backoff = Backoff::new(base, cap);
        self
    }

    /// A classifier asked first about every error of the call: [`Outcome::done`] ends the wait, any other outcome keeps
    /// waiting, and with [`retry_after`](Outcome::retry_after) no shorter a pause than that. `None` leaves it to what the
    /// retry layer knows of the errors in the source chain.
    #[must_use]
    pub fn classify_error<F>(mut self, classify: F) -> Self
    where
        F: Fn(&(dyn StdError + 'static)) -> Option<Outcome> + Send + Sync + 'static,
    {
        self.classify = Some(Arc::new(classify));
        self
    }

    /// The source of jitter: numbers within `0.0..=1.0`. Default: the standard library's random keys.
    #[must_use]
    pub fn random(mut self, source: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.random = Arc::new(source);
        self
    }

    /// As [`wait_for_status`].
    ///
    /// # Errors
    /// As [`wait_for_status`].
    ///
    /// # Cancel safety
    /// As [`wait_for_status`].
    pub fn wait<T, C, F, E, D>(
        &self,
        timeout: Duration,
        call: C,
        done: D,
    ) -> impl Future<Output = Result<T, WaitError<T>>> + use<T, C, F, E, D>
    where
        C: FnMut(Round) -> F,
        F: Future<Output = Result<Reply<T>, E>>,
        E: Into<BoxError>,
        D: FnMut(&T) -> bool,
    {
        let deadline = deadline_in(timeout);
        let settings = self.clone();
        async move {
            let seat = Arc::new(Crew::new()).sit(deadline);
            // Looks at the rounds before the clock: what is there at the very end counts.
            match timeout_at(deadline, rounds::run(&settings, &seat.crew, call, done)).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(seat.crew.progress().take().failed(error)),
                Err(_) => Err(seat.crew.progress().take().timed_out()),
            }
        }
    }

    /// A wait that many callers share: see [`SharedWait`].
    pub fn share<T, C, F, E, D>(&self, call: C, done: D) -> SharedWait<T>
    where
        T: Clone + Send + Sync + 'static,
        C: Fn(Round) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Reply<T>, E>> + Send + 'static,
        E: Into<BoxError>,
        D: Fn(&T) -> bool + Send + Sync + 'static,
    {
        SharedWait::with(self.clone(), call, done)
    }
}

impl fmt::Debug for LongPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongPoll")
            .field("hold", &self.hold)
            .field("grace", &self.grace)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

/// A timeout too long for the clock is as good as thirty years.
fn deadline_in(timeout: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
    let now = clock::now();
    now.checked_add(timeout).unwrap_or(now + FAR)
}
