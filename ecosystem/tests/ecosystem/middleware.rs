//! tower's middleware over the service of one origin: what readiness is for.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use h2pool::{Body, H2Pool, OriginPool};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tower::load::Load;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

use crate::support::endpoint::{Answer, Endpoint};
use crate::support::{eventually, origin, text, within};

type Get = Request<Empty<Bytes>>;

fn get(path: &str) -> Get {
    Request::get(path).body(Empty::new()).unwrap()
}

async fn echo_path(request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    if path == "/hangs" {
        std::future::pending::<()>().await;
    }
    Response::new(Full::from(path).boxed_unsync())
}

/// A pool that carries `streams` at a time to one endpoint.
async fn one_origin(streams: usize) -> (Endpoint, H2Pool, OriginPool) {
    let endpoint = Endpoint::plain(echo_path).await;
    let builder = H2Pool::builder().http2_prior_knowledge(true).max_sessions(1);
    let pool = builder.streams_per_session(streams).build().unwrap();
    let service = pool.origin(origin(&endpoint.uri()));
    (endpoint, pool, service)
}

/// What every user of these services may count on.
fn usable<S>(_: &S)
where
    S: Service<Get, Response = Response<Body>, Error = h2pool::Error>,
    S: Clone + Send + Sync + Unpin + Debug + 'static,
    S::Future: Send + Unpin + Debug + 'static,
{
}

#[tokio::test]
async fn load_is_shed_when_no_slot_is_free() {
    // P29
    let (_endpoint, pool, service) = one_origin(2).await;
    usable(&pool);
    usable(&service);
    let shedding = ServiceBuilder::new().load_shed().service(service.clone());
    assert_eq!(
        text(
            within("a session", service.clone().oneshot(get("/warm")))
                .await
                .unwrap()
        )
        .await,
        "/warm"
    );
    let held: Vec<_> = (0..2)
        .map(|_| tokio::spawn(service.clone().oneshot(get("/hangs"))))
        .collect();
    eventually("both run", || service.load() == 2).await;
    let error = within("an answer", shedding.clone().oneshot(get("/")))
        .await
        .unwrap_err();
    assert!(error.is::<Overloaded>(), "{error:?}");
    held.iter().for_each(tokio::task::JoinHandle::abort);
    // The server has to show a sign of life first: then they are free, not before.
    eventually("slots are free", || pool.stats().streams == 0).await;
    assert_eq!(
        text(within("an answer", shedding.oneshot(get("/"))).await.unwrap()).await,
        "/"
    );
}

#[tokio::test]
async fn a_buffer_shares_one_service_among_many_and_outlives_dead_dials() {
    // P9, P29
    let (mut endpoint, pool, service) = one_origin(4).await;
    let buffered = ServiceBuilder::new()
        .buffer(64)
        .concurrency_limit(8)
        .service(service);
    endpoint.die().await;
    for _ in 0..3 {
        let error = within("an answer", buffered.clone().oneshot(get("/")))
            .await
            .unwrap_err();
        let error = error
            .downcast_ref::<h2pool::Error>()
            .expect("the pool's own error");
        assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
    }
    endpoint.come_back().await;
    let answers = (0..100).map(|n| {
        let service = buffered.clone();
        tokio::spawn(
            async move { Ok::<_, BoxError>(text(service.oneshot(get(&format!("/{n}"))).await?).await) },
        )
    });
    for (n, answer) in answers.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(
            within("an answer", answer).await.unwrap().unwrap(),
            format!("/{n}")
        );
    }
    assert!(pool.stats().dials_failed >= 3);
    pool.close();
    // Only now is the buffer's service dead.
    assert!(within("an answer", buffered.oneshot(get("/"))).await.is_err());
}

#[tokio::test]
async fn a_timeout_gives_the_slot_back() {
    // P2, P12
    let (_endpoint, pool, service) = one_origin(1).await;
    let impatient = ServiceBuilder::new()
        .timeout(Duration::from_millis(50))
        .service(service.clone());
    for _ in 0..5 {
        let error = within("the timeout", impatient.clone().oneshot(get("/hangs")))
            .await
            .unwrap_err();
        assert!(error.is::<Elapsed>(), "{error:?}");
        assert_eq!(
            text(
                within("the only slot", service.clone().oneshot(get("/")))
                    .await
                    .unwrap()
            )
            .await,
            "/"
        );
    }
    eventually("no slot is taken", || pool.stats().streams == 0).await;
    assert_eq!(pool.stats().sessions_opened, 1);
}

#[tokio::test]
async fn a_concurrency_limit_over_the_pool_holds_what_it_says() {
    // P29
    let (_endpoint, pool, service) = one_origin(100).await;
    let limit = std::sync::Arc::new(Semaphore::new(3));
    let layer = tower::limit::GlobalConcurrencyLimitLayer::with_semaphore(limit.clone());
    let limited = ServiceBuilder::new().layer(layer).service(service);
    let held: Vec<_> = (0..10)
        .map(|_| tokio::spawn(limited.clone().oneshot(get("/hangs"))))
        .collect();
    eventually("three run", || pool.stats().streams == 3).await;
    assert_eq!((pool.stats().waiters, limit.available_permits()), (0, 0));
    held.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("permits are back", || limit.available_permits() == 3).await;
}
