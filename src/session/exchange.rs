//! One request and its response on an HTTP/2 session.
//!
//! The response is polled always, the upload beside it. A response that comes before the upload has ended is delivered
//! at once; the upload then goes on in a task on the caller's runtime, until it is done, the session ends, or the
//! response's body is dropped (P30). Of a body that is queued in h2 nothing is left to be sent: it stays with the caller, and
//! the task waits for the end of its writing.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::runtime::Handle;

use super::body::Body;
use super::bound::{Bound, late_headers};
use super::classify::{self, Sent};
use super::h2::{Control, H2};
use super::h2_body::Length;
use super::head;
use super::interim::Interim;
use super::link::{Failure, Observer, Occupied};
use super::outgoing::Outgoing;
use super::tail::{Tail, Uploading, Upstream};
use super::upload::{Cut, Upload};
use crate::error::{Error, Kind};
use crate::timer::outside;

/// The phases of a request that have a time limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    pub(crate) header: Option<Duration>,
    pub(crate) write: Option<Duration>,
}

/// A request whose response has not come. Dropped, it is cancelled.
pub(crate) struct Sending {
    response: Option<ResponseFuture>,
    /// Boxed, so that a request without one is moved at less cost.
    upload: Option<Box<Upload>>,
    /// It had one.
    uploads: bool,

    tail: Option<Tail>,
    interim: Interim,
    patient: Bound,
    /// Its request does not end before the response comes.
    tunnel: bool,
    /// It was handed to h2 before the server's SETTINGS were known.
    early: bool,
    /// It asks for a head alone.
    head: bool,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.give_up();
    }
}

type Answer = Result<Result<Response<RecvStream>, h2::Error>, Error>;
/// Of an upload, with the runtime that is to go on with it; without a body where all of it is queued.
type Left = (Handle, Box<Upload>, Option<Outgoing>);

impl Sending {
    /// Hands the head to h2. The body stays with the caller until the response has come, so that it can be sent again.
    pub(crate) fn start(
        session: Arc<H2>,
        slot: Occupied,
        parts: &Parts,
        body: Option<&Outgoing>,
        patience: Patience,
    ) -> Result<Self, Failure> {
        let size = body.map_or(Some(0), Outgoing::exact_size);
        let request = head::for_h2(parts, size);
        let request = request.map_err(Failure::Failed)?;
        let extended = head::is_extended_connect(&request);
        if !session.try_open(body.is_some() || extended) {
            return Err(turned_away(&session.control, &slot));
        }
        let early = !session.control.is_ready();
        let tunnel = head::opens_tunnel(parts);
        let told = || content_length(request.headers());
        let length = body.and_then(|_| size.filter(|_| !tunnel).or_else(told));
        let interim = Interim::from_now(&session.control.meter);
        let (response, stream) = open(&session, &slot, request, body.is_none(), extended)?;
        if early {
            session.control.meter.hand();
        }
        let upload = body.map(|_| Box::new(Upload::new(stream, length, patience.write)));
        Ok(Self {
            tail: Some(Tail::new(session, response.stream_id().as_u32(), slot)),
            response: Some(response),
            uploads: upload.is_some(),
            upload,
            interim,
            patient: Bound::new(patience.header),
            tunnel,
            early,
            head: parts.method == Method::HEAD,
        })
    }

    /// The response, once its headers are here.
    pub(crate) fn poll(
        &mut self,
        body: &mut Option<Outgoing>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Body>, Failure>> {
        let error = match ready!(self.poll_answer(body, cx)) {
            Ok(Ok(response)) => match self.rest(body) {
                Ok(rest) => return Poll::Ready(Ok(self.deliver(response, rest))),
                Err(error) => error,
            },
            Ok(Err(error)) => return Poll::Ready(Err(self.failed(error))),
            Err(error) => error,
        };
        self.give_up();
        Poll::Ready(Err(Failure::Failed(error)))
    }

    fn poll_answer(&mut self, body: &mut Option<Outgoing>, cx: &mut Context<'_>) -> Poll<Answer> {
        if let (Some(upload), Some(body)) = (&mut self.upload, body.as_mut()) {
            match upload.poll(body, cx) {
                Poll::Pending => {}
                Poll::Ready(Cut::Theirs) => self.upload = None,
                Poll::Ready(Cut::Ours(error)) => return Poll::Ready(Err(error)),
            }
        }
        let (Some(response), Some(tail)) = (&mut self.response, &self.tail) else {
            return Poll::Pending;
        };
        if let Some(upload) = self
            .upload
            .as_mut()
            .filter(|upload| upload.is_queued() && upload.is_timed())
        {
            match poll_queued(upload, tail, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.upload = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if let Err(violation) = self.interim.take_in(response, tail, cx) {
            return Poll::Ready(Err(classify::stream_over_bound(violation)));
        }
        if let Poll::Ready(answer) = Pin::new(response).poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        if let Some(violation) = tail.violation() {
            return Poll::Ready(Err(classify::stream_over_bound(violation)));
        }
        // The request of a tunnel does not end before the response comes.
        if !self.patient.is_off() && self.uploads && !self.tunnel {
            if self.upload.as_ref().is_some_and(|upload| !upload.is_queued()) {
                return Poll::Pending;
            }
            ready!(tail.control().meter.poll_written(tail.id(), cx));
        }
        self.patient.poll(late_headers, cx).map(Err)
    }

    /// The stream is over, or goes on in other hands.
    fn settle(&mut self) -> Option<Tail> {
        self.response = None;
        self.tail.take()
    }

    fn give_up(&mut self) {
        // h2 cancels a stream that is dropped, but for one that it takes for over since both sides have ended it: what is
        // queued there would wait for its window, and fill the slot. One whose HEADERS are not written has no response, and
        // is not to be reset so: h2 would write what is queued before that.
        if let (Some(upload), Some(tail)) = (self.upload.take_if(|upload| upload.is_queued()), &self.tail) {
            let (meter, id) = (&tail.control().meter, tail.id());
            if meter.is_written(id) && !meter.is_whole(id) {
                upload.reset();
            }
        }
        // First h2 forgets the stream, then the slot is free: the next one must not be queued behind this one's reset.
        self.response = None;
        self.upload = None;
        if let Some(tail) = self.tail.take() {
            tail.give_up();
        }
    }

    fn failed(&mut self, error: h2::Error) -> Failure {
        let Some(tail) = self.settle() else {
            return Failure::Failed(Error::new(Kind::Io, "the stream was lost").with_source(error));
        };
        let sent = match tail.control().meter.is_written(tail.id()) {
            false => Sent::Not,
            true if self.early => Sent::Early,
            true => Sent::Whole,
        };
        let failure = classify::before_response(tail.control(), tail.violation(), error, sent);
        if let Failure::Unprocessed {
            error,
            blameless: false,
        } = &failure
        {
            if error.is_reset() {
                if let Some(slot) = tail.slot() {
                    tail.control().refused.store(true, Ordering::Release);
                    slot.report(Observer::refused);
                }
            }
        }
        self.upload = None;
        failure
    }

    /// What the response leaves of the upload. A body of which all was handed over stays with the caller, who may have to
    /// send it again (P23).
    fn rest(&mut self, body: &mut Option<Outgoing>) -> Result<Option<Left>, Error> {
        let queued = self.upload.as_deref().is_some_and(Upload::is_queued);
        let whole = |tail: &Tail| tail.control().meter.is_whole(tail.id());
        if queued && self.tail.as_ref().is_some_and(whole) {
            self.upload = None;
        }
        if self.upload.is_none() {
            return Ok(None);
        }
        let here = Handle::try_current().map_err(|error| outside(error).with_unprocessed(false))?;
        let body = if queued { None } else { body.take() };
        Ok(self.upload.take().map(|upload| (here, upload, body)))
    }

    fn deliver(&mut self, mut response: Response<RecvStream>, rest: Option<Left>) -> Response<Body> {
        let Some(tail) = self.settle() else {
            return response.map(|_| Body::empty());
        };
        let control = tail.control();
        let reused =
            control.answered.load(Ordering::Relaxed) || control.answered.swap(true, Ordering::AcqRel);
        // After a refusal an answer is news again: only those in a row count (P21).
        let news = !reused
            || (control.refused.load(Ordering::Relaxed) && control.refused.swap(false, Ordering::AcqRel));
        if let Some(slot) = tail.slot().filter(|_| news) {
            slot.report(Observer::answered);
        }
        let (length, uploads) = (body_length(&response, self.head), self.uploads);
        control.informant.inform(response.extensions_mut(), reused);
        response.map(|incoming| match rest {
            None if incoming.is_end_stream() => {
                // First h2 forgets the stream, then the slot is free.
                drop(incoming);
                drop(tail);
                Body::empty()
            }
            None => Body::h2(incoming, Upstream::Done(tail), uploads, length),
            Some((here, upload, body)) => {
                let tail = Arc::new(tail);
                let rest = Rest {
                    upload: Some(upload),
                    tail: tail.clone(),
                };
                let task = here.spawn(rest.finish(body));
                let task = Uploading::new(task.abort_handle());
                Body::h2(incoming, Upstream::Running(tail, task), uploads, length)
            }
        })
    }
}

/// The session takes no more streams, or none now. Its origin may not have been told yet: it is to know before the slot is
/// given back, or would grant it to one after the other until the driver's report comes.
#[cold]
fn turned_away(control: &Control, slot: &Occupied) -> Failure {
    let gone = Error::new(Kind::Goaway, "the session took no more streams").with_unprocessed(true);
    if control.is_draining() {
        slot.report(|origin, id| origin.failing(id, gone.clone()));
    } else if control.is_ready() {
        slot.report(|origin, id| origin.settings(id, control));
    }
    Failure::NotSent(gone)
}

/// Hands the head to h2, on a session that counts the stream already.
fn open(
    session: &H2,
    slot: &Occupied,
    request: Request<()>,
    whole: bool,
    extended: bool,
) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
    let mut sender = session.sender.clone();
    if extended && !sender.is_extended_connect_protocol_enabled() {
        session.control.stream_over();
        let message = "the server does not allow extended CONNECT (RFC 8441): its SETTINGS have no \
                       ENABLE_CONNECT_PROTOCOL";
        return Err(Failure::Failed(Error::config(message)));
    }
    session.control.hand();
    sender.send_request(request, whole).map_err(|error| {
        session.control.stream_over();
        let failure = classify::not_opened(&session.control, error);
        if let Failure::NotSent(cause) = &failure {
            // The connection is over, though its last words may take their time: nobody is to be sent here again. Reported
            // first, as in the driver.
            slot.report(|origin, id| match cause.is_goaway() {
                true => origin.goaway(id, cause.clone()),
                false => origin.failing(id, cause.clone()),
            });
            session.control.set_draining();
        }
        failure
    })
}

/// Ready once the rest of the request was written, or took too long.
fn poll_queued(upload: &mut Upload, tail: &Tail, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
    let (meter, id) = (&tail.control().meter, tail.id());
    if meter.poll_written(id, cx).is_ready() {
        return Poll::Ready(Ok(()));
    }
    let sent = meter.is_written(id).then(|| meter.data_sent());
    upload.poll_queued(sent, cx).map(Err)
}

/// RFC 9110 §8.6.
fn body_length(response: &Response<RecvStream>, head: bool) -> Length {
    let bodyless = matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    match content_length(response.headers()) {
        _ if head || bodyless => Length::None,
        Some(length) => Length::Told(length),
        None => Length::Unknown,
    }
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// An upload that outlives the response's head. Dropped before its end (its task was aborted, its body panicked, the
/// runtime ended), the stream is reset: a server must not wait for what will never come.
struct Rest {
    upload: Option<Box<Upload>>,
    tail: Arc<Tail>,
}

impl Rest {
    /// The rest of an upload, after the response's headers. Its error shows in the response's body: the stream is reset.
    async fn finish(mut self, body: Option<Outgoing>) {
        let mut end = Ok(());
        if let Some(mut body) = body {
            body.let_go();
            end = poll_fn(|cx| self.poll(&mut body, cx)).await;
        }
        if let Some(upload) = self.upload.as_deref_mut().filter(|upload| upload.is_queued()) {
            let written = poll_fn(|cx| poll_queued(upload, &self.tail, cx)).await;
            end = written.map_err(Cut::Ours);
        }
        match end {
            Ok(()) | Err(Cut::Theirs) => self.upload = None,
            Err(Cut::Ours(error)) => self.tail.set_cut(error),
        }
    }

    /// Ready also where it is queued.
    fn poll(&mut self, body: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let Some(upload) = &mut self.upload else {
            return Poll::Ready(Ok(()));
        };
        match upload.poll(body, cx) {
            Poll::Pending if upload.is_queued() => Poll::Ready(Ok(())),
            polled => polled.map(Err),
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            let message = "the request body panicked, or the runtime that sent it has ended";
            self.tail.set_cut(Error::new(Kind::Body, message));
            upload.reset();
        }
    }
}
