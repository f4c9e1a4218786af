//! tower's balancer over the services of several origins, one of which dies and comes back (P29).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2pool::retry::RetryPolicy;
use h2pool::{H2Pool, OriginPool};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::{BoxError, ServiceBuilder, ServiceExt};

use crate::support::endpoint::Endpoint;
use crate::support::{origin, text, within};

/// An endpoint that counts, and answers with the number that the request brought.
async fn counting(count: Arc<AtomicUsize>) -> Endpoint {
    Endpoint::plain(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = request.into_body().collect().await;
            Response::new(Full::from(body.map(|body| body.to_bytes()).unwrap_or_default()).boxed_unsync())
        }
    })
    .await
}

type Put = Request<Full<Bytes>>;

fn put(n: usize) -> Put {
    Request::put("/").body(Full::from(n.to_string())).unwrap()
}

struct Fleet {
    endpoints: Vec<Endpoint>,
    counts: Vec<Arc<AtomicUsize>>,
    pool: H2Pool,
}

impl Fleet {
    async fn start() -> Self {
        let counts: Vec<_> = (0..3).map(|_| Arc::<AtomicUsize>::default()).collect();
        let mut endpoints = Vec::new();
        for count in &counts {
            endpoints.push(counting(count.clone()).await);
        }
        let builder = H2Pool::builder().http2_prior_knowledge(true).max_sessions(2);
        let pool = builder.streams_per_session(8).build().unwrap();
        Self {
            endpoints,
            counts,
            pool,
        }
    }

    /// A service of each endpoint's origin, of requests with any body.
    fn balance<B>(&self) -> Balance<ServiceList<Vec<OriginPool>>, Request<B>>
    where
        OriginPool: tower::Service<Request<B>, Error = h2pool::Error>,
    {
        let services = self
            .endpoints
            .iter()
            .map(|endpoint| self.pool.origin(origin(&endpoint.uri())));
        Balance::new(ServiceList::new(services.collect::<Vec<_>>()))
    }

    fn counts(&self) -> Vec<usize> {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::SeqCst))
            .collect()
    }
}

/// Sends numbered requests, all at once; how many were answered, each with its own number.
async fn send<S>(service: &S, n: usize) -> Vec<Result<(), BoxError>>
where
    S: tower::Service<Put, Response = Response<h2pool::Body>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    let calls: Vec<_> = (0..n)
        .map(|n| {
            let service = service.clone();
            tokio::spawn(async move {
                let response = service.oneshot(put(n)).await?;
                assert_eq!(text(response).await, n.to_string());
                Ok(())
            })
        })
        .collect();
    let mut ends = Vec::new();
    for call in calls {
        ends.push(within("an answer", call).await.unwrap());
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_goes_to_all_endpoints() {
    // P29
    let fleet = Fleet::start().await;
    let service = ServiceBuilder::new().buffer(1024).service(fleet.balance());
    assert!(send(&service, 600).await.iter().all(Result::is_ok));
    let counts = fleet.counts();
    assert_eq!(counts.iter().sum::<usize>(), 600);
    assert!(
        counts.iter().all(|count| (60..=400).contains(count)),
        "{counts:?}"
    );
    let connections: Vec<_> = fleet.endpoints.iter().map(Endpoint::connections).collect();
    assert!(
        connections.iter().all(|count| (1..=2).contains(count)),
        "{connections:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_dies_and_comes_back() {
    // P14, P29, R5: a dead endpoint costs its own calls, kills neither the buffer nor the balancer, and is used again.
    let mut fleet = Fleet::start().await;
    let balanced = ServiceBuilder::new().buffer(1024).service(fleet.balance());
    assert!(send(&balanced, 60).await.iter().all(Result::is_ok));

    fleet.endpoints[1].die().await;
    let before = fleet.counts();
    let mut failed = 0;
    for error in send(&balanced, 300).await.into_iter().filter_map(Result::err) {
        let error = error
            .downcast_ref::<h2pool::Error>()
            .expect("the pool's own error");
        assert!(error.is_transient() && !error.is_closed(), "{error:?}");
        failed += 1;
    }
    let after = fleet.counts();
    assert!(failed < 300, "the others answer");
    assert_eq!(after[1], before[1]);
    // With a layer that retries what was provably not processed, no caller notices.
    let retrying = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .buffer(1024)
        .service(fleet.balance());
    for end in send(&retrying, 100).await {
        end.unwrap();
    }

    fleet.endpoints[1].come_back().await;
    let before = fleet.counts();
    within("it is used again", async {
        while fleet.counts()[1] == before[1] {
            drop(send(&balanced, 10).await);
        }
    })
    .await;
    assert!(
        send(&balanced, 60).await.iter().all(Result::is_ok),
        "all is well again"
    );
}
