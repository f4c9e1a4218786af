//! Other services below and above: permits, readiness, composition.

use std::error::Error as StdError;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2pool::retry::{Attempts, ReplayBody, RetryBudget, RetryPolicy, Stop};
use http::{Method, Request, Response, Uri};
use parking_lot::Mutex;
use tower::limit::ConcurrencyLimitLayer;
use tower::util::BoxCloneService;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::mock::{Alive, Answer, Body, Server, answer, get, millis, now, pause, post, read, reset, steady};

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_of_one_inside_the_layer_does_not_deadlock() {
    // R11
    let server = Server::statuses(&[503, 503, 503]);
    let service = ServiceBuilder::new()
        .layer(steady())
        .concurrency_limit(1)
        .service(server.clone());
    let one = service.clone().oneshot(get());
    let two = service.oneshot(get());
    let (one, two) = tokio::join!(one, two);
    assert_eq!(
        (one.unwrap().status(), two.unwrap().status()),
        (200.try_into().unwrap(), 200.try_into().unwrap())
    );
    assert_eq!(server.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_once_the_deadline_has_come() {
    // R8 R9: those who wait for the one permit when their time is over do not use it, one after the other.
    let server = Server::new(|number, _| async move {
        match number {
            1..=20 => Ok(answer(503)),
            _ => std::future::pending().await,
        }
    });
    let budget = RetryBudget::new(0.0, 0).burst(100);
    let policy = steady().deadline(millis(500)).budget(budget.clone());
    let service = ServiceBuilder::new()
        .layer(policy)
        .concurrency_limit(1)
        .service(server.clone());
    let before = now();
    let callers: Vec<_> = (0..20)
        .map(|_| tokio::spawn(service.clone().oneshot(get())))
        .collect();
    pause(400).await;
    assert_eq!(server.count(), 21, "one holds the permit");
    for caller in callers {
        assert_eq!(
            Attempts::of_error(&*caller.await.unwrap().unwrap_err())
                .unwrap()
                .stop(),
            Stop::Deadline
        );
    }
    assert_eq!((server.count(), now() - before), (21, millis(500)));
    let left = budget.available(&Uri::from_static("https://a.example"));
    assert_eq!(left, 99, "nothing is paid for what was not sent");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_waits_for_room_is_not_sent_at_the_deadline() {
    // R8 R15
    let server = Server::new(|_, _| std::future::pending());
    let service = ServiceBuilder::new()
        .layer(steady().hedge(millis(50)).deadline(millis(500)))
        .concurrency_limit(1)
        .service(server.clone());
    assert!(service.oneshot(get()).await.is_err());
    assert_eq!(server.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_waits_for_room_is_not_sent_at_once_when_the_first_has_failed() {
    // R6 R7 R15: that would be a retry, and earlier than asked.
    for (asked, second) in [(Some("5"), 5_150), (None, 350)] {
        let server = Server::new(move |number, _| async move {
            pause(150).await;
            let mut response = answer(if number == 1 { 503 } else { 200 });
            if let Some(asked) = asked {
                response
                    .headers_mut()
                    .insert("retry-after", asked.parse().unwrap());
            }
            Ok(response)
        });
        let budget = RetryBudget::new(0.0, 0).burst(1);
        let service = ServiceBuilder::new()
            .layer(steady().hedge(millis(100)).max_attempts(2).budget(budget))
            .concurrency_limit(1)
            .service(server.clone());
        let response = service.oneshot(get()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), server.times()),
            (200, vec![0, second])
        );
        assert_eq!(response.extensions().get::<Attempts>().unwrap().count(), 2);
        assert_eq!(server.calls()[1].headers["x-retry-count"], "1");
    }
}

struct Held {
    bytes: [u8; 4],
    _guard: Alive,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_that_has_ended_holds_nothing_though_it_is_kept() {
    // R9 R10 R12: neither the body, nor the service, nor what was paid for a hedge that had no room.
    let (body, service) = (Alive::default(), Alive::default());
    let used = service.guard();
    let server = Server::new(move |_, request| {
        let _used = &used;
        async move {
            read(request).await;
            pause(200).await;
            Ok(answer(200))
        }
    });
    let budget = RetryBudget::new(0.0, 0).burst(2);
    let mut narrow = ServiceBuilder::new()
        .layer(steady().hedge(millis(100)).budget(budget.clone()))
        .concurrency_limit(1)
        .service(server);
    let held = Held {
        bytes: *b"held",
        _guard: body.guard(),
    };
    let request = get().map(|_| Body::from(Bytes::from_owner(held)));
    let mut future = Box::pin(narrow.ready().await.unwrap().call(request));
    drop(narrow);
    assert_eq!(future.as_mut().await.unwrap().status(), 200);
    let left = budget.available(&Uri::from_static("https://a.example"));
    assert_eq!((body.count(), service.count(), left), (0, 0, 2));
    drop(future);
}

#[tokio::test(start_paused = true)]
async fn during_the_back_off_the_permit_is_somebody_elses() {
    // R11 R12: a pool of size 1; the other request is served while the first one sleeps, and after it was dropped.
    let server = Server::new(|number, _| async move {
        pause(10).await;
        Ok(answer(if number == 1 { 503 } else { 200 }))
    });
    let service = ServiceBuilder::new()
        .layer(steady())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(server.clone());
    let first = tokio::spawn(service.clone().oneshot(get()));
    pause(100).await;
    assert!(!first.is_finished());
    let other = service.clone().oneshot(get()).await.unwrap();
    assert_eq!((other.status().as_u16(), server.times()), (200, vec![0, 100]));
    assert_eq!(first.await.unwrap().unwrap().status(), 200);

    let server = Server::statuses(&[503]);
    let service = ServiceBuilder::new()
        .layer(steady())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(server.clone());
    let dropped = tokio::time::timeout(millis(100), service.clone().oneshot(get())).await;
    assert!(dropped.is_err());
    assert_eq!(service.oneshot(get()).await.unwrap().status(), 200);
    assert_eq!(server.times(), [0, 100]);
}

/// Ready after a while, once per instance and call; failed for good from the `fails`th time on.
struct Slow {
    polled: Arc<Mutex<u32>>,
    fails: u32,
    wait: Duration,
    ready: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl Clone for Slow {
    fn clone(&self) -> Self {
        Self {
            polled: self.polled.clone(),
            ready: None,
            ..*self
        }
    }
}

impl Service<Request<ReplayBody<Body>>> for Slow {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let wait = self.wait;
        let mut polled = self.polled.lock();
        let first = *polled == 0;
        let ready = self.ready.get_or_insert_with(|| {
            *polled += 1;
            Box::pin(tokio::time::sleep(if first { Duration::ZERO } else { wait }))
        });
        if *polled >= self.fails {
            return Poll::Ready(Err("gone for good".into()));
        }
        ready.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, _: Request<ReplayBody<Body>>) -> Self::Future {
        assert!(self.ready.take().is_some_and(|ready| ready.is_elapsed()));
        ready(Ok(answer(503)))
    }
}

fn slow(fails: u32, wait: u64) -> Slow {
    Slow {
        polled: Arc::default(),
        fails,
        wait: millis(wait),
        ready: None,
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_is_awaited_before_every_attempt_and_within_the_deadline() {
    // R8 R11
    let inner = slow(u32::MAX, 5_000);
    let polled = inner.polled.clone();
    let before = now();
    let policy = steady().deadline(Duration::from_secs(12));
    let error = policy.layer(inner).oneshot(get()).await.unwrap_err();
    // Called at 0, at 0.2 + 5 = 5.2 and at 5.6 + 5 = 10.6 s; asked again at 11.4 s and cut at 12 s.
    assert_eq!((*polled.lock(), now() - before), (4, Duration::from_secs(12)));
    let cause = error.source().unwrap().downcast_ref::<h2pool::Error>().unwrap();
    assert!(cause.is_timeout());
    assert_eq!(Attempts::of_error(&*error).unwrap().stop(), Stop::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_its_readiness_is_not_asked_again() {
    // R11: tower says that such a service is to be discarded.
    let inner = slow(2, 0);
    let polled = inner.polled.clone();
    let error = steady().layer(inner).oneshot(get()).await.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "gone for good");
    assert_eq!(*polled.lock(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_before_any_attempt_is_passed_on_as_it_is() {
    // R13: there is no request yet, and so no attempt to tell of.
    #[derive(Clone)]
    struct Dead;

    impl Service<Request<ReplayBody<Body>>> for Dead {
        type Response = Response<Body>;
        type Error = std::fmt::Error;
        type Future = Ready<Result<Response<Body>, std::fmt::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::fmt::Error>> {
            Poll::Ready(Err(std::fmt::Error))
        }

        fn call(&mut self, _: Request<ReplayBody<Body>>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }

    let retry = steady().layer(Dead);
    for error in [retry.request(get()).await, retry.oneshot(get()).await].map(Result::unwrap_err) {
        assert!(error.is::<std::fmt::Error>());
        assert!(Attempts::of_error(&*error).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_can_be_cloned_boxed_and_used_again() {
    // R1
    let server = Server::statuses(&[503]);
    let mut retry = server.under(&steady());
    for _ in 0..3 {
        retry.ready().await.unwrap().call(get()).await.unwrap();
    }
    let boxed: BoxCloneService<Request<Body>, Response<Body>, BoxError> = BoxCloneService::new(retry);
    let spawned = tokio::spawn(boxed.clone().oneshot(get()));
    assert_eq!(spawned.await.unwrap().unwrap().status(), 200);
    assert_eq!(server.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn it_stands_under_buffer_and_over_timeout() {
    // R1 R4: tower's timeout below is a failed attempt.
    let server = Server::new(|number, _| async move {
        pause(if number < 3 { 1_000 } else { 10 }).await;
        Ok(answer(200))
    });
    let service = ServiceBuilder::new()
        .buffer(8)
        .layer(RetryPolicy::default())
        .timeout(millis(100))
        .service(server.clone());
    assert_eq!(service.oneshot(get()).await.unwrap().status(), 200);
    assert_eq!(server.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_service_inside_can_be_reached_and_taken_out() {
    // R1
    let server = Server::statuses(&[503]);
    let mut retrying = server.under(&steady());
    let inside = ServiceExt::<Request<ReplayBody<Body>>>::ready(retrying.get_mut())
        .await
        .unwrap();
    let response = inside
        .call(get().map(|body| ReplayBody::new(body, 0)))
        .await
        .unwrap();
    assert_eq!(response.status(), 503, "past the layer");
    assert_eq!(retrying.get_ref().count(), 1);
    assert_eq!(retrying.into_inner().count(), 1);
}

/// What two layers, one inside the other, make of a first attempt that fails so, and others that never leave.
async fn twice(first: fn() -> BoxError, then: fn() -> BoxError, request: Request<Body>) -> (Answer, usize) {
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let layer = steady().max_attempts(2);
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(layer.methods([Method::GET, Method::POST]))
        .service(service_fn(move |_: Request<ReplayBody<ReplayBody<Body>>>| {
            *counted.lock() += 1;
            let error = if *counted.lock() == 1 { first() } else { then() };
            ready(Err::<Response<Body>, _>(error))
        }));
    let answer = service.oneshot(request).await;
    let calls = *calls.lock();
    (answer, calls)
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_inside_left_in_doubt_is_not_unprocessed_outside() {
    // R3 R5 P22: a POST, which only the layer inside may send again, may have been acted upon when it gives up.
    let unreachable = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
    let (answer, calls) = twice(reset, unreachable, post()).await;
    let error = answer.unwrap_err();
    assert_eq!(
        (calls, Attempts::of_error(&*error).unwrap().stop()),
        (2, Stop::NotRepeatable)
    );
    // Where none of its attempts was, it may be sent again, and the error says so.
    let refused = || h2pool::Error::connect("refused").into();
    let (answer, calls) = twice(refused, refused, post()).await;
    assert_eq!((calls, is_unprocessed(answer)), (4, true));
    // What an attempt outside may have done is not undone by all those inside the last one.
    let (answer, calls) = twice(reset, refused, get()).await;
    assert_eq!((calls, is_unprocessed(answer)), (4, false));
}

fn is_unprocessed(answer: Answer) -> bool {
    let error = answer.unwrap_err();
    let mut cause: &(dyn StdError + 'static) = &*error;
    while !cause.is::<h2pool::Error>() {
        cause = cause.source().unwrap();
    }
    let ours = cause.downcast_ref::<h2pool::Error>().unwrap();
    assert!(ours.is_connect());
    ours.is_unprocessed()
}
