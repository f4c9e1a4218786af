//! Those who use the pool: what they send, how they read, and when they lose patience.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use h2pool::{Body, H2Pool};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::input::Input;

/// What one caller does.
#[derive(Clone, Copy)]
struct Plan {
    method: u8,
    /// Chunks of the request's body, and their size.
    chunks: u8,
    size: u16,
    /// Frames of the response that are read before the body is dropped; 255 for all.
    frames: u8,
    start: u64,
    patience: u64,
}

pub(super) fn start(pool: &H2Pool, input: &mut Input<'_>) -> Vec<JoinHandle<()>> {
    let mut callers = Vec::new();
    for _ in 0..=input.below(6) {
        let plan = Plan {
            method: input.byte(),
            chunks: input.byte(),
            size: input.u16(),
            frames: input.byte(),
            start: u64::from(input.byte()) * 10,
            patience: u64::from(input.byte()) * 20,
        };
        callers.push(tokio::spawn(call(pool.clone(), plan)));
    }
    callers
}

/// One request, given up when patience (where there is any limit to it) ends.
async fn call(pool: H2Pool, plan: Plan) {
    sleep(Duration::from_millis(plan.start)).await;
    let exchange = async {
        if let Ok(response) = pool.request(request(plan)).await {
            read(response, plan.frames).await;
        }
    };
    if plan.patience == 0 {
        exchange.await;
    } else {
        let _ = tokio::time::timeout(Duration::from_millis(plan.patience), exchange).await;
    }
}

fn request(plan: Plan) -> Request<UnsyncBoxBody<Bytes, std::io::Error>> {
    const METHODS: [&str; 6] = ["GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE"];
    let method = METHODS[usize::from(plan.method) % METHODS.len()];
    let chunks = if matches!(method, "POST" | "PUT") {
        plan.chunks % 16
    } else {
        0
    };
    let host = if plan.method >= 128 {
        "https://b/"
    } else {
        "https://a/"
    };
    let mut request = Request::builder().method(method).uri(host);
    if plan.chunks & 16 != 0 && chunks > 0 {
        request = request.header("content-length", u64::from(chunks) * u64::from(plan.size));
    }
    request.body(upload(plan, chunks)).expect("a request")
}

/// A body that pauses between its chunks, ends with trailers, or fails, as the plan says.
fn upload(plan: Plan, chunks: u8) -> UnsyncBoxBody<Bytes, std::io::Error> {
    if chunks == 0 {
        return http_body_util::Empty::new()
            .map_err(|never| match never {})
            .boxed_unsync();
    }
    let frames = stream::unfold(0, move |sent| async move {
        if plan.chunks & 32 != 0 {
            sleep(Duration::from_millis(7)).await;
        }
        let frame = match sent {
            sent if sent < chunks => Ok(Frame::data(Bytes::from(vec![b'x'; plan.size.into()]))),
            sent if sent > chunks => return None,
            _ if plan.chunks & 64 != 0 => Err(std::io::ErrorKind::Other.into()),
            _ if plan.chunks & 128 != 0 => {
                let mut trailers = http::HeaderMap::new();
                trailers.insert("sum", http::HeaderValue::from_static("1"));
                Ok(Frame::trailers(trailers))
            }
            _ => return None,
        };
        Some((frame, sent + 1))
    });
    StreamBody::new(frames).boxed_unsync()
}

async fn read(response: Response<Body>, frames: u8) {
    let mut body = response.into_body();
    let mut read = 0;
    while read < frames || frames == u8::MAX {
        match body.frame().await {
            Some(Ok(_)) => read = read.saturating_add(1),
            Some(Err(_)) | None => return,
        }
        if frames % 2 == 1 {
            sleep(Duration::from_millis(3)).await;
        }
    }
    if frames % 4 == 2 {
        // Held, not read.
        sleep(Duration::from_secs(5)).await;
    }
}
