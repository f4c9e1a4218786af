//! How long it waits, and when it does not.

use std::time::{Duration, SystemTime};

use h2pool::retry::{Attempts, RetryPolicy, Stop};
use http::StatusCode;

use crate::mock::{Server, answer, get, millis, now, steady};

/// Sun, 06 Nov 1994 08:49:37 GMT less seven seconds.
fn shortly_before() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770)
}

/// When the second call came, with a policy whose own back-off would be 50 ms.
async fn second_call(value: &str) -> u128 {
    let policy = steady()
        .backoff(millis(50), millis(50))
        .max_attempts(2)
        .wall_clock(shortly_before);
    let server = Server::with_header(503, "retry-after", value);
    server.ask(&policy, get()).await.unwrap();
    server.times()[1]
}

#[tokio::test(start_paused = true)]
async fn retry_after_in_all_its_forms() {
    // R7
    assert_eq!(second_call("3").await, 3_000);
    assert_eq!(second_call("1.25").await, 1_250);
    assert_eq!(second_call("Sun, 06 Nov 1994 08:49:37 GMT").await, 7_000);
    assert_eq!(second_call("Sunday, 06-Nov-94 08:49:37 GMT").await, 7_000);
    assert_eq!(second_call("Sun Nov  6 08:49:37 1994").await, 7_000);
    for past in [
        "Sun, 06 Nov 1994 08:49:29 GMT",
        "Sunday, 06-Nov-94 08:49:29 GMT",
        "Sun Nov  6 08:49:29 1994",
        "0",
    ] {
        assert_eq!(second_call(past).await, 50, "the back-off alone: {past}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_malformed_is_as_if_it_were_absent() {
    // R7
    for value in ["-5", "1e9", "NaN", "", "sóon", "12 s", "tomorrow"] {
        assert_eq!(second_call(value).await, 50, "{value:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn milliseconds_are_preferred_and_of_several_values_the_longest_counts() {
    // R7
    let server = Server::new(|number, _| async move {
        let mut response = answer(if number == 1 { 429 } else { 200 });
        let headers = response.headers_mut();
        headers.insert("retry-after", "9".parse().unwrap());
        headers.append("retry-after-ms", "700".parse().unwrap());
        headers.append("retry-after-ms", "1200".parse().unwrap());
        Ok(response)
    });
    server.ask(&steady(), get()).await.unwrap();
    assert_eq!(server.times(), [0, 1_200]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_is_too_long_returns_the_response_at_once() {
    // R7: above max_retry_after, above any clock, or beyond the deadline; virtual time does not move.
    let forty_digits = "9".repeat(40);
    for (value, policy, stop) in [
        ("31", steady(), Stop::RetryAfter),
        ("3600", steady().deadline(None), Stop::RetryAfter),
        (&*forty_digits, steady(), Stop::RetryAfter),
        (
            &*forty_digits,
            steady().deadline(None).max_retry_after(Duration::MAX),
            Stop::RetryAfter,
        ),
        ("20", steady().deadline(Duration::from_secs(15)), Stop::Deadline),
    ] {
        let server = Server::with_header(503, "retry-after", value);
        let before = now();
        let response = server.ask(&policy, get()).await.unwrap();
        assert_eq!(now(), before, "{value}");
        assert_eq!(response.status(), 503);
        assert_eq!(response.extensions().get::<Attempts>().unwrap().stop(), stop);
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn x_should_retry_is_heeded() {
    // R7
    let server = Server::with_header(503, "x-should-retry", "false");
    server.ask(&steady(), get()).await.unwrap();
    assert_eq!(server.count(), 1);
    let server = Server::with_header(500, "x-should-retry", "true");
    server.ask(&steady().max_attempts(3), get()).await.unwrap();
    assert_eq!(server.count(), 3);
    // A no is heeded whatever the status, for a policy that repeats this one, a yes only where something failed.
    for (said, calls) in [("false", 1), ("yes", 3), ("true", 3)] {
        let server = Server::with_header(202, "x-should-retry", said);
        let policy = steady().max_attempts(3).statuses([StatusCode::ACCEPTED]);
        server.ask(&policy, get()).await.unwrap();
        assert_eq!(server.count(), calls, "{said}");
    }
    let server = Server::with_header(202, "x-should-retry", "true");
    server.ask(&steady(), get()).await.unwrap();
    assert_eq!(server.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn jitter_covers_the_range_and_is_not_cut_to_whole_seconds() {
    // R6
    let policy = RetryPolicy::default()
        .backoff(Duration::from_secs(1), Duration::from_secs(60))
        .random(|| 0.123);
    let server = Server::statuses(&[503, 503]);
    server.ask(&policy, get()).await.unwrap();
    assert_eq!(server.times(), [0, 123, 369]);

    let mut delays = Vec::new();
    for _ in 0..200 {
        let server = Server::statuses(&[503]);
        server.ask(&RetryPolicy::default(), get()).await.unwrap();
        delays.push(server.times()[1]);
    }
    assert!(delays.iter().all(|delay| *delay <= 200), "{delays:?}");
    // Of 200 draws from 0..=200 ms, all on one side of the middle: one chance in 2¹⁹⁹.
    assert!(delays.iter().any(|delay| *delay < 100) && delays.iter().any(|delay| *delay > 100));
}

#[tokio::test(start_paused = true)]
async fn attempt_2000_is_as_any_other() {
    // R6 R8: 0 attempts and no deadline is as long as it takes.
    let server = Server::statuses(&[503; 1_999]);
    let policy = steady().max_attempts(0).deadline(None);
    let response = server.ask(&policy, get()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.extensions().get::<Attempts>().unwrap().count(), 2_000);
    let times = server.times();
    assert_eq!(times[1_999] - times[1_998], 2_000);
}

#[tokio::test(start_paused = true)]
async fn a_back_off_beyond_the_clocks_range_is_no_wish_of_the_servers() {
    // R6 R7 R13: it is no panic either, nor a retry at once.
    let policy = steady().deadline(None).backoff(Duration::MAX, Duration::MAX);
    for (value, longest, stop) in [
        ("", Duration::ZERO, Stop::Deadline),
        ("1", Duration::MAX, Stop::Deadline),
        ("18446744073709551615", Duration::MAX, Stop::RetryAfter),
    ] {
        let server = Server::with_header(503, "retry-after", value);
        let policy = policy.clone().max_retry_after(longest);
        let answer = server.ask(&policy, get()).await.unwrap();
        assert_eq!(
            answer.extensions().get::<Attempts>().unwrap().stop(),
            stop,
            "{value:?}"
        );
        assert_eq!(server.count(), 1);
    }
}
