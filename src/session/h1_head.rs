//! The request head as HTTP/1.1 wants it (RFC 9112 §3.2).

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};

use super::head::{
    Protocol, add_length, check_host, check_length, too_many, unusable, with_port, without_user,
};
use crate::error::Error;
use crate::origin::{Origin, usual_port};

/// The head of one attempt: origin-form, or authority-form for CONNECT, and a `host`, which comes first.
/// What hyper's own extensions say stays; how long a body is, hyper tells. `body_size` is as for [`for_h2`](super::head::for_h2).
pub(crate) fn for_h1(parts: &Parts, body_size: Option<u64>) -> Result<Request<()>, Error> {
    if parts.extensions.get::<Protocol>().is_some() {
        return Err(Error::config(
            "extended CONNECT (RFC 8441) needs HTTP/2, and the server speaks HTTP/1.1",
        ));
    }
    let connect = parts.method == Method::CONNECT;
    let mut headers = HeaderMap::try_with_capacity(parts.headers.keys_len() + 2).map_err(too_many)?;
    check_host(&parts.headers)?;
    if !parts.headers.contains_key(header::HOST) {
        headers.insert(header::HOST, host(&parts.uri, connect)?);
    }
    for (name, value) in &parts.headers {
        headers.try_append(name, value.clone()).map_err(too_many)?;
    }
    join_cookies(&mut headers);
    if headers.contains_key(header::TE) && !names_te(&headers) {
        // RFC 9110 section 10.1.4.
        headers
            .try_append(header::CONNECTION, HeaderValue::from_static("te"))
            .map_err(too_many)?;
    }
    check_length(&headers, body_size)?;
    if connect && body_size != Some(0) && !says_length(&headers) {
        // hyper would send what has a length as content, which a tunnel has not, and nothing of the rest.
        return Err(Error::config(
            "over HTTP/1.1 a CONNECT has no body (RFC 9110 section 9.3.6): what goes up the tunnel is written to the upgraded \
             connection",
        ));
    }
    if body_size == Some(0) {
        add_length(&parts.method, &mut headers, body_size)?;
    } else if needs_chunks(&parts.method, &headers, body_size) {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
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

fn names_te(headers: &HeaderMap) -> bool {
    let mut values = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.any(|value| {
        value
            .split(',')
            .any(|name| name.trim().eq_ignore_ascii_case("te"))
    })
}

/// Outside of HTTP/2 there is one `cookie` (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(mut cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        cookie.set_sensitive(true);
        headers.insert(header::COOKIE, cookie);
    }
}

/// The caller says how long the body is.
fn says_length(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Left to itself, hyper sends no trailers after a body of known length, and nothing at all of a GET's body of unknown
/// length.
fn needs_chunks(method: &Method, headers: &HeaderMap, body_size: Option<u64>) -> bool {
    if *method == Method::CONNECT || headers.contains_key(header::TRANSFER_ENCODING) {
        return false;
    }
    headers.contains_key(header::TRAILER)
        || (body_size.is_none() && !headers.contains_key(header::CONTENT_LENGTH))
}

fn origin_form(uri: &Uri) -> Uri {
    // Before a fragment it may be empty, which hyper writes as it is.
    let path = uri.path_and_query().filter(|path| path.as_str() != "/").cloned();
    path.map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// The target of a request by a forward proxy (RFC 9112 §3.2.2), in place of the `form` that an origin is told; that of
/// CONNECT stays.
pub(super) fn absolute_form(uri: &Uri, form: &Uri, origin: &Origin) -> Result<Uri, Error> {
    if form.authority().is_some() {
        return Ok(form.clone());
    }
    if form.path() == "*" {
        // Its absolute form has an empty path, which `Uri` does not write (RFC 9112 §3.2.4).
        return Err(Error::config("`*` as a target cannot be sent by a forward proxy"));
    }
    let given = uri.authority().map(without_user).transpose()?;
    let usual = origin.uri().into_parts();
    let mut whole = form.clone().into_parts();
    whole.scheme = usual.scheme;
    whole.authority = given.or(usual.authority);
    Uri::from_parts(whole).map_err(unusable)
}

fn authority_form(uri: &Uri) -> Result<Uri, Error> {
    let authority = uri.authority().map(without_user).transpose()?;
    with_port(authority, uri.scheme()).map(Uri::from)
}

/// The authority without user and password and, except for CONNECT, without the scheme's own port.
fn host(uri: &Uri, connect: bool) -> Result<HeaderValue, Error> {
    let Some(authority) = uri.authority() else {
        return Err(Error::config(
            "the request has neither a `host` header nor a URI with a host",
        ));
    };
    let text = authority.as_str();
    // A name alone, as most are.
    if !connect && !text.bytes().any(|byte| matches!(byte, b':' | b'@')) {
        return HeaderValue::from_str(text).map_err(unusable);
    }
    let usual = usual_port(uri.scheme());
    let port = if connect {
        authority.port_u16().or(usual)
    } else {
        authority.port_u16().filter(|port| Some(*port) != usual)
    };
    let host = match port {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    };
    HeaderValue::try_from(host).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_http1_the_target_is_origin_form_and_host_is_there() {
        // P28, P45
        let head =
            |request: http::request::Builder| for_h1(&request.body(()).unwrap().into_parts().0, Some(0));
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
        let crumbs = Request::get("http://a/")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        assert_eq!(head(crumbs).unwrap().headers()["cookie"], "a=1; b=2");
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
    fn the_target_is_the_root_where_a_uri_has_no_path() {
        // P28: a fragment is never sent.
        for (uri, target) in [
            ("http://a", "/"),
            ("http://a#fragment", "/"),
            ("http://a/#fragment", "/"),
            ("http://a?q#fragment", "/?q"),
        ] {
            let parts = Request::get(uri).body(()).unwrap().into_parts().0;
            let sent = for_h1(&parts, Some(0)).unwrap();
            assert_eq!(sent.uri().to_string(), target, "{uri}");
        }
    }

    #[test]
    fn a_forward_proxy_gets_the_absolute_form() {
        // P28: without user and password; for a relative URI, the session's origin.
        let origin: Origin = "http://b:8080".parse().unwrap();
        let absolute = |uri: &str, form: &str| {
            let form = form.parse().unwrap();
            absolute_form(&uri.parse().unwrap(), &form, &origin)
        };
        for (uri, form, target) in [
            ("http://u:p@a:81/x?y", "/x?y", "http://a:81/x?y"),
            ("http://a", "/", "http://a/"),
            ("/x", "/x", "http://b:8080/x"),
            ("http://a/x", "a:80", "a:80"),
        ] {
            assert_eq!(absolute(uri, form).unwrap().to_string(), target, "{uri}");
        }
        assert!(absolute("*", "*").unwrap_err().is_config());
    }

    #[test]
    fn over_http1_chunks_carry_what_hyper_would_leave_out() {
        // P31
        let chunked = |request: http::request::Builder, size| {
            let parts = request.body(()).unwrap().into_parts().0;
            let sent = for_h1(&parts, size).unwrap();
            sent.headers().contains_key("transfer-encoding")
        };
        let trailer = |request: http::request::Builder| request.header("trailer", "x-sum");
        assert!(chunked(Request::get("http://a/"), None));
        assert!(chunked(trailer(Request::post("http://a/")), Some(5)));
        assert!(!chunked(Request::get("http://a/"), Some(0)));
        assert!(!chunked(Request::post("http://a/"), Some(5)));
        assert!(!chunked(
            Request::get("http://a/").header("content-length", "5"),
            None
        ));
    }

    #[test]
    fn over_http1_a_tunnel_has_no_content() {
        // P31, P45: what goes up is the connection's, and content that hyper frames would be lost to the tunnel, or be left out.
        let head = |request: http::request::Builder, size| {
            let parts = request.body(()).unwrap().into_parts().0;
            for_h1(&parts, size).map(|head| head.headers().len())
        };
        for size in [None, Some(5)] {
            let refused = head(Request::connect("http://a:80"), size).unwrap_err();
            assert!(refused.is_config() && refused.is_unprocessed(), "{refused}");
            for (name, value) in [("content-length", "5"), ("transfer-encoding", "chunked")] {
                let explicit = Request::connect("http://a:80").header(name, value);
                assert_eq!(head(explicit, size).unwrap(), 2, "who says so may try");
            }
        }
        assert_eq!(head(Request::connect("http://a:80"), Some(0)).unwrap(), 1);
    }
}
