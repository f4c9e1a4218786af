//! **h2pool** is a bounded, fair and cancel-safe HTTP/2 client pool, with HTTP/1.1 where a server speaks nothing else, and
//! a retry layer beside it.
//!
//! A client with one HTTP/2 connection per origin queues everything past the server's stream limit, opens connections
//! that it throws away when it starts cold, and loses requests when the server says GOAWAY. [`H2Pool`] opens as many
//! sessions as the demand justifies and the bound allows, gives every caller a slot in the order of asking, and sends
//! again by itself what the server provably did not process.
//!
//! ```no_run
//! use http_body_util::{BodyExt, Empty};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = h2pool::H2Pool::builder().max_sessions(4).build()?;
//! let request = http::Request::get("https://example.com/").body(Empty::<bytes::Bytes>::new())?;
//! let response = pool.request(request).await?;
//! println!("{} {:?}", response.status(), response.into_body().collect().await?.to_bytes());
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! - [`H2Pool`] is the pool and a `tower::Service`; [`Builder`] and [`PoolConfig`] are its settings with their defaults;
//!   [`H2Pool::origin`] gives one origin as a service whose readiness holds a slot; [`Lease`] is for those who write
//!   their own client. [`H2Pool::shared`] is one pool for the process.
//! - [`Error`] is the one error. Its predicates tell what may be sent again.
//! - [`retry`] is a layer over any HTTP service: it repeats what is safe to repeat, and honours `Retry-After`, a deadline
//!   and a budget.
//! - [`poll`] waits until a server has a status to report: long polls, alone or shared by many callers.
//! - [`connect`] says how connections are made: TCP and TLS by default, any hyper connector, or your own.
//! - [`Key`] keeps connections apart by more than the origin: a tenant, a TLS identity.
//! - [`ConnectionInfo`], an extension of every response of the pool's own, tells which connection answered.
//!
//! Redirects, cookies, decompression and the like are layers on top, such as tower-http's:
//!
//! ```no_run
//! use bytes::Bytes;
//! use h2pool::{H2Pool, retry::RetryPolicy};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_http::follow_redirect::FollowRedirectLayer;
//!
//! # async fn get() -> Result<(), tower::BoxError> {
//! let client = ServiceBuilder::new()
//!     .layer(FollowRedirectLayer::new())
//!     .layer(RetryPolicy::default())
//!     .service(H2Pool::new()?);
//! let request = http::Request::get("https://example.com/").body(Full::<Bytes>::default())?;
//! let response = client.oneshot(request).await?;
//! # Ok(()) }
//! ```
//!
//! # Requests and responses
//!
//! A request has an absolute URI and any [`http_body::Body`]; the response's [`Body`] streams. What goes beyond is said in
//! extensions:
//!
//! | extension | of the | tells |
//! | --- | --- | --- |
//! | [`Protocol`] | request | that it is an extended CONNECT (RFC 8441), such as a WebSocket over HTTP/2 |
//! | [`retry::RetryOptions`] | request | how this one is retried |
//! | [`ConnectionInfo`] | response | the session, its protocol and addresses, and whether it was used before |
//! | [`retry::Attempts`] | response | how many attempts there were, and why |
//! | hyper's `OnUpgrade` | response | that an HTTP/1.1 connection was upgraded: `hyper::upgrade::on(response)` gives it |
//!
//! In a tunnel (CONNECT over HTTP/2, extended or not) the request's body is the way up and the response's body the way
//! down: see the example `connect_tunnel`. It is a stream as any other: it has a slot, and ends with its session.
//!
//! An HTTP/1.1 connection that was upgraded, by `Upgrade` or by CONNECT, is its user's from then on: it is no session any
//! more (of the [`SessionsClosed`] it is one of `io`), holds no slot and no permit, and `close()` leaves it alone. There a
//! CONNECT has no body: one that has, and does not say itself how it is framed, fails with `is_config()`.
//!
//! # Runtimes
//!
//! tokio is the runtime. A pool may live in a `static` and be used from several runtimes. A session is driven by the
//! runtime of the caller that it was opened for. Sessions on multi-thread runtimes serve every caller; one on a
//! `current_thread` runtime serves only callers on that runtime, and `max_sessions` counts for each such runtime, since
//! its sessions stand still whenever nobody blocks on it. A session whose runtime has ended is never handed out. What
//! it carried for callers on other runtimes fails with it, except requests with a safe method (RFC 9110 §9.2.1) whose
//! response had not come: those are sent again.
//!
//! # Sight
//!
//! [`H2Pool::stats`] and [`H2Pool::sessions`] read what there is from memory. `tracing` tells what happens, with the
//! target `h2pool` and these fields, which stay:
//!
//! | level | event | fields |
//! | --- | --- | --- |
//! | debug | `session opened` | `origin`, `session`, `protocol` |
//! | debug | `session ended` | `origin`, `session`, `reason` (a field of [`SessionsClosed`]), `error`, `kind` |
//! | debug | `dial failed` | `origin`, `error`, `kind` |
//! | debug | `replayed` | `origin`, `replay` (from 1), `error`, `kind` |
//! | debug | `not replayed: the body was consumed` | `error`, `kind` |
//! | trace | `slot lost before use` | `error` |
//!
//! A dial and its session run in a span `session` with the field `origin`. `session` is the number that
//! [`ConnectionInfo`] and [`SessionInfo`] show, `error` the error with its causes, and `kind` one of these words: `connect`,
//! `connect_timeout`, `certificate`, `acquire_timeout`, `saturated`, `closed`, `config`, `h1_only`, `goaway`, `reset`,
//! `keep_alive_timeout`, `io`, `runtime`, `protocol`, `body`, `timeout`; `misdirected` for a replay after a 421. The events of the
//! [`retry`](retry#what-is-learned) layer have the target `h2pool::retry`, those of [`poll`] `h2pool::poll`. With the
//! feature `metrics` the [counters](Stats#metrics) go to a recorder, too.
//!
//! # Features
//!
//! | feature | default | what it gives |
//! | --- | --- | --- |
//! | `http1` | yes | HTTP/1.1 sessions for origins that speak nothing else (hyper) |
//! | `tls` | yes | TLS by rustls with the platform's verifier and ring; implies `tcp` |
//! | `tls-no-provider` | by `tls` | the same without ring: for those whose rustls has another crypto provider |
//! | `tcp` | by `tls` | TCP with happy eyeballs, and any hyper connector (hyper-util) |
//! | `serde` | no | [`PoolConfig`] from TOML or JSON, snapshots to anything |
//! | `metrics` | no | counters and gauges through the `metrics` facade, with OpenTelemetry's names |
//!
//! The features also decide whose errors the retry layer and long polls know: hyper's with `http1` or `tcp`, those of
//! hyper-util's client with both, rustls's with `tls`. An error that is not known is not retried;
//! [`retry`](retry#which-errors-are-known) has the list.
//!
//! Without `tcp` there is no connector by default: [`Builder::connector`] takes your own.
//!
//! `tls` enables rustls's `ring`. In a program that also has its `aws-lc-rs` (the default of rustls itself),
//! `rustls::ClientConfig::builder()` cannot choose between them and panics: there, take `tls-no-provider` in place of
//! `tls`, or install a default provider first. The configuration is one of rustls 0.23.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(h2pool_loom))))]
#![cfg_attr(
    h2pool_loom,
    allow(
        dead_code,
        unused_imports,
        missing_docs,
        reason = "the model checker uses a part of the crate"
    )
)]

#[cfg(not(h2pool_loom))]
mod builder;
#[cfg(not(h2pool_loom))]
mod clock;
#[cfg(not(h2pool_loom))]
mod config;
#[cfg(not(h2pool_loom))]
pub mod connect;
#[cfg(not(h2pool_loom))]
mod error;
#[cfg(not(h2pool_loom))]
mod metrics;
#[cfg(not(h2pool_loom))]
mod origin;
#[cfg(not(h2pool_loom))]
pub mod poll;
#[cfg(not(h2pool_loom))]
mod pool;
#[cfg(not(h2pool_loom))]
pub mod retry;
#[cfg(not(h2pool_loom))]
mod session;
#[cfg(not(h2pool_loom))]
#[allow(unreachable_pub, reason = "other crates include it by path")]
mod state;
#[cfg(h2pool_loom)]
pub mod state;
#[cfg(not(h2pool_loom))]
mod stats;
mod sync;
#[cfg(not(h2pool_loom))]
mod timer;

/// What loom checks: the production state, the origin's mutex and the lease, on loom's primitives.
#[cfg(h2pool_loom)]
#[path = "pool/model.rs"]
pub mod model;

#[cfg(not(h2pool_loom))]
pub use builder::Builder;
#[cfg(not(h2pool_loom))]
pub use config::{Balance, PoolConfig};
#[cfg(not(h2pool_loom))]
pub use connect::Connect;
#[cfg(not(h2pool_loom))]
pub use error::Error;
#[cfg(not(h2pool_loom))]
pub use origin::{Key, Origin};
#[cfg(not(h2pool_loom))]
pub use pool::{H2Pool, Lease, OriginPool, RequestBody, ResponseFuture};
#[cfg(not(h2pool_loom))]
pub use session::{Body, ConnectionInfo, Protocol};
#[cfg(not(h2pool_loom))]
pub use stats::{SessionFilter, SessionInfo, SessionProtocol, SessionState, SessionsClosed, Stats};

/// The README's examples are compiled.
#[cfg(all(doctest, feature = "tls"))]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
