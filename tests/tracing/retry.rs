//! The retry layer.

use crate::events::Events;
use crate::mock::{Server, answer, get, millis, pause, reset, steady};

#[tokio::test(start_paused = true)]
async fn every_outcome_is_an_event_the_last_one_included() {
    // R14
    let events = Events::of("h2pool::retry");
    let _guard = tracing::subscriber::set_default(events.clone());
    let server = Server::new(|number, _| async move {
        match number {
            1 => Ok(answer(503)),
            2 => Err(h2pool::Error::connect(std::io::Error::other("no route")).into()),
            _ => Ok(answer(200)),
        }
    });
    server.ask(&steady(), get()).await.unwrap();
    assert_eq!(
        events.lines(),
        [
            "DEBUG attempt=1 delay_ms=200 elapsed_ms=0 message=attempt ended method=GET status=503",
            "DEBUG attempt=2 delay_ms=400 elapsed_ms=200 error.kind=connect error.message=the connection could not be \
             opened: no route message=attempt ended method=GET",
            "DEBUG attempt=3 elapsed_ms=600 message=attempt ended method=GET status=200 stop=done",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn giving_up_is_a_warning_that_says_why() {
    // R14
    let events = Events::of("h2pool::retry");
    let _guard = tracing::subscriber::set_default(events.clone());
    let server = Server::new(|_, _| async { Err(reset()) });
    server.ask(&steady().max_attempts(2), get()).await.unwrap_err();
    let server = Server::with_header(429, "retry-after", "999");
    server.ask(&steady(), get()).await.unwrap();
    let warnings: Vec<_> = events
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("WARN"))
        .collect();
    assert_eq!(
        warnings,
        [
            "WARN attempt=2 elapsed_ms=200 error.kind=reset error.message=connection reset message=gave up method=GET \
             stop=attempts",
            "WARN attempt=1 elapsed_ms=0 message=gave up method=GET status=429 stop=retry_after",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_beside_a_running_hedge_is_an_event_too() {
    // R14 R15
    let events = Events::of("h2pool::retry");
    let _guard = tracing::subscriber::set_default(events.clone());
    let server = Server::new(|number, _| async move {
        pause(if number == 1 { 150 } else { 300 }).await;
        Ok(answer(if number == 1 { 503 } else { 200 }))
    });
    server.ask(&steady().hedge(millis(100)), get()).await.unwrap();
    assert_eq!(
        events.lines(),
        [
            "DEBUG attempt=1 beside=true elapsed_ms=150 message=attempt ended method=GET status=503",
            "DEBUG attempt=2 elapsed_ms=400 message=attempt ended method=GET status=200 stop=done",
        ]
    );
}
