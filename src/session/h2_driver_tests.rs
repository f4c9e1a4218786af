//! What the task of an HTTP/2 session reports, and when.

use std::sync::OnceLock;

use http::{Request, Version};
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::Origin;
use crate::session::exchange::{Patience, Sending};
use crate::session::link::{Failure, Occupied};
use crate::stats::{Counters, SessionProtocol, Tally};

impl Tuning {
    /// As little as there can be.
    pub(in crate::session) fn narrow() -> Self {
        Self {
            windows: Sizes::new(65_535, 65_535),
            most_windows: None,
            max_frame_size: 16_384,
            max_header_list_size: 16 * 1024,
            max_send_buffer: 65_535,
            streams: 1,
            keep_alive: None,
            write_timeout: None,
            body_idle_timeout: None,
            bounds: Bounds::default(),
        }
    }
}

/// What was reported, in order.
#[derive(Default)]
struct Ends {
    told: Mutex<Vec<&'static str>>,
    /// Asked for a stream while its end is being reported.
    asked: OnceLock<Arc<H2>>,
}

impl Ends {
    fn tell(&self, what: &'static str) {
        self.told.lock().push(what);
        if self.asked.get().is_some_and(|session| !session.try_open(false)) {
            self.told.lock().push("refused");
        }
    }
}

impl Observer for Ends {
    fn goaway(self: Arc<Self>, _: SessionId, _: Error) {
        self.tell("goaway");
    }

    fn failing(self: Arc<Self>, _: SessionId, _: Error) {
        self.tell("failing");
    }

    fn settings(self: Arc<Self>, _: SessionId, _: &Control) {
        self.told.lock().push("settings");
    }

    fn silent(self: Arc<Self>, _: SessionId) {
        self.tell("silent");
    }

    fn release(self: Arc<Self>, _: SessionId) {
        self.told.lock().push("released");
    }

    fn answered(self: Arc<Self>, _: SessionId) {}
    fn given_up(self: Arc<Self>, _: SessionId) {}
    fn refused(self: Arc<Self>, _: SessionId) {}
    fn needs_h1(self: Arc<Self>, _: SessionId) {}
    fn alive(self: Arc<Self>, _: SessionId) {}
    fn stalled(self: Arc<Self>, _: SessionId, _: bool) {}
    fn worn(self: Arc<Self>, _: SessionId) {}
    fn closed(self: Arc<Self>, _: SessionId, _: Error) {}
    fn park(self: Arc<Self>, _: SessionId) {}
}

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Driver {
    /// A session as narrow as can be, with what drives it.
    pub(crate) async fn narrow(ours: DuplexStream, origin: &Origin) -> (Arc<H2>, Self) {
        let address = Address {
            session: 1,
            origin: origin.clone(),
            version: Version::HTTP_2,
            peer: None,
            local: None,
            authenticated: true,
        };
        let connection = Connection::new(ours, Version::HTTP_2);
        handshake(connection, &Tuning::narrow(), Arc::new(address))
            .await
            .unwrap()
    }
}

// P43: on another thread, a request may meet what h2 has read before the driver reports it.
#[tokio::test(start_paused = true)]
async fn a_request_that_meets_a_goaway_reports_it_as_one() {
    for (last_words, reported) in [(&GOAWAY[..], "goaway"), (&[], "failing")] {
        let (ours, mut theirs) = duplex(4096);
        let origin: Origin = "https://a".parse().unwrap();
        let (session, mut driver) = Driver::narrow(ours, &origin).await;
        theirs.write_all(&SETTINGS).await.unwrap();
        theirs.write_all(last_words).await.unwrap();
        drop(theirs);
        let _ = poll_fn(|cx| Pin::new(&mut driver.connection).poll(cx)).await;

        let ends = Arc::<Ends>::default();
        assert!(ends.asked.set(session.clone()).is_ok());
        assert!(matches!(start(&session, &ends), Err(Failure::NotSent(_))));
        assert_eq!(*ends.told.lock(), [reported, "released"]);
        assert!(!session.try_open(false));
    }
}

const ID: SessionId = SessionId {
    slot: 0,
    generation: 0,
};

fn start(session: &Arc<H2>, ends: &Arc<Ends>) -> Result<Sending, Failure> {
    let origin: Origin = "https://a".parse().unwrap();
    let tally = Tally::new(&Arc::new(Counters::new()), &origin).session_opened(SessionProtocol::H2);
    let slot = Occupied::new(ends.clone(), ID, Arc::new(tally).stream_started(), None);
    let (parts, ()) = Request::get("https://a/").body(()).unwrap().into_parts();
    Sending::start(session.clone(), slot, &parts, None, Patience::default())
}

#[tokio::test(start_paused = true)]
async fn whoever_is_refused_before_the_report_of_the_reason_reports_it() {
    // P4: given back without a word, the slot would be granted again, until the driver's report comes.
    type Happens = fn(&Control);
    let reasons: [(Happens, &'static str); 2] = [
        (
            |control| drop(control.end(Error::new(Kind::Io, "it ended"))),
            "failing",
        ),
        (|control| control.set_limit(0), "settings"),
    ];
    for (happens, reported) in reasons {
        let (ours, _theirs) = duplex(4096);
        let (session, _driver) = Driver::narrow(ours, &"https://a".parse().unwrap()).await;
        happens(&session.control);
        let ends = Arc::<Ends>::default();
        assert!(matches!(start(&session, &ends), Err(Failure::NotSent(_))));
        assert_eq!(*ends.told.lock(), [reported, "released"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_takes_no_bytes_is_reported_before_it_is_acted_on() {
    // P4, P19: the requests are given up and none of them is written.
    let (ours, _theirs) = duplex(64);
    let (session, _driver) = Driver::narrow(ours, &"https://a".parse().unwrap()).await;
    let ends = Arc::<Ends>::default();
    assert!(ends.asked.set(session.clone()).is_ok());
    while session.try_open(false) {
        session.control.stream_over();
        drop(start(&session, &ends));
    }
    let told: Vec<_> = ends
        .told
        .lock()
        .iter()
        .filter(|told| **told != "released")
        .copied()
        .collect();
    assert_eq!(told, ["silent"]);
}

#[tokio::test(start_paused = true)]
async fn a_goaway_is_reported_before_it_is_acted_on() {
    // P18: a slot that is granted meanwhile would be given back, and granted again, until the report comes.
    let (ours, mut theirs) = duplex(4096);
    let (session, mut driver) = Driver::narrow(ours, &"https://a".parse().unwrap()).await;
    theirs.write_all(&SETTINGS).await.unwrap();
    theirs.write_all(&GOAWAY).await.unwrap();
    let ends = Arc::<Ends>::default();
    assert!(ends.asked.set(session.clone()).is_ok());
    let alive = Alive {
        observer: ends.clone(),
        id: ID,
        control: session.control.clone(),
    };
    let turn = poll_fn(|cx| Poll::Ready(driver.poll(cx, &alive))).await;
    assert!(matches!(turn, Poll::Ready(Turn::Ended(_)) | Poll::Pending));
    assert_eq!(*ends.told.lock(), ["settings", "goaway"]);
    assert!(!session.try_open(false));
}
