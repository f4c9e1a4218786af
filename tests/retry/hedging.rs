//! A second attempt beside a slow first one.

use std::sync::Arc;
use std::time::Duration;

use h2pool::retry::{Attempts, ReplayBody, RetryBudget, RetryOptions, RetryPolicy, Stop};
use http::{Request, Uri};
use parking_lot::Mutex;
use tower::{Service, ServiceExt};

use crate::mock::{Alive, Answer, Body, Server, answer, get, millis, now, pause, post, read, reset, steady};

fn hedged() -> RetryPolicy {
    steady().hedge(millis(100))
}

type Script = &'static [(u64, u16)];

/// Each call takes so many milliseconds and has this status; 0 is a reset, 1 an error that is never retried.
fn server(script: Script) -> (Server, Alive) {
    let alive = Alive::default();
    let guard = alive.guard();
    let server = Server::new(move |number, request: Request<ReplayBody<Body>>| {
        let (time, status) = script[number as usize - 1];
        let guard = guard.guard();
        async move {
            let _guard = guard;
            read(request).await;
            pause(time).await;
            match status {
                0 => Err(reset()),
                1 => Err("refused for good".into()),
                _ => Ok(answer(status)),
            }
        }
    });
    (server, alive)
}

fn attempts(answer: &Answer) -> u32 {
    answer
        .as_ref()
        .unwrap()
        .extensions()
        .get::<Attempts>()
        .unwrap()
        .count()
}

#[tokio::test(start_paused = true)]
async fn off_by_default() {
    // R15
    let (server, _) = server(&[(50_000, 200)]);
    assert_eq!(attempts(&server.ask(&steady(), get()).await), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_wins_and_the_loser_is_cancelled() {
    // R15
    let cases: [(Script, u64, usize); 4] = [
        (&[(10_000, 500), (20, 200)], 120, 2),
        (&[(110, 200), (10_000, 500)], 110, 2),
        (&[(99, 200)], 99, 1),
        (&[(100, 200)], 100, 1),
    ];
    for (script, time, calls) in cases {
        let (server, alive) = server(script);
        let (before, base) = (now(), alive.count());
        let answer = server.ask(&hedged(), get()).await;
        assert_eq!((now() - before, server.count()), (millis(time), calls));
        assert_eq!(attempts(&answer) as usize, calls);
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(alive.count(), base, "nothing is left running");
        if calls == 2 {
            assert_eq!(server.calls()[1].headers["x-retry-count"], "1");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_be_retried_does_not_win_while_the_other_runs() {
    // R15
    let cases: [(Script, u64); 3] = [
        (&[(10_000, 200), (20, 503)], 10_000),
        (&[(150, 503), (300, 200)], 400),
        (&[(150, 0), (300, 200)], 400),
    ];
    for (script, time) in cases {
        let (server, _) = server(script);
        let before = now();
        let answer = server.ask(&hedged(), get()).await;
        assert_eq!(now() - before, millis(time));
        assert_eq!(answer.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_no_answer_and_never_wins_over_an_attempt_that_still_runs() {
    // R15: a full queue or a shed load refuses the hedge, and that is no reason to lose the first attempt.
    let cases: [(Script, u64); 2] = [(&[(1_000, 200), (20, 1)], 1_000), (&[(150, 1), (300, 200)], 400)];
    for (script, time) in cases {
        let (server, _) = server(script);
        let before = now();
        let answer = server.ask(&hedged(), get()).await;
        assert_eq!(now() - before, millis(time), "{script:?}");
        assert_eq!(answer.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_hedge_does_not_end_what_would_be_retried_without_it() {
    // R15 R4
    let cases: [(Script, u64); 2] = [
        (&[(150, 503), (300, 1), (5, 200)], 100 + 300 + 400),
        (&[(300, 1), (50, 503), (5, 200)], 300 + 400),
    ];
    for (script, third) in cases {
        let (server, _) = server(script);
        let answer = server.ask(&hedged(), get()).await;
        assert_eq!(server.times(), [0, 100, u128::from(third)], "{script:?}");
        assert_eq!(answer.unwrap().status(), 200);
    }
    // Both are refused: there is nothing to retry.
    let (server, _) = server(&[(150, 1), (300, 1)]);
    let error = server.ask(&hedged(), get()).await.unwrap_err();
    assert_eq!(Attempts::of_error(&*error).unwrap().stop(), Stop::Done);
}

#[tokio::test(start_paused = true)]
async fn the_longer_of_two_delays_asked_for_counts() {
    // R15 R7: the first answer asks for 3 s at 150 ms, the hedge's for nothing at 400 ms.
    for (asked, third) in [("3", 150 + 3_000), ("0", 400 + 400)] {
        let server = Server::new(move |number, _| async move {
            pause(if number == 1 { 150 } else { 300 }).await;
            let mut response = answer(if number > 2 { 200 } else { 503 });
            if number == 1 {
                let value = http::HeaderValue::from_static(asked);
                response.headers_mut().insert("retry-after", value);
            }
            Ok(response)
        });
        assert_eq!(server.ask(&hedged(), get()).await.unwrap().status(), 200);
        assert_eq!(server.times(), [0, 100, third]);
    }
}

#[tokio::test(start_paused = true)]
async fn when_both_fail_retries_go_on_unhedged() {
    // R15 R8
    let (server, _) = server(&[(150, 503), (100, 502), (5_000, 200)]);
    let before = now();
    let answer = server.ask(&hedged(), get()).await;
    // Both have failed at 200 ms; the delay after two attempts is 400 ms.
    assert_eq!(server.times(), [0, 100, 600]);
    assert_eq!((now() - before, attempts(&answer)), (millis(5_600), 3));
    let reasons = answer
        .unwrap()
        .extensions()
        .get::<Attempts>()
        .unwrap()
        .reasons()
        .to_vec();
    assert_eq!(reasons.len(), 2);
}

/// The first answers with this `Retry-After` while the hedge hangs.
async fn asked_to_wait(policy: RetryPolicy, seconds: &'static str) -> (Answer, u128) {
    let server = Server::new(move |number, request| async move {
        read(request).await;
        if number > 1 {
            std::future::pending::<()>().await;
        }
        pause(150).await;
        let mut answer = answer(429);
        answer
            .headers_mut()
            .insert("retry-after", seconds.parse().unwrap());
        Ok(answer)
    });
    let before = now();
    let answer = server.ask(&policy, get()).await;
    assert_eq!(server.count(), 2);
    (answer, (now() - before).as_millis())
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_asks_for_too_long_a_delay_is_returned_now() {
    // R7 R15: above `max_retry_after`, or beyond the deadline.
    let short = hedged().deadline(Duration::from_secs(20));
    for (policy, seconds, stop) in [
        (hedged(), "3600", Stop::RetryAfter),
        (short, "20", Stop::Deadline),
    ] {
        let (answer, time) = asked_to_wait(policy, seconds).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), time), (429, 150));
        assert_eq!(answer.extensions().get::<Attempts>().unwrap().stop(), stop);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_is_waited_for_and_what_the_other_answered_is_not_lost() {
    // R13 R15: two attempts are allowed, and both are made.
    let cases: [(Script, u64, Option<u16>); 5] = [
        (&[(150, 503), (300, 200)], 400, Some(200)),
        (&[(150, 503), (300, 0)], 400, Some(503)),
        (&[(150, 503), (300, 502)], 400, Some(502)),
        (&[(500, 0), (20, 503)], 500, Some(503)),
        (&[(150, 0), (300, 0)], 400, None),
    ];
    for (script, time, status) in cases {
        let (server, _) = server(script);
        let before = now();
        let answer = server.ask(&hedged().max_attempts(2), get()).await;
        assert_eq!((now() - before, server.count()), (millis(time), 2));
        assert_eq!(
            answer.as_ref().ok().map(|answer| answer.status().as_u16()),
            status
        );
        if status != Some(200) {
            let stop = match &answer {
                Ok(answer) => answer.extensions().get::<Attempts>().unwrap().stop(),
                Err(error) => Attempts::of_error(&**error).unwrap().stop(),
            };
            assert_eq!(stop, Stop::Attempts);
        }
    }
    let (answer, time) = asked_to_wait(hedged().max_attempts(2).attempt_timeout(millis(500)), "1").await;
    assert_eq!(
        (answer.unwrap().status().as_u16(), time),
        (429, 600),
        "the hedge was cut"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_first_answered_is_not_lost_where_the_budget_allows_no_more() {
    // R13 R15 R9: the budget pays for the hedge, and for nothing else.
    let cases: [(Script, u64, u16); 3] = [
        (&[(150, 503), (300, 0)], 400, 503),
        (&[(500, 0), (20, 503)], 500, 503),
        (&[(150, 503), (300, 200)], 400, 200),
    ];
    for (script, time, status) in cases {
        let (server, _) = server(script);
        let policy = hedged().budget(RetryBudget::new(0.0, 0).burst(1));
        let before = now();
        let answer = server.ask(&policy, get()).await.unwrap();
        assert_eq!((now() - before, answer.status().as_u16()), (millis(time), status));
    }
    // With a token left there is another attempt.
    let (server, _) = server(&[(150, 503), (300, 0), (10, 200)]);
    let policy = hedged().budget(RetryBudget::new(0.0, 0).burst(2));
    assert_eq!(server.ask(&policy, get()).await.unwrap().status(), 200);
    assert_eq!(server.times(), [0, 100, 800]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_reserve_is_not_kept_for_ever() {
    // R13 R15: the last attempt hangs.
    for (delay, time) in [(100, 150 + 1_000), (2_000, 2_500 + 2_000)] {
        let (server, alive) = server(if delay == 100 {
            &[(150, 503), (40_000, 200)]
        } else {
            &[(2_500, 503), (40_000, 200)]
        });
        let (before, base) = (now(), alive.count());
        let policy = steady().hedge(millis(delay)).max_attempts(2);
        let answer = server.ask(&policy, get()).await;
        assert_eq!((now() - before, attempts(&answer)), (millis(time), 2));
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(
            answer.extensions().get::<Attempts>().unwrap().stop(),
            Stop::Attempts
        );
        assert_eq!(alive.count(), base, "nothing is left running");
    }
}

#[tokio::test(start_paused = true)]
async fn each_has_the_attempts_time_limit() {
    // R15 R8
    let (server, _) = server(&[(10_000, 200), (10_000, 200), (10, 200)]);
    let policy = hedged().attempt_timeout(millis(500));
    server.ask(&policy, get()).await.unwrap();
    // The first is cut at 500, the hedge at 600 ms; 400 ms later comes the third.
    assert_eq!(server.times(), [0, 100, 1_000]);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_safe_to_repeat_is_hedged() {
    // R15 R3
    let (server, _) = server(&[(1_000, 200), (1_000, 200), (1_000, 200), (1_000, 200)]);
    assert_eq!(attempts(&server.ask(&hedged(), post()).await), 1);
    let mut opted_in = post();
    opted_in.extensions_mut().insert(RetryOptions::new().any_method());
    assert_eq!(attempts(&server.ask(&hedged(), opted_in).await), 2);
    let mut opted_out = get();
    opted_out.extensions_mut().insert(RetryOptions::new().hedge(None));
    assert_eq!(attempts(&server.ask(&hedged(), opted_out).await), 1);
}

#[tokio::test(start_paused = true)]
async fn only_a_body_that_is_recorded_whole_is_hedged() {
    // R15 R10
    let bodies = Arc::new(Mutex::new(Vec::new()));
    for (reads, limit, calls) in [(true, 100, 2), (false, 100, 1), (true, 2, 1)] {
        let seen = bodies.clone();
        let server = Server::new(move |_, request| {
            let seen = seen.clone();
            async move {
                if reads {
                    let body = read(request).await;
                    seen.lock().push(body);
                }
                pause(1_000).await;
                Ok(answer(200))
            }
        });
        let mut request = post();
        request.extensions_mut().insert(RetryOptions::new().any_method());
        server.ask(&hedged().replay_limit(limit), request).await.unwrap();
        assert_eq!(server.count(), calls, "reads: {reads}, limit: {limit}");
    }
    assert_eq!(*bodies.lock(), ["order"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_draws_on_the_budget_and_on_the_attempts() {
    // R15 R9 R8
    let budget = RetryBudget::new(0.0, 0).burst(1);
    let (server, _) = server(&[(1_000, 200), (1_000, 200), (1_000, 200), (1_000, 200)]);
    let policy = hedged().budget(budget.clone());
    assert_eq!(attempts(&server.ask(&policy, get()).await), 2);
    assert_eq!(budget.available(&Uri::from_static("https://a.example/")), 0);
    assert_eq!(attempts(&server.ask(&policy, get()).await), 1);
    assert_eq!(attempts(&server.ask(&hedged().max_attempts(1), get()).await), 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_cancels_both() {
    // R12 R15
    let (server, alive) = server(&[(1_000, 200), (1_000, 200)]);
    let base = alive.count();
    let dropped = tokio::time::timeout(millis(500), server.ask(&hedged(), get())).await;
    assert!(dropped.is_err());
    assert_eq!((server.count(), alive.count()), (2, base));
}

#[tokio::test(start_paused = true)]
async fn the_loser_is_cancelled_with_the_answer_not_with_the_future() {
    // R15
    let (server, alive) = server(&[(10_000, 500), (20, 200)]);
    let base = alive.count();
    let mut service = server.under(&hedged());
    let mut held = tokio_test::task::spawn(service.ready().await.unwrap().call(get()));
    for _ in 0..4 {
        if held.poll().is_ready() {
            break;
        }
        pause(60).await;
    }
    assert_eq!((server.count(), alive.count()), (2, base));
}
