//! One request and its response on an HTTP/2 session.
//!
//! The response is polled always, the upload beside it. A response that comes before the upload has ended is delivered
//! at once; the upload then goes on in a task on the caller's runtime, until it is done, the session ends, or the
//! response's body is dropped (P30).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Response};

use super::body::{Body, Upstream};
use super::bound::{Bound, late_headers};
use super::classify;
use super::h2::H2;
use super::head;
use super::link::{Failure, Observer, Occupied};
use super::meter::Violation;
use super::outgoing::Outgoing;
use super::upload::{Cut, Upload};
use crate::error::{Error, Kind};

/// The phases of a request that have a time limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    pub(crate) header: Option<Duration>,
    pub(crate) body_idle: Option<Duration>,
    pub(crate) write: Option<Duration>,
}

/// A stream that h2 knows of, and the slot it fills. Dropped, it gives the slot back.
pub(super) struct Tail {
    session: Arc<H2>,
    id: u32,
    slot: Option<Occupied>,
    forgotten: bool,
}

impl Tail {
    pub(super) fn session(&self) -> &H2 {
        &self.session
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    fn violation(&self) -> Option<Violation> {
        self.session.control.meter.stream_violation(self.id)
    }

    /// The stream was cancelled before its response: if nothing was heard since its HEADERS, the slot is parked.
    fn give_up(mut self) {
        let park = self.forget() && self.session.control.may_park();
        if let Some(slot) = self.slot.take().filter(|_| park) {
            slot.park();
        }
    }

    fn forget(&mut self) -> bool {
        if std::mem::replace(&mut self.forgotten, true) {
            return false;
        }
        let control = &self.session.control;
        let forgotten = control.meter.forget(self.id);
        control.stream_over();
        forgotten.is_some_and(|stream| stream.quiet)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A request whose response has not come. Dropped, it is cancelled.
struct Pending {
    response: Option<ResponseFuture>,
    stream: Option<SendStream<Bytes>>,
    upload: Option<Upload>,
    tail: Option<Tail>,
}

impl Pending {
    /// The stream is over, or goes on in other hands.
    fn settle(&mut self) -> Option<Tail> {
        self.response = None;
        self.stream = None;
        self.tail.take()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // First h2 forgets the stream, then the slot is free: the next one must not be queued behind this one's reset.
        self.response = None;
        self.stream = None;
        self.upload = None;
        if let Some(tail) = self.tail.take() {
            tail.give_up();
        }
    }
}

/// Sends a request. The body stays with the caller until the response has come, so that it can be sent again.
pub(crate) async fn send(
    session: Arc<H2>,
    slot: Occupied,
    parts: &Parts,
    body: &mut Option<Outgoing>,
    patience: Patience,
) -> Result<Response<Body>, Failure> {
    let request =
        head::for_h2(parts, body.as_ref().map_or(Some(0), Outgoing::exact_size)).map_err(Failure::Failed)?;
    if !session.try_open(body.is_some()) {
        let gone = Error::new(Kind::Goaway, "the session took no more streams").with_unprocessed(true);
        return Err(Failure::NotSent(gone));
    }
    let early = !session.control.is_ready();
    let mut sender = session.sender.clone();
    let (response, stream) = match sender.send_request(request, body.is_none()) {
        Ok(opened) => opened,
        Err(error) => {
            session.control.stream_over();
            let failure = classify::not_opened(&session.control, error);
            if let Failure::NotSent(cause) = &failure {
                // The connection failed, though its last words may take their time: nobody is to be sent here again.
                session.control.set_draining();
                slot.report(|origin, id| origin.failing(id, cause.clone()));
            }
            return Err(failure);
        }
    };
    session.control.meter.hand();
    drop(sender);
    let id = response.stream_id().as_u32();
    let tail = Tail {
        session,
        id,
        slot: Some(slot),
        forgotten: false,
    };
    let mut pending = Pending {
        response: Some(response),
        stream: None,
        upload: None,
        tail: Some(tail),
    };
    match body {
        Some(_) => pending.upload = Some(Upload::new(stream, patience.write)),
        None => pending.stream = Some(stream),
    }
    let mut patient = Bound::new(patience.header);
    let answer = poll_fn(|cx| poll_response(&mut pending, body, &mut patient, cx)).await;
    match answer {
        Ok(Ok(response)) => Ok(deliver(pending, response, body, patience)),
        Ok(Err(error)) => Err(failed(pending, error, early)),
        Err(error) => Err(Failure::Failed(error)),
    }
}

type Answer = Result<Result<Response<RecvStream>, h2::Error>, Error>;

fn poll_response(
    pending: &mut Pending,
    body: &mut Option<Outgoing>,
    patient: &mut Bound,
    cx: &mut Context<'_>,
) -> Poll<Answer> {
    if let (Some(upload), Some(body)) = (&mut pending.upload, body.as_mut()) {
        match upload.poll(body, cx) {
            Poll::Pending | Poll::Ready(Err(Cut::Theirs)) => {}
            Poll::Ready(Ok(())) => pending.upload = None,
            Poll::Ready(Err(Cut::Ours(error))) => return Poll::Ready(Err(error)),
        }
    }
    let Some(response) = &mut pending.response else {
        return Poll::Pending;
    };
    if let Poll::Ready(answer) = Pin::new(response).poll(cx) {
        return Poll::Ready(Ok(answer));
    }
    if let Some(violation) = pending.tail.as_ref().and_then(Tail::violation) {
        let error = Error::new(
            Kind::Protocol,
            "the server went over a bound and the stream was reset",
        );
        return Poll::Ready(Err(error.with_source(violation)));
    }
    if pending.upload.is_some() {
        return Poll::Pending;
    }
    patient.poll(cx).map(|()| Err(late_headers()))
}

fn failed(mut pending: Pending, error: h2::Error, early: bool) -> Failure {
    let Some(mut tail) = pending.settle() else {
        return Failure::Failed(Error::new(Kind::Io, "the stream was lost").with_source(error));
    };
    let failure = classify::before_response(&tail.session.control, error, early);
    if let Failure::Unprocessed { error, early: false } = &failure {
        if error.is_reset() {
            if let Some(slot) = &tail.slot {
                slot.report(Observer::refused);
            }
        }
    }
    tail.forget();
    failure
}

fn deliver(
    mut pending: Pending,
    response: Response<RecvStream>,
    body: &mut Option<Outgoing>,
    patience: Patience,
) -> Response<Body> {
    // A body that was sent whole stays with the caller, who may have to send it again (P23).
    let upload = pending
        .upload
        .take()
        .and_then(|upload| Some((upload, body.take()?)));
    let Some(tail) = pending.settle() else {
        return response.map(|_| Body::empty());
    };
    let control = &tail.session.control;
    let reused = control.answered.load(Ordering::Relaxed) || control.answered.swap(true, Ordering::AcqRel);
    if let Some(slot) = tail.slot.as_ref().filter(|_| !reused) {
        slot.report(Observer::answered);
    }
    let info = control.info(reused);
    let length = content_length(response.headers());
    let mut response = response.map(|incoming| match upload {
        None => Body::h2(incoming, Upstream::Done(tail), length, patience.body_idle),
        Some((upload, outgoing)) => {
            let tail = Arc::new(tail);
            let task = tokio::spawn(finish_upload(upload, outgoing, tail.clone()));
            Body::h2(
                incoming,
                Upstream::Running(tail, task.abort_handle()),
                length,
                patience.body_idle,
            )
        }
    });
    response.extensions_mut().insert(info);
    response
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The rest of an upload, after the response's headers. Its error shows in the response's body: the stream is reset.
async fn finish_upload(mut upload: Upload, mut body: Outgoing, tail: Arc<Tail>) {
    body.let_go();
    let _ = poll_fn(|cx| upload.poll(&mut body, cx)).await;
    drop(upload);
    drop(tail);
}
