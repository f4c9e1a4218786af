//! Waiting for a status.

use std::io::ErrorKind;
use std::time::Duration;

use h2pool::poll::{LongPoll, Reply, Round};

use crate::events::Events;
use crate::mock::pause;

#[tokio::test(start_paused = true)]
async fn every_round_that_does_not_end_the_wait_is_an_event() {
    // W1 W2
    let events = Events::of("h2pool::poll");
    let _guard = tracing::subscriber::set_default(events.clone());
    let poll = LongPoll::new().random(|| 1.0).hold(Duration::from_secs(10));
    let call = |round: Round| async move {
        match round.number() {
            1 => Err(std::io::Error::from(ErrorKind::ConnectionReset)),
            2 => std::future::pending().await,
            3 => {
                pause(2_000).await;
                Ok(Reply::Nothing)
            }
            _ => Ok(Reply::Value(())),
        }
    };
    poll.wait(Duration::from_secs(60), call, |()| true).await.unwrap();
    assert_eq!(
        events.lines(),
        [
            "DEBUG ended=connection_error message=round ended pause_ms=200 round=1",
            "DEBUG ended=timed_out message=round ended pause_ms=0 round=2",
            "DEBUG ended=reply message=round ended pause_ms=0 round=3",
        ]
    );
}
