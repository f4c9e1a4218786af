//! tonic calls under pressure: deadlines, cancellation, many streams over several sessions, a server that shuts down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream;
use h2pool::H2Pool;
use h2pool::retry::{Outcome, Retry, RetryPolicy};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request};
use tower::ServiceBuilder;

use crate::grpc::client;
use crate::support::sums::{HANGS, Number, SumsClient, SumsServer};
use crate::support::{eventually, within};

#[tokio::test]
async fn deadlines_of_the_server_and_of_the_client() {
    // P12, P29
    let server = SumsServer::start(100).await;
    let (pool, mut client) = client(&server);
    // `grpc-timeout`: tonic's server keeps it.
    let mut request = Request::new(HANGS.into());
    request.set_timeout(Duration::from_millis(50));
    let late = within("its deadline", client.double(request)).await.unwrap_err();
    assert!(
        matches!(late.code(), Code::Cancelled | Code::DeadlineExceeded),
        "{late:?}"
    );
    // tower's timeout keeps it on this side.
    let service = ServiceBuilder::new()
        .timeout(Duration::from_millis(50))
        .service(pool.clone());
    let mut impatient = SumsClient::with_origin(service, server.uri());
    within("its deadline", impatient.double(Request::new(HANGS.into())))
        .await
        .unwrap_err();
    eventually("the server knows", || server.sums.running() == 0).await;
    eventually("slots are back", || pool.stats().streams == 0).await;
    assert_eq!(client.double(Request::new(4.into())).await.unwrap().value, 8);
    assert_eq!(pool.stats().sessions_opened, 1);
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_at_the_server() {
    // P2, P12, P44
    let server = SumsServer::start(100).await;
    let (pool, mut client) = client(&server);
    // Before the answer.
    for _ in 0..20 {
        let mut other = client.clone();
        let call = tokio::spawn(async move { other.double(Request::new(HANGS.into())).await });
        eventually("it runs", || server.sums.running() == 1).await;
        call.abort();
        eventually("it was cancelled", || server.sums.running() == 0).await;
    }
    // In the midst of the answers, with the requests' stream open.
    let (sender, receiver) = mpsc::unbounded_channel::<Number>();
    let mut sums = client
        .running(UnboundedReceiverStream::new(receiver))
        .await
        .unwrap();
    sender.send(1.into()).unwrap();
    assert_eq!(
        within("an answer", sums.message()).await.unwrap().unwrap().value,
        1
    );
    assert_eq!((server.sums.running(), pool.stats().streams), (1, 1));
    drop(sums);
    eventually("it was cancelled", || server.sums.running() == 0).await;
    within("the requests' stream is dropped", sender.closed()).await;
    eventually("slots are back", || pool.stats().streams == 0).await;
    assert_eq!(
        within("another call", client.double(Request::new(4.into())))
            .await
            .unwrap()
            .value,
        8
    );
}

#[tokio::test]
async fn many_streams_over_several_sessions() {
    // P3, P5, P7, P11
    let server = SumsServer::start(10).await;
    let pool = H2Pool::builder()
        .http2_prior_knowledge(true)
        .max_sessions(4)
        .build()
        .unwrap();
    let client = SumsClient::with_origin(pool.clone(), server.uri());
    // As many as four sessions carry, all open at once and talking.
    let opened = join_all((0..40).map(|_| {
        let mut client = client.clone();
        async move {
            let (sender, receiver) = mpsc::unbounded_channel::<Number>();
            let sums = client
                .running(UnboundedReceiverStream::new(receiver))
                .await
                .unwrap();
            (sender, sums)
        }
    }));
    let mut opened = within("forty streams", opened).await;
    let stats = pool.stats();
    assert_eq!(
        (stats.sessions_opened, stats.streams, server.sums.running()),
        (4, 40, 40)
    );
    // A hundred more wait for their turn.
    let waiting: Vec<_> = (0..100)
        .map(|value| {
            let mut client = client.clone();
            tokio::spawn(async move { client.sum(stream::iter([Number::from(value)])).await })
        })
        .collect();
    eventually("a hundred wait", || pool.stats().waiters == 100).await;
    for value in 1..=20 {
        for (sender, sums) in &mut opened {
            sender.send(value.into()).unwrap();
            let sum = within("an answer", sums.message()).await.unwrap().unwrap();
            assert_eq!(sum.value, value * (value + 1) / 2);
        }
    }
    drop(opened);
    for (value, call) in waiting.into_iter().enumerate() {
        assert_eq!(
            within("its turn", call).await.unwrap().unwrap().value,
            value as u64
        );
    }
    assert_eq!(pool.stats().sessions_opened, 4);
}

#[tokio::test]
async fn a_server_that_shuts_down_finishes_what_runs() {
    // P18
    let mut server = SumsServer::start(100).await;
    let (pool, mut client) = client(&server);
    let (sender, receiver) = mpsc::unbounded_channel::<Number>();
    let mut sums = client
        .running(UnboundedReceiverStream::new(receiver))
        .await
        .unwrap();
    server.shut_down();
    eventually("GOAWAY has come", || pool.stats().sessions_draining == 1).await;
    sender.send(5.into()).unwrap();
    assert_eq!(
        within("an answer", sums.message()).await.unwrap().unwrap().value,
        5
    );
    drop(sender);
    assert_eq!(within("the end", sums.message()).await.unwrap(), None);
    within("the server ends", server.ended()).await;
    eventually("so does the session", || {
        pool.stats().sessions_closed.total() == 1
    })
    .await;
}

#[tokio::test]
async fn a_call_that_reached_nobody_is_retried_by_the_layer_between() {
    // R1, R5, R10: tonic's body under the recording one.
    let unused = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let pool = H2Pool::builder().http2_prior_knowledge(true).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .service(pool.clone());
    let mut client = SumsClient::with_origin(service, format!("http://{unused}").parse().unwrap());
    let call = tokio::spawn(async move { client.double(Request::new(3.into())).await });
    eventually("nobody is there", || pool.stats().dials_failed > 0).await;
    let _server = SumsServer::start_at(unused, 100).await;
    assert_eq!(within("an answer", call).await.unwrap().unwrap().value, 6);
}

#[tokio::test]
async fn a_failure_in_the_answers_head_is_retried_where_a_classifier_knows_it() {
    // R3, R5: gRPC's failures are HTTP status 200, its calls POSTs.
    let server = SumsServer::start(100).await;
    let pool = H2Pool::builder().http2_prior_knowledge(true).build().unwrap();
    let heads = Arc::new(AtomicU32::new(0));
    let seen = heads.clone();
    let policy = RetryPolicy::default()
        .max_attempts(3)
        .methods([http::Method::POST])
        .classify_response(move |head| {
            seen.fetch_add(1, Ordering::SeqCst);
            let status = head.headers.get("grpc-status");
            status
                .is_some_and(|status| status == "3")
                .then(Outcome::transient)
        });
    let mut client = SumsClient::with_origin(Retry::new(policy, pool), server.uri());
    // There is nothing to double.
    let failed = within("an answer", client.double(Request::new(0.into()))).await;
    assert_eq!(failed.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(heads.load(Ordering::SeqCst), 3);
    let doubled = within("an answer", client.double(Request::new(2.into()))).await;
    assert_eq!((doubled.unwrap().value, heads.load(Ordering::SeqCst)), (4, 4));
}
