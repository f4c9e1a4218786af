//! h2pool as its users meet it: under the libraries that people build clients with, over its public API alone.
//!
//! | file | what stands over the pool, or below it |
//! | --- | --- |
//! | `grpc.rs`, `grpc_limits.rs` | a tonic client, against tonic's server |
//! | `layers.rs` | tower-http: trace, redirects, decompression, sensitive headers |
//! | `middleware.rs`, `balance.rs` | tower: limits, load shedding, buffers, timeouts; balancing over several endpoints |
//! | `connectors.rs` | hyper-util's connector, hyper-rustls, and a CONNECT proxy below the pool |
//! | `kube.rs` | kube's client over one origin of the pool |

mod balance;
mod connectors;
mod grpc;
mod grpc_limits;
mod kube;
mod layers;
mod middleware;
mod support;
