//! The decision, as a table.

use http::{Request, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::retry::{Reason, RetryPolicy};

const ZERO: Duration = Duration::ZERO;

fn head(method: Method) -> http::request::Parts {
    Request::builder().method(method).body(()).unwrap().into_parts().0
}

fn status(policy: &RetryPolicy, status: u16, headers: &[(&'static str, &str)]) -> Outcome {
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    policy.outcome_of_response(&response.body(()).unwrap().into_parts().0)
}

fn stop(reason: Stop) -> Decision {
    Decision::Stop(reason)
}

fn after(millis: u64) -> Decision {
    Decision::Retry {
        after: Duration::from_millis(millis),
    }
}

#[test]
fn get_head_and_options_are_retried_and_nothing_else() {
    // R2 R3
    let policy = RetryPolicy::default();
    let transient = Outcome::transient();
    for (method, expected) in [
        (Method::GET, after(200)),
        (Method::HEAD, after(200)),
        (Method::OPTIONS, after(200)),
        (Method::POST, stop(Stop::NotRepeatable)),
        (Method::PUT, stop(Stop::NotRepeatable)),
        (Method::DELETE, stop(Stop::NotRepeatable)),
        (Method::PATCH, stop(Stop::NotRepeatable)),
        (Method::TRACE, stop(Stop::NotRepeatable)),
        (Method::CONNECT, stop(Stop::NotRepeatable)),
        (Method::from_bytes(b"QUERY").unwrap(), stop(Stop::NotRepeatable)),
    ] {
        let head = head(method);
        assert_eq!(
            policy.decide(&head, 1, ZERO, &transient, 1.0),
            expected,
            "{}",
            head.method
        );
        // R5: what was not processed may be sent again, whatever the method.
        assert_eq!(
            policy.decide(&head, 1, ZERO, &Outcome::unprocessed(), 1.0),
            after(200)
        );
    }
}

#[test]
fn other_methods_opt_in() {
    // R3
    let policy = RetryPolicy::default();
    let mut post = head(Method::POST);
    let decide = |policy: &RetryPolicy, head: &_| policy.decide(head, 1, ZERO, &Outcome::transient(), 1.0);
    post.headers.insert("idempotency-key", "4711".parse().unwrap());
    assert_eq!(
        decide(&policy, &post),
        stop(Stop::NotRepeatable),
        "the key alone is not enough"
    );
    let honoured = policy.clone().idempotency_key(true);
    assert_eq!(decide(&honoured, &post), after(200));
    post.headers.insert("idempotency-key", " ".parse().unwrap());
    assert_eq!(
        decide(&honoured, &post),
        stop(Stop::NotRepeatable),
        "an empty key is none"
    );

    post.extensions.insert(RetryOptions::new().any_method());
    assert_eq!(decide(&policy, &post), after(200));
    post.extensions.insert(RetryOptions::new().any_method().never());
    assert_eq!(decide(&policy, &post), stop(Stop::Disabled));
    assert_eq!(
        policy.decide(&post, 1, ZERO, &Outcome::unprocessed(), 1.0),
        stop(Stop::Disabled)
    );
    assert_eq!(
        decide(&policy.methods([Method::PUT]), &head(Method::PUT)),
        after(200)
    );
}

#[test]
fn the_statuses_retried_are_five_and_no_others() {
    // R4
    let policy = RetryPolicy::default();
    let retried: Vec<u16> = (100..1000)
        .filter(|code| status(&policy, *code, &[]).verdict() == Verdict::Transient)
        .collect();
    assert_eq!(retried, [425, 429, 502, 503, 504]);
    let reason = status(&policy, 503, &[]).reason().unwrap();
    assert_eq!(reason, Reason::Status(StatusCode::SERVICE_UNAVAILABLE));
    let other = policy.statuses([StatusCode::INTERNAL_SERVER_ERROR]);
    assert_eq!(status(&other, 500, &[]).verdict(), Verdict::Transient);
    assert_eq!(status(&other, 503, &[]).verdict(), Verdict::Final);
}

#[test]
fn a_classifier_may_say_unprocessed_for_a_response() {
    // R5
    let policy = RetryPolicy::default()
        .classify_response(|head| (head.status == 425).then(Outcome::unprocessed))
        .classify_error(|error| error.is::<std::fmt::Error>().then(Outcome::unprocessed));
    assert_eq!(status(&policy, 425, &[]).verdict(), Verdict::Unprocessed);
    assert_eq!(
        status(&policy, 425, &[("retry-after", "2")]).delay(),
        Some(Duration::from_secs(2))
    );
    assert_eq!(status(&policy, 503, &[]).verdict(), Verdict::Transient);
    assert_eq!(
        policy.outcome_of_error(&std::fmt::Error).verdict(),
        Verdict::Unprocessed
    );
}

#[test]
fn the_server_may_ask_for_a_retry_or_forbid_it() {
    // R7
    let policy = RetryPolicy::default();
    let wants = |code, value| status(&policy, code, &[("x-should-retry", value)]).verdict();
    assert_eq!(wants(503, "false"), Verdict::Final);
    assert_eq!(wants(500, "true"), Verdict::Transient);
    assert_eq!(wants(503, "perhaps"), Verdict::Transient);
    assert_eq!(wants(200, "true"), Verdict::Final, "a success is a success");
}

#[test]
fn the_delay_asked_for_is_kept_and_a_short_one_is_no_way_around_the_back_off() {
    // R7
    let policy = RetryPolicy::default();
    let decide = |asked, random| {
        let outcome = Outcome::transient().retry_after(Duration::from_millis(asked));
        policy.decide(&head(Method::GET), 1, ZERO, &outcome, random)
    };
    assert_eq!(decide(3_000, 1.0), after(3_000));
    assert_eq!(
        decide(30_000, 0.0),
        after(30_000),
        "the longest that is waited for"
    );
    assert_eq!(decide(30_001, 0.0), stop(Stop::RetryAfter));
    assert_eq!(decide(0, 1.0), after(200), "a date in the past, or 0");
    assert_eq!(decide(150, 0.0), after(150));
    assert_eq!(decide(150, 1.0), after(200));
    let half = Outcome::transient().retry_after(Duration::from_millis(500));
    assert_eq!(
        policy.decide(&head(Method::GET), 4, ZERO, &half, 1.0),
        after(500),
        "in place of a back-off of 1.6 s"
    );
    let far = Outcome::transient().retry_after(Duration::MAX);
    assert_eq!(
        policy.decide(&head(Method::GET), 1, ZERO, &far, 0.5),
        stop(Stop::RetryAfter)
    );
}

#[test]
fn the_number_of_attempts_is_a_limit_unless_it_is_zero() {
    // R8
    let get = head(Method::GET);
    let policy = RetryPolicy::default();
    assert_eq!(policy.decide(&get, 9, ZERO, &Outcome::transient(), 0.0), after(0));
    assert_eq!(
        policy.decide(&get, 10, ZERO, &Outcome::transient(), 0.0),
        stop(Stop::Attempts)
    );
    let endless = policy.max_attempts(0);
    assert_eq!(
        endless.decide(&get, 2_000, ZERO, &Outcome::transient(), 1.0),
        after(2_000)
    );
}

#[test]
fn a_retry_starts_before_the_deadline_or_not_at_all() {
    // R8: the deadline is 60 s.
    let policy = RetryPolicy::default();
    let decide = |elapsed| {
        let outcome = Outcome::transient().retry_after(Duration::from_secs(10));
        policy.decide(
            &head(Method::GET),
            1,
            Duration::from_millis(elapsed),
            &outcome,
            0.0,
        )
    };
    assert_eq!(decide(49_999), after(10_000), "a tick before the deadline");
    assert_eq!(decide(50_000), stop(Stop::Deadline), "exactly at the deadline");
    assert_eq!(decide(50_001), stop(Stop::Deadline));
    let off = policy.clone().deadline(None);
    let late = off.decide(&head(Method::GET), 1, Duration::MAX, &Outcome::transient(), 0.0);
    assert_eq!(late, after(0));
}

#[test]
fn a_request_may_have_limits_of_its_own() {
    // R8
    let policy = RetryPolicy::default();
    let mut get = head(Method::GET);
    get.extensions.insert(
        RetryOptions::new()
            .max_attempts(2)
            .deadline(Duration::from_secs(1)),
    );
    let decide = |attempt, elapsed| policy.decide(&get, attempt, elapsed, &Outcome::transient(), 0.0);
    assert_eq!(decide(1, ZERO), after(0));
    assert_eq!(decide(2, ZERO), stop(Stop::Attempts));
    assert_eq!(decide(1, Duration::from_secs(1)), stop(Stop::Deadline));
    let second = Some(Duration::from_secs(1));
    get.extensions.insert(RetryOptions::new().attempt_timeout(second));
    let limits = policy.limits(&get.method, &get.headers, &get.extensions);
    assert_eq!(limits.attempt_timeout, second);
}

#[test]
fn what_is_hedged_and_recorded_follows_from_method_and_options() {
    // R15 R10
    let policy = RetryPolicy::default()
        .hedge(Duration::from_secs(1))
        .replay_limit(7);
    let limits = |method, options: RetryOptions| {
        let mut head = head(method);
        head.extensions.insert(options);
        let limits = policy.limits(&head.method, &head.headers, &head.extensions);
        (limits.hedge.is_some(), limits.replay_limit)
    };
    let options = RetryOptions::new();
    assert_eq!(limits(Method::GET, options), (true, 7));
    assert_eq!(limits(Method::POST, options), (false, 7));
    assert_eq!(limits(Method::POST, options.any_method()), (true, 7));
    assert_eq!(limits(Method::GET, options.hedge(None)), (false, 7));
    assert_eq!(limits(Method::GET, options.never()), (false, 0));
    assert_eq!(limits(Method::GET, options.replay_limit(9)), (true, 9));
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let verdict = prop_oneof![
        Just(Outcome::done()),
        Just(Outcome::transient()),
        Just(Outcome::unprocessed())
    ];
    (verdict, any::<Option<Duration>>()).prop_map(|(outcome, asked)| outcome.or_after(asked))
}

proptest! {
    #[test]
    fn every_decision_lies_within_the_limits(
        post in any::<bool>(), max_attempts in 0..20_u32, deadline in any::<Option<Duration>>(),
        base in any::<Duration>(), cap in any::<Duration>(), longest in any::<Duration>(),
        attempt in 1..30_u32, elapsed in any::<Duration>(), outcome in outcomes(), random in any::<f64>(),
    ) {
        // R2 R3 R6 R7 R8
        let head = head(if post { Method::POST } else { Method::GET });
        let policy = RetryPolicy::default()
            .max_attempts(max_attempts)
            .deadline(deadline)
            .backoff(base, cap)
            .max_retry_after(longest);
        let decision = policy.decide(&head, attempt, elapsed, &outcome, random);
        prop_assert_eq!(decision, policy.decide(&head, attempt, elapsed, &outcome, random), "it is pure");
        if let Decision::Retry { after } = decision {
            prop_assert!(outcome.verdict() != Verdict::Final);
            prop_assert!(!post || outcome.verdict() == Verdict::Unprocessed);
            prop_assert!(max_attempts == 0 || attempt < max_attempts);
            prop_assert!(deadline.is_none_or(|deadline| elapsed.saturating_add(after) < deadline));
            prop_assert!(outcome.delay().is_none_or(|asked| after >= asked), "never earlier than asked");
            prop_assert!(after <= cap.max(longest));
        }
    }
}
