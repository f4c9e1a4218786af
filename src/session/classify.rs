//! What an error of the `h2` crate means, decided here and nowhere else (P21, P22, P26).

use h2::Reason;

use super::h2::Control;
use super::link::Failure;
use super::meter::{Goaway, Meter, Violation};
use super::wear;
use crate::error::{Error, Kind};

/// How far a request's HEADERS came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The transport took nothing of them.
    Not,
    /// The transport took them when the server's SETTINGS were not known.
    Early,
    /// The transport took them.
    Whole,
}

/// An error before response headers; `violation` is what the stream went over.
pub(super) fn before_response(
    control: &Control,
    violation: Option<Violation>,
    error: h2::Error,
    sent: Sent,
) -> Failure {
    let describe = |control, error| describe(control, violation, error);
    let remote = error.is_remote();
    let reason = error.reason();
    if remote && reason == Some(Reason::HTTP_1_1_REQUIRED) {
        return Failure::NeedsH1(describe(control, error).with_unprocessed(true));
    }
    if closed_for_h1(control, &error) {
        return Failure::NeedsH1(describe(control, error).with_unprocessed(true));
    }
    let excluded = error.is_go_away() && remote;
    let refused = error.is_reset() && remote && reason == Some(Reason::REFUSED_STREAM);
    if excluded || refused {
        // A server that closes after so many requests excludes those beyond; that it takes others counts for it.
        let takes_others = control
            .meter
            .goaway()
            .is_some_and(|goaway| goaway.last_stream_id > 0);
        let blameless = (sent == Sent::Early && refused) || (excluded && takes_others);
        return Failure::Unprocessed {
            error: describe(control, error).with_unprocessed(true),
            blameless,
        };
    }
    let unsent = sent == Sent::Not && connection_over(&error);
    let error = describe(control, error);
    if !unsent {
        return Failure::Failed(error);
    }
    let error = error.with_unprocessed(true);
    // A time limit that ended the session was the request's, too; and some ends another session would meet again.
    if error.is_timeout() || !error.is_transient() {
        return Failure::Failed(error);
    }
    Failure::Unprocessed {
        error,
        blameless: false,
    }
}

/// An error of `send_request`: nothing was handed to the connection.
pub(super) fn not_opened(control: &Control, error: h2::Error) -> Failure {
    if error.is_go_away() || error.is_io() || error.is_reset() {
        return match before_response(control, None, error, Sent::Not) {
            Failure::Failed(error) | Failure::Unprocessed { error, .. } => Failure::NotSent(error),
            other => other,
        };
    }
    let message = "the request cannot be sent over HTTP/2: its method, URI or headers are malformed";
    Failure::Failed(Error::config(message).with_source(error))
}

/// An error within a response's body.
pub(super) fn in_body(control: &Control, violation: Option<Violation>, error: h2::Error) -> Error {
    describe(control, violation, error).in_body()
}

/// The session went over a bound, or broke a rule that the meter watches.
pub(super) fn session_over_bound(violation: Violation) -> Error {
    let fault = match violation {
        Violation::Http1 | Violation::FirstFrame { .. } | Violation::Unasked { .. } => "broke the protocol",
        _ => "went over a bound",
    };
    Error::new(
        Kind::Protocol,
        format!("the server {fault} and the session was ended: {violation}"),
    )
    .with_source(violation)
}

/// A stream went over a bound of its own.
pub(super) fn stream_over_bound(violation: Violation) -> Error {
    Error::new(
        Kind::Reset,
        format!("the server went over a bound and the stream was reset: {violation}"),
    )
    .lasting()
    .with_source(violation)
}

/// The connection ended, and not by a GOAWAY of the server.
fn connection_over(error: &h2::Error) -> bool {
    error.is_io() || (error.is_go_away() && !error.is_remote())
}

/// The server asked for HTTP/1.1 in its GOAWAY and closed the connection: that goes for what it left unanswered, too
/// (P26). It was not we who ended it.
fn closed_for_h1(control: &Control, error: &h2::Error) -> bool {
    let said = |goaway: Goaway| Reason::from(goaway.code) == Reason::HTTP_1_1_REQUIRED;
    let theirs = |cause: &Error| matches!(cause.kind(), Kind::Goaway | Kind::Io) && !cause.is_timeout();
    error.is_io()
        && control.meter.goaway().is_some_and(said)
        && control.meter.violation().is_none()
        && !control.is_killed()
        && control.cause().is_none_or(theirs)
}

/// Fields of trailers were dropped.
pub(super) fn trailers_cut(meter: &Meter) -> Error {
    let message = format!(
        "fields of the response's trailers were lost: they have pseudo-headers, or take more than {} bytes \
         (`max_header_list_size`)",
        meter.max_header_block()
    );
    Error::new(Kind::Protocol, message).in_body()
}

/// The error as the caller sees it. A session that ended for a reason of its own says that reason.
fn describe(control: &Control, violation: Option<Violation>, error: h2::Error) -> Error {
    if connection_over(&error) {
        // A server that refuses our certificate before it said anything has not read what comes after that.
        let silent = control.meter.settings_applied() == 0;
        if let Some(refused) = control.fault.get().filter(|it| silent && it.is_certificate()) {
            return refused;
        }
        if let Some(cause) = control.cause() {
            return cause.clone().with_unprocessed(false);
        }
        if let Some(violation) = control.meter.violation() {
            return session_over_bound(violation);
        }
        if let Some(fault) = control.fault.get() {
            return fault.with_unprocessed(false);
        }
        // A stream may hear of the end before the driver has said why.
        if control.meter.goaway().is_some() && error.is_io() {
            return closed_after_goaway().with_source(error);
        }
    }
    let reason = error
        .reason()
        .map(|reason| format!("{reason:?}"))
        .unwrap_or_default();
    let made = if error.is_go_away() && error.is_remote() {
        Error::new(
            Kind::Goaway,
            format!("the server ended the session with GOAWAY {reason}"),
        )
    } else if error.is_go_away() {
        broken(&control.meter, error.reason())
    } else if error.is_reset() && error.is_remote() {
        Error::new(Kind::Reset, format!("the server reset the stream with {reason}"))
    } else if let Some(violation) = violation.filter(|_| error.is_reset()) {
        return stream_over_bound(violation);
    } else if error.is_reset() {
        let hint = "the response broke the protocol, or its headers were larger than `max_header_list_size`";
        Error::new(Kind::Reset, format!("the stream was reset with {reason}: {hint}")).lasting()
    } else {
        Error::new(Kind::Io, "the connection ended before the response did")
    };
    made.with_source(error)
}

/// What was left unanswered by a server that said GOAWAY.
pub(super) fn closed_after_goaway() -> Error {
    let message = "the server ended the session with GOAWAY and closed the connection";
    Error::new(Kind::Goaway, message)
}

/// h2 ended the session, and says little about why.
pub(super) fn broken(meter: &Meter, reason: Option<Reason>) -> Error {
    let message = match reason {
        Some(Reason::ENHANCE_YOUR_CALM) if wear::is_worn(meter) => {
            "the session was ended: the server sent too many small or empty DATA frames, or frames for streams that were \
             over"
                .into()
        }
        Some(reason @ (Reason::ENHANCE_YOUR_CALM | Reason::COMPRESSION_ERROR)) => format!(
            "the session was ended ({reason:?}): headers or trailers were malformed, in too many pieces, or far larger \
             than `max_header_list_size`"
        ),
        Some(reason) => format!("the server broke the protocol ({reason:?}) and the session was ended"),
        None => "the server broke the protocol and the session was ended".to_owned(),
    };
    Error::new(Kind::Protocol, message)
}
