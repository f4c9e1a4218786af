//! The one error of the crate: opaque, cloneable, classified once where it arises.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A boxed error of anybody's, as tower uses it.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a request, an acquisition or a configuration failed.
///
/// One opaque type for the whole crate. It names the origin where there is one, keeps its cause in
/// [`source()`](StdError::source), is cheap to clone (one failed dial answers many waiters with the same error), and is
/// asked through predicates; several can hold at once (a dial that timed out is both [`is_connect`](Self::is_connect)
/// and [`is_timeout`](Self::is_timeout)).
///
/// ```
/// # fn decide(error: &h2pool::Error) {
/// if error.is_unprocessed() {
///     // The server provably did nothing: even a POST may be sent again.
/// } else if error.is_timeout() {
///     // It may have been processed.
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: Kind,
    timeout: bool,
    unprocessed: bool,
    body: bool,
    /// The same request would meet it again.
    lasting: bool,
    message: Cow<'static, str>,
    origin: Option<Arc<str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What went wrong, one word each; predicates and texts derive from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// No connection could be had: name, TCP, TLS, ALPN, first SETTINGS.
    Connect,
    /// The server's (or our own) certificate was refused.
    Certificate,
    /// Waited `acquire_timeout` for a slot.
    Acquire,
    /// The queue of waiters is full.
    Saturated,
    /// The pool, or this handle of it, is closed.
    Closed,
    /// Configuration or request is wrong; nothing was sent.
    Config,
    /// The origin speaks only HTTP/1.1 and no way to speak it was given.
    H1Only,
    /// The peer said GOAWAY.
    Goaway,
    /// A stream was reset.
    Reset,
    /// A keep-alive PING was not answered.
    KeepAlive,
    /// The connection ended or failed underneath.
    Io,
    /// The runtime that drove the session has ended.
    Runtime,
    /// The peer broke the protocol or exceeded a bound.
    Protocol,
    /// A body failed: the caller's own, or the response's.
    Body,
    /// Some phase of a request took longer than its bound.
    Timeout,
}

impl Error {
    /// No connection to the origin could be opened: name look-up, TCP, TLS, protocol negotiation or the server's first
    /// SETTINGS failed. As the pool returns it always [`is_unprocessed`](Self::is_unprocessed).
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self.inner.kind, Kind::Connect | Kind::Certificate)
    }

    /// A time limit passed: connecting, waiting for a slot, or one of the phases of a request.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.inner.timeout
    }

    /// The origin's queue held `max_waiters` already, or all of `max_origins` had requests; the request was refused at once.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.inner.kind == Kind::Saturated
    }

    /// The pool, or the handle used, is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.kind == Kind::Closed
    }

    /// The server provably did nothing with this request, so that it may be sent again whatever its method
    /// (RFC 9113 §8.7). False wherever there is doubt.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        self.inner.unprocessed
    }

    /// The origin speaks only HTTP/1.1 and neither the `http1` feature nor a fallback service can serve it.
    #[must_use]
    pub fn is_h1_only(&self) -> bool {
        self.inner.kind == Kind::H1Only
    }

    /// The server ended the session with GOAWAY (RFC 9113 §6.8).
    #[must_use]
    pub fn is_goaway(&self) -> bool {
        self.inner.kind == Kind::Goaway
    }

    /// The stream was reset (RFC 9113 §6.4), by the peer or by the pool when a bound was exceeded.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.inner.kind == Kind::Reset
    }

    /// The session was given up because a keep-alive PING was not answered within `keep_alive_timeout`.
    #[must_use]
    pub fn is_keep_alive_timeout(&self) -> bool {
        self.inner.kind == Kind::KeepAlive
    }

    /// A body failed: the request's own (its error is the source) or the response's while it was read.
    #[must_use]
    pub fn is_body(&self) -> bool {
        self.inner.body || self.inner.kind == Kind::Body
    }

    /// The configuration or the request itself is wrong (a missing authority, an unsupported scheme, a value out of
    /// range); nothing was sent and trying again cannot help.
    #[must_use]
    pub fn is_config(&self) -> bool {
        self.inner.kind == Kind::Config
    }

    /// A certificate was refused, the server's or our own. Trying again cannot help.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        self.inner.kind == Kind::Certificate
    }

    /// Whether a retry is sensible where it is safe: false for what the same request would meet again: saturation, closure,
    /// configuration and certificate errors, h1-only origins, and responses that were malformed or went over a bound.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let refused = matches!(
            self.inner.kind,
            Kind::Saturated | Kind::Closed | Kind::Config | Kind::Certificate | Kind::H1Only
        );
        !refused && !self.inner.lasting
    }

    /// The origin that the error belongs to, as `scheme://host:port`, where there is one.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.inner.origin.as_deref()
    }
}

/// Construction by those who write connectors and keys.
impl Error {
    /// A connection could not be opened, because of `source`. For implementations of
    /// [`Connect`](crate::connect::Connect).
    pub fn connect(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Connect, "the connection could not be opened").with_source(source)
    }

    /// The configuration or the request is wrong, as `message` says: nothing was sent, and trying again cannot help. For
    /// implementations of [`Key`](crate::Key) that cannot read a key from a request, and of
    /// [`Connect`](crate::connect::Connect).
    pub fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Config, message)
    }

    /// A certificate was refused, because of `source`: trying again cannot help.
    pub fn certificate(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Kind::Certificate, "the certificate was refused").with_source(source)
    }
}

/// Construction, for the crate.
impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        let unprocessed = matches!(
            kind,
            Kind::Connect
                | Kind::Certificate
                | Kind::Acquire
                | Kind::Saturated
                | Kind::Closed
                | Kind::Config
                | Kind::H1Only
        );
        let timeout = matches!(kind, Kind::Acquire | Kind::KeepAlive | Kind::Timeout);
        Self {
            inner: Arc::new(Inner {
                kind,
                timeout,
                unprocessed,
                body: false,
                lasting: false,
                message: message.into(),
                origin: None,
                source: None,
            }),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The text without the origin, for errors that tell of this one and name it themselves.
    pub(crate) fn message(&self) -> &str {
        &self.inner.message
    }

    /// The stable word for logs and metrics.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.inner.kind {
            Kind::Connect if self.inner.timeout => "connect_timeout",
            Kind::Connect => "connect",
            Kind::Certificate => "certificate",
            Kind::Acquire => "acquire_timeout",
            Kind::Saturated => "saturated",
            Kind::Closed => "closed",
            Kind::Config => "config",
            Kind::H1Only => "h1_only",
            Kind::Goaway => "goaway",
            Kind::Reset => "reset",
            Kind::KeepAlive => "keep_alive_timeout",
            Kind::Io => "io",
            Kind::Runtime => "runtime",
            Kind::Protocol => "protocol",
            Kind::Body => "body",
            Kind::Timeout => "timeout",
        }
    }

    #[must_use]
    pub(crate) fn with_source(self, source: impl Into<BoxError>) -> Self {
        let source: BoxError = source.into();
        self.edit(|inner| inner.source = Some(Arc::from(source)))
    }

    #[must_use]
    pub(crate) fn with_timeout(self) -> Self {
        self.edit(|inner| inner.timeout = true)
    }

    #[must_use]
    pub(crate) fn with_unprocessed(self, unprocessed: bool) -> Self {
        self.edit(|inner| inner.unprocessed = unprocessed)
    }

    /// Whether it happened while the response's body was read.
    pub(crate) fn is_in_response_body(&self) -> bool {
        self.inner.body
    }

    /// It happened while the response's body was read.
    #[must_use]
    pub(crate) fn in_body(self) -> Self {
        self.edit(|inner| inner.body = true)
    }

    /// The response itself was at fault.
    #[must_use]
    pub(crate) fn lasting(self) -> Self {
        self.edit(|inner| inner.lasting = true)
    }

    /// Names the origin, unless one is named already.
    #[must_use]
    pub(crate) fn with_origin(self, origin: impl fmt::Display) -> Self {
        if self.inner.origin.is_some() {
            return self;
        }
        self.edit(|inner| inner.origin = Some(Arc::from(origin.to_string())))
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        if let Some(origin) = &self.inner.origin {
            write!(f, " ({origin})")?;
        }
        Ok(())
    }
}

/// An error with its causes, on one line, for logs.
pub(crate) struct Chain<'a>(pub(crate) &'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.kind_name())
            .field("message", &self.inner.message)
            .field("unprocessed", &self.inner.unprocessed);
        if let Some(origin) = &self.inner.origin {
            out.field("origin", origin);
        }
        if let Some(source) = &self.inner.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicates_follow_the_kind() {
        // P22, P41
        let connect = Error::new(Kind::Connect, "refused").with_origin("https://a:443");
        assert!(connect.is_connect() && connect.is_unprocessed() && connect.is_transient());
        assert!(!connect.is_timeout());
        assert!(connect.clone().with_timeout().is_timeout());
        assert_eq!(connect.to_string(), "refused (https://a:443)");
        assert_eq!(connect.origin(), Some("https://a:443"));

        for (kind, transient) in [
            (Kind::Acquire, true),
            (Kind::Saturated, false),
            (Kind::Closed, false),
            (Kind::Config, false),
            (Kind::Certificate, false),
            (Kind::H1Only, false),
        ] {
            let error = Error::new(kind, "x");
            assert!(error.is_unprocessed(), "{kind:?}");
            assert_eq!(error.is_transient(), transient, "{kind:?}");
        }
        for kind in [
            Kind::Io,
            Kind::Runtime,
            Kind::Reset,
            Kind::Goaway,
            Kind::KeepAlive,
            Kind::Protocol,
            Kind::Body,
        ] {
            assert!(!Error::new(kind, "x").is_unprocessed(), "{kind:?} is ambiguous");
        }
    }

    #[test]
    fn the_source_chain_is_kept_and_the_first_origin_wins() {
        // P41
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "nobody there");
        let error = Error::new(Kind::Connect, "dial failed")
            .with_source(io)
            .with_origin("https://a:443")
            .with_origin("https://b:443");
        assert_eq!(error.source().unwrap().to_string(), "nobody there");
        assert_eq!(error.origin(), Some("https://a:443"));
    }
}
