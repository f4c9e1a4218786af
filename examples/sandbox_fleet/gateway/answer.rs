//! What the gateway answers.
//!
//! A request to a sandbox that is ready is served, but for a hiccup now and then. One to a sandbox that wakes gets whatever
//! the gateway's mood is; nothing is executed then.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderValue, Method, Response};

use super::world::World;
use crate::client::{NOT_EXECUTED, OPERATION};

/// What becomes of a stream.
pub(super) enum Answer {
    Respond(Response<Bytes>),
    Reset(Reason),
}

/// Where a request goes.
enum Route {
    Sandbox(usize),
    File(usize, usize),
    Operation(String),
}

/// Answers one request, whose body has been read.
pub(super) async fn to(world: &World, head: &Parts, content: Bytes) -> Answer {
    if world.chance(50) {
        return Answer::Reset(Reason::REFUSED_STREAM);
    }
    let operation = head.headers.get(OPERATION).and_then(|name| name.to_str().ok());
    match (route(head.uri.path()), &head.method, operation) {
        (Some(Route::Operation(operation)), &Method::GET, _) => looked_up(world, &operation),
        (Some(Route::Sandbox(sandbox)), &Method::GET, _) => status(world, sandbox, wait(head)).await,
        (Some(Route::Sandbox(sandbox)), &Method::POST, Some(operation)) => {
            world.executes(operation);
            world.touch(sandbox);
            acknowledged(world, 202)
        }
        (Some(Route::File(sandbox, _)), _, _) if world.wakes_in(sandbox) != Some(Duration::ZERO) => {
            bad_mood(world)
        }
        (Some(Route::File(sandbox, file)), &Method::GET, _) => match world.read(sandbox, file) {
            Some(content) => respond(200, content),
            None => respond(404, Bytes::new()),
        },
        (Some(Route::File(sandbox, file)), &Method::POST, Some(operation)) => {
            world.executes(operation);
            world.write(sandbox, file, content);
            acknowledged(world, 201)
        }
        _ => respond(400, Bytes::new()),
    }
}

fn route(path: &str) -> Option<Route> {
    let mut parts = path.split('/').skip(1);
    let route = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
        ("operations", operation, None, None) => Route::Operation(operation.to_owned()),
        ("sandboxes", sandbox, None, None) => Route::Sandbox(sandbox.parse().ok()?),
        ("sandboxes", sandbox, Some("files"), Some(file)) => {
            Route::File(sandbox.parse().ok()?, file.parse().ok()?)
        }
        _ => return None,
    };
    Some(route)
}

/// How long the client wants its request to be held.
fn wait(head: &Parts) -> Duration {
    let query = head.uri.query().unwrap_or_default();
    let millis = query.strip_prefix("wait=").and_then(|millis| millis.parse().ok());
    Duration::from_millis(millis.unwrap_or(0))
}

/// A long poll: held until the sandbox is ready, unless the mood is bad, or the time is over.
async fn status(world: &World, sandbox: usize, wait: Duration) -> Answer {
    let Some(left) = world.wakes_in(sandbox) else {
        return respond(200, Bytes::from_static(b"standby"));
    };
    if !left.is_zero() && world.mood(3) > 0 {
        return bad_mood(world);
    }
    tokio::time::sleep(left.min(wait)).await;
    match world.wakes_in(sandbox) {
        Some(Duration::ZERO) => respond(200, Bytes::from_static(b"ready")),
        _ => respond(408, Bytes::new()),
    }
}

fn looked_up(world: &World, operation: &str) -> Answer {
    let executed = world.has_executed(operation);
    respond(200, if executed { "executed" } else { "unknown" }.into())
}

/// It was executed; but the answer may get lost.
fn acknowledged(world: &World, status: u16) -> Answer {
    match world.mood(50) {
        0 => Answer::Reset(Reason::INTERNAL_ERROR),
        1 => respond(502, Bytes::new()),
        _ => respond(status, Bytes::new()),
    }
}

/// It was not executed, and the client may learn that, or guess.
fn bad_mood(world: &World) -> Answer {
    let (status, header) = match world.mood(9) {
        0 => (425, Some((NOT_EXECUTED, "true"))),
        1 => (429, Some((NOT_EXECUTED, "true"))),
        2 => (429, Some((RETRY_AFTER, "1"))),
        3 => (502, None),
        4 => (503, None),
        5 => (503, Some((RETRY_AFTER, "2"))),
        6 => (504, None),
        7 => return Answer::Reset(Reason::REFUSED_STREAM),
        _ => return Answer::Reset(Reason::INTERNAL_ERROR),
    };
    let mut response = Response::new(Bytes::from_static(b"not yet"));
    *response.status_mut() = status.try_into().unwrap_or_default();
    if let Some((name, value)) = header {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Answer::Respond(response)
}

fn respond(status: u16, content: Bytes) -> Answer {
    let mut response = Response::new(content);
    *response.status_mut() = status.try_into().unwrap_or_default();
    Answer::Respond(response)
}
