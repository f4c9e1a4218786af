//! What an error of the `h2` crate means, decided here and nowhere else (P21, P22, P26).

use h2::Reason;

use super::h2::Control;
use super::link::Failure;
use crate::error::{Error, Kind};

/// An error before response headers.
pub(super) fn before_response(control: &Control, error: h2::Error, early: bool) -> Failure {
    let remote = error.is_remote();
    let reason = error.reason();
    if remote && reason == Some(Reason::HTTP_1_1_REQUIRED) {
        return Failure::NeedsH1(describe(control, error).with_unprocessed(true));
    }
    let excluded = error.is_go_away() && remote;
    let refused = error.is_reset() && remote && reason == Some(Reason::REFUSED_STREAM);
    if excluded || refused {
        let early = early && refused;
        return Failure::Unprocessed {
            error: describe(control, error).with_unprocessed(true),
            early,
        };
    }
    Failure::Failed(describe(control, error))
}

/// An error of `send_request`: nothing was handed to the connection.
pub(super) fn not_opened(control: &Control, error: h2::Error) -> Failure {
    if error.is_go_away() || error.is_io() || error.is_reset() {
        return match before_response(control, error, false) {
            Failure::Failed(error) => Failure::NotSent(error),
            other => other,
        };
    }
    let message = "the request cannot be sent over HTTP/2: its method, URI or headers are malformed, or the server does \
                   not allow extended CONNECT";
    Failure::Failed(Error::config(message).with_source(error))
}

/// An error within a response's body.
pub(super) fn in_body(control: &Control, error: h2::Error) -> Error {
    describe(control, error).in_body()
}

/// The error as the caller sees it. A session that ended for a reason of its own says that reason.
fn describe(control: &Control, error: h2::Error) -> Error {
    let connection_over = error.is_io() || (error.is_go_away() && !error.is_remote());
    if connection_over {
        if let Some(cause) = control.cause() {
            return cause.clone();
        }
        if let Some(violation) = control.meter.violation() {
            return Error::new(
                Kind::Protocol,
                "the server went over a bound and the session was ended",
            )
            .with_source(violation);
        }
        if let Some(fault) = control.fault.get() {
            return fault.with_unprocessed(false);
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
        Error::new(
            Kind::Protocol,
            format!("the server broke the protocol ({reason}) and the session was ended"),
        )
    } else if error.is_reset() && error.is_remote() {
        Error::new(Kind::Reset, format!("the server reset the stream with {reason}"))
    } else if error.is_reset() {
        let hint = "the response broke the protocol, or its headers were larger than `max_header_list_size`";
        Error::new(Kind::Reset, format!("the stream was reset with {reason}: {hint}"))
    } else {
        Error::new(Kind::Io, "the connection ended before the response did")
    };
    made.with_source(error)
}
