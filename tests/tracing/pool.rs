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

use crate::support::peer::{Peer, code};

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

impl Recorder {
    /// How often an event was told.
    fn count(&self, message: &str) -> u64 {
        let events = self.0.lock();
        events.iter().filter(|(name, _)| name == message).map(|_| 1).sum()
    }
}

fn get() -> http::Request<Empty<Bytes>> {
    http::Request::get("https://a.test/").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_replay_of_a_misdirected_request_is_told() {
    // P23, P43
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(recorder.clone()));
    let (connector, mut listener) = memory::pair::<Origin>();
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let serve = async {
        let mut all = Vec::new();
        for status in [421, 200] {
            let io = listener.accept().await.unwrap().accept(http::Version::HTTP_2);
            let mut connection = h2::server::handshake(io).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let response = http::Response::builder().status(status).body(()).unwrap();
            respond.send_response(response, true).unwrap();
            all.push(tokio::spawn(async move {
                while connection.accept().await.is_some() {}
            }));
        }
    };
    let (response, ()) = tokio::join!(pool.request(get()), serve);
    assert_eq!(
        (response.unwrap().status().as_u16(), pool.stats().replays),
        (200, 1)
    );
    assert_eq!(recorder.count("replayed"), 1);
}

#[tokio::test]
async fn a_replay_that_does_not_count_towards_the_bound_is_told() {
    // P18, P21, P43: of two requests, a GOAWAY covers the first.
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(recorder.clone()));
    let (connector, mut listener) = memory::pair::<Origin>();
    let pool = H2Pool::builder()
        .max_sessions(1)
        .connector(connector)
        .build()
        .unwrap();
    let serve = async {
        let mut peer = Peer::new(listener.accept().await.unwrap().accept(http::Version::HTTP_2));
        peer.handshake(&[]).await;
        let streams = [peer.next_headers().await.stream, peer.next_headers().await.stream];
        assert_eq!(streams, [1, 3]);
        peer.send_goaway(1, code::NO_ERROR, b"").await;
        peer.send_headers(1, 200, true).await;
        let next = listener.accept().await.unwrap().accept(http::Version::HTTP_2);
        let mut connection = h2::server::handshake(next).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_response(http::Response::new(()), true).unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        drop(peer);
    };
    let (one, two, ()) = tokio::join!(pool.request(get()), pool.request(get()), serve);
    one.unwrap();
    two.unwrap();
    assert_eq!(pool.stats().replays, 1);
    assert_eq!(recorder.count("replayed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_wants_any_more_is_told() {
    // P25, P40, P43
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(recorder.clone()));
    let (connector, mut listener) = memory::pair::<Origin>();
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let key: Origin = "https://a.test".parse().unwrap();
    pool.warm(&key, 1).unwrap();
    let dial = listener.accept().await.unwrap();
    pool.mark_h1_only(&key);
    let mut server = Box::pin(h2::server::handshake(dial.accept(http::Version::HTTP_2)));
    let _ = tokio::time::timeout(std::time::Duration::from_millis(200), &mut server).await;
    let stats = pool.stats();
    assert_eq!((stats.sessions_opened, stats.sessions_closed.total()), (1, 1));
    assert_eq!(
        (recorder.count("session opened"), recorder.count("session ended")),
        (1, 1)
    );
}
