//! The loop of rounds, and what its callers share with it: their deadlines, and what has been seen.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tower::BoxError;

use super::error::{Cause, WaitError};
use super::{LongPoll, Reply, Round};
use crate::retry::clock::{self, TICK};
use crate::retry::{Outcome, Verdict, classify};

/// A round that lasted this long, or as long as it was to be held, has been held by the server.
const HELD: Duration = Duration::from_secs(1);

/// Those for whom the rounds are made: one caller, or many.
pub(super) struct Crew<T> {
    deadlines: Mutex<Slab<Instant>>,
    joined: Notify,
    progress: Mutex<Progress<T>>,
}

/// What has been seen so far.
pub(super) struct Progress<T> {
    rounds: u32,
    last: Option<T>,
    /// Of the last round that ended, if it ended with one that does not end the wait.
    error: Option<Cause>,
}

/// A caller's place in the crew; dropping it leaves.
pub(super) struct Seat<T> {
    pub(super) crew: Arc<Crew<T>>,
    key: usize,
}

/// How a round ended that did not end the wait.
enum Unfinished {
    /// With a value, or nothing.
    Reply,
    TimedOut,
    /// And how long the classifier asks to be left alone.
    ConnectionError(Duration),
}

/// Makes rounds until `done` likes a value, or the call fails for good. Ends by itself only then: the callers' timeouts
/// are the callers' own.
pub(super) async fn run<T, C, F, E, D>(
    settings: &LongPoll,
    crew: &Crew<T>,
    mut call: C,
    mut done: D,
) -> Result<T, Cause>
where
    C: FnMut(Round) -> F,
    F: Future<Output = Result<Reply<T>, E>>,
    E: Into<BoxError>,
    D: FnMut(&T) -> bool,
{
    let mut in_a_row = 0;
    loop {
        let hold = crew.time_left().await.min(settings.hold);
        let number = crew.progress().begin();
        let began = clock::now();
        let longest = hold.saturating_add(settings.grace);
        let unfinished = match timeout(longest, call(Round { number, hold })).await {
            Err(_) => Unfinished::TimedOut,
            Ok(Ok(Reply::Nothing)) => Unfinished::Reply,
            Ok(Ok(Reply::Value(value))) if done(&value) => return Ok(value),
            Ok(Ok(Reply::Value(value))) => {
                crew.see(value);
                Unfinished::Reply
            }
            Ok(Err(error)) => {
                let error = Cause::from(error.into());
                let outcome = settings.outcome(&error);
                if outcome.verdict() == Verdict::Final {
                    return Err(error);
                }
                crew.note_error(Some(error));
                Unfinished::ConnectionError(outcome.delay().unwrap_or_default())
            }
        };
        let held = clock::now().saturating_duration_since(began) >= held_from(hold);
        let pause = settings.pause(&unfinished, held, &mut in_a_row);
        let pause_ms = u64::try_from(pause.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(target: "h2pool::poll", round = number, ended = unfinished.as_str(), pause_ms, "round ended");
        if !matches!(unfinished, Unfinished::ConnectionError(_)) {
            crew.note_error(None);
        }
        if let Some(pause) = pause {
            sleep(pause).await;
        }
    }
}

/// How long a round lasts that was held. A server that is told not to hold it does not, however long its answer takes.
fn held_from(hold: Duration) -> Duration {
    if hold.is_zero() {
        HELD
    } else {
        hold.clamp(TICK, HELD)
    }
}

impl LongPoll {
    fn outcome(&self, error: &Cause) -> Outcome {
        let given = self.classify.as_ref().and_then(|classify| classify(&**error));
        given.unwrap_or_else(|| classify::classify(&**error).outcome)
    }

    /// The pause before the next round. The first round in a row that a server did not hold is forgiven: its state may just
    /// have changed; a connection error is not.
    fn pause(&self, unfinished: &Unfinished, held: bool, in_a_row: &mut u32) -> Option<Duration> {
        let step = match unfinished {
            Unfinished::Reply | Unfinished::TimedOut if held => 0,
            _ => *in_a_row + 1,
        };
        *in_a_row = step.min(1 << 16);
        let (exponent, asked) = match unfinished {
            Unfinished::ConnectionError(asked) => (step, *asked),
            Unfinished::Reply | Unfinished::TimedOut => (step.saturating_sub(1), Duration::ZERO),
        };
        (exponent > 0).then(|| self.backoff.delay(exponent, (self.random)()).max(asked).max(TICK))
    }
}

impl<T> Crew<T> {
    pub(super) fn new() -> Self {
        Self {
            deadlines: Mutex::new(Slab::new()),
            joined: Notify::new(),
            progress: Mutex::new(Progress {
                rounds: 0,
                last: None,
                error: None,
            }),
        }
    }

    pub(super) fn sit(self: Arc<Self>, deadline: Instant) -> Seat<T> {
        let key = self.deadlines.lock().insert(deadline);
        self.joined.notify_one();
        Seat { crew: self, key }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress<T>> {
        self.progress.lock()
    }

    /// What it replaces is dropped after the unlock.
    fn see(&self, value: T) {
        let former = self.progress.lock().last.replace(value);
        drop(former);
    }

    fn note_error(&self, error: Option<Cause>) {
        let former = std::mem::replace(&mut self.progress.lock().error, error);
        drop(former);
    }

    /// The longest time that anybody has left. Waits while nobody has any: for those who are there to leave, or for
    /// somebody to come.
    async fn time_left(&self) -> Duration {
        loop {
            let longest = self.deadlines.lock().iter().map(|(_, deadline)| *deadline).max();
            let left = longest.map_or(Duration::ZERO, |at| at.saturating_duration_since(clock::now()));
            if !left.is_zero() {
                return left;
            }
            self.joined.notified().await;
        }
    }
}

impl<T> Progress<T> {
    fn begin(&mut self) -> u32 {
        self.rounds = self.rounds.saturating_add(1);
        self.rounds
    }

    /// What there is, for the error of the only caller.
    pub(super) fn take(&mut self) -> Self {
        Self {
            rounds: self.rounds,
            last: self.last.take(),
            error: self.error.take(),
        }
    }

    pub(super) fn timed_out(self) -> WaitError<T> {
        WaitError::timed_out(self.last, self.rounds, self.error)
    }

    pub(super) fn failed(self, error: Cause) -> WaitError<T> {
        WaitError::failed(self.last, self.rounds, error)
    }
}

impl<T: Clone> Progress<T> {
    /// What there is, for the error of one caller among many.
    pub(super) fn copy(&self) -> Self {
        Self {
            rounds: self.rounds,
            last: self.last.clone(),
            error: self.error.clone(),
        }
    }
}

impl Unfinished {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::TimedOut => "timed_out",
            Self::ConnectionError(_) => "connection_error",
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        self.crew.deadlines.lock().remove(self.key);
    }
}
