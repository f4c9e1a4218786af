//! What the tests of the pool share: requests, pools over loopback TLS and in memory, and waiting without sleeping.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2pool::connect::memory::{Dial, MemoryListener, pair};
use h2pool::{Body, Builder, ConnectionInfo, Error, H2Pool, Origin};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty, Full};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::support::certs::client_config;
use crate::support::peer::{Peer, setting};
use crate::support::server::{ID, Server};
use crate::support::within;

pub(crate) fn single() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// With one worker.
pub(crate) fn multi() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Settings of a peer that allows so many streams.
pub(crate) fn streams(limit: u32) -> [(u16, u32); 1] {
    [(setting::MAX_CONCURRENT_STREAMS, limit)]
}

pub(crate) fn uri(text: &str) -> Uri {
    text.parse().unwrap()
}

pub(crate) fn origin(text: &str) -> Origin {
    text.parse().unwrap()
}

pub(crate) fn get(uri: Uri) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

pub(crate) fn post(uri: Uri, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::new(body.into())).unwrap()
}

/// Names a request, so that the server counts how often it was processed.
pub(crate) fn named<B>(mut request: Request<B>, id: usize) -> Request<B> {
    request.headers_mut().insert(ID, id.into());
    request
}

/// A pool over TCP and TLS that trusts the tests' certificates.
pub(crate) fn tls() -> Builder {
    H2Pool::builder().tls_config(client_config())
}

/// A response that was read to its end.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) info: Option<ConnectionInfo>,
}

pub(crate) async fn read(response: Response<Body>) -> Result<Read, Error> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?;
    Ok(Read {
        status: parts.status,
        headers: parts.headers,
        info: parts.extensions.get().cloned(),
        trailers: body.trailers().cloned(),
        body: body.to_bytes(),
    })
}

/// Sends a request in a task of its own and reads the response to its end.
pub(crate) fn fetch<B>(pool: &H2Pool, request: Request<B>) -> JoinHandle<Result<Read, Error>>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let response = pool.request(request);
    tokio::spawn(async move { read(response.await?).await })
}

/// The same for `n` requests to one URI, each in a task of its own.
pub(crate) fn fetch_many(pool: &H2Pool, uri: &Uri, n: usize) -> Vec<JoinHandle<Result<Read, Error>>> {
    (0..n)
        .map(|id| fetch(pool, named(get(uri.clone()), id)))
        .collect()
}

/// What a task came to; fails the test when it hangs.
pub(crate) async fn join<T>(task: JoinHandle<T>) -> T {
    within("the task ends", task).await.unwrap()
}

/// All of them, in their order.
pub(crate) async fn join_all<T>(tasks: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    let mut all = Vec::new();
    for task in tasks {
        all.push(join(task).await);
    }
    all
}

/// With a paused clock: lets everything run until all tasks wait, at the price of a millisecond.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// With a paused clock: lets time pass.
pub(crate) async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// With a real clock: waits until something that no event tells is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    within(what, async {
        while !so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// With a paused clock: how long something takes.
pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let start = now();
    let value = future.await;
    (value, now() - start)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests read tokio's clock, paused or not, at this one place"
)]
pub(crate) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The network in memory: every dial of the pool is seen, and answered, by the test.
pub(crate) struct Net {
    listener: MemoryListener<Origin>,
}

/// A pool that dials in memory.
pub(crate) fn net(builder: Builder) -> (H2Pool, Net) {
    let (connector, listener) = pair();
    (builder.connector(connector).build().unwrap(), Net { listener })
}

impl Net {
    /// The next dial.
    pub(crate) async fn dial(&mut self) -> Dial<Origin> {
        let dial = within("a dial", self.listener.accept()).await;
        dial.expect("the pool is there")
    }

    /// The next dial, however long it takes; `None` once the pool is gone.
    pub(crate) async fn next_dial(&mut self) -> Option<Dial<Origin>> {
        self.listener.accept().await
    }

    /// The dials that are there already, once everything has run that can.
    pub(crate) async fn dials(&mut self) -> Vec<Dial<Origin>> {
        settle().await;
        std::iter::from_fn(|| self.listener.try_accept()).collect()
    }

    /// The next dial, answered in HTTP/2, as a peer that has said nothing yet.
    pub(crate) async fn peer(&mut self) -> Peer {
        Peer::new(self.dial().await.accept(Version::HTTP_2))
    }

    /// The same, its SETTINGS exchanged.
    pub(crate) async fn ready_peer(&mut self, limit: u32) -> Peer {
        let mut peer = self.peer().await;
        peer.handshake(&streams(limit)).await;
        peer
    }

    /// Answers every dial from now on by connecting it to the server.
    pub(crate) fn attach(mut self, server: &Arc<Server>, version: Version) -> JoinHandle<()> {
        let server = Arc::clone(server);
        tokio::spawn(async move {
            while let Some(dial) = self.listener.accept().await {
                server.attach(dial.accept(version));
            }
        })
    }
}

/// A server in memory and a pool that dials nothing else, for a paused clock.
pub(crate) fn with_server(
    builder: Builder,
    server: crate::support::server::Builder,
) -> (H2Pool, Arc<Server>) {
    let server = Arc::new(server.h2_only().start_in_memory());
    let (pool, net) = net(builder);
    net.attach(&server, Version::HTTP_2);
    (pool, server)
}
