//! The subset that fits `tower::retry`.

use std::time::Duration;

use h2pool::retry::{Attempts, ReplayBody, RetryBudget, RetryOptions, RetryPolicy, Stop};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};

use crate::mock::{Body, Server, answer, get, millis, now, pause, post, read, reset, steady};

type Answer = Result<Response<Body>, BoxError>;

async fn ask(policy: &RetryPolicy, server: &Server, request: Request<Body>) -> Answer {
    let service = ServiceBuilder::new()
        .retry(policy.tower_policy())
        .service(server.clone());
    service
        .oneshot(request.map(|body| ReplayBody::new(body, 10)))
        .await
}

#[tokio::test(start_paused = true)]
async fn it_decides_as_the_layer_does() {
    // R1
    let server = Server::statuses(&[503, 429]);
    let response = ask(&steady(), &server, get()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.times(), [0, 200, 600]);
    assert_eq!(server.calls()[2].headers["x-retry-count"], "2");
    let attempts = response.extensions().get::<Attempts>().unwrap();
    assert_eq!((attempts.count(), attempts.total_time()), (3, millis(600)));

    let server = Server::statuses(&[503]);
    assert_eq!(ask(&steady(), &server, post()).await.unwrap().status(), 503);
    let server = Server::with_header(503, "retry-after", "31");
    let before = now();
    let response = ask(&steady(), &server, get()).await.unwrap();
    assert_eq!(
        response.extensions().get::<Attempts>().unwrap().stop(),
        Stop::RetryAfter
    );
    assert_eq!(
        response.headers()["retry-after"],
        "31",
        "the response is left as it was"
    );
    assert_eq!(now(), before);
}

#[tokio::test(start_paused = true)]
async fn attempts_deadline_and_budget_hold() {
    // R1 R8 R9
    let server = Server::new(|_, _| async { Err(reset()) });
    ask(&steady().max_attempts(3), &server, get()).await.unwrap_err();
    assert_eq!(server.count(), 3);
    let server = Server::statuses(&[503; 100]);
    let before = now();
    ask(
        &steady().max_attempts(0).deadline(Duration::from_secs(10)),
        &server,
        get(),
    )
    .await
    .unwrap();
    assert_eq!(now() - before, Duration::from_secs(9));
    let server = Server::statuses(&[503; 100]);
    let policy = steady().budget(RetryBudget::new(0.0, 0).burst(2));
    ask(&policy, &server, get()).await.unwrap();
    assert_eq!(server.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_body_over_its_limit_is_not_sent_again() {
    // R1 R10
    for (size, calls) in [(10, 2), (11, 1)] {
        let server = Server::new(|number, request| async move {
            read(request).await;
            Ok(answer(if number == 1 { 503 } else { 200 }))
        });
        let mut request = post().map(|_| Body::from(vec![b'x'; size]));
        request.extensions_mut().insert(RetryOptions::new().any_method());
        ask(&steady(), &server, request).await.unwrap();
        assert_eq!(server.count(), calls, "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_goes_on_is_not_lost_to_the_next_attempt() {
    // R1 R10: a service that answers 503 early and reads the body on.
    let server = Server::new(|number, request| async move {
        if number > 1 {
            assert_eq!(read(request).await, "an order over the limit");
            return Ok(answer(200));
        }
        let mut body = request.into_body();
        tokio::spawn(async move {
            pause(100).await;
            while body.frame().await.is_some() {}
        });
        Ok(answer(503))
    });
    let mut request = post().map(|_| Body::from("an order over the limit"));
    request.extensions_mut().insert(RetryOptions::new().any_method());
    assert_eq!(ask(&steady(), &server, request).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_never_sent_gives_its_token_back() {
    // R1 R9 R12
    let budget = RetryBudget::new(0.0, 0).burst(5);
    let policy = steady().budget(budget.clone());
    let server = Server::statuses(&[503; 100]);
    for (after, calls, left) in [(100, 1, 5), (300, 3, 4)] {
        let dropped = tokio::time::timeout(millis(after), ask(&policy, &server, get())).await;
        assert!(dropped.is_err());
        assert_eq!((server.count(), budget.available(get().uri())), (calls, left));
    }
}

#[tokio::test(start_paused = true)]
async fn it_takes_our_own_error_as_it_is() {
    // R1 R5
    let service = ServiceBuilder::new()
        .retry(steady().max_attempts(2).tower_policy())
        .service(service_fn(|_: Request<ReplayBody<Body>>| async {
            Err::<Response<Body>, _>(h2pool::Error::connect("refused"))
        }));
    let before = now();
    let error = service
        .oneshot(post().map(|body| ReplayBody::new(body, 10)))
        .await
        .unwrap_err();
    assert!(error.is_connect());
    assert_eq!(now() - before, millis(200));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_unprocessed_only_where_every_attempt_was() {
    // R1 P22: a first attempt that was answered 503 may have been acted upon, whatever becomes of the second.
    for (answered, expected) in [(true, false), (false, true)] {
        let server = move || {
            Server::new(move |number, _| async move {
                match number {
                    1 if answered => Ok(answer(503)),
                    _ => Err(h2pool::Error::connect("refused").into()),
                }
            })
        };
        let ours = |error: BoxError| *error.downcast::<h2pool::Error>().unwrap();
        let policy = steady().max_attempts(2);
        let boxed = ours(ask(&policy, &server(), get()).await.unwrap_err());
        let plain = ServiceBuilder::new()
            .retry(policy.tower_policy())
            .service(server().map_err(ours))
            .oneshot(get().map(|body| ReplayBody::new(body, 10)))
            .await
            .unwrap_err();
        for error in [boxed, plain] {
            assert_eq!((error.is_connect(), error.is_unprocessed()), (true, expected));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_of_our_own_error_is_retried_until_it_answers() {
    // R1 R4 R13
    let server = Server::statuses(&[503]);
    let service = ServiceBuilder::new()
        .retry(steady().tower_policy())
        .service(server.clone().map_err(|_| h2pool::Error::connect("refused")));
    let response = service
        .oneshot(get().map(|body| ReplayBody::new(body, 10)))
        .await
        .unwrap();
    let attempts = response.extensions().get::<Attempts>().unwrap();
    assert_eq!(
        (response.status().as_u16(), attempts.count(), server.count()),
        (200, 2, 2)
    );
}
