//! `h2pool`: this crate.

use anyhow::Result;
use bytes::Bytes;
use h2pool::{H2Pool, PoolConfig};
use http::{Request, Uri};
use http_body_util::Empty;

use super::{Answer, Transport, length};
use crate::target::Target;

/// A pool.
pub(crate) struct Pool {
    pool: H2Pool,
    uri: Uri,
}

impl Pool {
    /// Builds the pool, which opens nothing yet.
    pub(crate) fn new(target: &Target, config: PoolConfig) -> Result<Self> {
        let pool = H2Pool::builder()
            .config(config)
            .tls_config(target.tls())
            .build()?;
        Ok(Self {
            pool,
            uri: target.uri.clone(),
        })
    }
}

impl Transport for Pool {
    async fn get(&self) -> Result<Answer> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = self.uri.clone();
        let response = self.pool.request(request).await?;
        Ok(Answer {
            status: response.status(),
            body_bytes: length(response.into_body()).await?,
        })
    }

    fn opened(&self) -> u64 {
        self.pool.stats().sessions_opened
    }
}
