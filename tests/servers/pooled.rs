//! The pool, as its users have it: all defaults but the certificates; and its retry layer where a request is idempotent.

use bytes::Bytes;
use h2pool::retry::RetryPolicy;
use h2pool::{Error, H2Pool};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};

use crate::Failure;
use crate::certs::Tls;
use crate::client::{Answer, Client, Options, Payload, TlsVersions, Unanswered};

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
        let done = self.exchange(request).await;
        done.map(answer)
            .map_err(|error| Unanswered::new(&error, error.is_unprocessed()))
    }

    async fn send_again(&self, request: Request<Payload>) -> Result<Answer, Unanswered> {
        let pool = service_fn(|request| self.exchange(request));
        let service = ServiceBuilder::new().layer(RetryPolicy::default()).service(pool);
        match service.oneshot(request).await {
            Ok(response) => Ok(answer(response)),
            Err(error) => Err(Unanswered::new(error.as_ref(), false)),
        }
    }

    fn opened(&self) -> Option<u64> {
        Some(self.0.stats().sessions_opened)
    }

    fn state(&self) -> String {
        format!("{:?}", self.0.stats())
    }
}

impl Pooled {
    /// Sends a request and reads the body too, so that one which breaks off is a failure that the retry layer sees.
    async fn exchange<B>(&self, request: Request<B>) -> Result<Response<Full<Bytes>>, Error>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = self.0.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(parts, Full::new(body)))
    }
}

fn answer(response: Response<Full<Bytes>>) -> Answer {
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        version: parts.version,
        body: body.into_inner().unwrap_or_default(),
    }
}
