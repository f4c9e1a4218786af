//! The pool.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use h2pool::connect::memory;
use h2pool::{Error, H2Pool, Origin};
use http_body_util::Empty;
use parking_lot::Mutex;
use tracing::Instrument;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Keeps the message and the field names of each event of the pool.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Event>>>);

/// Message and field names.
type Event = (String, Vec<&'static str>);

impl Recorder {
    fn fields(&self, message: &str) -> Option<Vec<&'static str>> {
        let events = self.0.lock();
        events
            .iter()
            .find(|(name, _)| name == message)
            .map(|(_, fields)| fields.clone())
    }
}

impl<S: tracing::Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "h2pool" {
            let mut seen = Seen::default();
            event.record(&mut seen);
            self.0.lock().push((seen.message, seen.fields));
        }
    }
}

#[derive(Default)]
struct Seen {
    message: String,
    fields: Vec<&'static str>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.push(field.name());
        }
    }
}

#[tokio::test]
async fn events_carry_the_promised_fields() {
    // P43
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(recorder.clone()));
    let (connector, mut listener) = memory::pair::<Origin>();
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let get = || {
        http::Request::get("https://a.test/")
            .body(Empty::<Bytes>::new())
            .unwrap()
    };

    let refused = pool.request(get());
    let refuse = async {
        listener
            .accept()
            .await
            .unwrap()
            .refuse(Error::connect(std::io::Error::other("refused")));
    };
    assert!(tokio::join!(refused, refuse).0.unwrap_err().is_connect());
    assert_eq!(
        recorder.fields("dial failed").unwrap(),
        ["origin", "error", "kind"]
    );

    let serve = async {
        let io = listener.accept().await.unwrap().accept(http::Version::HTTP_2);
        let mut connection = h2::server::handshake(io).await.unwrap();
        let (_, mut refuse) = connection.accept().await.unwrap().unwrap();
        refuse.send_reset(h2::Reason::REFUSED_STREAM);
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_response(http::Response::new(()), true).unwrap();
        while connection.accept().await.is_some() {}
    };
    let client = async {
        pool.request(get()).await.unwrap();
        assert_eq!(
            recorder.fields("session opened").unwrap(),
            ["origin", "session", "protocol"]
        );
        assert_eq!(
            recorder.fields("replayed").unwrap(),
            ["origin", "replay", "error", "kind"]
        );
        pool.close();
        pool.closed().await;
    };
    tokio::join!(serve, client);
    assert_eq!(
        recorder.fields("session ended").unwrap(),
        ["origin", "session", "reason", "error", "kind"]
    );
}

/// Keeps which spans of the pool have a parent.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(&'static str, bool)>>>);

impl<S: tracing::Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        if attributes.metadata().target() == "h2pool" {
            let span = (attributes.metadata().name(), !attributes.is_root());
            self.0.lock().push(span);
        }
    }
}

#[tokio::test]
async fn a_session_belongs_to_no_span_of_its_callers() {
    // P8, P43: the caller's span ends with its request, the session lasts.
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let (connector, mut listener) = memory::pair::<Origin>();
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let request = http::Request::get("https://a.test/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let request = pool
        .request(request)
        .instrument(tracing::info_span!("the caller's"));
    let refuse = async {
        let refused = Error::connect(std::io::Error::other("refused"));
        listener.accept().await.unwrap().refuse(refused);
    };
    tokio::join!(request, refuse).0.unwrap_err();
    assert_eq!(*spans.0.lock(), [("session", false)]);
}
