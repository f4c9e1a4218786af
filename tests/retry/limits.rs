//! Attempts, deadline, time limit of an attempt; exactly at them.

use std::task::Poll;
use std::time::Duration;

use h2pool::retry::{Attempts, Failure, Reason, RetryOptions, RetryPolicy, Stop};
use http::Method;

use crate::mock::{Alive, Answer, Server, answer, get, millis, now, pause, post, steady};

fn stop(answer: &Answer) -> Stop {
    match answer {
        Ok(response) => response.extensions().get::<Attempts>().unwrap().stop(),
        Err(error) => Attempts::of_error(&**error).unwrap().stop(),
    }
}

fn is_timeout(answer: Answer) -> bool {
    let error = answer.unwrap_err();
    error
        .source()
        .unwrap()
        .downcast_ref::<h2pool::Error>()
        .unwrap()
        .is_timeout()
}

/// Answers 200 after so many milliseconds.
fn slow(millis: u64) -> Server {
    Server::new(move |_, _| async move {
        pause(millis).await;
        Ok(answer(200))
    })
}

#[tokio::test(start_paused = true)]
async fn ten_attempts_by_default_and_zero_leaves_it_to_the_deadline() {
    // R8
    let server = Server::statuses(&[503; 100]);
    assert_eq!(stop(&server.ask(&steady(), get()).await), Stop::Attempts);
    assert_eq!(server.count(), 10);

    let server = Server::statuses(&[503; 100]);
    let before = now();
    assert_eq!(
        stop(&server.ask(&steady().max_attempts(0), get()).await),
        Stop::Deadline
    );
    // 0.2 + 0.4 + 0.8 + 1.6 = 3 s, then every 2 s: the retry at 61 s is not made, and not waited for.
    assert_eq!(server.count(), 33);
    assert_eq!(now() - before, Duration::from_secs(59));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_cut_at_the_deadline() {
    // R8
    let alive = Alive::default();
    let guard = alive.guard();
    let server = Server::new(move |_, _| {
        let guard = guard.guard();
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let before = now();
    let base = alive.count();
    let answer = server.ask(&steady(), get()).await;
    assert_eq!(now() - before, Duration::from_secs(60));
    assert_eq!(stop(&answer), Stop::Deadline);
    assert!(is_timeout(answer));
    assert_eq!((server.count(), alive.count()), (1, base), "cancelled");
}

#[tokio::test(start_paused = true)]
async fn an_answer_exactly_at_the_deadline_counts_and_one_a_tick_later_does_not() {
    // R8
    let policy = steady().deadline(millis(500));
    assert!(slow(500).ask(&policy, get()).await.is_ok());
    assert!(is_timeout(slow(501).ask(&policy, get()).await));
}

#[tokio::test(start_paused = true)]
async fn a_retry_exactly_at_the_deadline_is_not_made() {
    // R8: the first delay is 200 ms.
    for (deadline, calls, ended) in [(199, 1, 0), (200, 1, 0), (201, 2, 200)] {
        let server = Server::statuses(&[503, 503, 503]);
        let before = now();
        let answer = server.ask(&steady().deadline(millis(deadline)), get()).await;
        assert_eq!(stop(&answer), Stop::Deadline, "{deadline}");
        assert_eq!(answer.unwrap().status(), 503);
        assert_eq!(
            (server.count(), now() - before),
            (calls, millis(ended)),
            "{deadline}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_may_be_off_or_nothing_at_all() {
    // R8
    let endless = steady().deadline(None);
    assert!(slow(24 * 3_600_000).ask(&endless, get()).await.is_ok());
    assert!(
        slow(1)
            .ask(&endless.clone().deadline(Duration::MAX), get())
            .await
            .is_ok(),
        "beyond any clock"
    );
    let none = steady().deadline(Duration::ZERO);
    let before = now();
    assert!(is_timeout(slow(1).ask(&none, get()).await));
    assert_eq!(now(), before);
    assert!(
        Server::statuses(&[]).ask(&none, get()).await.is_ok(),
        "what is there at once, is there in time"
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_a_time_limit_of_its_own_cut_to_what_is_left() {
    // R8
    let policy = steady().attempt_timeout(millis(1_000)).deadline(millis(2_500));
    let server = slow(60_000);
    let before = now();
    let answer = server.ask(&policy, get()).await;
    // Cut at 1.0 s; again from 1.2 to 2.2 s; the next would begin at 2.6 s.
    assert_eq!(server.times(), [0, 1_200]);
    assert_eq!(now() - before, millis(2_200));
    assert_eq!(stop(&answer), Stop::Deadline);
    assert!(is_timeout(answer));

    let server = slow(60_000);
    let before = now();
    let answer = server.ask(&policy.deadline(millis(1_700)), get()).await;
    assert_eq!(server.times(), [0, 1_200]);
    assert_eq!(
        now() - before,
        millis(1_700),
        "the second attempt had half a second"
    );
    let error = answer.unwrap_err();
    let attempts = Attempts::of_error(&*error).unwrap();
    assert_eq!(attempts.reasons(), [(Reason::Failure(Failure::Timeout), 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_cut_is_repeated_only_where_that_is_safe() {
    // R3 R4 R8
    let server = slow(60_000);
    let answer = server.ask(&steady().attempt_timeout(millis(100)), post()).await;
    assert_eq!(stop(&answer), Stop::NotRepeatable);
    let error = answer.unwrap_err();
    let cause = error.source().unwrap().downcast_ref::<h2pool::Error>().unwrap();
    assert!(cause.is_timeout() && !cause.is_unprocessed());
    assert_eq!(server.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_request_may_have_other_limits() {
    // R8
    let ask = |options: RetryOptions| {
        let mut request = get();
        *request.method_mut() = Method::OPTIONS;
        request.extensions_mut().insert(options);
        request
    };
    let server = Server::statuses(&[503; 100]);
    server
        .ask(&RetryPolicy::default(), ask(RetryOptions::new().max_attempts(3)))
        .await
        .unwrap();
    assert_eq!(server.count(), 3);
    let before = now();
    let options = RetryOptions::new()
        .deadline(millis(30))
        .attempt_timeout(millis(10));
    let answer = slow(60_000)
        .ask(&steady().backoff(millis(1), millis(1)), ask(options))
        .await;
    assert!(is_timeout(answer));
    assert!(now() - before <= millis(30));
    let off = RetryOptions::new().deadline(None);
    assert!(slow(61_000).ask(&steady(), ask(off)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_retry_whose_time_came_too_late_is_not_made() {
    // R8: nobody polled it in time, as on a runtime that stood still.
    let server = Server::statuses(&[503; 100]);
    let policy = steady().deadline(millis(1_000));
    let mut asking = tokio_test::task::spawn(server.ask(&policy, get()));
    assert!(asking.poll().is_pending());
    pause(1_000).await;
    assert!(asking.is_woken());
    let Poll::Ready(answer) = asking.poll() else {
        panic!("it waits beyond its deadline");
    };
    assert_eq!((stop(&answer), server.count()), (Stop::Deadline, 1));
    assert!(is_timeout(answer));
}
