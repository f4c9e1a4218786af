//! How long a server is asked to hold a round, and whether it did.

use std::future::pending;
use std::io;
use std::time::Duration;

use h2pool::poll::{LongPoll, Reply, Round, wait_for_status};
use tokio::time::sleep;

use crate::{millis, now, secs, steady};

#[tokio::test(start_paused = true)]
async fn each_round_tells_how_long_to_hold_and_allows_five_seconds_more() {
    // W1
    let before = now();
    let mut rounds = Vec::new();
    let result = wait_for_status(
        secs(100),
        |round: Round| {
            rounds.push((round.number(), round.hold(), now() - before));
            pending::<io::Result<Reply<()>>>()
        },
        |()| true,
    );
    let error = result.await.unwrap_err();
    let expected = [
        (1, secs(30), secs(0)),
        (2, secs(30), secs(35)),
        (3, secs(30), secs(70)),
    ];
    assert_eq!(rounds, expected);
    assert_eq!(
        now() - before,
        secs(100),
        "the last round is cut, not overrun by its five seconds"
    );
    assert!(error.is_timeout());
    assert_eq!(error.rounds(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_hold_is_never_longer_than_the_time_left() {
    // W1 W3
    let mut holds = Vec::new();
    let before = now();
    let result = wait_for_status(
        millis(40_500),
        |round: Round| {
            holds.push(round.hold());
            async move {
                sleep(round.hold()).await;
                Ok::<_, io::Error>(Reply::<()>::Nothing)
            }
        },
        |()| true,
    );
    assert!(result.await.unwrap_err().is_timeout());
    assert_eq!(holds, [secs(30), millis(10_500)], "and no round at the very end");
    assert_eq!(now() - before, millis(40_500));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_hold_is_no_hot_loop() {
    // W2: neither with values nor with 408, nor where no jitter is drawn and no time given.
    for policy in [
        steady(),
        LongPoll::new().random(|| 0.0),
        steady().hold(Duration::ZERO).grace(Duration::ZERO),
    ] {
        for reply in [Reply::Value(1), Reply::Nothing] {
            let before = now();
            let error = policy
                .wait(
                    secs(60),
                    |_| std::future::ready(Ok::<_, io::Error>(reply)),
                    |n| *n == 2,
                )
                .await
                .unwrap_err();
            assert_eq!(now() - before, secs(60));
            assert!(error.rounds() <= 60_001, "{}", error.rounds());
        }
    }
    let mut rounds = 0;
    let count = |_| {
        rounds += 1;
        std::future::ready(Ok::<_, io::Error>(Reply::Value(())))
    };
    steady().wait(secs(60), count, |()| false).await.unwrap_err();
    // At once, at once again, then after 0.2, 0.4, 0.8, 1.6 and 2 s.
    assert_eq!(rounds, 2 + 4 + 28);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_holds_for_as_long_as_it_is_told_is_asked_again_at_once() {
    // W1 W2: however short that is, and though the last hold is cut to the time left.
    for (hold, rounds) in [(1, 20_001), (10, 2_001), (999, 21), (1_000, 21), (30_000, 1)] {
        let wait = steady().hold(millis(hold)).wait(
            millis(20_001),
            |round: Round| async move {
                sleep(round.hold()).await;
                Ok::<_, io::Error>(Reply::<()>::Nothing)
            },
            |()| true,
        );
        assert_eq!(wait.await.unwrap_err().rounds(), rounds, "{hold} ms");
    }
    // A second of a longer hold is enough: then something may have changed.
    let early = steady().wait(
        secs(20),
        |_| async {
            sleep(secs(1)).await;
            Ok::<_, io::Error>(Reply::Value(()))
        },
        |()| false,
    );
    assert_eq!(early.await.unwrap_err().rounds(), 20);
    let earlier = steady().hold(millis(500)).wait(
        secs(20),
        |_| async {
            sleep(millis(499)).await;
            Ok::<_, io::Error>(Reply::Value(()))
        },
        |()| false,
    );
    assert!(earlier.await.unwrap_err().rounds() < 14, "not held");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_told_not_to_hold_is_no_hot_loop() {
    // W2: plain polling; the time on the way is no holding.
    for (takes, rounds) in [(0, 10), (2, 10), (20, 10), (900, 10), (1_000, 10)] {
        let wait = steady().hold(Duration::ZERO).wait(
            secs(10),
            |round: Round| async move {
                assert_eq!(round.hold(), Duration::ZERO);
                sleep(millis(takes)).await;
                Ok::<_, io::Error>(Reply::<()>::Nothing)
            },
            |()| true,
        );
        let error = wait.await.unwrap_err();
        assert!(error.rounds() <= rounds, "{takes} ms: {} rounds", error.rounds());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_allowed_beyond_the_hold_may_be_another() {
    // W1
    let before = now();
    let mut rounds = Vec::new();
    let wait = steady().hold(secs(10)).grace(secs(1)).wait(
        secs(25),
        |_| {
            rounds.push((now() - before).as_secs());
            pending::<io::Result<Reply<()>>>()
        },
        |()| true,
    );
    assert_eq!(wait.await.unwrap_err().rounds(), 3);
    assert_eq!(rounds, [0, 11, 22]);
}
