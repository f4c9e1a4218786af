//! The client: one service made of `ServiceBuilder`, `RetryPolicy` and `H2Pool`, and the gateway's operations on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2pool::H2Pool;
use h2pool::poll::{Reply, Round};
use h2pool::retry::{Outcome, Retry, RetryBudget, RetryPolicy};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{BoxError, ServiceBuilder, ServiceExt};

use crate::tally::Tally;

/// Names an operation, so that the gateway can be asked about it later.
pub(crate) const OPERATION: HeaderName = HeaderName::from_static("x-operation");
/// The gateway's word that it did nothing.
pub(crate) const NOT_EXECUTED: HeaderName = HeaderName::from_static("x-not-executed");

/// How long any one request may take, over all its attempts.
const DEADLINE: Duration = Duration::from_secs(30);

/// Before an operation that was not executed is tried anew.
const PAUSE: Duration = Duration::from_millis(100);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    service: Retry<H2Pool>,
    base: Arc<str>,
    tally: Arc<Tally>,
    operations: Arc<AtomicU64>,
}

impl Client {
    pub(crate) fn new(pool: H2Pool, base: String, policy: RetryPolicy) -> Self {
        Self {
            service: ServiceBuilder::new().layer(policy).service(pool),
            base: base.into(),
            tally: Arc::default(),
            operations: Arc::default(),
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Creates a sandbox, and thereby wakes it.
    pub(crate) async fn create(&self, sandbox: usize) -> Result<()> {
        let path = format!("/sandboxes/{sandbox}");
        self.post(&path, Bytes::new()).await
    }

    /// Writes a file.
    pub(crate) async fn write(&self, sandbox: usize, file: usize, content: Bytes) -> Result<()> {
        let path = format!("/sandboxes/{sandbox}/files/{file}");
        self.post(&path, content).await
    }

    /// Reads a file.
    pub(crate) async fn read(&self, sandbox: usize, file: usize) -> Result<Bytes> {
        let path = format!("/sandboxes/{sandbox}/files/{file}");
        self.get(&path).await
    }

    /// One round of a long poll for a sandbox's status.
    pub(crate) async fn status(&self, sandbox: usize, round: Round) -> Result<Reply<Bytes>, BoxError> {
        let path = format!("/sandboxes/{sandbox}?wait={}", round.hold().as_millis());
        let response = self.send(Method::GET, &path, None, Bytes::new()).await?;
        Ok(Reply::of_response(response).map(Response::into_body))
    }

    /// Sends an operation that must be executed once. What was certainly not executed, the layer and the pool send again by
    /// themselves. Where the answer was lost, or says nothing about it, the gateway is asked. (It decides on a request when
    /// it comes; a service that may still be at it would have to be told to forget the operation first.)
    async fn post(&self, path: &str, content: Bytes) -> Result<()> {
        let operation = self.operations.fetch_add(1, Ordering::Relaxed).to_string();
        let attempt = async {
            loop {
                let sent = self
                    .send(Method::POST, path, Some(&operation), content.clone())
                    .await;
                if sent.is_ok_and(|response| response.status().is_success()) {
                    return Ok(());
                }
                self.tally.lookup();
                if self.get(&format!("/operations/{operation}")).await? == "executed" {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(DEADLINE, attempt)
            .await
            .context("not within the time allowed")?
    }

    async fn get(&self, path: &str) -> Result<Bytes> {
        let response = self
            .send(Method::GET, path, None, Bytes::new())
            .await
            .map_err(anyhow::Error::from_boxed)?;
        ensure!(
            response.status() == StatusCode::OK,
            "{} for {path}",
            response.status()
        );
        Ok(response.into_body())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        operation: Option<&str>,
        content: Bytes,
    ) -> Result<Response<Bytes>, BoxError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(operation) = operation {
            request = request.header(OPERATION, operation);
        }
        let request = request.body(Full::new(content))?;
        let response = self
            .service
            .clone()
            .oneshot(request)
            .await
            .inspect_err(|error| self.tally.error(&**error))?;
        self.tally.response(&response);
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

/// Bounded by the deadline, not by a count: how many attempts fit into the seconds that a sandbox takes to wake, nobody
/// needs to know.
///
/// The budget is sized for all of them waking at once: each has up to three requests in the air, and each of those needs
/// about five retries, with back-off from 0.2 to 2 s, to bridge 3 s. After the rush its share of 20 % is what remains, so
/// that a gateway which stays down is not beaten down further.
pub(crate) fn policy(sandboxes: usize) -> RetryPolicy {
    let rush = u32::try_from(sandboxes * 3 * 5).unwrap_or(u32::MAX);
    RetryPolicy::default()
        .max_attempts(0)
        .deadline(DEADLINE)
        .budget(RetryBudget::default().burst(rush))
        .classify_response(|head| head.headers.contains_key(NOT_EXECUTED).then(Outcome::unprocessed))
}
