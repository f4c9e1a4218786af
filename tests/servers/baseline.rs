//! hyper-util's client, to prove the fixtures with a client that is not ours.
//!
//! It does not pass everything. A GOAWAY that arrives just after a request was handed to h2 reaches it as that request's
//! error (hyper asks `poll_ready` again), though the server may cover and answer the stream: such a request is
//! processed twice here. It takes a RST_STREAM (NO_ERROR) for the end of a body, so that a pass over it does not say that
//! none came. And it bounds no connections: over HTTP/1.1, so many requests are let through at a time as the pool has
//! connections.

use std::error::Error as StdError;
use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;

use crate::Failure;
use crate::certs::Tls;
use crate::client::{Answer, Client, Counters, Options, Payload, TlsVersions, Unanswered};

/// How often a request is sent at most, and how long the client waits in between.
const ATTEMPTS: u32 = 1_000;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Requests at a time: enough for HTTP/2, and as many as the pool's connections for HTTP/1.1.
const H2_AT_ONCE: usize = 10_000;
const H1_AT_ONCE: usize = 16;

/// hyper-util's client over hyper-rustls.
#[derive(Clone)]
pub(crate) struct Baseline {
    client: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Payload>,
    permits: Arc<Semaphore>,
}

impl Client for Baseline {
    const NAME: &'static str = "hyper-util's client";
    const CONNECTIONS: usize = 1;

    fn build(options: &Options) -> Result<Self, Failure> {
        let tls = Tls::new(&[]);
        let tls = match options.tls {
            TlsVersions::Both => tls,
            TlsVersions::Tls12 => tls.tls12(),
            TlsVersions::Tls13 => tls.tls13(),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.client())
            .https_only();
        // Where it may choose, it dials for every request until the first answer.
        let connector = if options.h1_only {
            connector.enable_http1().wrap_connector(tcp)
        } else {
            connector.enable_http2().wrap_connector(tcp)
        };
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_only(!options.h1_only)
            .http2_keep_alive_interval(options.keep_alive_interval())
            .build(connector);
        let at_once = if options.h1_only { H1_AT_ONCE } else { H2_AT_ONCE };
        Ok(Self {
            client,
            permits: Arc::new(Semaphore::new(at_once)),
        })
    }

    async fn send(&self, request: Request<Payload>) -> Result<Answer, Unanswered> {
        self.until(&request, |error| error.unprocessed).await
    }

    async fn send_again(&self, request: Request<Payload>) -> Result<Answer, Unanswered> {
        self.until(&request, |_| true).await
    }

    fn counters(&self) -> Option<Counters> {
        None
    }

    fn state(&self) -> String {
        String::new()
    }
}

impl Baseline {
    /// Sends a request, and again where that is asked for.
    async fn until(
        &self,
        request: &Request<Payload>,
        again: impl Fn(&Unanswered) -> bool,
    ) -> Result<Answer, Unanswered> {
        let mut attempt = 0;
        loop {
            match self.once(request.clone()).await {
                Err(error) if attempt < ATTEMPTS && again(&error) => attempt += 1,
                done => return done,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn once(&self, request: Request<Payload>) -> Result<Answer, Unanswered> {
        let _permit = self.permits.acquire().await;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| Unanswered::new(&error, is_unprocessed(&error)))?;
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| Unanswered::new(&error, false))?;
        Ok(Answer {
            status: parts.status,
            version: parts.version,
            body: body.to_bytes(),
        })
    }
}

/// RFC 9113 §8.7, read from h2's error; and hyper's word for what it never sent.
fn is_unprocessed(error: &Error) -> bool {
    let mut next: Option<&dyn StdError> = error.source();
    while let Some(cause) = next {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            return h2.is_remote() && (h2.is_go_away() || refused);
        }
        if cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        next = cause.source();
    }
    error.is_connect()
}
