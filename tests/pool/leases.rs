//! Leases that were not used yet when their session stops taking work (P4).

use std::time::Duration;

use h2pool::{Error, H2Pool, Lease};
use http::Version;
use tokio::task::JoinHandle;

use crate::support::peer::Peer;
use crate::support::server::Server;
use crate::util::*;

/// Uses a lease in a task of its own.
fn send(lease: Lease, path: &str) -> JoinHandle<Result<Read, Error>> {
    let request = get(uri(&format!("https://a{path}")));
    tokio::spawn(async move { read(lease.send(request).await?).await })
}

/// A lease on a session that has served something, and its server.
async fn leased(pool: &H2Pool, net: &mut Net) -> (Lease, Peer) {
    let served = fetch(pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(100).await;
    peer.answer_one(b"ok").await.unwrap();
    join(served).await.unwrap();
    (pool.acquire(&origin("https://a")).await.unwrap(), peer)
}

/// The lease is used on the session that is opened now.
async fn is_exchanged(lease: Lease, net: &mut Net) {
    let mut replacement = net.ready_peer(100).await;
    settle().await;
    let sent = send(lease, "/leased");
    assert_eq!(replacement.answer_one(b"ok").await.unwrap(), "/leased");
    join(sent).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_on_a_session_that_answers_no_probe_is_exchanged() {
    // P4, P19
    let (pool, mut net) = net(H2Pool::builder());
    let (lease, mut silent) = leased(&pool, &mut net).await;
    let cancelled = tokio::spawn(pool.request(get(uri("https://a/"))));
    silent.next_headers().await;
    silent.silent();
    cancelled.abort();
    pass(2.0).await;
    is_exchanged(lease, &mut net).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_on_a_session_that_is_replaced_is_exchanged() {
    // P4, P17
    let (pool, mut net) = net(H2Pool::builder().max_age(Duration::from_secs(10)));
    let (lease, _old) = leased(&pool, &mut net).await;
    pass(10.5).await;
    is_exchanged(lease, &mut net).await;
}

#[tokio::test(start_paused = true)]
async fn over_http1_too_and_what_was_sent_ends_where_it_began() {
    // P4, P17, P24
    let builder = H2Pool::builder().max_age(Duration::from_secs(10));
    let server = std::sync::Arc::new(Server::builder().h1_only().start_in_memory());
    let (pool, net) = net(builder);
    net.attach(&server, Version::HTTP_11);
    let key = origin("https://a");
    let used = pool.acquire(&key).await.unwrap();
    let unused = pool.acquire(&key).await.unwrap();
    let running = send(used, "/gate");
    server.gate("").until_waiting(1).await;
    pass(11.0).await;
    let exchanged = join(send(unused, "/")).await.unwrap();
    assert_eq!(server.counts().accepted, 4, "each was replaced");
    server.gate("").open();
    let first = join(running).await.unwrap().info.unwrap().session();
    assert!(
        exchanged.info.unwrap().session() > first + 1,
        "on one that replaces"
    );
    settle().await;
    assert_eq!(pool.stats().sessions_closed.age, 2);
}
