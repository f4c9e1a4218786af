//! The transports that are compared.

pub(crate) mod bare;
pub(crate) mod hyper;
pub(crate) mod pool;

use std::future::Future;
use std::pin::pin;

use bytes::Buf;
use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt;

/// Sends the request of the burst.
pub(crate) trait Transport: Send + Sync + 'static {
    /// Sends one request and reads the answer to its end.
    fn get(&self) -> impl Future<Output = anyhow::Result<Answer>> + Send;

    /// Connections opened so far.
    fn opened(&self) -> u64;
}

/// An answer that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body_bytes: usize,
}

/// Reads a body to its end and returns its length.
async fn length<B: Body>(body: B) -> Result<usize, B::Error> {
    let mut body = pin!(body);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Buf::remaining);
    }
    Ok(length)
}
