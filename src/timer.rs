//! Time limits of futures that may be polled anywhere.
//!
//! A [`Sleep`] belongs to the runtime where it was made, and panics when it is polled after that has ended (P36).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::{Handle, Id, TryCurrentError};
use tokio::time::Sleep;

use crate::clock;
use crate::error::Error;

pin_project! {
    /// A time limit that runs from its first poll on. Polled on another runtime than before, its timer is made anew there;
    /// the deadline stays.
    #[derive(Debug, Default)]
    pub(crate) struct Timer {
        #[pin]
        sleep: Option<Sleep>,
        home: Option<Id>,
    }
}

impl Timer {
    /// Ready when `limit` has passed since the first poll; `here` is the runtime that polls.
    pub(crate) fn poll(self: Pin<&mut Self>, limit: Duration, here: Id, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let moved = this.home.replace(here) != Some(here);
        let anew = match this.sleep.as_ref().as_pin_ref() {
            None => Some(tokio::time::sleep(limit)),
            Some(sleep) => moved.then(|| tokio::time::sleep_until(sleep.deadline())),
        };
        if anew.is_some() {
            this.sleep.set(anew);
        }
        this.sleep
            .as_pin_mut()
            .map_or(Poll::Pending, |sleep| sleep.poll(cx))
    }

    /// The same for whoever does not know where it runs.
    ///
    /// # Errors
    ///
    /// Outside of any runtime.
    pub(crate) fn poll_here(
        self: Pin<&mut Self>,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        match Handle::try_current() {
            Ok(here) => self.poll(limit, here.id(), cx).map(Ok),
            Err(error) => Poll::Ready(Err(outside(error))),
        }
    }

    /// How long ago it should have fired, if that is so.
    pub(crate) fn passed(&self) -> Option<Duration> {
        let due = self.sleep.as_ref()?.deadline().into_std();
        clock::now().checked_duration_since(due)
    }
}

/// The error of whoever polls outside of any runtime.
pub(crate) fn outside(error: TryCurrentError) -> Error {
    Error::config("h2pool was used outside a tokio runtime").with_source(error)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use futures_util::task::noop_waker;
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn runtime() -> Runtime {
        let mut builder = Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    }

    fn poll_once(timer: Pin<&mut Timer>) -> Poll<Result<(), Error>> {
        timer.poll_here(LIMIT, &mut Context::from_waker(&noop_waker()))
    }

    #[test]
    fn it_outlives_the_runtime_where_it_began_and_keeps_its_deadline() {
        // P36
        let mut timer = pin!(Timer::default());
        let first = runtime();
        first.block_on(async {
            assert!(poll_once(timer.as_mut()).is_pending());
        });
        drop(first);
        runtime().block_on(async {
            // The clocks of both began at about the same time.
            tokio::time::sleep(LIMIT / 2).await;
            assert!(poll_once(timer.as_mut()).is_pending());
            let start = clock::now();
            poll_fn(|cx| timer.as_mut().poll_here(LIMIT, cx)).await.unwrap();
            assert!(clock::now() - start <= LIMIT / 2, "not all of it again");
        });
    }

    #[test]
    fn outside_of_any_runtime_it_is_an_error() {
        // P41, P45
        let step = poll_once(pin!(Timer::default()));
        assert!(matches!(step, Poll::Ready(Err(error)) if error.is_config()));
    }
}
