//! Requests by chance.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use h2pool::{Body, Error, H2Pool};
use http::{HeaderMap, Method, Request, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::support::server::body::{Boxed, pattern};

/// Longer than anything may take.
const LONG: Duration = Duration::from_secs(300);

/// A request, and how its caller behaves.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) id: usize,
    pub(super) method: Method,
    /// Bytes of its body, in how many pieces, with what pauses between them.
    size: usize,
    pieces: usize,
    pause: Duration,
    trailers: bool,
    /// Its body breaks off in the midst.
    pub(super) fails: bool,
    patience: Duration,
    /// Before the body of the response is read; `None`: it is not.
    hesitates: Option<Duration>,
}

/// What came of it.
pub(super) enum Outcome {
    GivenUp,
    Hangs(&'static str),
    Failed(Error),
    Read { data: Bytes, trailers: bool },
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::GivenUp => write!(f, "given up"),
            Self::Hangs(at) => write!(f, "hangs {at}"),
            Self::Failed(error) => write!(f, "{error:?}"),
            Self::Read { data, trailers } => write!(f, "{} bytes, trailers {trailers}", data.len()),
        }
    }
}

impl Asked {
    pub(super) fn by_chance(id: usize, version: Version, rng: &mut SmallRng) -> Self {
        let micros = Duration::from_micros;
        let method = [Method::GET, Method::HEAD, Method::POST, Method::POST][rng.random_range(0..4)].clone();
        let small = rng.random_bool(0.4);
        let size = if small {
            rng.random_range(1..3000)
        } else {
            rng.random_range(3000..300_000)
        };
        let pieces = if rng.random_bool(0.5) {
            1
        } else {
            rng.random_range(2..40)
        };
        Self {
            id,
            size: if method == Method::POST { size } else { 0 },
            method,
            pieces,
            pause: micros(if rng.random_bool(0.5) {
                0
            } else {
                rng.random_range(1..2000)
            }),
            trailers: version == Version::HTTP_2 && pieces > 1 && rng.random_bool(0.5),
            fails: pieces > 1 && rng.random_bool(0.1),
            patience: if rng.random_bool(0.8) {
                LONG
            } else {
                micros(rng.random_range(0..200_000))
            },
            hesitates: match rng.random_range(0..10) {
                0 => None,
                1 | 2 => Some(micros(rng.random_range(0..100_000))),
                _ => Some(Duration::ZERO),
            },
        }
    }

    /// Nothing special.
    pub(super) fn last(id: usize) -> Self {
        Self {
            id,
            method: Method::POST,
            size: 1000,
            pieces: 1,
            pause: Duration::ZERO,
            trailers: false,
            fails: false,
            patience: LONG,
            hesitates: Some(Duration::ZERO),
        }
    }

    /// The bytes of its body.
    pub(super) fn upload(&self) -> Bytes {
        pattern(self.id as u64, self.size)
    }

    fn body(&self) -> Boxed {
        let upload = self.upload();
        if upload.is_empty() {
            return Empty::new().map_err(|never| match never {}).boxed_unsync();
        }
        if self.pieces == 1 {
            return Full::new(upload).map_err(|never| match never {}).boxed_unsync();
        }
        let piece = upload.len().div_ceil(self.pieces);
        let mut frames: Vec<_> = upload
            .chunks(piece)
            .map(|piece| Ok(Frame::data(upload.slice_ref(piece))))
            .collect();
        if self.fails {
            frames.truncate(frames.len() / 2);
            frames.push(Err("it fails".into()));
        } else if self.trailers {
            let trailers = HeaderMap::from_iter([(http::header::ETAG, "\"1\"".parse().unwrap())]);
            frames.push(Ok(Frame::trailers(trailers)));
        }
        let pause = self.pause;
        let frames = futures_util::stream::unfold(frames.into_iter(), move |mut frames| async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            frames.next().map(|frame| (frame, frames))
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

pub(super) async fn ask(pool: &H2Pool, asked: &Asked) -> Outcome {
    let request = Request::builder().method(&asked.method);
    let request = request
        .uri(format!("https://server/{}", asked.id))
        .body(asked.body());
    let response = {
        let response = pin!(pool.request(request.unwrap()));
        tokio::time::timeout(asked.patience, response).await
    };
    let body: Body = match response {
        Ok(Ok(response)) => response.into_body(),
        Ok(Err(error)) => return Outcome::Failed(error),
        Err(_) if asked.patience < LONG => return Outcome::GivenUp,
        Err(_) => return Outcome::Hangs("before the head"),
    };
    let Some(pause) = asked.hesitates else {
        return Outcome::GivenUp;
    };
    tokio::time::sleep(pause).await;
    match tokio::time::timeout(LONG, body.collect()).await {
        Ok(Ok(read)) => Outcome::Read {
            trailers: read.trailers().is_some(),
            data: read.to_bytes(),
        },
        Ok(Err(error)) => Outcome::Failed(error),
        Err(_) => Outcome::Hangs("in the body"),
    }
}
