//! Many callers of one poll.

use std::future::pending;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use h2pool::poll::{LongPoll, Reply, Round, SharedWait};
use parking_lot::Mutex;
use tokio::time::{sleep, sleep_until};

use crate::{io, millis, now, secs, steady};

/// What the calls were told, when they came, and how many are under way.
#[derive(Clone, Default)]
struct Log {
    rounds: Arc<Mutex<Vec<(u64, u64)>>>,
    running: Arc<()>,
}

impl Log {
    fn rounds(&self) -> Vec<(u64, u64)> {
        self.rounds.lock().clone()
    }

    fn running(&self) -> usize {
        // This log, and the one in the closure.
        Arc::strong_count(&self.running) - 2
    }
}

/// Answers with the number of the round after so many milliseconds, and is content with number `last`.
fn shared(poll: &LongPoll, takes: u64, last: u32) -> (SharedWait<u32>, Log) {
    let log = Log::default();
    let notes = log.clone();
    let before = now();
    let call = move |round: Round| {
        let at = (now() - before).as_secs();
        notes.rounds.lock().push((at, round.hold().as_secs()));
        let running = notes.running.clone();
        async move {
            let _running = running;
            sleep(millis(takes)).await;
            Ok::<_, std::io::Error>(Reply::Value(round.number()))
        }
    };
    (poll.share(call, move |number| *number == last), log)
}

#[tokio::test(start_paused = true)]
async fn many_callers_share_one_poll() {
    // W4
    let (wait, log) = shared(&steady(), 5_000, 3);
    let all = join_all((0..100).map(|n| wait.wait(secs(60 + n)))).await;
    assert!(all.into_iter().all(|found| found.unwrap() == 3));
    assert_eq!(log.rounds().len(), 3);
    assert_eq!(log.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_somebody_waits_and_the_next_starts_afresh() {
    // W4
    let (wait, log) = shared(&steady(), 5_000, 1);
    let unused = wait.wait(secs(60));
    sleep(secs(10)).await;
    drop(unused);
    assert_eq!(log.rounds(), []);
    assert_eq!(wait.wait(secs(60)).await.unwrap(), 1);
    assert_eq!(wait.wait(secs(60)).await.unwrap(), 1);
    assert_eq!(log.rounds(), [(10, 30), (15, 30)]);
}

#[tokio::test(start_paused = true)]
async fn a_round_is_held_for_the_longest_time_left() {
    // W4
    let (wait, log) = shared(&steady(), 6_000, 3);
    let short = tokio::spawn(wait.wait(secs(7)));
    let long = tokio::spawn(wait.wait(secs(20)));
    assert_eq!(long.await.unwrap().unwrap(), 3);
    let error = short.await.unwrap().unwrap_err();
    assert_eq!(log.rounds(), [(0, 20), (6, 14), (12, 8)]);
    assert_eq!(
        (error.is_timeout(), error.last(), error.rounds()),
        (true, Some(&1), 2)
    );
}

#[tokio::test(start_paused = true)]
async fn each_keeps_its_own_timeout_exactly() {
    // W4 W3
    let (wait, log) = shared(&steady(), 3_600_000, 0);
    let ends = join_all((1..=20).map(|n| {
        let (ended, before) = (wait.wait(secs(n)), now());
        async move {
            let error = ended.await.unwrap_err();
            assert!(error.is_timeout());
            assert_eq!(now() - before, secs(n));
        }
    }));
    assert_eq!(ends.await.len(), 20);
    assert_eq!(log.rounds(), [(0, 20)]);
    assert_eq!(log.running(), 0, "the last one to leave drops the call");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_stop_the_others() {
    // W4: the first one drives; it is dropped in the middle of a round, and then the next one.
    let (wait, log) = shared(&steady(), 5_000, 1);
    let first = tokio::spawn(wait.wait(secs(60)));
    tokio::task::yield_now().await;
    let second = tokio::spawn(wait.wait(secs(60)));
    let third = tokio::spawn(wait.wait(secs(60)));
    sleep(secs(1)).await;
    first.abort();
    sleep(secs(1)).await;
    second.abort();
    assert_eq!(third.await.unwrap().unwrap(), 1);
    assert_eq!(log.rounds(), [(0, 30)], "the same call went on");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_caller_that_has_left_counts_no_more() {
    // W4
    let (wait, log) = shared(&steady(), 5_000, 3);
    let leaves = tokio::spawn(wait.wait(secs(100)));
    let remains = tokio::spawn(wait.wait(secs(20)));
    sleep(secs(1)).await;
    leaves.abort();
    assert_eq!(remains.await.unwrap().unwrap(), 3);
    assert_eq!(log.rounds(), [(0, 30), (5, 15), (10, 10)]);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_has_ended_is_joined_by_nobody_though_somebody_still_holds_it() {
    // W4
    let (wait, log) = shared(&steady(), 5_000, 1);
    let mut held = tokio_test::task::spawn(wait.wait(secs(60)));
    tokio_test::assert_pending!(held.poll());
    assert_eq!(wait.wait(secs(60)).await.unwrap(), 1);
    sleep(secs(10)).await;
    assert_eq!(wait.wait(secs(60)).await.unwrap(), 1);
    assert_eq!(
        log.rounds(),
        [(0, 30), (15, 30)],
        "asked anew, not answered with what was"
    );
    assert_eq!(held.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_never_polled_again_does_not_stop_the_others() {
    // W4: it is held, not dropped, and was the one that drove.
    let (wait, log) = shared(&steady(), 5_000, 2);
    let mut held = tokio_test::task::spawn(wait.wait(secs(60)));
    tokio_test::assert_pending!(held.poll());
    let before = now();
    assert_eq!(wait.wait(secs(60)).await.unwrap(), 2);
    assert_eq!(now() - before, secs(10));
    assert_eq!(log.rounds().len(), 2);
    assert_eq!(held.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn somebody_who_comes_as_the_last_one_leaves_is_served() {
    // W4: at one and the same instant, in either order.
    for early in [true, false] {
        let (wait, log) = shared(&steady(), 2_000, 3);
        let late = async {
            sleep(secs(3)).await;
            wait.wait(secs(60)).await
        };
        let leaves = wait.wait(secs(3));
        let (late, leaves) = if early {
            tokio::join!(late, leaves)
        } else {
            let (leaves, late) = tokio::join!(leaves, late);
            (late, leaves)
        };
        assert!(leaves.unwrap_err().is_timeout());
        assert_eq!(late.unwrap(), 3, "early: {early}");
        assert!(log.rounds().len() >= 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_nobody_had_time_for_goes_on_for_the_next_one() {
    // W4: the round ends when all time is over; a caller who is not polled any more keeps the poll from ending.
    let (wait, log) = shared(&steady(), 3_000, 2);
    let mut held = tokio_test::task::spawn(wait.wait(secs(3)));
    tokio_test::assert_pending!(held.poll());
    assert!(wait.wait(secs(3)).await.unwrap_err().is_timeout());
    sleep(secs(2)).await;
    assert_eq!(log.rounds().len(), 1);
    assert_eq!(wait.wait(secs(60)).await.unwrap(), 2);
    assert_eq!(log.rounds(), [(0, 3), (5, 30)]);
    assert!(held.is_woken());
}

#[tokio::test(start_paused = true)]
async fn callers_with_little_time_each_are_served_by_a_server_that_holds() {
    // W4: 800 ms each, two at a time; the value is there after 5 s.
    let ready_at = now() + secs(5);
    let wait = steady().share(
        move |round: Round| async move {
            sleep_until((now() + round.hold()).min(ready_at.max(now()))).await;
            Ok::<_, std::io::Error>(if now() < ready_at {
                Reply::Nothing
            } else {
                Reply::Value(())
            })
        },
        |()| true,
    );
    let callers = (0..20).map(|n| {
        let wait = wait.clone();
        async move {
            sleep(millis(n * 400)).await;
            (n * 400, wait.wait(millis(800)).await.is_ok())
        }
    });
    for (came, found) in join_all(callers).await {
        assert_eq!(found, came > 4_200, "who came after {came} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_ends_the_wait_ends_it_for_all() {
    // W4 W2
    let wait = steady().share(
        |round: Round| async move {
            sleep(secs(1)).await;
            match round.number() {
                1 => Err(io(ErrorKind::ConnectionReset)),
                2 => Ok(Reply::Value("starting")),
                _ => Err(io(ErrorKind::PermissionDenied)),
            }
        },
        |status| *status == "ready",
    );
    for error in join_all((0..3).map(|_| wait.wait(secs(60)))).await {
        let error = error.unwrap_err();
        assert!(!error.is_timeout());
        assert_eq!((error.last(), error.rounds()), (Some(&"starting"), 3));
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(
            cause.downcast_ref::<std::io::Error>().unwrap().kind(),
            ErrorKind::PermissionDenied
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_call_is_an_error_for_all_and_the_next_wait_works() {
    // W4
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let wait = steady().share(
        move |_| {
            *counted.lock() += 1;
            let first = *counted.lock() == 1;
            async move {
                sleep(secs(1)).await;
                assert!(!first, "this panic is part of the test");
                Ok::<_, std::io::Error>(Reply::Value(()))
            }
        },
        |()| true,
    );
    let (one, two) = tokio::join!(wait.wait(secs(60)), wait.wait(secs(60)));
    assert!(!one.unwrap_err().is_timeout() && !two.unwrap_err().is_timeout());
    assert!(wait.wait(secs(60)).await.is_ok());
    assert_eq!(*calls.lock(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_time_is_no_round() {
    // W3 W4
    let wait = SharedWait::new(|_| pending::<Result<Reply<()>, std::io::Error>>(), |()| true);
    let error = wait.wait(Duration::ZERO).await.unwrap_err();
    assert_eq!((error.is_timeout(), error.rounds()), (true, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_on_many_threads() {
    // W4: no clock in this one; they come and go as the scheduler has it.
    let wait = SharedWait::new(
        |round: Round| async move {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(Reply::Value(round.number()))
        },
        |_| true,
    );
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let task = tokio::spawn(wait.wait(secs(60)));
            if n % 3 == 0 {
                task.abort();
            }
            task
        })
        .collect();
    for task in tasks {
        match task.await {
            Ok(found) => assert_eq!(found.unwrap(), 1),
            Err(aborted) => assert!(aborted.is_cancelled()),
        }
    }
}
