//! For any policy and any server: the limits hold, and every delay lies within its bounds.

use std::sync::Arc;
use std::time::Duration;

use h2pool::retry::{Attempts, Failure, Reason, RetryPolicy};
use http::{HeaderValue, Method, Response};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::mock::{Answer, Body, Server, answer, millis, now, pause, request, reset};

/// What the server does with one call.
#[derive(Clone, Debug)]
struct Step {
    /// 0 is a reset, 1 an error that nobody knows, 2 no connection, 3 no answer ever.
    status: u16,
    takes: u64,
    retry_after: Option<Vec<u8>>,
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop_oneof![4 => Just(503), 2 => Just(429), 1 => Just(200), 1 => Just(500), 2 => 0..4_u16];
    let header = prop_oneof![
        4 => (0..40_u32).prop_map(|seconds| seconds.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ];
    (status, 0..3_000_u64, prop::option::weighted(0.5, header)).prop_map(|(status, takes, retry_after)| {
        Step {
            status,
            takes,
            retry_after,
        }
    })
}

/// When answers that would be retried came, and when the server then wants to be asked again, in milliseconds.
type Asked = Arc<Mutex<Vec<(u128, u128)>>>;

fn server(steps: Vec<Step>) -> (Server, Asked) {
    let asked = Asked::default();
    let (notes, started) = (asked.clone(), Mutex::new(None));
    let server = Server::new(move |number, _| {
        let step = steps[(number as usize - 1) % steps.len()].clone();
        let started = *started.lock().get_or_insert_with(now);
        let notes = notes.clone();
        async move {
            pause(step.takes).await;
            let seconds = step
                .retry_after
                .as_deref()
                .and_then(|text| std::str::from_utf8(text).ok()?.parse::<u32>().ok());
            if let (429 | 503, Some(seconds)) = (step.status, seconds) {
                let at = (now() - started).as_millis();
                notes.lock().push((at, at + u128::from(seconds) * 1_000));
            }
            act(step).await
        }
    });
    (server, asked)
}

async fn act(step: Step) -> Answer {
    match step.status {
        0 => Err(reset()),
        1 => Err("unknown".into()),
        2 => Err(h2pool::Error::connect("refused").into()),
        3 => std::future::pending().await,
        status => Ok(with_header(answer(status), step.retry_after)),
    }
}

fn with_header(mut response: Response<Body>, value: Option<Vec<u8>>) -> Response<Body> {
    if let Some(value) = value.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()) {
        response.headers_mut().insert("retry-after", value);
    }
    response
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_limits_hold(
        steps in prop::collection::vec(step(), 1..8),
        post in any::<bool>(),
        max_attempts in 0..12_u32,
        deadline in 0..40_000_u64,
        attempt_timeout in prop::option::of(1..2_000_u64),
        base in 0..1_000_u64,
        longest in 0..20_u64,
        hedge in prop::option::of(0..2_000_u64),
        random in 0.0..1.0_f64,
    ) {
        // R7 R8 R6 R15
        let policy = RetryPolicy::default()
            .max_attempts(max_attempts)
            .deadline(millis(deadline))
            .attempt_timeout(attempt_timeout.map(millis))
            .backoff(millis(base.max(1)), Duration::from_secs(2))
            .max_retry_after(Duration::from_secs(longest))
            .hedge(hedge.map(millis))
            .random(move || random);
        let (server, asked) = server(steps);
        let method = if post { Method::POST } else { Method::GET };
        let (took, answer) = run(async {
            let before = now();
            let answer = server.ask(&policy, request(method, "")).await;
            (now() - before, answer)
        });
        prop_assert!(took <= millis(deadline), "{took:?}");
        prop_assert!(max_attempts == 0 || server.count() <= max_attempts as usize, "{}", server.count());

        let attempts = match &answer {
            Ok(response) => response.extensions().get::<Attempts>().unwrap(),
            Err(error) => Attempts::of_error(&**error).unwrap(),
        };
        prop_assert_eq!(attempts.count() as usize, server.count());
        for (at, again) in asked.lock().iter() {
            let early = server.times().into_iter().find(|call| at < call && call < again);
            prop_assert_eq!(early, None, "told at {} to wait until {}", at, again);
        }
        prop_assert_eq!(attempts.total_time(), took);
        let unprocessed = |(reason, _): &(Reason, u32)| *reason == Reason::Failure(Failure::Connect);
        prop_assert!(!post || attempts.reasons().iter().all(unprocessed), "a POST that may have been processed");
    }

    #[test]
    fn every_delay_lies_within_its_bounds(
        asked in prop::collection::vec(prop::option::of(0..6_000_u64), 1..8),
        base in 1..1_000_u64, cap in 1..3_000_u64, random in 0.0..=1.0_f64,
    ) {
        // R6 R7
        let script = asked.clone();
        let server = Server::new(move |number, _| {
            let Some(asked) = script.get(number as usize - 1) else {
                return std::future::ready(Ok(answer(200)));
            };
            let mut response = answer(503);
            if let Some(asked) = asked {
                response.headers_mut().insert("retry-after-ms", (*asked).into());
            }
            std::future::ready(Ok(response))
        });
        let policy = RetryPolicy::default().backoff(millis(base), millis(cap)).random(move || random);
        run(server.ask(&policy, request(Method::GET, ""))).unwrap();
        let times = server.times();
        prop_assert_eq!(times.len(), asked.len() + 1);
        for (n, asked) in asked.into_iter().enumerate() {
            let delay = times[n + 1] - times[n];
            let ceiling = u128::from((base << n).min(cap)) + 1;
            let asked = u128::from(asked.unwrap_or(0));
            prop_assert!(delay >= asked, "{delay} is earlier than {asked}");
            prop_assert!(delay <= asked.max(ceiling), "{delay} is later than {asked} and {ceiling}");
        }
    }
}
