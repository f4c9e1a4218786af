//! What is written to `tracing`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::mock::{Server, answer, get, millis, pause, reset, steady};

/// The events of the layer: their level and fields.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<(Level, Named)>>>);

type Named = BTreeMap<&'static str, String>;

struct Fields<'a>(&'a mut Named);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "h2pool::retry"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        self.0.lock().push((*event.metadata().level(), fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Events {
    /// One line for each event.
    fn lines(&self) -> Vec<String> {
        let events = self.0.lock();
        let line = |(level, fields): &(Level, Named)| {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{level} {}", fields.join(" "))
        };
        events.iter().map(line).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn every_outcome_is_an_event_the_last_one_included() {
    // R14
    let events = Events::default();
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
    let events = Events::default();
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
    let events = Events::default();
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
