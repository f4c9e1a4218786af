//! The paths of the server.
//!
//! | path | answer |
//! | --- | --- |
//! | `/` | 200, `ok` |
//! | `/delay/MS` | 200 after so many milliseconds |
//! | `/gate`, `/gate/NAME` | 200 once the gate of that name lets it pass |
//! | `/hang` | nothing, ever |
//! | `/echo` | the body and its trailers, streamed; every request header as `echo-NAME`, the head as `echo-method` … |
//! | `/bytes/N` | N bytes of the pattern, with a length |
//! | `/sse/N` | N server-sent events; with `?gate=NAME` each waits for the gate |
//! | `/status/N` | that status, no body; `?NAME=VALUE` adds a header |
//! | `/sequence/A,B,C` | the i-th status for the i-th request with that `x-id`; the last one for all later |
//! | `/redirect`, `/redirect/N` | 302 or N to `/bytes/3` |
//! | `/upload-count` | reads everything, then answers the length; `pattern: true` if it was the pattern |
//! | `/early` | answers `early` at once, reads the upload meanwhile, ends with its length |
//! | `/early-drop` | answers `early` whole and reads nothing of the upload |
//! | `/trailers` | `body`, then trailers `x-first: 1`, `x-last: end` |
//! | `/headers/N` | a header `x-big` of N bytes |
//! | `/break` | a head with a length of 1,000, 10 bytes, then breaks off |
//! | `/close` | 200 with `connection: close` |
//! | `/upgrade`, CONNECT | 101 (or 200) and then echoes bytes |
//!
//! On any path the request header `x-gate: NAME` holds the request at that gate first.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::Shared;
use super::body::{self, BoxError, Boxed, Guarded};
use super::counts::{Connected, ID};

/// Counts, waits as the options say, answers.
pub(super) async fn handle(
    shared: Arc<Shared>,
    connection: Arc<Connected>,
    request: Request<Incoming>,
) -> Result<Response<Guarded>, Infallible> {
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (mut running, times) = connection.request(text(ID).as_deref());
    if let Some(gate) = text("x-gate") {
        shared.gate(&gate).pass().await;
    }
    if !shared.options.delay.is_zero() {
        tokio::time::sleep(shared.options.delay).await;
    }
    let mut response = route(&shared, request, times).await;
    let index = HeaderValue::from(connection.index);
    response.headers_mut().insert("x-connection", index);
    response
        .headers_mut()
        .insert("x-protocol", HeaderValue::from_static(connection.protocol));
    running.answered();
    Ok(response.map(|inner| Guarded {
        inner,
        running: Some(running),
    }))
}

async fn route(shared: &Shared, request: Request<Incoming>, times: usize) -> Response<Boxed> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if request.method() == Method::CONNECT {
        // Without `:protocol` it has no path.
        return upgrade(request);
    }
    let (name, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    match name {
        "" => ok("ok"),
        "delay" => {
            tokio::time::sleep(Duration::from_millis(number(rest))).await;
            ok("ok")
        }
        "gate" => {
            shared.gate(rest).pass().await;
            ok("ok")
        }
        "hang" => std::future::pending().await,
        "echo" => echo(request),
        "bytes" => Response::new(body::pattern_body(number(rest))),
        "sse" => events(shared, number(rest), query.strip_prefix("gate=")),
        "status" => status(number(rest), &query),
        "sequence" => status(nth(rest, times), &query),
        "redirect" => redirect(rest),
        "upload-count" => upload_count(request.into_body()).await,
        "early" => early(request.into_body()),
        "early-drop" => ok("early"),
        "trailers" => trailers(),
        "headers" => with_header("x-big", &"a".repeat(number::<usize>(rest))),
        "break" => {
            let mut response = Response::new(body::broken_off(body::pattern(0, 10)));
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(1_000));
            response
        }
        "close" => with_header("connection", "close"),
        "upgrade" => upgrade(request),
        _ => status(404, ""),
    }
}

fn ok(text: &'static str) -> Response<Boxed> {
    Response::new(body::full(text))
}

fn number<N: std::str::FromStr>(text: &str) -> N {
    text.parse().ok().expect("a number in the path")
}

fn nth(list: &str, times: usize) -> u16 {
    let statuses: Vec<&str> = list.split(',').collect();
    number(statuses[(times - 1).min(statuses.len() - 1)])
}

fn with_header(name: &'static str, value: &str) -> Response<Boxed> {
    let mut response = ok("ok");
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

fn status(code: u16, query: &str) -> Response<Boxed> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let name: HeaderName = name.parse().unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

fn redirect(code: &str) -> Response<Boxed> {
    let mut response = status(if code.is_empty() { 302 } else { number(code) }, "");
    response
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static("/bytes/3"));
    response
}

/// Streams the body back; trailers on HTTP/1.1 need to be announced by the client's `trailer` field.
fn echo(request: Request<Incoming>) -> Response<Boxed> {
    let (parts, incoming) = request.into_parts();
    let mut response = Response::new(incoming.map_err(BoxError::from).boxed_unsync());
    let headers = response.headers_mut();
    for (name, value) in &parts.headers {
        let echoed: HeaderName = format!("echo-{name}").parse().unwrap();
        headers.append(echoed, value.clone());
        if name == header::TRAILER || name == header::CONTENT_TYPE {
            headers.append(name, value.clone());
        }
    }
    let mut add = |name: &'static str, value: &str| headers.insert(name, value.parse().unwrap());
    add("echo-method", parts.method.as_str());
    add(
        "echo-path",
        parts.uri.path_and_query().map_or("", |path| path.as_str()),
    );
    add("echo-version", &format!("{:?}", parts.version));
    // On HTTP/2 this is `:authority`, on HTTP/1.1 the URI has none.
    add(
        "echo-authority",
        parts.uri.authority().map_or("", |authority| authority.as_str()),
    );
    response
}

fn events(shared: &Shared, count: u64, gate: Option<&str>) -> Response<Boxed> {
    let gate = gate.map(|name| shared.gate(name));
    let events = stream::iter(0..count).then(move |event| {
        let gate = gate.clone();
        async move {
            if let Some(gate) = gate {
                gate.pass().await;
            }
            Ok(Frame::data(Bytes::from(format!("data: {event}\n\n"))))
        }
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    response
}

/// Length of a body, whether it was the pattern, and its trailers.
async fn consume(mut incoming: Incoming) -> Result<(u64, bool, HeaderMap), hyper::Error> {
    let (mut length, mut good, mut trailers) = (0, true, HeaderMap::new());
    while let Some(frame) = incoming.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                good &= body::is_pattern(length, &data);
                length += data.len() as u64;
            }
            Err(other) => trailers.extend(other.into_trailers().into_iter().flatten()),
        }
    }
    Ok((length, good, trailers))
}

async fn upload_count(incoming: Incoming) -> Response<Boxed> {
    let Ok((length, good, trailers)) = consume(incoming).await else {
        return status(400, "");
    };
    let mut response = Response::new(body::full(length.to_string()));
    response
        .headers_mut()
        .insert("pattern", good.to_string().parse().unwrap());
    for (name, value) in trailers {
        let name: HeaderName = format!("trailer-{}", name.unwrap()).parse().unwrap();
        response.headers_mut().append(name, value);
    }
    response
}

fn early(incoming: Incoming) -> Response<Boxed> {
    let first = stream::once(async { Ok(Frame::data(Bytes::from_static(b"early"))) });
    let last = stream::once(async {
        let (length, _, _) = consume(incoming).await?;
        Ok(Frame::data(Bytes::from(format!(" {length}"))))
    });
    Response::new(StreamBody::new(first.chain(last)).boxed_unsync())
}

fn trailers() -> Response<Boxed> {
    let mut fields = HeaderMap::new();
    fields.insert("x-first", HeaderValue::from_static("1"));
    fields.insert("x-last", HeaderValue::from_static("end"));
    let mut response = Response::new(body::with_trailers("body", fields));
    response
        .headers_mut()
        .insert(header::TRAILER, HeaderValue::from_static("x-first, x-last"));
    response
}

/// Echoes bytes on the upgraded connection or stream.
fn upgrade(request: Request<Incoming>) -> Response<Boxed> {
    let mut response = Response::new(body::empty());
    if request.version() == Version::HTTP_11 && request.method() != Method::CONNECT {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let protocol = request.headers().get(header::UPGRADE).cloned();
        let protocol = protocol.unwrap_or(HeaderValue::from_static("echo"));
        response.headers_mut().insert(header::UPGRADE, protocol);
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
            // The client ends it; how does not matter here.
            drop(tokio::io::copy(&mut reader, &mut writer).await);
            drop(tokio::io::AsyncWriteExt::shutdown(&mut writer).await);
        }
    });
    response
}
