//! What is retried, and what the caller and the server learn of it.

use std::convert::Infallible;
use std::time::Duration;

use h2pool::retry::{Attempts, Failure, Reason, ReplayBody, RetryError, RetryOptions, RetryPolicy, Stop};
use http::{HeaderName, Method, Request, Response, StatusCode};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};

use crate::mock::{
    Alive, Answer, Body, Server, answer, get, millis, pause, post, read, request, reset, steady,
};

fn attempts(answer: &Answer) -> Attempts {
    match answer {
        Ok(response) => response.extensions().get::<Attempts>().unwrap().clone(),
        Err(error) => Attempts::of_error(&**error).unwrap().clone(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_default_is_a_layer_over_any_service() {
    // R1: whatever its error, as long as it is one.
    type In = Request<ReplayBody<Body>>;
    let infallible = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .service(service_fn(|_: In| async { Ok::<_, Infallible>(answer(200)) }));
    assert_eq!(infallible.oneshot(get()).await.unwrap().status(), 200);

    let ours = ServiceBuilder::new()
        .layer(RetryPolicy::default())
        .service(service_fn(|_: In| async {
            Err::<Response<Body>, _>(h2pool::Error::certificate("expired"))
        }));
    let error = ours.oneshot(get()).await.unwrap_err();
    assert!(
        error
            .source()
            .unwrap()
            .downcast_ref::<h2pool::Error>()
            .unwrap()
            .is_certificate()
    );

    let io = ServiceBuilder::new()
        .layer(RetryPolicy::default().max_attempts(2))
        .service(service_fn(|_: In| async {
            Err::<Response<Body>, _>(std::io::Error::from(std::io::ErrorKind::TimedOut))
        }));
    assert_eq!(attempts(&io.oneshot(get()).await).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_get_is_retried_until_it_succeeds() {
    // R3 R4 R13
    let server = Server::statuses(&[425, 429, 502, 503, 504, 503]);
    let answer = server.ask(&steady(), get()).await;
    let attempts = attempts(&answer);
    assert_eq!(answer.unwrap().status(), 200);
    // R6: 0.2, 0.4, 0.8, 1.6, 2.0, 2.0 s
    assert_eq!(server.times(), [0, 200, 600, 1_400, 3_000, 5_000, 7_000]);
    assert_eq!(attempts.count(), 7);
    assert_eq!(attempts.total_time(), millis(7_000));
    assert_eq!(attempts.stop(), Stop::Done);
    let reasons: Vec<_> = attempts
        .reasons()
        .iter()
        .map(|(reason, n)| format!("{reason}×{n}"))
        .collect();
    assert_eq!(reasons, ["425×1", "429×1", "502×1", "503×2", "504×1"]);
}

#[tokio::test(start_paused = true)]
async fn other_statuses_are_returned() {
    // R4
    for status in [200, 204, 301, 304, 400, 401, 404, 408, 409, 421, 500, 501, 505] {
        let server = Server::statuses(&[status]);
        assert_eq!(server.ask(&steady(), get()).await.unwrap().status(), status);
        assert_eq!(server.count(), 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_methods_are_sent_once_unless_they_opt_in() {
    // R3
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let server = Server::statuses(&[503]);
        let answer = server.ask(&steady(), request(method.clone(), "x")).await;
        assert_eq!(attempts(&answer).stop(), Stop::NotRepeatable);
        assert_eq!(answer.unwrap().status(), 503);
        assert_eq!(server.count(), 1, "{method}");

        let mut again = request(method, "x");
        again.extensions_mut().insert(RetryOptions::new().any_method());
        assert_eq!(server.ask(&steady(), again).await.unwrap().status(), 200);
    }
    let server = Server::statuses(&[503]);
    let mut keyed = post();
    keyed
        .headers_mut()
        .insert("idempotency-key", "1".parse().unwrap());
    assert_eq!(
        server
            .ask(&steady().idempotency_key(true), keyed)
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn never_is_one_attempt() {
    // R3
    let server = Server::statuses(&[503]);
    let mut once = get();
    once.extensions_mut().insert(RetryOptions::new().never());
    let answer = server.ask(&steady(), once).await;
    assert_eq!(attempts(&answer).stop(), Stop::Disabled);
    assert_eq!(server.count(), 1);
}

/// The error that a client sees whose stream was refused, made by h2 itself.
async fn refused() -> h2::Error {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        connection.accept().await;
    };
    let ask = async {
        let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
        let (response, _) = sender.send_request(Request::new(()), true).unwrap();
        tokio::select! {
            response = response => response.unwrap_err(),
            ended = connection => panic!("{ended:?}"),
        }
    };
    tokio::join!(serve, ask).1
}

#[tokio::test(start_paused = true)]
async fn a_post_whose_stream_was_refused_is_sent_again_and_one_that_was_reset_is_not() {
    // R5 R10
    let server = Server::new(|number, request| async move {
        let body = read(request).await;
        assert_eq!(body, "order");
        match number {
            1 => Err(refused().await.into()),
            2 => Err(h2pool::Error::connect("nobody there").into()),
            _ => Ok(answer(201)),
        }
    });
    let answer = server.ask(&steady(), post()).await;
    let made = attempts(&answer);
    assert_eq!(answer.unwrap().status(), 201);
    let expected = [Failure::Refused, Failure::Connect].map(|failure| (Reason::Failure(failure), 1));
    assert_eq!(made.reasons(), expected);

    let server = Server::new(|_, _| async { Err(reset()) });
    let answer = server.ask(&steady(), post()).await;
    assert_eq!(attempts(&answer).stop(), Stop::NotRepeatable);
    assert_eq!(server.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn transport_failures_are_retried_and_certificates_never() {
    // R4
    use std::io::ErrorKind;
    for kind in [
        ErrorKind::ConnectionReset,
        ErrorKind::UnexpectedEof,
        ErrorKind::TimedOut,
    ] {
        let server = Server::new(move |number, _| async move {
            if number == 1 {
                Err(std::io::Error::from(kind).into())
            } else {
                Ok(answer(200))
            }
        });
        assert!(server.ask(&steady(), get()).await.is_ok(), "{kind:?}");
    }
    let errors: [fn() -> BoxError; 2] = [
        || h2pool::Error::certificate("expired").into(),
        || "nobody knows this error".into(),
    ];
    for error in errors {
        let server = Server::new(move |_, _| async move { Err(error()) });
        let answer = server.ask(&steady(), get()).await;
        assert_eq!(attempts(&answer).stop(), Stop::Done);
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn when_attempts_run_out_the_last_outcome_is_returned() {
    // R8 R13
    let server = Server::new(|number, _| async move {
        if number == 3 {
            Ok(answer(502))
        } else {
            Err(reset())
        }
    });
    let answer = server.ask(&steady().max_attempts(3), get()).await;
    let made = attempts(&answer);
    assert_eq!(answer.unwrap().status(), StatusCode::BAD_GATEWAY);
    assert_eq!((made.count(), made.stop()), (3, Stop::Attempts));
    assert_eq!(made.reasons(), [(Reason::Failure(Failure::Reset), 2)]);

    let server = Server::new(|number, _| async move {
        if number == 3 {
            Err(reset())
        } else {
            Ok(crate::mock::answer(503))
        }
    });
    let error = server.ask(&steady().max_attempts(3), get()).await.unwrap_err();
    let error = error.downcast::<RetryError>().unwrap();
    assert_eq!(error.attempts().stop(), Stop::Attempts);
    assert_eq!(
        error.to_string(),
        "the request failed after 3 attempts in 600.0ms: no attempt is left"
    );
    let inner = error.into_inner().downcast::<std::io::Error>().unwrap();
    assert_eq!(inner.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_unprocessed_only_where_every_attempt_was() {
    // R13 P22: a first attempt that was reset may have been processed, whatever becomes of the second.
    for (reset_first, expected) in [(true, false), (false, true)] {
        let server = Server::new(move |number, _| async move {
            match number {
                1 if reset_first => Err(reset()),
                _ => Err(h2pool::Error::connect("refused").into()),
            }
        });
        let error = server.ask(&steady().max_attempts(2), get()).await.unwrap_err();
        let ours = error.source().unwrap().downcast_ref::<h2pool::Error>().unwrap();
        assert_eq!((ours.is_connect(), ours.is_unprocessed()), (true, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn retries_say_how_many_went_before() {
    // R14
    let counts = |server: &Server, name: &str| -> Vec<Option<String>> {
        let calls = server.calls();
        calls
            .iter()
            .map(|call| call.headers.get(name).map(|n| n.to_str().unwrap().to_owned()))
            .collect()
    };
    let expected = [None, Some("1".to_owned()), Some("2".to_owned())];
    let server = Server::statuses(&[503, 503]);
    server.ask(&steady(), get()).await.unwrap();
    assert_eq!(counts(&server, "x-retry-count"), expected);

    let server = Server::statuses(&[503, 503]);
    let named = steady().retry_count_header(HeaderName::from_static("x-again"));
    server.ask(&named, get()).await.unwrap();
    assert_eq!(counts(&server, "x-again"), expected);

    let server = Server::statuses(&[503, 503]);
    server
        .ask(&steady().retry_count_header(None), get())
        .await
        .unwrap();
    assert_eq!(server.calls()[2].headers.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_in_flight_or_in_back_off_sends_nothing_more() {
    // R12
    let alive = Alive::default();
    let guard = alive.guard();
    let server = Server::new(move |_, _| {
        let guard = guard.guard();
        async move {
            let _guard = guard;
            pause(100).await;
            Ok(answer(503))
        }
    });
    let base = alive.count();
    let policy = steady();
    let in_flight = tokio::time::timeout(millis(50), server.ask(&policy, get())).await;
    assert!(in_flight.is_err());
    assert_eq!((server.count(), alive.count()), (1, base));
    let in_back_off = tokio::time::timeout(millis(250), server.ask(&policy, get())).await;
    assert!(in_back_off.is_err());
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((server.count(), alive.count()), (2, base));
}
