//! The budget: what it bounds, what is free of it.

use std::time::Duration;

use futures_util::future::join_all;
use h2pool::retry::{Attempts, Outcome, RetryBudget, RetryPolicy, Stop};
use http::Uri;
use tokio::time::timeout;
use tower::limit::ConcurrencyLimitLayer;
use tower::{ServiceBuilder, ServiceExt};

use crate::mock::{Server, answer, get, millis, pause, reset, steady};

fn uri() -> Uri {
    Uri::from_static("https://a.example/x")
}

#[tokio::test(start_paused = true)]
async fn none_is_the_default() {
    // R9
    let server = Server::new(|_, _| async { Err(reset()) });
    let policy = steady().max_attempts(3);
    join_all((0..1_000).map(|_| server.ask(&policy, get()))).await;
    assert_eq!(server.count(), 3_000);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_concurrent_failures_stay_under_the_budget() {
    // R9
    let server = Server::new(|_, _| async {
        pause(50).await;
        Err(reset())
    });
    let policy = steady().budget(RetryBudget::new(0.2, 10).burst(100));
    let before = crate::mock::now();
    let answers = join_all((0..1_000).map(|_| server.ask(&policy, get()))).await;
    let seconds = (crate::mock::now() - before).as_secs() + 1;
    let retries = server.count() - 1_000;
    let allowed = 100 + 200 + 10 * usize::try_from(seconds).unwrap();
    assert!((100..=allowed).contains(&retries), "{retries} of {allowed}");
    let refused = answers.iter().filter(|answer| {
        let error = answer.as_ref().unwrap_err();
        Attempts::of_error(&**error).unwrap().stop() == Stop::Budget
    });
    assert!(refused.count() > 800);
}

#[tokio::test(start_paused = true)]
async fn under_a_long_outage_the_extra_load_is_the_share() {
    // R9: 100 requests a second for 100 seconds, 20 % and nothing by the clock.
    let server = Server::statuses(&[503; 100_000]);
    let policy = steady().budget(RetryBudget::new(0.2, 0).burst(10));
    for _ in 0..10_000 {
        let (server, policy) = (server.clone(), policy.clone());
        tokio::spawn(async move { server.ask(&policy, get()).await });
        pause(10).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let retries = server.count() - 10_000;
    assert!((1_900..=2_010).contains(&retries), "{retries}");
}

#[tokio::test(start_paused = true)]
async fn it_refills_and_an_idle_year_fills_it_no_further_than_the_burst() {
    // R9
    let budget = RetryBudget::new(0.0, 2).burst(4);
    let policy = steady().max_attempts(2).budget(budget.clone());
    let server = Server::statuses(&[503; 1_000]);
    let many = || async { join_all((0..20).map(|_| server.ask(&policy, get()))).await };
    many().await;
    assert_eq!(server.count(), 24);
    tokio::time::sleep(millis(1_000)).await;
    // 1.2 s have passed since, 0.2 of them in the back-off.
    many().await;
    assert_eq!(server.count(), 24 + 22);
    tokio::time::sleep(Duration::from_secs(365 * 86_400)).await;
    assert_eq!(budget.available(&uri()), 4);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_processed_is_free_but_bounded() {
    // R9 R5
    let policy = steady()
        .budget(RetryBudget::new(0.0, 0).burst(2))
        .classify_response(|head| (head.status == 503).then(Outcome::unprocessed));
    let server = Server::statuses(&[503; 100]);
    let response = server.ask(&policy, get()).await.unwrap();
    assert_eq!(server.count(), 1 + 3 + 2, "three are free, two are paid for");
    assert_eq!(
        response.extensions().get::<Attempts>().unwrap().stop(),
        Stop::Budget
    );

    // A connection that could not be opened is unprocessed, but no sign of a healthy server.
    let policy = steady().budget(RetryBudget::new(0.0, 0).burst(1));
    let server = Server::new(|_, _| async { Err(h2pool::Error::connect("refused").into()) });
    server.ask(&policy, crate::mock::post()).await.unwrap_err();
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn clones_share_and_origins_may_not() {
    // R9
    let budget = RetryBudget::new(0.0, 0).burst(1);
    let (one, two) = (
        steady().budget(budget.clone()),
        RetryPolicy::default().budget(budget),
    );
    let server = Server::statuses(&[503; 100]);
    server.ask(&one, get()).await.unwrap();
    assert_eq!(server.count(), 2);
    server.ask(&two, get()).await.unwrap();
    assert_eq!(server.count(), 3, "the only token is gone");

    let each = steady().budget(RetryBudget::new(0.0, 0).burst(1).per_origin());
    for (host, calls) in [("a", 5), ("a", 6), ("b", 8)] {
        let mut request = get();
        *request.uri_mut() = format!("https://{host}.example/").parse().unwrap();
        server.ask(&each, request).await.unwrap();
        assert_eq!(server.count(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_never_sent_gives_its_token_back() {
    // R9 R12
    let budget = RetryBudget::new(0.0, 0).burst(5);
    let policy = steady().budget(budget.clone());
    let server = Server::new(|_, _| async { Ok(answer(503)) });
    let dropped = tokio::time::timeout(millis(100), server.ask(&policy, get())).await;
    assert!(dropped.is_err());
    assert_eq!((server.count(), budget.available(&uri())), (1, 5));
    let dropped = tokio::time::timeout(millis(300), server.ask(&policy, get())).await;
    assert!(dropped.is_err());
    assert_eq!(
        (server.count(), budget.available(&uri())),
        (3, 4),
        "the one that was sent is spent"
    );
}

#[tokio::test(start_paused = true)]
async fn nor_does_a_retry_or_a_hedge_cost_anything_that_the_service_had_no_room_for() {
    // R9 R12: another request takes the only permit at 50 ms and keeps it.
    let budget = RetryBudget::new(0.0, 0).burst(1);
    let server = Server::new(|number, _| async move {
        pause(if number == 1 { 40 } else { 10_000 }).await;
        Ok(answer(503))
    });
    let narrow = |policy: RetryPolicy| {
        ServiceBuilder::new()
            .layer(policy)
            .layer(ConcurrencyLimitLayer::new(1))
            .service(server.clone())
    };
    let service = narrow(steady().budget(budget.clone()));
    let other = async {
        pause(50).await;
        timeout(millis(500), service.clone().oneshot(get())).await
    };
    let (first, other) = tokio::join!(timeout(millis(400), service.clone().oneshot(get())), other);
    assert!(first.is_err() && other.is_err());
    assert_eq!((server.count(), budget.available(&uri())), (2, 1));

    // R15: the first attempt itself has the permit.
    let service = narrow(steady().budget(budget.clone()).hedge(millis(60)));
    assert!(timeout(millis(400), service.oneshot(get())).await.is_err());
    assert_eq!((server.count(), budget.available(&uri())), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_free_retry_spends_nothing_that_was_paid_for_a_hedge_that_was_not_sent() {
    // R9 R15: the hedge waits for the one permit when the first attempt is refused.
    for (unprocessed, left) in [(true, 1), (false, 0)] {
        let budget = RetryBudget::new(0.0, 0).burst(1);
        let policy = steady()
            .hedge(millis(100))
            .budget(budget.clone())
            .classify_response(move |_| unprocessed.then(Outcome::unprocessed));
        let policy = policy.max_attempts(2);
        let server = Server::new(|number, _| async move {
            pause(150).await;
            Ok(answer(if number == 1 { 503 } else { 200 }))
        });
        let service = ServiceBuilder::new()
            .layer(policy)
            .concurrency_limit(1)
            .service(server.clone());
        service.oneshot(get()).await.unwrap();
        assert_eq!((server.count(), budget.available(&uri())), (2, left));
    }
}
