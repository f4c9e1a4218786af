//! Requests over in-memory IO to the canned peer: to be run under callgrind, and printing the allocations of one. One
//! thread, so that it is the same each time.

use std::alloc::System;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use h2pool::connect::memory;
use h2pool::{H2Pool, Origin};
use h2pool_benches::transport::{Bare, Transport, bare};
use h2pool_benches::{canned, pipe};
use http::{Uri, Version};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Debug, Parser)]
struct Options {
    transport: Kind,
    /// Requests in all, after as many as there are callers to warm up.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Requests in flight.
    #[arg(long, default_value_t = 1)]
    callers: usize,
    /// Bytes of each request's body.
    #[arg(long, default_value_t = 0)]
    upload: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Bare,
    H2pool,
    /// reqwest is not here: it takes no in-memory IO.
    HyperUtil,
    /// Over HTTP/1.1, on a connection for each caller.
    H2poolH1,
    HyperUtilH1,
}

fn main() -> Result<()> {
    let options = Options::parse();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(options))
}

async fn run(options: Options) -> Result<()> {
    match options.transport {
        Kind::Bare => {
            let (io, server) = tokio::io::duplex(64 << 10);
            tokio::spawn(canned::serve(server));
            measure(Bare::new(vec![bare(io, 16_384).await?]), options).await
        }
        Kind::H2pool => measure(pool(Version::HTTP_2, 1)?, options).await,
        Kind::HyperUtil => measure(pipe::hyper_util(true), options).await,
        Kind::H2poolH1 => measure(pool(Version::HTTP_11, options.callers)?, options).await,
        Kind::HyperUtilH1 => measure(pipe::hyper_util(false), options).await,
    }
}

/// A pool over in-memory IO, of one HTTP/2 session or so many HTTP/1.1 connections.
fn pool(version: Version, connections: usize) -> Result<H2Pool> {
    let (connector, mut listener) = memory::pair::<Origin>();
    tokio::spawn(async move {
        while let Some(dial) = listener.accept().await {
            let io = dial.accept(version);
            tokio::spawn(async move {
                match version {
                    Version::HTTP_2 => canned::serve(io).await,
                    _ => canned::serve_h1(io).await,
                }
            });
        }
    });
    Ok(H2Pool::builder()
        .connector(connector)
        .max_sessions(1)
        .streams_per_session(1024)
        .max_h1_connections(connections)
        .build()?)
}

async fn measure<T: Transport>(transport: T, options: Options) -> Result<()> {
    let transport = Arc::new(transport);
    let body = Bytes::from(vec![b'.'; options.upload]);
    requests(&transport, &body, options.callers, 10).await?;
    let region = Region::new(ALLOCATOR);
    let each = options.requests / options.callers;
    requests(&transport, &body, options.callers, each).await?;
    let change = region.change();
    let per_request = |n: usize| n as f64 / (each * options.callers) as f64;
    println!(
        "allocations {:.2} reallocations {:.2} bytes {:.0}",
        per_request(change.allocations),
        per_request(change.reallocations),
        per_request(change.bytes_allocated)
    );
    Ok(())
}

async fn requests<T: Transport>(transport: &Arc<T>, body: &Bytes, callers: usize, each: usize) -> Result<()> {
    let uri = Uri::from_static("https://example.com/");
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (transport, uri, body) = (transport.clone(), uri.clone(), body.clone());
        tasks.spawn(async move {
            for _ in 0..each {
                match body.is_empty() {
                    true => transport.get(&uri).await?,
                    false => transport.post(&uri, body.clone()).await?,
                };
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}
