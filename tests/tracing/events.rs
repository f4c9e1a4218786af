//! A subscriber that keeps events, one line each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The events of one target: their level and fields.
#[derive(Clone)]
pub(crate) struct Events {
    target: &'static str,
    seen: Arc<Mutex<Vec<(Level, Named)>>>,
}

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
        metadata.target() == self.target
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        self.seen.lock().push((*event.metadata().level(), fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Events {
    pub(crate) fn of(target: &'static str) -> Self {
        Self {
            target,
            seen: Arc::default(),
        }
    }

    /// One line for each event.
    pub(crate) fn lines(&self) -> Vec<String> {
        let events = self.seen.lock();
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
