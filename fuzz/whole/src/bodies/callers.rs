//! Those who send a body and read one, and check every byte.

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

/// One exchange.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Bytes of the request's body, and of its frames.
    pub(super) upload: usize,
    chunk: usize,
    /// Bytes of the response's body.
    pub(super) download: usize,
    /// The response's trailers, and the request's.
    pub(super) trailers: bool,
    /// Frames read before the body is dropped; `None`: all of them.
    pub(super) stops_after: Option<u8>,
    /// Between two frames, in either direction.
    pause: Duration,
}

pub(super) fn plans(input: &mut Input<'_>) -> Vec<Plan> {
    let mut plans = Vec::new();
    for _ in 0..=input.below(5) {
        let how = input.byte();
        plans.push(Plan {
            upload: if how & 1 != 0 {
                usize::from(input.u16()) * 3
            } else {
                0
            },
            chunk: 1 + usize::from(input.u16()) % 30_000,
            download: if how & 2 != 0 {
                usize::from(input.u16()) * 5
            } else {
                0
            },
            trailers: how & 4 != 0,
            stops_after: (how & 24 == 24).then(|| input.byte() % 8),
            pause: Duration::from_millis(if how & 32 != 0 {
                u64::from(input.byte() % 16)
            } else {
                0
            }),
        });
    }
    plans
}

/// Byte `at` of the body of exchange `number`, in either direction.
pub(super) fn pattern(number: usize, at: usize) -> u8 {
    let mixed = at
        .wrapping_mul(31)
        .wrapping_add(at >> 8)
        .wrapping_add(number * 101);
    u8::try_from(mixed & 0xff).unwrap()
}

/// A piece of such a body.
pub(super) fn piece(number: usize, from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| pattern(number, at)).collect()
}

pub(super) fn start(pool: &H2Pool, plans: &[Plan]) -> Vec<JoinHandle<()>> {
    let plans = plans.iter().copied().enumerate();
    plans
        .map(|(number, plan)| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let response = pool
                    .request(request(number, plan))
                    .await
                    .expect("the server answers");
                read(response, number, plan).await;
            })
        })
        .collect()
}

pub(super) async fn all(callers: Vec<JoinHandle<()>>) {
    for caller in callers {
        caller.await.expect("no caller panics");
    }
}

fn request(number: usize, plan: Plan) -> Request<UnsyncBoxBody<Bytes, std::io::Error>> {
    let request = Request::post(format!("https://a/{number}"));
    let frames = stream::unfold(0, move |sent| async move {
        if !plan.pause.is_zero() {
            sleep(plan.pause).await;
        }
        if sent < plan.upload {
            let length = plan.chunk.min(plan.upload - sent);
            let data = Bytes::from(piece(number, sent, length));
            return Some((Ok(Frame::data(data)), sent + length));
        }
        if plan.trailers && sent == plan.upload {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("sum", http::HeaderValue::from_static("1"));
            return Some((Ok(Frame::trailers(trailers)), sent + 1));
        }
        None
    });
    request
        .body(StreamBody::new(frames).boxed_unsync())
        .expect("a request")
}

async fn read(response: Response<Body>, number: usize, plan: Plan) {
    let mut body = response.into_body();
    let (mut at, mut frames, mut trailers) = (0, 0, false);
    while plan.stops_after != Some(frames) {
        let Some(frame) = body.frame().await else {
            assert_eq!((at, trailers), (plan.download, plan.trailers), "all of it");
            return;
        };
        match frame.expect("the server sends all of it").into_data() {
            Ok(data) => {
                let same = data
                    .iter()
                    .enumerate()
                    .all(|(i, byte)| *byte == pattern(number, at + i));
                assert!(same, "byte for byte");
                at += data.len();
            }
            Err(_) => trailers = true,
        }
        frames = frames.saturating_add(1);
        if !plan.pause.is_zero() {
            sleep(plan.pause).await;
        }
    }
}
