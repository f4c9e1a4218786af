//! The pool, as its users have it: all defaults but the certificates; and its retry layer where a request is idempotent.

use h2pool::retry::RetryPolicy;
use h2pool::{Error, H2Pool};
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tower::{ServiceBuilder, ServiceExt};

use crate::Failure;
use crate::certs::Tls;
use crate::client::{Answer, Client, Counters, Options, Payload, TlsVersions, Unanswered};

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
        let pool = H2Pool::builder()
            .tls_config(tls.client())
            .keep_alive_interval(options.keep_alive_interval().unwrap_or_default());
        Ok(Self(pool.build()?))
    }

    async fn send(&self, request: Request<Payload>) -> Result<Answer, Unanswered> {
        let done = async { read(self.0.request(request).await?).await };
        done.await
            .map_err(|error: Error| Unanswered::new(&error, error.is_unprocessed()))
    }

    async fn send_again(&self, request: Request<Payload>) -> Result<Answer, Unanswered> {
        let service = ServiceBuilder::new()
            .layer(RetryPolicy::default())
            .service(self.0.clone());
        loop {
            let response = service.clone().oneshot(request.clone()).await;
            let response = response.map_err(|error| Unanswered::new(error.as_ref(), false))?;
            // The layer has done its part when it has the head. A body that breaks off is the caller's to ask for again.
            if let Ok(answer) = read(response).await {
                return Ok(answer);
            }
        }
    }

    fn counters(&self) -> Option<Counters> {
        let stats = self.0.stats();
        Some(Counters {
            opened: stats.sessions_opened,
            replays: stats.replays,
        })
    }

    fn state(&self) -> String {
        format!("{:?}", self.0.stats())
    }
}

async fn read<B: Body>(response: Response<B>) -> Result<Answer, B::Error> {
    let (parts, body) = response.into_parts();
    Ok(Answer {
        status: parts.status,
        version: parts.version,
        body: body.collect().await?.to_bytes(),
    })
}
