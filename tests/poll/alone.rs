//! One caller.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::time::Duration;

use h2pool::poll::{LongPoll, Reply, Round, wait_for_status};
use h2pool::retry::Outcome;
use proptest::prelude::*;
use tokio::time::sleep;

use crate::{io, millis, now, secs, steady};

#[tokio::test(start_paused = true)]
async fn a_408_and_values_not_awaited_keep_waiting() {
    // W1
    let before = now();
    let found = wait_for_status(
        secs(300),
        |round: Round| async move {
            sleep(secs(10)).await;
            let status = match round.number() {
                1 | 3 => 408,
                2 => 202,
                _ => 200,
            };
            let response = http::Response::builder()
                .status(status)
                .body(round.number())
                .unwrap();
            Ok::<_, io::Error>(Reply::of_response(response))
        },
        |response| {
            assert_ne!(response.status(), 408, "is nothing, and no value");
            response.status() == 200
        },
    );
    assert_eq!(found.await.unwrap().into_body(), 4);
    assert_eq!(
        now() - before,
        secs(40),
        "held rounds follow each other without a pause"
    );
}

#[tokio::test(start_paused = true)]
async fn connection_errors_keep_waiting_with_back_off() {
    // W2
    for kind in [
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionRefused,
        ErrorKind::TimedOut,
    ] {
        let before = now();
        let mut times = Vec::new();
        let error = steady()
            .wait(
                secs(10),
                |_| {
                    times.push((now() - before).as_millis());
                    std::future::ready(Err::<Reply<()>, _>(io(kind)))
                },
                |()| true,
            )
            .await
            .unwrap_err();
        assert_eq!(times, [0, 200, 600, 1_400, 3_000, 5_000, 7_000, 9_000]);
        assert_eq!(now() - before, secs(10));
        assert!(error.is_timeout(), "not the error: it was no reason to stop");
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.downcast_ref::<io::Error>().unwrap().kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn the_back_off_may_be_another_but_not_none() {
    // W2
    for (base, cap, rounds) in [(1_000, 3_000, 5), (0, 0, 10_000)] {
        let polling = steady().backoff(millis(base), millis(cap));
        let wait = polling.wait(
            secs(10),
            |_| std::future::ready(Err::<Reply<()>, _>(io(ErrorKind::ConnectionReset))),
            |()| true,
        );
        // After 0, 1, 3, 6 and 9 s; or after every millisecond.
        assert_eq!(wait.await.unwrap_err().rounds(), rounds);
    }
}

#[tokio::test(start_paused = true)]
async fn the_back_off_starts_anew_after_a_round_that_was_held() {
    // W2
    let before = now();
    let mut times = Vec::new();
    let found = steady().wait(
        secs(60),
        |round: Round| {
            times.push((now() - before).as_millis());
            async move {
                match round.number() {
                    3 => sleep(secs(5)).await,
                    6 => return Ok(Reply::Value(())),
                    _ => return Err(io(ErrorKind::ConnectionReset)),
                }
                Ok(Reply::Nothing)
            }
        },
        |()| true,
    );
    assert!(found.await.is_ok());
    assert_eq!(times, [0, 200, 600, 5_600, 5_800, 6_200]);
}

#[tokio::test(start_paused = true)]
async fn a_classifier_may_ask_for_a_longer_pause() {
    // W2: a lower bound, as in the retry layer.
    for (asked, rounds) in [(10_000, 6), (1, 33)] {
        let classify = move |_: &_| Some(Outcome::transient().retry_after(millis(asked)));
        let wait = steady().classify_error(classify).wait(
            secs(60),
            |_| std::future::ready(Err::<Reply<()>, _>("busy")),
            |()| true,
        );
        let error = wait.await.unwrap_err();
        assert_eq!((error.is_timeout(), error.rounds()), (true, rounds));
    }
    let forever = steady().classify_error(|_| Some(Outcome::transient().retry_after(Duration::MAX)));
    let before = now();
    let wait = forever.wait(
        secs(60),
        |_| std::future::ready(Err::<Reply<()>, _>("busy")),
        |()| true,
    );
    assert_eq!((wait.await.unwrap_err().rounds(), now() - before), (1, secs(60)));
}

#[tokio::test(start_paused = true)]
async fn other_errors_end_the_wait() {
    // W2 W3
    let before = now();
    let error = wait_for_status(
        secs(60),
        |round: Round| async move {
            sleep(secs(2)).await;
            match round.number() {
                1 => Ok(Reply::Value("starting")),
                2 => Ok(Reply::Nothing),
                _ => Err(h2pool::Error::certificate("expired")),
            }
        },
        |status| *status == "ready",
    )
    .await
    .unwrap_err();
    assert_eq!(now() - before, secs(6));
    assert!(!error.is_timeout());
    assert_eq!((error.rounds(), error.last()), (3, Some(&"starting")));
    assert_eq!(error.to_string(), "waiting for the status failed in round 3");
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.downcast_ref::<h2pool::Error>().unwrap().is_certificate());
}

#[tokio::test(start_paused = true)]
async fn a_classifier_may_know_better() {
    // W2
    let wait = |poll: LongPoll| async move {
        poll.wait(
            secs(60),
            |round: Round| async move {
                if round.number() == 1 {
                    Err("the server's own 408")
                } else {
                    Ok(Reply::Value(()))
                }
            },
            |()| true,
        )
        .await
    };
    assert!(wait(steady()).await.is_err());
    assert!(
        wait(steady().classify_error(|_| Some(Outcome::transient())))
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn the_error_holds_the_last_real_value() {
    // W3
    let error = wait_for_status(
        secs(20),
        |round: Round| async move {
            sleep(secs(2)).await;
            match round.number() {
                n @ 1..=3 => Ok(Reply::Value(n)),
                4 => Ok(Reply::Nothing),
                5 => Err(io(ErrorKind::ConnectionReset)),
                _ => pending().await,
            }
        },
        |_| false,
    )
    .await
    .unwrap_err();
    assert_eq!((error.rounds(), error.last()), (6, Some(&3)));
    assert_eq!(
        error.to_string(),
        "the status awaited did not come in time, in 6 rounds"
    );
    assert_eq!(error.into_last(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_value_exactly_at_the_timeout_counts_and_one_a_tick_later_does_not() {
    // W3
    for (takes, found) in [(5_000, true), (5_001, false)] {
        let before = now();
        let call = |_| async move {
            sleep(millis(takes)).await;
            Ok::<_, io::Error>(Reply::Value(()))
        };
        assert_eq!(wait_for_status(secs(5), call, |()| true).await.is_ok(), found);
        assert_eq!(now() - before, secs(5));
    }
}

#[tokio::test(start_paused = true)]
async fn no_time_is_no_round_and_all_time_is_no_overflow() {
    // W3
    let call = |_| std::future::ready(Ok::<_, io::Error>(Reply::Value(7)));
    let error = wait_for_status(Duration::ZERO, call, |_| true).await.unwrap_err();
    assert_eq!(
        (error.is_timeout(), error.rounds(), error.last()),
        (true, 0, None)
    );
    assert_eq!(wait_for_status(Duration::MAX, call, |_| true).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_beyond_the_clock_is_as_good_as_thirty_years() {
    // W3
    const YEAR: u64 = 86_400 * 365;
    let before = now();
    let wait = steady().hold(Duration::MAX).wait(
        Duration::MAX,
        |round: Round| async move {
            assert_eq!(round.hold(), secs(30 * YEAR));
            sleep(secs(29 * YEAR)).await;
            Ok::<_, io::Error>(Reply::Value(()))
        },
        |()| true,
    );
    wait.await.unwrap();
    assert_eq!(now() - before, secs(29 * YEAR));
}

proptest! {
    #[test]
    fn the_timeout_is_met_exactly(
        timeout in 1..200_000_u64, steps in prop::collection::vec((0..4_u8, 0..50_000_u64), 1..8), random in 0.0..1.0_f64,
    ) {
        // W3
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let before = now();
            let error = LongPoll::new().random(move || random).wait(
                millis(timeout),
                |round: Round| {
                    assert!(round.hold() <= secs(30) && round.hold() <= before + millis(timeout) - now());
                    let (what, takes) = steps[round.number() as usize % steps.len()];
                    async move {
                        sleep(millis(takes)).await;
                        match what {
                            0 => Ok(Reply::Nothing),
                            1 => Ok(Reply::Value(())),
                            2 => Err(io(ErrorKind::ConnectionReset)),
                            _ => pending().await,
                        }
                    }
                },
                |()| false,
            );
            assert!(error.await.unwrap_err().is_timeout());
            assert_eq!(now() - before, millis(timeout));
        });
    }
}
