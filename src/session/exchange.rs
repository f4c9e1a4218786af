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
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::body::Body;
use super::bound::{Bound, late_headers};
use super::classify::{self, Sent};
use super::h2::H2;
use super::head;
use super::interim::Interim;
use super::link::{Failure, Observer, Occupied};
use super::outgoing::Outgoing;
use super::tail::{Tail, Uploading, Upstream};
use super::upload::{Cut, Upload};
use crate::error::{Error, Kind};

/// The phases of a request that have a time limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    pub(crate) header: Option<Duration>,
    #[cfg_attr(
        not(feature = "http1"),
        allow(dead_code, reason = "for HTTP/2 the session's driver watches it")
    )]
    pub(crate) body_idle: Option<Duration>,
    pub(crate) write: Option<Duration>,
}

/// A request whose response has not come. Dropped, it is cancelled.
struct Pending {
    response: Option<ResponseFuture>,
    stream: Option<SendStream<Bytes>>,
    upload: Option<Upload>,
    tail: Option<Tail>,
    interim: Interim,
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
    let tunnel = head::opens_tunnel(parts);
    let length = content_length(request.headers());
    let (mut pending, early) = open(session, slot, request, body.is_some(), length, patience)?;
    let mut patient = Bound::new(patience.header);
    let answer = poll_fn(|cx| poll_response(&mut pending, body, tunnel, &mut patient, cx)).await;
    match answer {
        Ok(Ok(response)) => Ok(deliver(pending, response, body, &parts.method)),
        Ok(Err(error)) => Err(failed(pending, error, early)),
        Err(error) => Err(Failure::Failed(error)),
    }
}

/// Hands the head to h2. True: before the server's SETTINGS were known.
fn open(
    session: Arc<H2>,
    slot: Occupied,
    request: Request<()>,
    has_body: bool,
    length: Option<u64>,
    patience: Patience,
) -> Result<(Pending, bool), Failure> {
    let extended = head::is_extended_connect(&request);
    if !session.try_open(has_body || extended) {
        let gone = Error::new(Kind::Goaway, "the session took no more streams").with_unprocessed(true);
        return Err(Failure::NotSent(gone));
    }
    let early = !session.control.is_ready();
    let mut sender = session.sender.clone();
    if extended && !sender.is_extended_connect_protocol_enabled() {
        session.control.stream_over();
        let message = "the server does not allow extended CONNECT (RFC 8441): its SETTINGS have no \
                       ENABLE_CONNECT_PROTOCOL";
        return Err(Failure::Failed(Error::config(message)));
    }
    let (response, stream) = match sender.send_request(request, !has_body) {
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
    let tail = Tail::new(session, response.stream_id().as_u32(), slot);
    let mut pending = Pending {
        response: Some(response),
        stream: None,
        upload: None,
        tail: Some(tail),
        interim: Interim::default(),
    };
    if has_body {
        pending.upload = Some(Upload::new(stream, length, patience.write));
    } else {
        pending.stream = Some(stream);
    }
    Ok((pending, early))
}

type Answer = Result<Result<Response<RecvStream>, h2::Error>, Error>;

fn poll_response(
    pending: &mut Pending,
    body: &mut Option<Outgoing>,
    tunnel: bool,
    patient: &mut Bound,
    cx: &mut Context<'_>,
) -> Poll<Answer> {
    if let (Some(upload), Some(body)) = (&mut pending.upload, body.as_mut()) {
        match upload.poll(body, cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(()) | Err(Cut::Theirs)) => pending.upload = None,
            Poll::Ready(Err(Cut::Ours(error))) => return Poll::Ready(Err(error)),
        }
    }
    let (Some(response), Some(tail)) = (&mut pending.response, &pending.tail) else {
        return Poll::Pending;
    };
    if let Err(violation) = pending.interim.take_in(response, tail, cx) {
        return Poll::Ready(Err(classify::stream_over_bound(violation)));
    }
    if let Poll::Ready(answer) = Pin::new(response).poll(cx) {
        return Poll::Ready(Ok(answer));
    }
    if let Some(violation) = tail.violation() {
        return Poll::Ready(Err(classify::stream_over_bound(violation)));
    }
    // The request of a tunnel does not end before the response comes.
    if pending.upload.is_some() && !tunnel {
        return Poll::Pending;
    }
    patient.poll(cx).map(|()| Err(late_headers()))
}

fn failed(mut pending: Pending, error: h2::Error, early: bool) -> Failure {
    let Some(tail) = pending.settle() else {
        return Failure::Failed(Error::new(Kind::Io, "the stream was lost").with_source(error));
    };
    let sent = match tail.control().meter.is_written(tail.id()) {
        false => Sent::Not,
        true if early => Sent::Early,
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
                slot.report(Observer::refused);
            }
        }
    }
    failure
}

fn deliver(
    mut pending: Pending,
    response: Response<RecvStream>,
    body: &mut Option<Outgoing>,
    method: &Method,
) -> Response<Body> {
    // A body that was sent whole stays with the caller, who may have to send it again (P23).
    let upload = pending
        .upload
        .take()
        .and_then(|upload| Some((upload, body.take()?)));
    let Some(tail) = pending.settle() else {
        return response.map(|_| Body::empty());
    };
    let control = tail.control();
    let reused = control.answered.load(Ordering::Relaxed) || control.answered.swap(true, Ordering::AcqRel);
    if let Some(slot) = tail.slot().filter(|_| !reused) {
        slot.report(Observer::answered);
    }
    let info = control.info(reused);
    let length = body_length(&response, method);
    let mut response = response.map(|incoming| match upload {
        None => Body::h2(incoming, Upstream::Done(tail), length),
        Some((upload, outgoing)) => {
            let tail = Arc::new(tail);
            let task = tokio::spawn(finish_upload(upload, outgoing, tail.clone()));
            let task = Uploading::new(task.abort_handle());
            Body::h2(incoming, Upstream::Running(tail, task), length)
        }
    });
    response.extensions_mut().insert(info);
    response
}

/// The length of a response's body, where the head tells: not of one that has none (RFC 9110 §8.6).
fn body_length(response: &Response<RecvStream>, method: &Method) -> Option<u64> {
    let bodyless = *method == Method::HEAD
        || matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    content_length(response.headers()).filter(|_| !bodyless)
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The rest of an upload, after the response's headers. Its error shows in the response's body: the stream is reset.
async fn finish_upload(upload: Upload, mut body: Outgoing, tail: Arc<Tail>) {
    body.let_go();
    let mut rest = Rest {
        upload: Some(upload),
        tail,
    };
    let end = poll_fn(|cx| match &mut rest.upload {
        Some(upload) => upload.poll(&mut body, cx),
        None => Poll::Ready(Ok(())),
    });
    match end.await {
        Ok(()) | Err(Cut::Theirs) => rest.upload = None,
        Err(Cut::Ours(error)) => rest.tail.set_cut(error),
    }
}

/// An upload that outlives the response's head. Dropped before its end (its task was aborted, its body panicked, the
/// runtime ended), the stream is reset: a server must not wait for what will never come.
struct Rest {
    upload: Option<Upload>,
    tail: Arc<Tail>,
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
