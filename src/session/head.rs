//! The request head as HTTP/2 wants it (RFC 9113 §8.2.2, §8.3.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};

use crate::error::{BoxError, Error};
use crate::origin::usual_port;

/// Headers about one hop, which HTTP/2 forbids.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Credentials, which never enter the peer's dynamic table (RFC 7541 §7.1.3).
const SECRET: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// The `:protocol` of an extended CONNECT (RFC 8441), as a request extension.
///
/// Such a request is sent once the server's SETTINGS are there and allow it; otherwise it fails with an error whose
/// [`is_config`](crate::Error::is_config) is true, and so it does over HTTP/1.1. The request's body is the way up and the
/// response's body the way down; `examples/connect_tunnel.rs` shows both.
///
/// ```
/// let mut request = http::Request::connect("https://example.com/chat").body(()).unwrap();
/// request.extensions_mut().insert(h2pool::Protocol::from_static("websocket"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(pub(crate) h2::ext::Protocol);

impl Protocol {
    /// A protocol name known at compile time.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        Self(h2::ext::Protocol::from_static(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<&str> for Protocol {
    fn from(name: &str) -> Self {
        Self(h2::ext::Protocol::from(name))
    }
}

/// The head of one attempt; the original is kept for the next. `body_size` is the body's exact size, 0 for none.
pub(crate) fn for_h2(parts: &Parts, body_size: Option<u64>) -> Result<Request<()>, Error> {
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = Version::HTTP_2;
    let mut host = None;
    if !parts.headers.is_empty() {
        let headers = request.headers_mut();
        *headers = parts.headers.clone();
        trim(headers);
        let special = Special::among(headers);
        if special.host {
            check_host(headers)?;
            host = headers.remove(header::HOST);
        }
        if special.one_hop {
            strip(headers);
        }
        if special.secret {
            hide(headers);
        }
        check_length(headers, body_size)?;
    }
    *request.uri_mut() = target(parts, host)?;
    add_length(&parts.method, request.headers_mut(), body_size)?;
    if let Some(protocol) = parts.extensions.get::<Protocol>() {
        if parts.method != Method::CONNECT {
            return Err(Error::config(
                "the extension `Protocol` makes an extended CONNECT (RFC 8441), and the method is another",
            ));
        }
        request.extensions_mut().insert(protocol.0.clone());
    }
    Ok(request)
}

/// Which headers need more than to be passed on; most requests have few of them, or none.
#[derive(Default)]
struct Special {
    host: bool,
    one_hop: bool,
    secret: bool,
}

impl Special {
    fn among(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            if *name == header::HOST {
                found.host = true;
            } else if *name == header::TE || HOP_BY_HOP.contains(name) {
                found.one_hop = true;
            } else if SECRET.contains(name) {
                found.secret = true;
            }
        }
        found
    }
}

/// There is one `host` (RFC 9112 §3.2).
pub(super) fn check_host(headers: &HeaderMap) -> Result<(), Error> {
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Error::config("the request has more than one `host` header"));
    }
    Ok(())
}

/// A request must not promise another length than its body is known to have; where that is not known, it is checked
/// while it is sent.
pub(super) fn check_length(headers: &HeaderMap, body_size: Option<u64>) -> Result<(), Error> {
    let mut promised = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let length = length(value)
            .filter(|length| promised.is_none_or(|promised| promised == *length))
            .ok_or_else(|| Error::config("the request's `content-length` is not one number"))?;
        promised = Some(length);
    }
    match (promised, body_size) {
        (Some(1..), Some(0)) => Err(Error::config("the request has a `content-length` and no body")),
        (Some(promised), Some(size)) if promised != size => Err(Error::config(format!(
            "the request's `content-length` is {promised}, and its body has {size} bytes"
        ))),
        _ => Ok(()),
    }
}

/// The value of a `content-length` (RFC 9110 §8.6).
fn length(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?;
    // A sign would be parsed, too.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| number)
}

/// Whether the request opens a tunnel (RFC 9110 §9.3.6): its body does not end before the response comes.
pub(crate) fn opens_tunnel(parts: &Parts) -> bool {
    parts.method == Method::CONNECT
}

/// Whether the request has to wait for the server's SETTINGS, which may not allow it (RFC 8441 §3).
pub(crate) fn needs_settings(parts: &Parts) -> bool {
    parts.extensions.get::<Protocol>().is_some()
}

/// Whether the head made by [`for_h2`] is that of an extended CONNECT.
pub(crate) fn is_extended_connect(request: &Request<()>) -> bool {
    request.extensions().get::<h2::ext::Protocol>().is_some()
}

/// The authority without user and password, which are nobody's but the caller's (RFC 9113 §8.3.1).
pub(super) fn without_user(authority: &Authority) -> Result<Authority, Error> {
    match authority.as_str().rsplit_once('@') {
        None => Ok(authority.clone()),
        Some((_, host)) => host.parse().map_err(unusable),
    }
}

/// The authority of a tunnel, whose port is never left out (RFC 9110 §9.3.6).
pub(super) fn with_port(authority: Option<Authority>, scheme: Option<&Scheme>) -> Result<Authority, Error> {
    match (authority, usual_port(scheme)) {
        (Some(authority), _) if authority.port().is_some() => Ok(authority),
        (Some(authority), Some(port)) => {
            let host = authority.as_str().trim_end_matches(':');
            format!("{host}:{port}").parse().map_err(unusable)
        }
        _ => Err(Error::config(
            "the URI of a CONNECT request needs a host and a port",
        )),
    }
}

/// `host`, where it is given, is the `:authority`; a plain CONNECT has neither scheme nor path.
fn target(parts: &Parts, host: Option<HeaderValue>) -> Result<Uri, Error> {
    let plain_connect = parts.method == Method::CONNECT && parts.extensions.get::<Protocol>().is_none();
    let has_user = parts.uri.authority().is_some_and(|it| it.as_str().contains('@'));
    let path = parts.uri.path_and_query();
    if host.is_none() && !plain_connect && !has_user && path.is_some_and(|path| !has_no_path(path)) {
        return Ok(parts.uri.clone());
    }
    let mut uri = parts.uri.clone().into_parts();
    if let Some(host) = host {
        let authority = host.as_bytes().try_into();
        uri.authority = Some(authority.map_err(|error: http::uri::InvalidUri| {
            Error::config("the `host` header is not a valid authority").with_source(error)
        })?);
    }
    uri.authority = uri.authority.as_ref().map(without_user).transpose()?;
    if plain_connect {
        let scheme = uri.scheme.take();
        uri.authority = Some(with_port(uri.authority, scheme.as_ref())?);
        uri.path_and_query = None;
    } else if uri.path_and_query.is_none() {
        uri.path_and_query = Some(PathAndQuery::from_static("/"));
    } else if let Some(query) = uri.path_and_query.as_ref().filter(|path| has_no_path(path)) {
        uri.path_and_query = Some(query.to_string().parse().map_err(unusable)?);
    }
    Uri::from_parts(uri).map_err(unusable)
}

pub(crate) fn unusable(error: impl Into<BoxError>) -> Error {
    Error::config("the request URI is not usable").with_source(error)
}

/// A query alone, as in `https://a?b`.
fn has_no_path(path: &PathAndQuery) -> bool {
    path.as_str().starts_with('?')
}

/// The trailers of a request: what HTTP/2 forbids in headers, it forbids in these.
pub(super) fn trailers_for_h2(trailers: &mut HeaderMap) {
    trim(trailers);
    let special = Special::among(trailers);
    if special.one_hop {
        strip(trailers);
    }
    if special.secret {
        hide(trailers);
    }
}

/// No value begins or ends with whitespace (RFC 9113 §8.2.1), which would be no part of it (RFC 9110 §5.5).
fn trim(headers: &mut HeaderMap) {
    let is_spaced = |value: &HeaderValue| value.as_bytes().trim_ascii().len() < value.len();
    if !headers.values().any(is_spaced) {
        return;
    }
    for value in headers.values_mut().filter(|value| is_spaced(value)) {
        if let Ok(mut trimmed) = HeaderValue::from_bytes(value.as_bytes().trim_ascii()) {
            trimmed.set_sensitive(value.is_sensitive());
            *value = trimmed;
        }
    }
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.into_iter().chain(named) {
        headers.remove(name);
    }
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value
                .split(',')
                .any(|te| te.trim().eq_ignore_ascii_case("trailers"))
        })
    });
    if headers.remove(header::TE).is_some() && trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn hide(headers: &mut HeaderMap) {
    for name in SECRET {
        if let header::Entry::Occupied(mut values) = headers.entry(name) {
            values.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
}

/// A `HeaderMap` holds 24,576 names at most, and panics beyond.
pub(super) fn too_many(error: http::header::MaxSizeReached) -> Error {
    Error::config("the request has too many headers").with_source(error)
}

pub(super) fn add_length(method: &Method, headers: &mut HeaderMap, size: Option<u64>) -> Result<(), Error> {
    let meaningful = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    // What a tunnel carries is no content (RFC 9110 §9.3.6).
    let size = size.filter(|_| *method != Method::CONNECT);
    if let Some(size) = size.filter(|size| *size > 0 || meaningful) {
        if !headers.contains_key(header::CONTENT_LENGTH) {
            let length = HeaderValue::from(size);
            headers
                .try_insert(header::CONTENT_LENGTH, length)
                .map_err(too_many)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "http1")]
    use super::super::h1_head;
    use super::*;

    fn head(request: http::request::Builder, size: Option<u64>) -> Request<()> {
        for_h2(&request.body(()).unwrap().into_parts().0, size).unwrap()
    }

    #[test]
    fn headers_of_one_hop_are_stripped() {
        // P32
        let request = Request::get("https://a/x")
            .header("connection", "x-mine, Keep-Alive")
            .header("x-mine", "1")
            .header("keep-alive", "5")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "h2c")
            .header("proxy-connection", "close")
            .header("te", "gzip, Trailers")
            .header("x-kept", "2");
        let sent = head(request, Some(0));
        let names: Vec<_> = sent.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(sent.headers()["te"], "trailers");
        assert_eq!(sent.headers()["x-kept"], "2");
        let request = Request::get("https://a/x").header("te", "gzip");
        assert!(head(request, Some(0)).headers().is_empty());
    }

    #[test]
    fn host_becomes_the_authority_and_connect_has_no_path() {
        // P32, P45
        let sent = head(Request::get("https://a/x?y").header("host", "b:8443"), None);
        assert_eq!(sent.uri(), "https://b:8443/x?y");
        assert!(!sent.headers().contains_key("host"));
        for uri in ["https://a?y", "https://u@a?y"] {
            let sent = head(Request::get(uri), None);
            assert_eq!(sent.uri().path_and_query().unwrap().as_str(), "/?y");
        }
        for (uri, sent) in [
            ("https://a:443", "a:443"),
            ("https://a", "a:443"),
            ("http://[::1]/", "[::1]:80"),
        ] {
            assert_eq!(head(Request::connect(uri), None).uri(), sent);
            #[cfg(feature = "http1")]
            {
                let parts = Request::connect(uri).body(()).unwrap().into_parts().0;
                let head = h1_head::for_h1(&parts, Some(0)).unwrap();
                assert_eq!(
                    (head.uri(), &head.headers()["host"]),
                    (&sent.parse().unwrap(), &sent.parse().unwrap())
                );
            }
        }
        let nowhere = Request::connect("a").body(()).unwrap().into_parts().0;
        assert!(for_h2(&nowhere, None).unwrap_err().is_config());
        let extended = Request::connect("https://a/chat").extension(Protocol::from_static("websocket"));
        let sent = head(extended, None);
        assert_eq!(sent.uri(), "https://a/chat");
        assert_eq!(
            sent.extensions().get::<h2::ext::Protocol>().unwrap().as_str(),
            "websocket"
        );
        let without_scheme = Request::connect("a:443").extension(Protocol::from_static("websocket"));
        let parts = without_scheme.body(()).unwrap().into_parts().0;
        assert!(for_h2(&parts, None).unwrap_err().is_config());
    }

    #[test]
    fn there_is_one_host() {
        // P32
        let request = Request::get("https://a/").header("host", "b").header("host", "c");
        let parts = request.body(()).unwrap().into_parts().0;
        assert!(for_h2(&parts, None).unwrap_err().is_config());
        #[cfg(feature = "http1")]
        assert!(h1_head::for_h1(&parts, None).unwrap_err().is_config());
    }

    #[test]
    fn user_and_password_stay_at_home() {
        // P32, RFC 9113 §8.3.1
        let sent = head(Request::get("https://u:p@a:8443/x"), None);
        assert_eq!(sent.uri(), "https://a:8443/x");
        let sent = head(Request::get("https://a/x").header("host", "u:p@b"), None);
        assert_eq!(sent.uri(), "https://b/x");
        let sent = head(Request::connect("u@a:443"), None);
        assert_eq!(sent.uri(), "a:443");
    }

    #[test]
    fn a_length_that_is_not_the_bodys_is_never_sent() {
        // P31, P32
        let with = |lengths: &[&str], size| {
            let request = lengths
                .iter()
                .fold(Request::put("https://a/"), |request, length| {
                    request.header("content-length", *length)
                });
            let parts = request.body(()).unwrap().into_parts().0;
            let sent = for_h2(&parts, size);
            #[cfg(feature = "http1")]
            assert_eq!(
                h1_head::for_h1(&parts, size).is_ok(),
                sent.is_ok(),
                "{lengths:?}, {size:?}"
            );
            sent
        };
        for (lengths, size) in [
            (&["5"][..], Some(0)),
            (&["5"], Some(4)),
            (&["0"], Some(1)),
            (&["5", "6"], None),
            (&["+5"], Some(5)),
            (&["5, 5"], Some(5)),
            (&[""], None),
        ] {
            assert!(
                with(lengths, size).unwrap_err().is_config(),
                "{lengths:?}, {size:?}"
            );
        }
        for (lengths, size) in [
            (&["5"][..], Some(5)),
            (&["5"], None),
            (&["0"], Some(0)),
            (&["5", "5"], Some(5)),
        ] {
            assert!(with(lengths, size).is_ok(), "{lengths:?}, {size:?}");
        }
    }

    #[test]
    fn values_have_no_whitespace_around_them() {
        // P32, RFC 9113 §8.2.1
        let mut secret = HeaderValue::from_static("\ts\t");
        secret.set_sensitive(true);
        let request = Request::get("https://a/")
            .header("x-spaced", " a b ")
            .header("x-spaced", "c")
            .header("x-blank", " ")
            .header("x-secret", secret)
            .header("content-length", "5 ")
            .header("host", " b ");
        let sent = head(request, Some(5));
        let spaced: Vec<_> = sent.headers().get_all("x-spaced").iter().collect();
        assert_eq!(spaced, ["a b", "c"]);
        assert_eq!(sent.headers()["x-blank"], "");
        assert!(sent.headers()["x-secret"] == "s" && sent.headers()["x-secret"].is_sensitive());
        assert_eq!(sent.headers()["content-length"], "5");
        assert_eq!(sent.uri(), "https://b/");

        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static(" 7 "));
        trailers_for_h2(&mut trailers);
        assert_eq!(trailers["x-sum"], "7");
    }

    #[test]
    fn credentials_are_never_indexed() {
        // P32
        let request = Request::get("https://a/")
            .header("authorization", "secret")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("accept", "*/*");
        let sent = head(request, None);
        assert!(
            sent.headers()
                .get_all("cookie")
                .iter()
                .all(HeaderValue::is_sensitive)
        );
        assert!(sent.headers()["authorization"].is_sensitive());
        assert!(!sent.headers()["accept"].is_sensitive());
    }

    #[test]
    fn the_length_is_told_where_it_is_known_and_means_something() {
        // P32
        assert_eq!(
            head(Request::post("https://a/"), Some(0)).headers()["content-length"],
            "0"
        );
        assert_eq!(
            head(Request::put("https://a/"), Some(7)).headers()["content-length"],
            "7"
        );
        assert!(head(Request::get("https://a/"), Some(0)).headers().is_empty());
        assert!(head(Request::post("https://a/"), None).headers().is_empty());
    }
}
