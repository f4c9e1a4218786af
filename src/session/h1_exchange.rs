//! One request and its response on an HTTP/1.1 session.
//!
//! Only a request that hyper gives back was provably not sent: the connection ended before its turn came. Whatever
//! happens after that is ambiguous, for HTTP/1.1 has no way to say that nothing was done (P22). A response that comes
//! before the upload has ended is delivered at once; the driver goes on sending until the response is dropped (P30). Who
//! gives up a request that hyper has not written, or drops its response, ends the connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::header;
use http::request::Parts;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::alive::runtime_ended;
use super::body::Body;
use super::bound::{Bound, late_headers};
use super::exchange::{Patience, content_length};
use super::h1::{H1, H1Control, Returned};
use super::h1_body::H1Body;
use super::h1_head;
use super::h1_held::Rights;
use super::h1_upload::{Progress, Upload};
use super::link::{Failure, Observer, Occupied};
use super::outgoing::Outgoing;
use crate::error::{Error, Kind};

/// A request that hyper knows of, and the slot it fills.
pub(super) struct Tail {
    session: Arc<H1>,
    progress: Arc<Progress>,
    /// The sender goes before the slot once the session has ended.
    rights: Option<Rights>,
}

impl Tail {
    pub(super) fn control(&self) -> &Arc<H1Control> {
        &self.session.control
    }

    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The body of the response is in its reader's hands.
    pub(super) fn hold(&mut self) {
        let control = self.control().clone();
        if let Some(rights) = self.rights.take() {
            self.rights = control.held.hold(rights);
        }
        if self.rights.is_none() {
            control.waker.wake();
            if control.has_ended() {
                drop(control.held.take());
            }
        }
    }

    fn report_answer(&self) -> bool {
        if let Some((_, slot)) = self.rights.as_ref().filter(|_| self.control().serve()) {
            slot.report(Observer::answered);
        }
        self.control().answer()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let rights = self.rights.take();
        if let Some((sender, slot)) = rights.or_else(|| self.control().held.take()) {
            self.control().finish(sender, slot);
        }
    }
}

type Answer = Result<Response<Incoming>, TrySendError<Request<Upload>>>;

/// A request whose response has not come. Dropped, the connection closes.
pub(crate) struct Sending {
    answer: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    tail: Option<Tail>,
    patient: Bound,
}

impl Sending {
    /// Hands the request to hyper, with its body.
    pub(crate) fn start(
        session: Arc<H1>,
        slot: Occupied,
        parts: &Parts,
        body: &mut Option<Outgoing>,
        patience: Patience,
    ) -> Result<Self, Failure> {
        let mut request = h1_head::for_h1(parts, body.as_ref().map_or(Some(0), Outgoing::exact_size))
            .map_err(Failure::Failed)?;
        if session.control.proxied {
            let origin = &session.control.address().origin;
            *request.uri_mut() =
                h1_head::absolute_form(&parts.uri, request.uri(), origin).map_err(Failure::Failed)?;
        }
        let fits =
            session.control.takes_chunks() || !request.headers().contains_key(header::TRANSFER_ENCODING);
        // Without its sender the connection ends.
        let Some(mut sender) = session.control.take_sender().filter(|_| fits) else {
            // The session is about to be reported as ended; until then nobody else is to be granted this slot, which comes
            // back at once while the transport is dropped.
            slot.report(|origin, id| origin.failing(id, not_sent()));
            session.control.give_back(Returned {
                sender: None,
                _slot: slot,
            });
            return Err(Failure::NotSent(not_sent()));
        };
        bound_interim(&mut request, &session.control);
        session.control.set_write_timeout(patience.write);
        session.control.watch_written(patience.header.is_some());
        let length = content_length(request.headers());
        let (upload, progress) = Upload::new(body.take(), length, session.control.clone());
        let answer = sender.try_send_request(request.map(|()| upload));
        Ok(Self {
            answer: Some(Box::pin(answer)),
            tail: Some(Tail {
                session,
                progress,
                rights: Some((Some(sender), slot)),
            }),
            patient: Bound::new(patience.header),
        })
    }

    /// The response, once its headers are here. The body comes back if it was not sent.
    pub(crate) fn poll(
        &mut self,
        body: &mut Option<Outgoing>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Body>, Failure>> {
        if let Poll::Ready(answer) = self.poll_answer(cx) {
            self.answer = None;
            return self.tail.take().map_or(Poll::Pending, |tail| {
                Poll::Ready(match answer {
                    Ok(response) => deliver(tail, response),
                    Err(error) => Err(failed(&tail, error, body)),
                })
            });
        }
        let Some(tail) = &self.tail else {
            return Poll::Pending;
        };
        if self.patient.is_off() || !tail.progress.is_written() {
            return Poll::Pending;
        }
        let late = ready!(self.patient.poll(late_headers, cx));
        self.give_up();
        Poll::Ready(Err(Failure::Failed(late)))
    }

    /// hyper's answer. A request that is handed over at the very end of a connection may be forgotten in hyper's queue,
    /// which lasts as long as somebody can send: then our own sender is what keeps it there.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let (Some(answer), Some(tail)) = (&mut self.answer, &mut self.tail) else {
            return Poll::Pending;
        };
        let step = answer.as_mut().poll(cx);
        if step.is_ready() {
            return step;
        }
        tail.control().watcher.register(cx.waker());
        if !tail.control().has_ended() {
            return step;
        }
        let sender = tail.rights.as_mut().and_then(|(sender, _)| sender.take());
        if sender.is_none() {
            return step;
        }
        drop(sender);
        answer.as_mut().poll(cx)
    }

    /// The connection ends with its request, for no fault of the server's.
    fn give_up(&mut self) {
        let Some(answer) = self.answer.take() else {
            return;
        };
        if let Some(tail) = &self.tail {
            tail.control().set_given_up();
        }
        // hyper is to see that the caller is gone before the slot comes back.
        drop(answer);
        if let Some(tail) = self.tail.take() {
            // It may have answered already: then hyper goes on sending, to a server that may read no more.
            if !tail.progress.is_written() {
                let message = "the request was given up before it was sent";
                tail.control().kill(Error::new(Kind::Io, message));
            }
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// A response that came with what ended the session, such as too many interim ones before it, is none.
fn deliver(tail: Tail, mut response: Response<Incoming>) -> Result<Response<Body>, Failure> {
    let reused = tail.report_answer();
    tail.control().set_old(response.version() == Version::HTTP_10);
    if let Some(verdict) = tail.control().verdict() {
        return Err(Failure::Failed(verdict.clone().with_unprocessed(false)));
    }
    let informant = &tail.control().informant;
    informant.inform(response.extensions_mut(), reused);
    let address = informant.address().clone();
    Ok(response.map(|incoming| Body::h1(H1Body::new(incoming, tail), address)))
}

fn failed(tail: &Tail, mut error: TrySendError<Request<Upload>>, body: &mut Option<Outgoing>) -> Failure {
    if let Some(request) = error.take_message() {
        *body = request.into_body().take();
        return Failure::NotSent(not_sent().with_source(error.into_error()));
    }
    Failure::Failed(describe(tail, error.into_error()))
}

fn not_sent() -> Error {
    Error::new(Kind::Io, "the connection was closed before the request was sent").with_unprocessed(true)
}

/// What an error of hyper means to the caller. Decided here and nowhere else.
pub(super) fn describe(tail: &Tail, error: hyper::Error) -> Error {
    if let Some(failed) = tail.progress.failed() {
        return failed.clone();
    }
    // A session that ended for a reason of its own says that reason.
    if let Some(verdict) = tail.control().verdict() {
        return verdict.clone().with_unprocessed(false);
    }
    if let Some(fault) = tail.control().fault.get() {
        // A server that refuses our certificate before it said anything has not read what comes after that.
        let refused = fault.is_certificate() && !tail.control().has_heard();
        return fault.with_unprocessed(refused);
    }
    if error.is_user() && !error.is_body_write_aborted() {
        // Its task is gone: it panicked, or went with its runtime.
        let cause = tail.control().cause().cloned();
        return cause.unwrap_or_else(runtime_ended).with_source(error);
    }
    let malformed = |message| Error::new(Kind::Protocol, message).lasting();
    let described = if error.is_parse_status() || error.is_parse_version_h2() {
        malformed("the server did not answer in HTTP/1.1")
    } else if error.is_parse() {
        malformed(
            "the response's headers were not valid HTTP/1.1, were larger than `max_header_list_size`, or more than 100",
        )
    } else if error.is_body_write_aborted() {
        Error::new(Kind::Body, "the request body ended before its `content-length`")
    } else if is_malformed(&error) {
        malformed("the response's body was not valid HTTP/1.1, or its trailers were too large")
    } else {
        Error::new(Kind::Io, "the connection ended before the response did")
    };
    described.with_source(error)
}

/// hyper tells a malformed chunk only by the kind of the IO error beneath.
fn is_malformed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput
            );
        }
        source = error.source();
    }
    false
}

/// Interim responses to one request are bounded, in number and in bytes of headers (P44). A caller who listens to them
/// (`hyper::ext::on_informational`) bounds them itself: hyper has room for one listener.
fn bound_interim(request: &mut Request<()>, control: &Arc<H1Control>) {
    let given = request.extensions().clone();
    let control = control.clone();
    let (count, bytes) = (AtomicU32::new(0), AtomicU64::new(0));
    hyper::ext::on_informational(request, move |interim| {
        let headers = interim.headers().iter();
        let size: usize = headers
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let count = count.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = bytes.fetch_add(size as u64, Ordering::Relaxed) + size as u64;
        let (max, max_bytes) = control.max_interim;
        if count > max || bytes > max_bytes {
            let message = format!(
                "the server sent more than {max} interim (1xx) responses, or {max_bytes} bytes of them"
            );
            control.kill(Error::new(Kind::Protocol, message).lasting());
        }
    });
    if request.extensions().len() == given.len() {
        *request.extensions_mut() = given;
    }
}
