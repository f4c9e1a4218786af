//! A tonic client over the pool: the four kinds of calls, errors, metadata and trailers, a generated client, long
//! messages both ways.

use bytes::Bytes;
use futures_util::stream;
use h2pool::H2Pool;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request};

use crate::support::sums::{Number, SumsClient, SumsServer};
use crate::support::within;

/// A pool for plain-text gRPC, and a client over it.
pub(crate) fn client(server: &SumsServer) -> (H2Pool, SumsClient<H2Pool>) {
    let pool = H2Pool::builder().http2_prior_knowledge(true).build().unwrap();
    let client = SumsClient::with_origin(pool.clone(), server.uri());
    (pool, client)
}

#[tokio::test]
async fn the_four_kinds_of_calls() {
    // P29, P31
    let server = SumsServer::start(100).await;
    let (pool, mut client) = client(&server);
    let doubled = within("unary", client.double(Request::new(21.into())))
        .await
        .unwrap();
    assert_eq!(doubled.value, 42);

    let mut numbers = within("server streaming", client.count(100)).await.unwrap();
    for expected in 1..=100 {
        assert_eq!(numbers.message().await.unwrap().unwrap().value, expected);
    }
    assert_eq!(numbers.message().await.unwrap(), None);
    assert!(numbers.trailers().await.unwrap().is_some());

    let numbers = stream::iter((1..=100).map(Number::from));
    assert_eq!(
        within("client streaming", client.sum(numbers))
            .await
            .unwrap()
            .value,
        5050
    );

    // Bidirectional: each message goes out after the answer to the one before it.
    let (sender, receiver) = mpsc::unbounded_channel::<Number>();
    let mut sums = within(
        "both ways",
        client.running(UnboundedReceiverStream::new(receiver)),
    )
    .await
    .unwrap();
    let mut expected = 0;
    for value in 1..=100 {
        sender.send(value.into()).unwrap();
        expected += value;
        let sum = within("an answer", sums.message()).await.unwrap().unwrap();
        assert_eq!(sum.value, expected);
    }
    drop(sender);
    assert_eq!(within("the end", sums.message()).await.unwrap(), None);
    assert_eq!((pool.stats().sessions_opened, pool.stats().streams), (1, 0));
}

#[tokio::test]
async fn a_status_is_the_servers_and_a_failure_of_the_pool_is_a_status() {
    // P31, P41
    let server = SumsServer::start(100).await;
    let (pool, mut client) = client(&server);
    let refused = client.double(Request::new(0.into())).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "nothing to double")
    );

    let mut nowhere = SumsClient::with_origin(pool.clone(), "http://127.0.0.1:1".parse().unwrap());
    let failed = nowhere.double(Request::new(1.into())).await.unwrap_err();
    let mut source = std::error::Error::source(&failed);
    let error = std::iter::from_fn(|| {
        let this = source?;
        source = this.source();
        Some(this)
    })
    .find_map(|error| error.downcast_ref::<h2pool::Error>());
    assert!(error.is_some_and(h2pool::Error::is_connect), "{failed:?}");

    pool.close();
    assert!(client.double(Request::new(1.into())).await.is_err());
}

#[tokio::test]
async fn long_messages_both_ways() {
    // P30, P33
    let server = SumsServer::start(100).await;
    let (_pool, mut client) = client(&server);
    let ballast = Bytes::from(vec![7; 3 << 20]);
    let number = Number {
        value: 1,
        ballast: ballast.clone(),
    };
    let answer = within("3 MiB there and back", client.double(Request::new(number)))
        .await
        .unwrap();
    assert!(answer.value == 2 && answer.ballast == ballast);

    let numbers = stream::iter((0..32).map(move |_| Number {
        value: 1,
        ballast: ballast.slice(..1 << 20),
    }));
    assert_eq!(
        within("32 MiB there", client.sum(numbers)).await.unwrap().value,
        32
    );
}

#[tokio::test]
async fn a_generated_client_takes_the_pool_and_the_service_of_one_origin() {
    // P29
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("sums", tonic_health::ServingStatus::Serving)
        .await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: http::Uri = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let serving = tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(health, incoming));

    let pool = H2Pool::builder().http2_prior_knowledge(true).build().unwrap();
    let request = || HealthCheckRequest {
        service: "sums".to_owned(),
    };
    let mut whole = HealthClient::with_origin(pool.clone(), uri.clone());
    let answer = within("an answer", whole.check(request())).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);

    let mut one = HealthClient::new(pool.origin(uri.to_string().parse().unwrap()));
    let mut watched = within("an answer", one.watch(request()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        within("serving", watched.message())
            .await
            .unwrap()
            .unwrap()
            .status,
        1
    );
    reporter
        .set_service_status("sums", tonic_health::ServingStatus::NotServing)
        .await;
    assert_eq!(
        within("not serving", watched.message())
            .await
            .unwrap()
            .unwrap()
            .status,
        2
    );
    assert_eq!(pool.stats().sessions_opened, 1);
    serving.abort();
}
