//! Servers whose connections end while requests come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::Failure;
use crate::client::{Client, Unanswered};
use crate::context::Context;

/// GOAWAY after so many requests, under load. None is lost: what the server refuses is sent again (P21), whatever its
/// method, and nothing is processed twice.
pub(crate) async fn goaway<C: Client>(context: Context<C>) -> Result<String, Failure> {
    const TOTAL: usize = 400;
    let sent = context.each(TOTAL, 50, |context, number| async move {
        context.get_small().await?;
        Ok(context.post_count(number).await??)
    });
    sent.await?;
    context.counted_once(TOTAL)?;
    Ok(String::new())
}

/// The server starts afresh, twice, under load. GETs are all answered, POSTs answered or reported (P18, P22).
pub(crate) async fn restart<C: Client>(context: Context<C>) -> Result<String, Failure> {
    const TOTAL: usize = 3_000;
    const EVERY: usize = TOTAL / 3;
    let finished = Arc::new(AtomicUsize::new(0));
    let due = Arc::new(Notify::new());
    let renew = async {
        for _ in 1..TOTAL / EVERY {
            due.notified().await;
            context.server.renew().await?;
        }
        Ok::<_, Failure>(())
    };
    let load = context.each(TOTAL, 40, |context, number| {
        let (finished, due) = (Arc::clone(&finished), Arc::clone(&due));
        async move {
            let posted = get_and_post(&context, number).await;
            if (finished.fetch_add(1, Ordering::Relaxed) + 1) % EVERY == 0 {
                due.notify_one();
            }
            Ok((number, posted?))
        }
    });
    let (renewed, load) = tokio::join!(renew, load);
    renewed?;
    answered_or_reported(&context, load?)
}

/// Requests that come just when the server closes the connection for idleness.
pub(crate) async fn idle<C: Client>(context: Context<C>) -> Result<String, Failure> {
    const ROUNDS: usize = 8;
    const AT_ONCE: usize = 5;
    let idle = context.can.idle.ok_or("the server has no idle time")?;
    let mut done = Vec::new();
    for round in 0..ROUNDS {
        let sent = context.each(AT_ONCE, AT_ONCE, |context, number| async move {
            let number = round * AT_ONCE + number;
            Ok((number, get_and_post(&context, number).await?))
        });
        done.extend(sent.await?);
        // From a little before the server's time to a little after: the point is the race.
        let step = i64::try_from(round)? - i64::try_from(ROUNDS)? / 2;
        let early = Duration::from_millis(step.unsigned_abs() * 2);
        sleep(if step < 0 { idle - early } else { idle + early }).await;
    }
    // Long after, the client must know that the connection is gone.
    sleep(idle * 3).await;
    let late = ROUNDS * AT_ONCE;
    context.post_count(late).await??;
    done.push((late, Ok(())));
    answered_or_reported(&context, done)
}

/// A GET that must be answered, then a POST that may fail.
async fn get_and_post<C: Client>(
    context: &Context<C>,
    number: usize,
) -> Result<Result<(), Unanswered>, Failure> {
    context.get_small_again().await?;
    context.post_count(number).await
}

/// Every answered request was processed once; of those that were not answered, none twice, and none at all where the
/// client says so.
fn answered_or_reported<C: Client>(
    context: &Context<C>,
    done: Vec<(usize, Result<(), Unanswered>)>,
) -> Result<String, Failure> {
    let counts = context.server.counts()?;
    let total = done.len();
    let mut reported = Vec::new();
    for (number, result) in done {
        let (allowed, outcome) = match result {
            Ok(()) => (1..=1, "answered".to_owned()),
            Err(error) => {
                reported.push(error.to_string());
                (0..=u32::from(!error.unprocessed), error.to_string())
            }
        };
        context
            .count_of(&counts, number, allowed)
            .map_err(|error| format!("{error}: {outcome}"))?;
    }
    Ok(match reported.first() {
        Some(first) => format!("{} of {total} POSTs reported, such as: {first}", reported.len()),
        None => String::new(),
    })
}
