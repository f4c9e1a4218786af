//! The task behind an HTTP/2 session: it polls the connection and watches what the `h2` crate has no callback for.
//!
//! After each poll of the connection the [`Meter`] tells whether SETTINGS were applied, a GOAWAY came, or anything at
//! all was heard; the driver reports it. It is the only owner of PING. When the connection ends, or the task is dropped
//! with its runtime, the [`Alive`] guard reports the end: a session is never taken for alive that nobody drives (P36).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::Connection as H2Connection;
use h2::{Ping, PingPong};
use tokio::time::Sleep;

use super::alive::{Alive, Ending};
use super::classify;
use super::h2::{Control, H2};
use super::held::{Bodies, Reaper};
use super::link::{Address, Observer};
use super::meter::{Bounds, Meter, MeteredIo};
use crate::connect::{Connection, Io};
use crate::error::{Error, Kind};
use crate::state::SessionId;

/// How many streams that we reset the `h2` crate remembers, and for how long, so that late frames are ignored.
const REMEMBERED_RESETS: usize = 1024;
const REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// Its cap on stream errors of ours in a session's life, and where rotation begins (P17).
const ERROR_RESETS: usize = 8192;
const WORN_RESETS: u64 = 4096;
/// Its bound on the memory that small DATA frames take, in bytes: what the meter allows to be unread, what may have come
/// late for streams that were given up (which h2 never returns; there rotation begins), and one read.
const DATA_FRAME_BUDGET: u64 = 4 << 20;
const WORN_LATE_FRAMES: u64 = 2 << 20;
/// Its fixed cap on empty DATA frames is 100.
const WORN_EMPTY_FRAMES: u64 = 50;
/// Client stream ids end at 2^31.
const WORN_STREAMS: u64 = (1 << 30) - (1 << 16);
/// GOAWAY and RST_STREAM with this code ask for HTTP/1.1 (RFC 9113 §7).
const HTTP_1_1_REQUIRED: u32 = 0xd;

/// What the configuration says about HTTP/2 connections.
#[derive(Clone, Debug)]
pub(crate) struct Tuning {
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    pub(crate) max_frame_size: u32,
    pub(crate) max_header_list_size: u32,
    pub(crate) max_send_buffer: usize,
    pub(crate) streams: usize,
    /// How long the transport may take no bytes.
    pub(crate) write_timeout: Option<Duration>,
    /// How long a response body may stay without a frame of it being read.
    pub(crate) body_idle_timeout: Option<Duration>,
    pub(crate) bounds: Bounds,
}

type Wire = MeteredIo<Box<dyn Io>>;

/// The connection, before its session has an id.
pub(crate) struct Driver {
    connection: H2Connection<Wire, Bytes>,
    control: Arc<Control>,
    pings: Option<PingPong>,
    /// A PING is under way.
    pinging: bool,
    /// Frames seen when the probe was asked for, while it is unanswered.
    probing: Option<u64>,
    settings: u64,
    goaways: u32,
    worn: bool,
    stalled: bool,
    /// Unread bytes above which the session gets no work, and down to which it does again.
    stall_marks: (u64, u64),
    writing: Option<Writing>,
    reaper: Option<Reaper>,
}

/// Sends the preface and our SETTINGS; the server's arrive later.
pub(crate) async fn handshake(
    connection: Connection,
    tuning: &Tuning,
    address: Arc<Address>,
) -> Result<(Arc<H2>, Driver), Error> {
    let meter = Meter::new(tuning.bounds);
    let fault = connection.fault.clone();
    let io = MeteredIo::new(connection.io, meter.clone());
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(tuning.stream_window)
        .initial_connection_window_size(tuning.connection_window)
        .max_frame_size(tuning.max_frame_size)
        .max_header_list_size(tuning.max_header_list_size)
        .max_send_buffer_size(tuning.max_send_buffer)
        .initial_max_send_streams(tuning.streams)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(REMEMBERED_FOR)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .data_frame_budget(
            usize::try_from(tuning.bounds.small_frames + DATA_FRAME_BUDGET).unwrap_or(usize::MAX),
        );
    let (sender, mut connection) = builder.handshake::<_, Bytes>(io).await.map_err(|error| {
        let found = fault.get();
        found.unwrap_or_else(|| {
            Error::new(Kind::Connect, "the HTTP/2 preface could not be sent").with_source(error)
        })
    })?;
    let bodies = Bodies::new(tuning.body_idle_timeout);
    let control = Arc::new(Control::new(meter, address, fault, bodies));
    let handle = Arc::new(H2 {
        sender,
        control: control.clone(),
    });
    let driver = Driver {
        pings: connection.ping_pong(),
        connection,
        writing: tuning.write_timeout.map(Writing::new),
        reaper: Reaper::new(&control.bodies),
        control,
        pinging: false,
        probing: None,
        settings: 0,
        goaways: 0,
        worn: false,
        stalled: false,
        stall_marks: stall_marks(tuning.stream_window, tuning.connection_window),
    };
    Ok((handle, driver))
}

/// Runs the session until it ends.
pub(crate) fn drive(
    driver: Driver,
    observer: Arc<dyn Observer>,
    id: SessionId,
) -> impl Future<Output = ()> + Send {
    let alive = Alive {
        observer,
        id,
        control: driver.control.clone(),
    };
    async move {
        let alive = alive;
        let mut driver = driver;
        let cause = poll_fn(|cx| driver.poll(cx, &alive)).await;
        alive.control.end(cause);
        drop(driver);
        drop(alive);
    }
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>, alive: &Alive<Control>) -> Poll<Error> {
        self.control.waker.register(cx.waker());
        if self.control.is_killed() {
            let cause = self.control.cause().cloned();
            return Poll::Ready(cause.unwrap_or_else(|| Error::new(Kind::Io, "the session was ended")));
        }
        let ended = Pin::new(&mut self.connection).poll(cx);
        self.observe(alive);
        if let Poll::Ready(result) = ended {
            return Poll::Ready(self.why(result));
        }
        self.poll_ping(cx, alive);
        if let Some(reaper) = &mut self.reaper {
            reaper.poll(&self.control.bodies, cx);
        }
        match &mut self.writing {
            Some(writing) => writing.poll(&self.control.meter, cx),
            None => Poll::Pending,
        }
    }

    /// Reports what changed since the last poll.
    fn observe(&mut self, alive: &Alive<Control>) {
        let (observer, id) = (&alive.observer, alive.id);
        let settings = self.control.meter.settings_applied();
        if settings != self.settings {
            self.settings = settings;
            let limit = u32::try_from(self.connection.max_concurrent_send_streams()).unwrap_or(u32::MAX);
            self.control.set_limit(limit);
            observer.clone().settings(id, limit);
        }
        if let Some(goaway) = self
            .control
            .meter
            .goaway()
            .filter(|goaway| goaway.count != self.goaways)
        {
            self.goaways = goaway.count;
            self.control.set_draining();
            if goaway.code == HTTP_1_1_REQUIRED {
                observer.clone().needs_h1(id);
            }
            let reason = h2::Reason::from(goaway.code);
            let cause = Error::new(Kind::Goaway, format!("the server said GOAWAY {reason:?}"));
            observer.clone().goaway(id, cause.with_unprocessed(true));
        }
        if self
            .probing
            .is_some_and(|seen| self.control.meter.frames_seen() != seen)
        {
            self.probing = None;
            self.control.probe_answered();
            observer.clone().alive(id);
        }
        self.observe_wear(alive);
    }

    fn observe_wear(&mut self, alive: &Alive<Control>) {
        let meter = &self.control.meter;
        let worn = meter.error_resets_sent() > WORN_RESETS
            || meter.empty_data_frames() > WORN_EMPTY_FRAMES
            || meter.late_overhead() > WORN_LATE_FRAMES
            || meter.opened() > WORN_STREAMS;
        if worn && !self.worn {
            self.worn = true;
            alive.observer.clone().worn(alive.id);
        }
        if let Some(stream) = meter.take_accused() {
            self.control.bodies.cut(stream);
        }
        self.observe_unread(alive);
    }

    fn observe_unread(&mut self, alive: &Alive<Control>) {
        let (high, low) = self.stall_marks;
        let unread = self.control.meter.unread();
        if self.stalled && unread <= low {
            self.control.stalled_above(0);
            self.stalled = false;
        } else if !self.stalled && unread > high {
            // Whoever reads after this wakes the driver; who read before it is seen now.
            self.control.stalled_above(low);
            self.stalled = self.control.meter.unread_in_order() > low;
            if !self.stalled {
                return self.control.stalled_above(0);
            }
        } else {
            return;
        }
        alive.observer.clone().stalled(alive.id, self.stalled);
    }

    /// The probe that was asked for; one PING is under way at a time.
    fn poll_ping(&mut self, cx: &mut Context<'_>, alive: &Alive<Control>) {
        let Some(pings) = &mut self.pings else {
            return;
        };
        if self.control.take_probe() {
            self.probing = Some(self.control.meter.frames_seen());
            if !self.pinging && pings.send_ping(Ping::opaque()).is_ok() {
                self.pinging = true;
                self.control.waker.wake();
            }
        }
        if self.pinging && pings.poll_pong(cx).is_ready() {
            self.pinging = false;
            self.observe(alive);
        }
    }

    /// Why the connection ended.
    fn why(&self, result: Result<(), h2::Error>) -> Error {
        let meter = &self.control.meter;
        if let Some(violation) = meter.violation() {
            return classify::session_over_bound(violation);
        }
        if let Some(fault) = self.control.fault.get() {
            return fault;
        }
        match result {
            Err(error) if error.is_go_away() && error.is_remote() => {
                Error::new(Kind::Goaway, "the server ended the session with GOAWAY").with_source(error)
            }
            Err(error) if error.is_io() => Error::new(Kind::Io, "the connection failed").with_source(error),
            Err(error) => classify::broken(error.reason()).with_source(error),
            Ok(()) => Error::new(Kind::Io, "the server closed the connection"),
        }
    }
}

/// Unread bytes above which the session gets no work, and down to which it does again: one unread body alone never keeps
/// it from work, as long as its window is at most half of the connection's (P30).
fn stall_marks(stream_window: u32, connection_window: u32) -> (u64, u64) {
    let (stream, connection) = (u64::from(stream_window), u64::from(connection_window));
    let high = connection.saturating_sub(stream).max(connection / 2);
    (high, stream.min(high).max(high / 2))
}

/// The watch over a transport that takes no bytes. It has a timer only while that is so.
struct Writing {
    timeout: Duration,
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Writing {
    fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            since: None,
            sleep: None,
        }
    }

    fn poll(&mut self, meter: &Meter, cx: &mut Context<'_>) -> Poll<Error> {
        let since = meter.write_stalled_since();
        if since != self.since {
            self.since = since;
            let due = since.map(|since| since + self.timeout);
            self.sleep = due.map(|due| Box::pin(tokio::time::sleep_until(due.into())));
        }
        let Some(sleep) = &mut self.sleep else {
            return Poll::Pending;
        };
        sleep.as_mut().poll(cx).map(|()| {
            let message = "the transport took no bytes for `write_timeout` and the session was ended";
            Error::new(Kind::Timeout, message)
        })
    }
}
