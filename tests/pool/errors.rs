//! One error: it names the origin, keeps its cause, and says what may be sent again (P22, P41).

use std::error::Error as _;
use std::time::Duration;

use h2pool::{Error, H2Pool, Origin};

use crate::support::peer::code;
use crate::util::*;

/// The texts of an error and of its causes.
fn chain(error: &Error) -> Vec<String> {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    std::iter::once(error.to_string())
        .chain(causes.map(ToString::to_string))
        .collect()
}

#[tokio::test]
async fn what_a_connector_cannot_do_at_all_is_a_configuration_error() {
    // P22, P41
    let connector = h2pool::connect::TcpConnector::new();
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let error = pool.request(get(uri("https://127.0.0.1:1/"))).await.unwrap_err();
    assert!(error.is_config() && !error.is_connect(), "{error:?}");
    assert!(error.is_unprocessed() && !error.is_transient(), "{error:?}");
    assert_eq!(error.origin(), Some("https://127.0.0.1:1"));
}

#[tokio::test(start_paused = true)]
async fn every_error_of_a_request_names_its_origin() {
    // P41
    let builder = H2Pool::builder()
        .max_sessions(1)
        .max_waiters(1)
        .acquire_timeout(Duration::from_secs(3));
    let (pool, mut net) = net(builder);
    let mut errors = Vec::new();
    let request = fetch(&pool, get(uri("https://a/")));
    net.dial()
        .await
        .refuse(Error::connect(std::io::Error::other("the cause")));
    errors.push(("connect", join(request).await.unwrap_err()));
    let reset = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(1).await;
    let stream = peer.next_headers().await.stream;
    settle().await;
    let waiting = fetch(&pool, get(uri("https://a/")));
    settle().await;
    errors.push((
        "saturated",
        pool.request(get(uri("https://a/"))).await.unwrap_err(),
    ));
    errors.push(("acquire", join(waiting).await.unwrap_err()));
    peer.send_rst(stream, code::INTERNAL_ERROR).await;
    errors.push(("reset", join(reset).await.unwrap_err()));
    let broken = fetch(&pool, get(uri("https://a/")));
    let stream = peer.next_headers().await.stream;
    peer.send_headers(stream, 200, false).await;
    peer.send_data(stream, b"some", false).await;
    settle().await;
    drop(peer);
    errors.push(("body", join(broken).await.unwrap_err()));
    let lost = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(1).await;
    peer.next_headers().await;
    drop(peer);
    errors.push(("lost", join(lost).await.unwrap_err()));
    // A body waits for SETTINGS.
    let unserved = fetch(&pool, post(uri("https://a/"), "a body"));
    drop(net.peer().await);
    errors.push(("unserved", join(unserved).await.unwrap_err()));
    pool.close();
    errors.push(("closed", pool.request(get(uri("https://a/"))).await.unwrap_err()));
    for (what, error) in errors {
        assert_eq!(error.origin(), Some("https://a:443"), "{what}: {error:?}");
        assert_eq!(
            error.to_string().matches("https://a:443").count(),
            1,
            "{what}: {error}"
        );
        assert_eq!(
            error.is_unprocessed(),
            ["connect", "saturated", "acquire", "unserved", "closed"].contains(&what),
            "{what}"
        );
        assert_eq!(
            error.is_transient(),
            !["saturated", "closed"].contains(&what),
            "{what}"
        );
        assert_eq!(error.clone().to_string(), error.to_string());
        let texts = chain(&error);
        assert!(texts.iter().all(|text| !text.is_empty()), "{what}: {texts:?}");
        if what == "connect" {
            assert_eq!(texts.last().unwrap(), "the cause");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_failed_dial_is_one_cause_for_all() {
    // P9, P41: cloned, not copied.
    let (pool, mut net) = net(H2Pool::builder());
    let requests = fetch_many(&pool, &uri("https://a/"), 3);
    net.dial().await.refuse(Error::certificate("expired"));
    let causes: Vec<_> = join_all(requests)
        .await
        .into_iter()
        .map(Result::unwrap_err)
        .collect();
    for error in &causes {
        assert!(error.is_certificate() && error.is_connect() && !error.is_transient());
        let address = |error: &Error| std::ptr::from_ref(error.source().unwrap()).cast::<()>();
        assert_eq!(address(error), address(&causes[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_error_a_connector_returns_is_a_failed_dial() {
    // P22, P41: one that is built on another pool passes on errors of every kind.
    for closed in [true, false] {
        let (inner, _unanswered) = net(H2Pool::builder().acquire_timeout(Duration::from_secs(1)));
        if closed {
            inner.close();
        }
        let connector = h2pool::connect::from_fn(move |_: &Origin, _| {
            let proxy = inner.request(get(uri("https://proxy/")));
            async move { Err(proxy.await.expect_err("it never answers")) }
        });
        let pool = H2Pool::builder().connector(connector).build().unwrap();
        let error = pool.request(get(uri("https://a/"))).await.unwrap_err();
        assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
        assert_eq!(
            (error.is_closed(), error.is_timeout()),
            (false, !closed),
            "{error:?}"
        );
        let chain = chain(&error);
        assert_eq!(
            (chain.len(), &*chain[0]),
            (2, "the connector failed (https://a:443)")
        );
        assert!(chain[1].contains("https://proxy:443"), "{chain:?}");
    }
}
