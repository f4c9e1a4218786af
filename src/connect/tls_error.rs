//! What a failed TLS handshake means, decided once.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, InvalidMessage};

use super::Offer;
use crate::error::{Error, Kind};

/// Classifies the failure of a handshake.
pub(super) fn handshake(error: io::Error, offer: Offer) -> Error {
    let (kind, message) = match rustls_cause(&error) {
        Some(cause) => meaning(cause, offer),
        None if error.kind() == io::ErrorKind::UnexpectedEof => (
            Kind::Connect,
            "the server closed the connection during the TLS handshake",
        ),
        None => (Kind::Connect, "the TLS handshake failed"),
    };
    Error::new(kind, message).with_source(error)
}

/// A refused certificate anywhere in the chain of `error`, the server's or our own.
pub(crate) fn refused_certificate(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    match meaning(rustls_cause(error)?, Offer::Any) {
        (Kind::Certificate, message) => Some(message),
        _ => None,
    }
}

fn meaning(cause: &rustls::Error, offer: Offer) -> (Kind, &'static str) {
    match cause {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::InvalidCertRevocationList(_)
        | rustls::Error::NoCertificatesPresented => {
            (Kind::Certificate, "the server's certificate was refused")
        }
        rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
            (Kind::Certificate, "the server refused our certificate")
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => match offer {
            Offer::H2 => (
                Kind::H1Only,
                "the server does not speak HTTP/2: it refused ALPN `h2`",
            ),
            _ => (
                Kind::Connect,
                "the server speaks none of the protocols offered by ALPN",
            ),
        },
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => (Kind::Connect, "the server does not speak TLS"),
        _ => (Kind::Connect, "the TLS handshake failed"),
    }
}

/// RFC 8446 §6.2: the alerts with which a server answers the client's certificate, or its absence.
fn is_about_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

/// The rustls error in a chain. An `io::Error` hides what it wraps from `source()`; `get_ref` shows it.
fn rustls_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}
