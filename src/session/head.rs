//! The request head as HTTP/2 wants it (RFC 9113 §8.2.2, §8.3.1), and as HTTP/1.1 does (RFC 9112 §3.2).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};

use crate::error::Error;

/// Headers about one hop, which HTTP/2 forbids.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

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
    let mut headers = parts.headers.clone();
    let host = headers.remove(header::HOST);
    *request.uri_mut() = target(parts, host)?;
    check_length(&headers, body_size)?;
    strip(&mut headers);
    hide(&mut headers);
    add_length(&parts.method, &mut headers, body_size);
    *request.headers_mut() = headers;
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

/// A request without a body must not promise one; what is sent of a body is checked while it is sent.
fn check_length(headers: &HeaderMap, body_size: Option<u64>) -> Result<(), Error> {
    let promised = headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length.as_bytes() != b"0");
    if promised && body_size == Some(0) {
        return Err(Error::config("the request has a `content-length` and no body"));
    }
    Ok(())
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

/// The head of one attempt over HTTP/1.1: origin-form, or authority-form for CONNECT, and a `host`, which comes first.
/// What hyper's own extensions say stays; how long a body is, hyper tells.
#[cfg(feature = "http1")]
pub(crate) fn for_h1(parts: &Parts, empty: bool) -> Result<Request<()>, Error> {
    if parts.extensions.get::<Protocol>().is_some() {
        return Err(Error::config(
            "extended CONNECT (RFC 8441) needs HTTP/2, and the server speaks HTTP/1.1",
        ));
    }
    let connect = parts.method == Method::CONNECT;
    let mut headers = HeaderMap::with_capacity(parts.headers.len() + 2);
    if !parts.headers.contains_key(header::HOST) {
        headers.insert(header::HOST, host(&parts.uri, connect)?);
    }
    headers.extend(parts.headers.clone());
    if empty {
        add_length(&parts.method, &mut headers, Some(0));
    }
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = if connect {
        authority_form(&parts.uri)?
    } else {
        origin_form(&parts.uri)
    };
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    *request.extensions_mut() = parts.extensions.clone();
    Ok(request)
}

#[cfg(feature = "http1")]
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.map_or_else(|| Uri::from_static("/"), Uri::from)
}

#[cfg(feature = "http1")]
fn authority_form(uri: &Uri) -> Result<Uri, Error> {
    let authority = uri.authority().cloned();
    authority
        .map(Uri::from)
        .ok_or_else(|| Error::config("the URI of a CONNECT request needs a host and a port"))
}

/// The authority without user and password and, except for CONNECT, without the scheme's own port.
#[cfg(feature = "http1")]
fn host(uri: &Uri, connect: bool) -> Result<HeaderValue, Error> {
    let Some(authority) = uri.authority() else {
        return Err(Error::config(
            "the request has neither a `host` header nor a URI with a host",
        ));
    };
    let usual = match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    };
    let host = match authority.port_u16() {
        Some(port) if connect || Some(port) != usual => format!("{}:{port}", authority.host()),
        _ => authority.host().to_owned(),
    };
    HeaderValue::try_from(host)
        .map_err(|error| Error::config("the request URI is not usable").with_source(error))
}

/// `host`, where it is given, is the `:authority`; a plain CONNECT has neither scheme nor path.
fn target(parts: &Parts, host: Option<HeaderValue>) -> Result<Uri, Error> {
    let plain_connect = parts.method == Method::CONNECT && parts.extensions.get::<Protocol>().is_none();
    if host.is_none() && !plain_connect && parts.uri.path_and_query().is_some() {
        return Ok(parts.uri.clone());
    }
    let mut uri = parts.uri.clone().into_parts();
    if let Some(host) = host {
        let authority = host.as_bytes().try_into();
        uri.authority = Some(authority.map_err(|error: http::uri::InvalidUri| {
            Error::config("the `host` header is not a valid authority").with_source(error)
        })?);
    }
    if plain_connect {
        (uri.scheme, uri.path_and_query) = (None, None);
    } else if uri.path_and_query.is_none() {
        uri.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    Uri::from_parts(uri).map_err(|error| Error::config("the request URI is not usable").with_source(error))
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

/// Credentials never enter the peer's dynamic table (RFC 7541 §7.1.3).
fn hide(headers: &mut HeaderMap) {
    for name in [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION] {
        if let header::Entry::Occupied(mut values) = headers.entry(name) {
            values.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
}

fn add_length(method: &Method, headers: &mut HeaderMap, size: Option<u64>) {
    let meaningful = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    // What a tunnel carries is no content (RFC 9110 §9.3.6).
    let size = size.filter(|_| *method != Method::CONNECT);
    if let Some(size) = size.filter(|size| *size > 0 || meaningful) {
        headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(size));
    }
}

#[cfg(test)]
mod tests {
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
        let sent = head(Request::connect("https://a:443"), None);
        assert_eq!(sent.uri(), "a:443");
        let extended = Request::connect("https://a/chat").extension(Protocol::from_static("websocket"));
        let sent = head(extended, None);
        assert_eq!(sent.uri(), "https://a/chat");
        assert_eq!(
            sent.extensions().get::<h2::ext::Protocol>().unwrap().as_str(),
            "websocket"
        );
    }

    #[cfg(feature = "http1")]
    #[test]
    fn over_http1_the_target_is_origin_form_and_host_is_there() {
        // P28, P45
        let head = |request: http::request::Builder| for_h1(&request.body(()).unwrap().into_parts().0, true);
        let sent = head(
            Request::post("https://u:p@a:443/x?y")
                .header("b", "1")
                .header("b", "2"),
        )
        .unwrap();
        assert_eq!(
            (sent.uri().to_string().as_str(), sent.version()),
            ("/x?y", Version::HTTP_11)
        );
        assert_eq!(sent.headers().keys().next(), Some(&header::HOST));
        assert_eq!(sent.headers()["host"], "a");
        assert_eq!(sent.headers()["content-length"], "0");
        assert_eq!(sent.headers().get_all("b").iter().count(), 2);
        assert_eq!(
            head(Request::get("http://a:443/")).unwrap().headers()["host"],
            "a:443"
        );
        assert_eq!(
            head(Request::get("http://[::1]:80")).unwrap().headers()["host"],
            "[::1]"
        );
        let given = head(Request::get("/only").header("host", "b")).unwrap();
        assert_eq!((given.uri().path(), given.headers().len()), ("/only", 1));
        let connect = head(Request::connect("https://a:443/x")).unwrap();
        assert_eq!(
            (connect.uri().to_string().as_str(), &connect.headers()["host"]),
            ("a:443", &"a:443".parse().unwrap())
        );
        let extended = Request::connect("https://a/chat").extension(Protocol::from_static("websocket"));
        for refused in [Request::get("/nowhere"), Request::connect("/nowhere"), extended] {
            assert!(head(refused).unwrap_err().is_config());
        }
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
