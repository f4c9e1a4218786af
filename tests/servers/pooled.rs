//! The pool, as its users have it: all defaults but the certificates.

use std::time::Duration;

use h2pool::{Error, H2Pool};
use http::Request;
use http_body_util::BodyExt;

use crate::Failure;
use crate::certs::Tls;
use crate::client::{Answer, Client, Options, Payload, TlsVersions, Unanswered};

/// How often an idempotent request is sent at most, and how long the client waits in between.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// The pool.
#[derive(Clone)]
pub(crate) struct Pooled(H2Pool);

impl Client for Pooled {
    const NAME: &'static str = "h2pool";
    const CONNECTIONS: usize = 4;

    fn build(options: &Options) -> Result<Self, Failure> {
        let tls = Tls::new(&[]);
        let tls = match options.tls {
            TlsVersions::Both => tls,
            TlsVersions::Tls12 => tls.tls12(),
            TlsVersions::Tls13 => tls.tls13(),
        };
        Ok(Self(H2Pool::builder().tls_config(tls.client()).build()?))
    }

    async fn send(&self, request: Request<Payload>) -> Result<Answer, Unanswered> {
        let response = self.0.request(request).await.map_err(unanswered)?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(unanswered)?.to_bytes();
        Ok(Answer {
            status: parts.status,
            version: parts.version,
            body,
        })
    }

    async fn send_again(&self, request: Request<Payload>) -> Result<Answer, Unanswered> {
        let mut attempt = 0;
        loop {
            match self.send(request.clone()).await {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn opened(&self) -> Option<u64> {
        Some(self.0.stats().sessions_opened)
    }

    fn state(&self) -> String {
        format!("{:?}", self.0.stats())
    }
}

fn unanswered(error: Error) -> Unanswered {
    Unanswered::new(&error, error.is_unprocessed())
}
