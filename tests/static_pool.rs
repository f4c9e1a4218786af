//! One static pool, used by two tests, each with a runtime of its own, and by a thread with yet another (P36).
//! `scripts/test` runs this binary 200 times in a row: what depends on how the three meet has to come out sooner or later.
#![cfg(feature = "tls")]

#[path = "support/mod.rs"]
mod support;

use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::future::join_all;
use h2pool::H2Pool;
use http::Request;
use http_body_util::{BodyExt, Empty};
use support::server::Server;
use support::within;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::builder().start_on_own_thread());
static POOL: LazyLock<H2Pool> = LazyLock::new(|| {
    let tls = support::certs::client_config();
    H2Pool::builder().tls_config(tls).max_sessions(2).build().unwrap()
});

async fn get() {
    let request = Request::get(SERVER.uri("/")).body(Empty::<Bytes>::new()).unwrap();
    let response = POOL.request(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
}

async fn use_the_pool() {
    for _ in 0..3 {
        within("ten answers", join_all((0..10).map(|_| get()))).await;
    }
}

#[tokio::test]
async fn one_test() {
    // P36
    use_the_pool().await;
}

#[tokio::test]
async fn another_test_and_a_thread() {
    // P36
    let thread = std::thread::spawn(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(use_the_pool());
    });
    use_the_pool().await;
    tokio::task::spawn_blocking(|| thread.join().unwrap())
        .await
        .unwrap();
}
