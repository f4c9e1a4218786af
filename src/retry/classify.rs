//! What an error means for a retry. The one place that walks a source chain.
//!
//! The chain is walked from the outside in, and through [`io::Error::get_ref`], whose inner error `source()` skips. The
//! first error that says something decides, with two exceptions: h2pool's own error, wherever it is, has judged its causes
//! already and decides alone; and a refused certificate further down makes a failed connection final. Where a retry layer
//! inside gave up, none of it is proof that nothing was processed, unless that is so of all its attempts.

use std::error::Error as StdError;
use std::io;

use super::attempts::RetryError;
use super::outcome::{Failure, Outcome, Verdict};
use crate::error::{Error, Kind};

/// How deep a source chain is followed.
const DEPTH: usize = 64;

/// An error's verdict and its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) outcome: Outcome,
    pub(crate) failure: Failure,
}

/// Judges an error by everything in its source chain; one that nobody knows is final.
pub(crate) fn classify(error: &(dyn StdError + 'static)) -> Found {
    let found = of_last_attempt(error);
    match is_in_doubt(error) {
        true => Found {
            outcome: found.outcome.in_doubt(),
            ..found
        },
        false => found,
    }
}

/// Whether a retry layer gave up with this error after an attempt that may have been acted upon, whatever the last one was.
pub(crate) fn is_in_doubt(error: &(dyn StdError + 'static)) -> bool {
    let mut inside = chain(error).filter_map(|cause| cause.downcast_ref::<RetryError>());
    inside.any(|inside| inside.attempts().in_doubt())
}

fn of_last_attempt(error: &(dyn StdError + 'static)) -> Found {
    let mut first = None;
    for cause in chain(error) {
        if let Some(ours) = cause.downcast_ref::<Error>() {
            return of_ours(ours);
        }
        match recognise(cause) {
            Some(found) if found.failure == Failure::Certificate => return found,
            found => first = first.or(found),
        }
    }
    first.unwrap_or(last(Failure::Other))
}

/// The error and its sources, from the outside in.
pub(super) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| inner(*error)).take(DEPTH)
}

fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// What one error in the chain says, if it is of a known type and says anything.
fn recognise(error: &(dyn StdError + 'static)) -> Option<Found> {
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return of_h2(error);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return of_io(error.kind());
    }
    if error.is::<tokio::time::error::Elapsed>() || error.is::<tower::timeout::error::Elapsed>() {
        return Some(transient(Failure::Timeout));
    }
    of_hyper(error)
        .or_else(|| of_hyper_util(error))
        .or_else(|| of_rustls(error))
}

/// h2pool's error knows whether the request was processed (P22).
fn of_ours(error: &Error) -> Found {
    let failure = failure_of_ours(error);
    if failure == Failure::Body {
        return of_body(error);
    }
    if !error.is_transient() {
        return last(failure);
    }
    match (error.is_unprocessed(), failure) {
        (false, _) => transient(failure),
        // The server refused: it is alive, and sending again is no extra work for it.
        (true, Failure::Refused) => found(Outcome::unprocessed(), failure),
        (true, _) => found(Outcome::unprocessed().costly(), failure),
    }
}

/// A body that failed by itself, not with its connection. The request's is the caller's own. The response's is that of a
/// service that stands in for the pool, and means what it would mean from there, except that a response had come.
fn of_body(error: &Error) -> Found {
    let cause = error.source().filter(|_| error.is_in_response_body());
    match cause.map(classify) {
        Some(found) if found.outcome.verdict() != Verdict::Final => transient(found.failure),
        _ => last(Failure::Body),
    }
}

fn failure_of_ours(error: &Error) -> Failure {
    if error.is_certificate() {
        Failure::Certificate
    } else if error.is_config() {
        Failure::Config
    } else if error.is_saturated() || error.is_closed() || error.is_h1_only() {
        Failure::Refusal
    } else if error.kind() == Kind::Body {
        Failure::Body
    } else if error.is_connect() {
        Failure::Connect
    } else if error.is_timeout() {
        Failure::Timeout
    } else if error.is_unprocessed() {
        Failure::Refused
    } else if error.kind() == Kind::Protocol || !error.is_transient() {
        Failure::Protocol
    } else if error.is_reset() || error.is_goaway() {
        Failure::Reset
    } else if error.kind() == Kind::Io {
        failure_of_connection(error)
    } else {
        Failure::Io
    }
}

/// A connection that failed or ended: what lies beneath says how.
fn failure_of_connection(error: &Error) -> Failure {
    let mut beneath = chain(error).skip(1).filter_map(recognise);
    let known = beneath.find(|found| matches!(found.failure, Failure::Reset | Failure::Incomplete));
    match (known, error.source()) {
        (Some(found), _) => found.failure,
        (None, Some(_)) => Failure::Io,
        // Nothing failed: the server closed it.
        (None, None) => Failure::Incomplete,
    }
}

/// RFC 9113 §8.7: what a GOAWAY excludes, and what is refused, was not processed. In the layer only errors before the
/// response's head come here, so that a remote GOAWAY means that it excluded the stream.
fn of_h2(error: &h2::Error) -> Option<Found> {
    let reason = error.reason();
    if reason == Some(h2::Reason::HTTP_1_1_REQUIRED) {
        return Some(last(Failure::Refusal));
    }
    if error.is_remote() && (error.is_go_away() || reason == Some(h2::Reason::REFUSED_STREAM)) {
        return Some(found(Outcome::unprocessed(), Failure::Refused));
    }
    if error.is_reset() {
        return Some(transient(Failure::Reset));
    }
    if error.is_io() {
        let kind = error.get_io().map(io::Error::kind);
        return Some(kind.and_then(of_io).unwrap_or(transient(Failure::Io)));
    }
    if error.is_go_away() {
        return Some(transient(Failure::Protocol));
    }
    // The rest are mistakes of whoever uses h2.
    Some(last(Failure::Config))
}

fn of_io(kind: io::ErrorKind) -> Option<Found> {
    use io::ErrorKind as Io;
    match kind {
        // Only connect(2) answers so.
        Io::ConnectionRefused => Some(found(Outcome::unprocessed().costly(), Failure::Connect)),
        Io::HostUnreachable | Io::NetworkUnreachable | Io::NetworkDown | Io::AddrNotAvailable => {
            Some(transient(Failure::Connect))
        }
        Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::NotConnected => {
            Some(transient(Failure::Reset))
        }
        Io::UnexpectedEof => Some(transient(Failure::Incomplete)),
        Io::TimedOut => Some(transient(Failure::Timeout)),
        // How TLS libraries report a refused certificate or a broken handshake.
        Io::InvalidData => Some(last(Failure::Certificate)),
        _ => None,
    }
}

#[cfg(any(feature = "http1", feature = "tcp"))]
fn of_hyper(error: &(dyn StdError + 'static)) -> Option<Found> {
    let error = error.downcast_ref::<hyper::Error>()?;
    if error.is_timeout() {
        Some(transient(Failure::Timeout))
    } else if error.is_incomplete_message() {
        Some(transient(Failure::Incomplete))
    } else if error.is_canceled() || error.is_closed() {
        Some(transient(Failure::Reset))
    } else if error.is_parse() {
        Some(last(Failure::Protocol))
    } else if error.is_user() {
        Some(of_hyper_user(error))
    } else {
        None
    }
}

/// hyper's user errors are mistakes, but for one: the task that drove the connection is gone, with its runtime or by a
/// panic, and the request may have been sent. That one has a source; so has a body that failed, which cannot be sent
/// again anyway.
#[cfg(any(feature = "http1", feature = "tcp"))]
fn of_hyper_user(error: &hyper::Error) -> Found {
    match error.source() {
        Some(_) if !error.is_body_write_aborted() => transient(Failure::Reset),
        _ => last(Failure::Config),
    }
}

#[cfg(not(any(feature = "http1", feature = "tcp")))]
fn of_hyper(_: &(dyn StdError + 'static)) -> Option<Found> {
    None
}

#[cfg(all(feature = "tcp", feature = "http1"))]
fn of_hyper_util(error: &(dyn StdError + 'static)) -> Option<Found> {
    let error = error.downcast_ref::<hyper_util::client::legacy::Error>()?;
    error
        .is_connect()
        .then(|| found(Outcome::unprocessed().costly(), Failure::Connect))
}

#[cfg(not(all(feature = "tcp", feature = "http1")))]
fn of_hyper_util(_: &(dyn StdError + 'static)) -> Option<Found> {
    None
}

#[cfg(feature = "tls-no-provider")]
fn of_rustls(error: &(dyn StdError + 'static)) -> Option<Found> {
    error.is::<rustls::Error>().then(|| last(Failure::Certificate))
}

#[cfg(not(feature = "tls-no-provider"))]
fn of_rustls(_: &(dyn StdError + 'static)) -> Option<Found> {
    None
}

fn transient(failure: Failure) -> Found {
    found(Outcome::transient(), failure)
}

fn last(failure: Failure) -> Found {
    found(Outcome::done(), failure)
}

fn found(outcome: Outcome, failure: Failure) -> Found {
    Found { outcome, failure }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
