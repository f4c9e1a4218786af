//! Sending requests again, where that is safe and sensible.
//!
//! [`RetryPolicy`] is a [`tower::Layer`] over any `Service<http::Request<ReplayBody<B>>>` that is `Clone`, answers with an
//! `http::Response` and fails with anything that is `Into<BoxError>`. It knows nothing of h2pool's connections, and works
//! the same over hyper-util's client or reqwest's; h2pool's errors only tell it more.
//!
//! ```
//! use bytes::Bytes;
//! use h2pool::retry::{ReplayBody, RetryPolicy};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # runtime.block_on(async {
//! let client = service_fn(|_: http::Request<ReplayBody<Full<Bytes>>>| async {
//!     Ok::<_, std::io::Error>(http::Response::new(Full::<Bytes>::from("hello")))
//! });
//! let service = ServiceBuilder::new().layer(RetryPolicy::default()).service(client);
//! let response = service.oneshot(http::Request::get("https://example.com/").body(Full::default())?).await?;
//! assert_eq!(response.status(), 200);
//! # Ok::<(), tower::BoxError>(())
//! # })?;
//! # Ok::<(), tower::BoxError>(())
//! ```
//!
//! # With h2pool
//!
//! ```no_run
//! use std::time::Duration;
//! use bytes::Bytes;
//! use h2pool::H2Pool;
//! use h2pool::retry::{Attempts, RetryBudget, RetryPolicy};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # async fn get() -> Result<(), tower::BoxError> {
//! let policy = RetryPolicy::default()
//!     .deadline(Duration::from_secs(20))
//!     .attempt_timeout(Duration::from_secs(5))
//!     .budget(RetryBudget::default());
//! let service = ServiceBuilder::new().layer(policy).service(H2Pool::new()?);
//! let request = http::Request::get("https://example.com/").body(Full::<Bytes>::default())?;
//! let response = service.oneshot(request).await?;
//! println!("{}, {:?}", response.status(), response.extensions().get::<Attempts>());
//! # Ok(()) }
//! ```
//!
//! The pool sends again by itself what a server refused; the layer is for what the pool cannot know: whether a
//! request may be repeated.
//!
//! # What is retried
//!
//! After every attempt the policy [decides](RetryPolicy::decide), by the request's head, the number of attempts, the time
//! elapsed and the [`Outcome`]:
//!
//! - *Transient* outcomes are retried for requests that are safe to repeat: GET, HEAD and OPTIONS
//!   ([configurable](RetryPolicy::methods)), any request with [`RetryOptions::any_method`], and, where
//!   [the policy allows it](RetryPolicy::idempotency_key), any with an `Idempotency-Key`. Such outcomes are the statuses
//!   425, 429, 502, 503 and 504 ([configurable](RetryPolicy::statuses)), and errors before the response's head:
//!   connections reset, ended early, not opened, and time limits.
//! - *Unprocessed* outcomes are retried whatever the method, since the server provably did nothing (RFC 9113 §8.7):
//!   streams refused or excluded by a GOAWAY, and connections that could not be opened. Classifiers of your own may know
//!   more: [`classify_response`](RetryPolicy::classify_response), [`classify_error`](RetryPolicy::classify_error).
//! - Everything else is final: other statuses, certificates and configuration among it, and any error that is not known.
//!   A refused certificate is known by rustls's errors and by [`InvalidData`](std::io::ErrorKind::InvalidData); under a
//!   client that uses another TLS library it is a connection that could not be opened, unless a classifier knows better.
//!
//! `x-should-retry: false` makes any response final, `true` makes any 4xx and 5xx transient; where both are said, `false`
//! counts.
//!
//! # Which errors are known
//!
//! An error is known by any error in its source chain whose type the layer knows; an error that nobody knows is final.
//! Some types it can know only with the crate's feature that brings the library, whatever client is below:
//!
//! | errors | known with |
//! | --- | --- |
//! | h2pool's own, h2's, [`std::io::Error`] by its kind, the time limits of tokio and tower | always |
//! | hyper's: the response ended early, the connection closed or gone, a time limit, a malformed response | `http1` or `tcp` |
//! | those of hyper-util's client: no connection could be opened, whatever the cause (a name that is not found, say) | `http1` and `tcp` |
//! | rustls's: a refused certificate, wherever it is in the chain | `tls` |
//!
//! The default features have all of them. Without them an error of hyper's is still known by an [`std::io::Error`] beneath
//! it (refused, reset, timed out), but not a response that ended early, which has no cause: over hyper's, hyper-util's or
//! reqwest's client, ask for `http1` and `tcp`, or say it by [`classify_error`](RetryPolicy::classify_error).
//!
//! Where a service below reads the response's body itself and fails with it, as h2pool's and hyper's bodies do when their
//! connection is lost, that is an error before the response, too.
//!
//! # How soon
//!
//! Back-off is [exponential with full jitter](RetryPolicy::backoff). `Retry-After` (seconds, or an HTTP date in any of its
//! forms) and `retry-after-ms` take its place where they ask for at least its base, and are a lower bound otherwise. Where
//! both are there, `retry-after-ms` counts, being finer; of several values of one header the longest; and a classifier's
//! own [`retry_after`](Outcome::retry_after) before any of them. Decimal fractions are understood in both. A
//! delay above [`max_retry_after`](RetryPolicy::max_retry_after), or one that would reach the deadline, is not waited for:
//! the response is returned at once, never retried earlier than asked. Malformed headers are ignored.
//!
//! Before it waits, the layer reads the rest of the failed response (at most 64 KiB and 100 ms, so that an HTTP/1.1
//! connection stays usable; a delay shorter than that waits for it) and drops it. While it waits it holds no permit, slot
//! or lease. Each attempt polls the service ready again, on the instance that is then called.
//!
//! # How often
//!
//! [Attempts](RetryPolicy::max_attempts) (10), a [deadline](RetryPolicy::deadline) over everything up to the response's head
//! (60 s), and a [time limit for each attempt](RetryPolicy::attempt_timeout) (none) bound one request;
//! [`RetryOptions`] changes them for a single one. A [`RetryBudget`] bounds the retries of all requests together, so that
//! retries do not turn a weak server into a dead one: give one to every client of weight.
//!
//! What a server refused unprocessed is free of the budget, up to three times for one request. Over an h2pool the two
//! multiply: the pool sends each attempt again by itself up to [`max_replays`](crate::PoolConfig::max_replays) times (3), so
//! that a server that refuses everything sees 4 × 4 streams of one request before the budget is asked.
//!
//! Two settings for a fleet that wakes at once (a gateway answers 503 for the seconds that something takes to start) are
//! worth thought. There the deadline is what matters, not a count: `max_attempts(0)`. And every one of the requests needs
//! several retries in the same seconds, which the default budget is there to prevent: give it a `burst` of about
//! requests × (seconds to start ÷ mean delay), and leave the share as it is for what comes after.
//!
//! # Bodies
//!
//! The service below gets a [`ReplayBody`], which records what it streams, up to [64 KiB](RetryPolicy::replay_limit). A
//! larger body is sent as it is, and then not retried. The budget of memory is the only price: bytes are shared.
//!
//! A body whose error is a `Box<dyn Error + Send + Sync>` meets a limit of the compiler, with this and any tower service:
//! an async block that awaits `service.oneshot(request)` cannot be spawned. Spawn the future itself, use
//! [`Retry::request`], or give the body an error type of its own.
//!
//! # What is learned
//!
//! Every response carries an [`Attempts`] extension, the error of every request is a [`RetryError`] around the last one. (A
//! service that is no longer usable before the first attempt says so through `poll_ready`, by its own error.) When a limit is
//! reached, the last response is returned as `Ok`, and the last error as `Err`. Every outcome is a `tracing` event (target
//! `h2pool::retry`, fields `method`, `attempt`, `elapsed_ms`, `status` or `error.kind` and `error.message`, `delay_ms`,
//! `stop`, and `beside` for an answer that does not count by itself because a hedge still runs). It is at level DEBUG, or
//! WARN when a limit ended the matter. The second and later attempts tell the server their number in
//! [`x-retry-count`](RetryPolicy::retry_count_header).
//!
//! # With hyper-util's client
//!
//! ```
//! use bytes::Bytes;
//! use h2pool::retry::{ReplayBody, RetryPolicy};
//! use http_body_util::Full;
//! use hyper_util::client::legacy::{Client, connect::HttpConnector};
//! use hyper_util::rt::TokioExecutor;
//! use tower::ServiceBuilder;
//!
//! let client: Client<HttpConnector, ReplayBody<Full<Bytes>>> =
//!     Client::builder(TokioExecutor::new()).build(HttpConnector::new());
//! let service = ServiceBuilder::new().layer(RetryPolicy::default()).service(client);
//! # fn takes_requests<S: tower::Service<http::Request<Full<Bytes>>>>(_: S) {}
//! # takes_requests(service);
//! ```
//!
//! # With tower-http
//!
//! Layers that concern the whole request go above, those that concern every attempt below. Redirects are followed above,
//! so that each hop has its own attempts and its own deadline.
//!
//! ```
//! use bytes::Bytes;
//! use h2pool::retry::{ReplayBody, RetryBudget, RetryPolicy};
//! use http_body_util::Full;
//! use tower::{BoxError, ServiceBuilder, service_fn};
//! use tower_http::{decompression::DecompressionLayer, follow_redirect::FollowRedirectLayer, trace::TraceLayer};
//!
//! # let client = service_fn(|_: http::Request<ReplayBody<Full<Bytes>>>| async {
//! #     Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default()))
//! # });
//! let service = ServiceBuilder::new()
//!     .layer(DecompressionLayer::new())
//!     .layer(FollowRedirectLayer::new())
//!     .layer(RetryPolicy::default().budget(RetryBudget::default()))
//!     .layer(TraceLayer::new_for_http()) // one span for every attempt
//!     .service(client);
//! # fn takes_requests<S: tower::Service<http::Request<Full<Bytes>>>>(_: S) {}
//! # takes_requests(service);
//! ```
//!
//! # With reqwest
//!
//! reqwest's client is a service of its own request and response types, which convert (its feature `stream` is needed):
//!
//! ```text
//! let service = ServiceBuilder::new()
//!     .layer(RetryPolicy::default().classify_error(|error| {
//!         let timeout = error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout);
//!         timeout.then(Outcome::transient)
//!     }))
//!     .map_request(|request: http::Request<ReplayBody<Full<Bytes>>>| {
//!         reqwest::Request::try_from(request.map(reqwest::Body::wrap)).expect("an absolute http or https URI")
//!     })
//!     .map_response(http::Response::<reqwest::Body>::from)
//!     .service(reqwest::Client::new());
//! ```
//!
//! # With tonic
//!
//! A generated client, or tonic's own `Grpc`, takes the layer over the pool as its transport:
//!
//! ```text
//! let policy = RetryPolicy::default()
//!     .methods([Method::POST]) // only where every call is safe to repeat
//!     .classify_response(|head| {
//!         // 14 is UNAVAILABLE
//!         let unavailable = head.headers.get("grpc-status").is_some_and(|status| status == "14");
//!         unavailable.then(Outcome::transient)
//!     });
//! let pool = H2Pool::builder().http2_prior_knowledge(true).build()?; // for an http:// origin
//! let client = GreeterClient::with_origin(Retry::new(policy, pool), "http://greeter.internal:50051".parse()?);
//! ```
//!
//! tonic does not know this crate's errors: they become the code UNKNOWN unless they are told, as by
//! `ServiceExt::map_err(pool, |error| if error.is_connect() { Status::unavailable(error.to_string()) } else { .. })`.
//! With the layer that belongs above it, where the pool's error is in the source chain: below, it would make every failure a
//! `Status`, which the layer does not know, and so a final one.
//!
//! Every call is a POST, which is retried only if it was not processed, unless the policy or
//! [`RetryOptions::any_method`] says otherwise. A gRPC failure is HTTP status 200: without such a classifier it is a
//! success. The layer sees a `grpc-status` in the response's head, where servers put it that fail before they answer; one in
//! the trailers comes too late for it.
//!
//! # With `tower::retry`
//!
//! [`RetryPolicy::tower_policy`] gives a policy for tower's own retry layer, for the subset that fits it.

mod attempt;
mod attempts;
pub(crate) mod backoff;
mod body;
mod buckets;
mod budget;
pub(crate) mod classify;
pub(crate) mod clock;
mod decide;
mod drain;
mod events;
mod future;
pub(crate) mod headers;
mod job;
mod layer;
mod options;
mod outcome;
mod policy;
mod race;
mod tape;
mod tower_policy;

pub use attempts::{Attempts, RetryError};
pub use body::ReplayBody;
pub use budget::RetryBudget;
pub use future::RetryFuture;
pub use layer::Retry;
pub use options::RetryOptions;
pub use outcome::{Decision, Failure, Outcome, Reason, Stop, Verdict};
pub use policy::RetryPolicy;
pub use tower_policy::{Delay, TowerPolicy};
