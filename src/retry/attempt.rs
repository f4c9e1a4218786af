//! One attempt: readiness, then the call, both up to a time limit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response, response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::BoxError;
use tower_service::Service;

use super::body::ReplayBody;
use super::clock;

pin_project! {
    /// A service and what it is to be asked, or what it has been asked.
    pub(super) struct Attempt<S, B>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        service: S,
        request: Option<Request<ReplayBody<B>>>,
        #[pin]
        response: Option<S::Future>,
        number: u32,
        cut_at: Option<Instant>,
        // The call has not been told of yet.
        news: bool,
    }
}

/// Why an attempt has no response.
#[derive(Debug)]
pub(super) enum Fault {
    /// The service failed the call.
    Called(BoxError),
    /// The service can take no calls any more (an error from `poll_ready`).
    NotReady(BoxError),
    /// The time limit passed, after the request was `sent` or before.
    Cut { sent: bool },
}

/// What an attempt came to: a response, taken apart, or a fault.
pub(super) type End<R> = Result<(response::Parts, R), Fault>;

impl<S, B> Attempt<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    /// Waits for readiness first, on this very instance of the service.
    pub(super) fn new(
        service: S,
        request: Request<ReplayBody<B>>,
        number: u32,
        cut_at: Option<Instant>,
    ) -> Self {
        Self {
            service,
            request: Some(request),
            response: None,
            number,
            cut_at,
            news: true,
        }
    }

    /// The service was ready, and has been called.
    pub(super) fn called(service: S, response: S::Future, number: u32, cut_at: Option<Instant>) -> Self {
        Self {
            service,
            request: None,
            response: Some(response),
            number,
            cut_at,
            news: false,
        }
    }

    /// Counted from 1, over the first attempts, the retries and the hedge of one request.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// True once: at the first look after the service was called.
    pub(super) fn take_news(self: Pin<&mut Self>) -> bool {
        let this = self.project();
        let called = *this.news && this.request.is_none();
        *this.news &= !called;
        called
    }

    /// Whether the service has been called.
    pub(super) fn is_called(&self) -> bool {
        self.request.is_none()
    }

    pub(super) fn cut_at(&self) -> Option<Instant> {
        self.cut_at
    }

    pub(super) fn service(&self) -> S
    where
        S: Clone,
    {
        self.service.clone()
    }

    /// An answer that is there counts, even at the very instant of the time limit; the service is not called then any more.
    pub(super) fn poll<R>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        now: Option<Instant>,
    ) -> Poll<End<R>>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
        S::Error: Into<BoxError>,
    {
        let over = now.is_some_and(|now| self.cut_at.is_some_and(|at| at <= now));
        match self.as_mut().poll_service(cx) {
            Poll::Pending if over => Poll::Ready(Err(Fault::Cut {
                sent: self.is_called(),
            })),
            polled => polled,
        }
    }

    fn poll_service<R>(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<R>>
    where
        S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
        S::Error: Into<BoxError>,
    {
        let mut this = self.project();
        if this.request.is_some() {
            ready!(this.service.poll_ready(cx)).map_err(|error| Fault::NotReady(error.into()))?;
            if this.cut_at.is_some_and(|at| at <= clock::now()) {
                return Poll::Ready(Err(Fault::Cut { sent: false }));
            }
        }
        if let Some(request) = this.request.take() {
            this.response.set(Some(this.service.call(request)));
        }
        match this.response.as_pin_mut() {
            Some(response) => response
                .poll(cx)
                .map_ok(Response::into_parts)
                .map_err(|error| Fault::Called(error.into())),
            None => Poll::Pending,
        }
    }
}
