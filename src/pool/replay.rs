//! What follows a failed attempt: another one, elsewhere or after a pause, or the end (P21, P22, P26, P36).

use std::fmt;
use std::time::Duration;

use super::acquire::{Want, pause};
use super::request::Exchange;
use crate::error::{Chain, Error, Kind};
use crate::origin::Key;
use crate::session::Outgoing;
use crate::session::link::Failure;

/// The pause before the second replay; doubled from one to the next, jittered between half and the whole.
const REPLAY_PAUSE: Duration = Duration::from_millis(50);

/// How many replays that are nobody's fault do not count as replays: streams excluded by a GOAWAY that covers others ..
const SPARED: usize = 1_000;

/// .. and streams sent before SETTINGS and refused, the price of not waiting for them: once on a session, and a server that
/// refuses more sessions than this, one after the other, is of no use.
const SPARED_EARLY: usize = 4;

impl<O: Key> Exchange<O> {
    /// What follows a failed attempt: another one, or the fallback (true), or the error.
    pub(super) async fn follow(
        &mut self,
        failure: Failure,
        want: Want,
        replays: &mut usize,
    ) -> Result<bool, Error> {
        match failure {
            // Each of its own sessions costs a dial.
            Failure::NotSent(error) if self.misdirected => {
                Box::pin(self.replay(error, false, replays)).await?;
            }
            Failure::NotSent(error) => {
                tracing::trace!(target: "h2pool", error = %error, "slot lost before use");
                return Ok(self.entry.goes_elsewhere());
            }
            Failure::Unprocessed { error, blameless } => {
                // Not one of which nothing was written when the connection failed.
                if error.is_goaway() || error.is_reset() {
                    self.entry.tally.stream_refused();
                }
                Box::pin(self.replay(error, blameless, replays)).await?;
            }
            Failure::NeedsH1(error) => {
                self.entry.core.wants_h1(&self.entry.key, self.authenticated);
                Box::pin(self.turn_to_h1(error, replays)).await?;
                return Ok(self.entry.core.fallback.is_some());
            }
            Failure::Failed(error) if self.may_repeat(&error, want) => {
                self.ambiguous = true;
                Box::pin(self.replay(error, false, replays)).await?;
            }
            Failure::Failed(error) => return Err(self.entry.name(error)),
        }
        Ok(false)
    }

    /// Whether a request that the server may have processed is sent again all the same: its session ended with the
    /// runtime of somebody else, and its method is safe (RFC 9110 §9.2.2). Over HTTP/1.1 a body went with the request.
    fn may_repeat(&self, error: &Error, want: Want) -> bool {
        let there = want.empty || self.body.is_some();
        error.kind() == Kind::Runtime && self.parts.method.is_safe() && there
    }

    /// Makes the request ready to be sent again, or says why it cannot be.
    async fn replay(&mut self, error: Error, blameless: bool, replays: &mut usize) -> Result<(), Error> {
        let error = self.rewind_or(error)?;
        let max = self.entry.core.config.max_replays;
        let early = !error.is_goaway();
        let (spared, most) = match early {
            true => (&mut self.spared_early, SPARED_EARLY),
            false => (&mut self.spared, SPARED),
        };
        if blameless && *spared < most && (max > 0 || early) {
            *spared += 1;
            if !early {
                self.tell_replay(&Chain(&error), error.kind_name());
            }
            return Ok(());
        }
        if *replays >= max {
            return Err(error);
        }
        self.again(&error, replays).await
    }

    /// The server wants HTTP/1.1 for the request (P26). That is no replay that `max_replays` could forbid; it bounds how
    /// often a connector may answer in HTTP/2 all the same.
    async fn turn_to_h1(&mut self, error: Error, replays: &mut usize) -> Result<(), Error> {
        let core = self.entry.core.clone();
        if !core.speaks_h1() && core.fallback.is_none() {
            let error = self.entry.name(error);
            return Err(self.entry.name(core.only_h1().with_source(error)));
        }
        let error = self.rewind_or(error)?;
        if *replays >= core.config.max_replays.max(1) {
            let message = "the server wants HTTP/1.1 for the request, and the connector has none";
            let error = Error::new(Kind::H1Only, message).with_source(error);
            return Err(self.entry.name(error));
        }
        self.again(&error, replays).await
    }

    /// The error with its origin's name, or as a failure where the body was consumed.
    fn rewind_or(&mut self, error: Error) -> Result<Error, Error> {
        let error = self.entry.name(error);
        if self.rewind() {
            return Ok(error);
        }
        tracing::debug!(target: "h2pool", error = %Chain(&error), kind = error.kind_name(), "not replayed: the body was consumed");
        Err(error)
    }

    /// One more replay, after a pause from the second one on.
    async fn again(&mut self, error: &Error, replays: &mut usize) -> Result<(), Error> {
        *replays += 1;
        self.tell_replay(&Chain(error), error.kind_name());
        if *replays < 2 {
            return Ok(());
        }
        let doublings = u32::try_from(*replays - 2).unwrap_or(u32::MAX).min(6);
        let jitter = 0.5 + 0.5 * self.entry.core.random();
        let paused = pause((REPLAY_PAUSE * (1 << doublings)).mul_f64(jitter)).await;
        paused.map_err(|error| self.entry.name(error))
    }

    /// The request is sent again: counted and told in one place, so that both agree (P43).
    pub(super) fn tell_replay(&mut self, error: &dyn fmt::Display, kind: &'static str) {
        self.told += 1;
        self.entry.tally.replayed();
        tracing::debug!(
            target: "h2pool",
            origin = %self.entry.key.origin(),
            replay = self.told,
            error = %error,
            kind,
            "replayed"
        );
    }

    pub(super) fn rewind(&mut self) -> bool {
        self.body.as_mut().is_none_or(Outgoing::rewind)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::Empty;
    use tokio_test::task::spawn;

    use super::super::handle::Lifeline;
    use super::*;
    use crate::connect::memory::pair;
    use crate::{Builder, Origin};

    fn exchange(builder: Builder) -> Exchange<Origin> {
        let (connector, _) = pair::<Origin>();
        let core = builder.connector(connector).core().unwrap();
        let entry = core.entry(&"https://a".parse().unwrap()).unwrap();
        let (parts, ()) = Request::get("https://a/").body(()).unwrap().into_parts();
        Exchange::new(Lifeline::new(core), entry, parts, Empty::<Bytes>::new()).unwrap()
    }

    #[test]
    fn the_pause_before_a_replay_outlives_the_runtime_where_it_began() {
        // P21, P36
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().start_paused(true).build().unwrap()
        };
        let mut exchange = exchange(Builder::new());
        let refused = Error::new(Kind::Reset, "refused");
        let mut replays = 1;
        let mut again = spawn(Box::pin(exchange.again(&refused, &mut replays)));
        let first = runtime();
        assert!(first.block_on(async { again.poll() }).is_pending());
        drop(first);
        runtime().block_on(again.into_inner()).unwrap();
        assert_eq!(replays, 2);
    }

    #[cfg(not(feature = "http1"))]
    #[tokio::test]
    async fn an_origin_that_wants_http1_is_called_so_whatever_became_of_the_body() {
        // P26, P27, P41
        let mut body = Outgoing::new(http_body_util::Full::<Bytes>::from("x"), 0).unwrap();
        std::future::poll_fn(|cx| body.poll_frame(cx))
            .await
            .unwrap()
            .unwrap();
        let mut exchange = exchange(Builder::new());
        exchange.body = Some(body);
        let required = Error::new(Kind::Reset, "HTTP_1_1_REQUIRED").with_unprocessed(true);
        let error = exchange.turn_to_h1(required, &mut 0).await.unwrap_err();
        assert!(error.is_h1_only() && error.is_unprocessed(), "{error:?}");
    }
}
