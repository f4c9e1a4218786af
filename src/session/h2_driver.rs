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

use super::alive::{Alive, Ending, caught};
use super::classify;
use super::h2::{Control, H2};
use super::held::{Bodies, Reaper};
use super::keep_alive::{KeepAlive, Watch};
use super::link::{Address, Observer};
use super::meter::{Bounds, Meter, MeteredIo};
use super::ping::Pings;
use super::wear;
use super::window::{Sizes, Windows};
use super::writing::Writing;
use crate::clock;
use crate::connect::{Connection, Io};
use crate::error::{Error, Kind};
use crate::state::SessionId;

/// How many streams that we reset the `h2` crate remembers, and for how long, so that late frames are ignored.
const REMEMBERED_RESETS: usize = 1024;
const REMEMBERED_FOR: Duration = Duration::from_secs(10);
/// Its cap on stream errors of ours in a session's life.
const ERROR_RESETS: usize = 8192;
/// Its bound on the memory that small DATA frames take, in bytes: what the meter allows to be unread, what may have come
/// late for streams that were given up (which h2 never returns), and one read.
const DATA_FRAME_BUDGET: u64 = 4 << 20;
/// The size of frames that nobody has to be asked for (RFC 9113 §6.5.2), in bytes.
const PIECE: u32 = 16 * 1024;
/// Header blocks up to this size fit into the pieces that h2 takes in any case.
const FEW_PIECES: u32 = 64 * 1024;
/// GOAWAY and RST_STREAM with this code ask for HTTP/1.1 (RFC 9113 §7).
const HTTP_1_1_REQUIRED: u32 = 0xd;

/// What the configuration says about HTTP/2 connections.
#[derive(Clone, Debug)]
pub(crate) struct Tuning {
    pub(crate) windows: Sizes,
    /// What the windows may grow to, where they grow.
    pub(crate) most_windows: Option<Sizes>,
    pub(crate) max_frame_size: u32,
    pub(crate) max_header_list_size: u32,
    pub(crate) max_send_buffer: usize,
    pub(crate) streams: usize,
    pub(crate) keep_alive: Option<KeepAlive>,
    /// How long the transport may take no bytes.
    pub(crate) write_timeout: Option<Duration>,
    /// How long a response body may stay without a frame of it being read.
    pub(crate) body_idle_timeout: Option<Duration>,
    pub(crate) bounds: Bounds,
}

impl Tuning {
    /// The largest frame that the server is told of. h2 takes so many pieces of a header block as such frames fill
    /// `max_header_list_size`, a quarter more, and five in any case; a server's are of [`PIECE`] bytes as a rule.
    fn announced_frame_size(&self) -> u32 {
        if self.max_header_list_size > FEW_PIECES {
            self.max_frame_size.min(PIECE)
        } else {
            self.max_frame_size
        }
    }
}

type Wire = MeteredIo<Box<dyn Io>>;

/// The connection, before its session has an id.
pub(crate) struct Driver {
    connection: H2Connection<Wire, Bytes>,
    control: Arc<Control>,
    pings: Pings,
    /// Frames seen when the probe was asked for, while it is unanswered.
    probing: Option<u64>,
    settings: u64,
    goaways: u32,
    worn: bool,
    stalled: bool,
    windows: Windows,
    /// When our SETTINGS were sent, until they are acknowledged.
    unacknowledged: Option<Instant>,
    /// The server has to be told of a new window for streams.
    announce: bool,
    keep_alive: Option<Watch>,
    writing: Option<Writing>,
    reaper: Option<Reaper>,
    /// Others had their turn before the requests that were handed over are written.
    let_others: bool,
}

/// Sends the preface and our SETTINGS; the server's arrive later.
pub(crate) async fn handshake(
    connection: Connection,
    tuning: &Tuning,
    address: Arc<Address>,
) -> Result<(Arc<H2>, Driver), Error> {
    let meter = Meter::new(tuning.bounds);
    let fault = connection.fault.clone();
    let io = MeteredIo::new(connection.io, meter.clone()).with_fault(fault.clone());
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(tuning.windows.stream)
        .initial_connection_window_size(tuning.windows.connection)
        .max_frame_size(tuning.announced_frame_size())
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
        pings: Pings::new(connection.ping_pong()),
        connection,
        writing: tuning.write_timeout.map(Writing::new),
        reaper: Reaper::new(&control.bodies),
        let_others: false,
        control,
        probing: None,
        settings: 0,
        goaways: 0,
        worn: false,
        stalled: false,
        windows: Windows::new(tuning.windows, tuning.most_windows),
        unacknowledged: Some(clock::now()),
        announce: false,
        keep_alive: tuning.keep_alive.map(Watch::new),
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
        let mut driver = driver;
        // Where the runtime ends, the report of it goes first, then the connection: whoever's stream ends with that finds
        // the reason, and is not sent here again.
        let alive = alive;
        let cause = loop {
            match poll_fn(|cx| caught(|| driver.poll(cx, &alive))).await {
                Ok(Turn::Ended(cause)) | Err(cause) => break cause,
                Ok(Turn::Others) => tokio::task::yield_now().await,
            }
        };
        // The same order here: while the transport is dropped, which may take its time, nobody is granted a slot on it.
        alive.control.end(cause);
        drop(alive);
        drop(driver);
    }
}

/// What a poll of the driver came to.
enum Turn {
    /// The session is over.
    Ended(Error),
    /// The tasks that can run go first: they may have requests, too, and all of them are written at once. The scheduler
    /// would run this task after the first of them, and each would cost a system call.
    Others,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>, alive: &Alive<Control>) -> Poll<Turn> {
        let handed = self.control.take_handed();
        if handed && !std::mem::replace(&mut self.let_others, true) {
            return Poll::Ready(Turn::Others);
        }
        self.let_others = false;
        self.poll_connection(cx, alive).map(Turn::Ended)
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>, alive: &Alive<Control>) -> Poll<Error> {
        self.control.waker.register(cx.waker());
        if self.control.is_killed() {
            let cause = self.control.cause().cloned();
            return Poll::Ready(cause.unwrap_or_else(|| Error::new(Kind::Io, "the session was ended")));
        }
        let ended = Pin::new(&mut self.connection).poll(cx);
        self.observe(alive);
        if let Poll::Ready(result) = ended {
            let cause = self.why(result);
            // What broke the protocol may have looked like an answer.
            if cause.kind() != Kind::Protocol {
                self.report_answered(alive);
            }
            return Poll::Ready(cause);
        }
        self.poll_pings(cx);
        if let Some(reaper) = &mut self.reaper {
            reaper.poll(&self.control.bodies, cx);
        }
        self.poll_end(cx)
    }

    /// Reasons of our own to end it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let control = &self.control;
        if let Some(watch) = &mut self.keep_alive {
            let heard = control.meter.frames_seen();
            if let Poll::Ready(dead) = watch.poll(heard, control.is_busy(), &mut self.pings, cx) {
                return Poll::Ready(dead);
            }
        }
        match &mut self.writing {
            Some(writing) => writing.poll(control.meter.write_stalled_since(), cx),
            None => Poll::Pending,
        }
    }

    /// Before the end is reported: a response that came with it counts, though its caller has not been polled yet.
    fn report_answered(&self, alive: &Alive<Control>) {
        if self.control.meter.has_answered() {
            alive.observer.clone().answered(alive.id);
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
            observer.clone().settings(id, &self.control);
        }
        let acknowledged = |_: &mut Instant| self.control.meter.is_acknowledged();
        if let Some(sent) = self.unacknowledged.take_if(acknowledged) {
            self.windows
                .acknowledged(clock::now().saturating_duration_since(sent));
        }
        let goaways = self.control.meter.goaways();
        let said = (goaways != self.goaways)
            .then(|| self.control.meter.goaway())
            .flatten();
        if let Some(goaway) = said {
            self.goaways = goaways;
            self.report_answered(alive);
            if goaway.code == HTTP_1_1_REQUIRED {
                observer.clone().needs_h1(id);
            }
            let reason = h2::Reason::from(goaway.code);
            let cause = Error::new(Kind::Goaway, format!("the server said GOAWAY {reason:?}"));
            observer.clone().goaway(id, cause.with_unprocessed(true));
            // After the report: whoever is granted a slot until then meets h2's own refusal, and reports it. Refused here,
            // the slot would go from one waiter to the next until the report comes.
            self.control.set_draining();
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
        let worn = wear::is_worn(meter) || wear::is_used_up(meter);
        if worn && !self.worn {
            self.worn = true;
            alive.observer.clone().worn(alive.id);
        }
        while let Some(stream) = meter.take_accused() {
            if !self.control.bodies.cut(stream) {
                break;
            }
            meter.accuse_next();
        }
        self.observe_unread(alive);
    }

    fn observe_unread(&mut self, alive: &Alive<Control>) {
        let (high, low) = self.windows.stall_marks();
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

    /// Sends those that are wanted, and hears their answers. That something was heard, the meter tells.
    fn poll_pings(&mut self, cx: &mut Context<'_>) {
        let meter = &self.control.meter;
        let received = meter.data_received();
        if self.pings.poll(cx) && self.windows.answered(received, clock::now()) {
            self.connection
                .set_target_window_size(self.windows.now().connection);
            self.announce = true;
        }
        if self.control.take_probe() {
            self.probing = Some(meter.frames_seen());
            self.pings.send(cx);
        }
        if self.windows.wants_ping(received, clock::now) && self.pings.send(cx) {
            self.windows.pinged(received, clock::now());
        }
        // Refused while the server has not acknowledged the last one.
        let stream = self.windows.now().stream;
        if self.announce && self.connection.set_initial_window_size(stream).is_ok() {
            self.announce = false;
            cx.waker().wake_by_ref();
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
            Ok(()) if self.goaways > 0 => classify::closed_after_goaway(),
            Err(error) if error.is_io() && self.goaways > 0 => {
                classify::closed_after_goaway().with_source(error)
            }
            Err(error) if error.is_io() => Error::new(Kind::Io, "the connection failed").with_source(error),
            Err(error) => classify::broken(meter, error.reason()).with_source(error),
            Ok(()) if self.control.is_draining() => Error::new(Kind::Io, "the connection was closed"),
            Ok(()) => Error::new(Kind::Io, "the server closed the connection"),
        }
    }
}

#[cfg(test)]
#[path = "h2_driver_tests.rs"]
mod tests;
