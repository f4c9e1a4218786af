//! What the defaults are, and what each setter sets.

use super::*;
use crate::retry::Stop;

const SECOND: Duration = Duration::from_secs(1);

fn limits(policy: &RetryPolicy) -> Limits {
    policy.limits(&Method::GET, &HeaderMap::new(), &Extensions::new())
}

fn outcome(policy: &RetryPolicy, status: u16, retry_after: &str) -> Outcome {
    let response = http::Response::builder()
        .status(status)
        .header("retry-after", retry_after);
    policy.outcome_of_response(&response.body(()).unwrap().into_parts().0)
}

fn marked(policy: &RetryPolicy) -> HeaderMap {
    let mut headers = HeaderMap::new();
    policy.mark_retry(&mut headers, 1);
    policy.mark_retry(&mut headers, 2);
    headers
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    // R7 R8 R9 R10 R15
    let policy = RetryPolicy::default();
    let limits = limits(&policy);
    assert_eq!((limits.max_attempts, limits.deadline), (10, Some(SECOND * 60)));
    assert_eq!((limits.attempt_timeout, limits.hedge), (None, None));
    assert_eq!(limits.replay_limit, 64 * 1024);
    assert!(policy.shared_budget().is_none());
    assert_eq!(outcome(&policy, 503, "30").delay(), Some(SECOND * 30));
}

#[test]
fn the_limits_are_those_that_were_set() {
    // R6 R7 R8 R10 R15
    let policy = RetryPolicy::new()
        .max_attempts(9)
        .deadline(SECOND * 20)
        .attempt_timeout(SECOND * 3)
        .backoff(SECOND * 4, SECOND * 5)
        .max_retry_after(SECOND * 6)
        .replay_limit(7)
        .hedge(SECOND * 8);
    let limits = limits(&policy);
    assert_eq!((limits.max_attempts, limits.replay_limit), (9, 7));
    assert_eq!(limits.deadline, Some(SECOND * 20));
    assert_eq!(limits.attempt_timeout, Some(SECOND * 3));
    assert_eq!(limits.hedge, Some(SECOND * 8));

    let decide = |attempt, outcome: Outcome| limits.decide(attempt, Duration::ZERO, &outcome, 1.0);
    let after = |seconds| Decision::Retry {
        after: SECOND * seconds,
    };
    assert_eq!(decide(1, Outcome::transient()), after(4));
    assert_eq!(decide(2, Outcome::transient()), after(5));
    assert_eq!(decide(1, Outcome::transient().retry_after(SECOND * 6)), after(6));
    let too_long = Outcome::transient().retry_after(SECOND * 7);
    assert_eq!(decide(1, too_long), Decision::Stop(Stop::RetryAfter));
}

#[test]
fn a_success_asks_for_no_delay() {
    // R7
    let policy = RetryPolicy::new();
    assert_eq!(outcome(&policy, 200, "3").delay(), None);
    assert_eq!(outcome(&policy, 429, "3").delay(), Some(SECOND * 3));
}

#[test]
fn dates_are_compared_with_the_wall_clock_given() {
    // R7: the example of RFC 9110 §5.6.7, seven seconds before.
    let policy = RetryPolicy::new()
        .wall_clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777) - Duration::from_secs(7));
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(outcome(&policy, 503, date).delay(), Some(SECOND * 7));
}

#[test]
fn jitter_is_drawn_anew_or_from_the_source_given() {
    // R6
    let policy = RetryPolicy::new();
    let draws: Vec<_> = (0..100).map(|_| policy.draw()).collect();
    assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)), "{draws:?}");
    assert!(draws.iter().any(|draw| *draw < 0.5) && draws.iter().any(|draw| *draw > 0.5));
    assert_eq!(policy.random(|| 0.25).draw().to_bits(), 0.25_f64.to_bits());
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_policy_share_its_budget() {
    // R9
    let uri = http::Uri::from_static("https://a.example/");
    let budget = RetryBudget::new(0.0, 0).burst(2);
    let policy = RetryPolicy::new().budget(budget.clone());
    let token = policy.clone().shared_budget().unwrap().withdraw(&uri);
    assert_eq!((token.is_some(), budget.available(&uri)), (true, 1));
    assert!(policy.budget(None).shared_budget().is_none());
}

#[test]
fn retries_are_marked_by_the_header_given_or_not_at_all() {
    // R14
    let policy = RetryPolicy::new();
    let marks =
        |name, count| HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from(count))]);
    assert_eq!(marked(&policy), marks("x-retry-count", 2));
    let named = policy
        .clone()
        .retry_count_header(HeaderName::from_static("x-again"));
    assert_eq!(marked(&named), marks("x-again", 2));
    assert_eq!(marked(&policy.retry_count_header(None)), HeaderMap::new());
}

#[test]
fn what_is_shown_of_a_policy_are_its_settings() {
    // R1
    let budget = RetryBudget::new(0.1, 5).per_origin();
    let shown = format!("{:?}", RetryPolicy::new().max_attempts(9).budget(budget));
    for part in ["max_attempts: 9", "429", "per_second: 5", "per_origin: true"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}
