//! How a session ends, and what that means for the request on it.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::{BodyExt, Full};

use super::fake::{Fake, Server, failure, piecewise, response};
use crate::error::{Error, Kind};
use crate::session::alive::Ending;
use crate::session::link::Failure;
use crate::session::{H1Sending, Outgoing, killed};
use crate::state::Reason;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A connection that has served one request, and is idle.
async fn at_rest() -> (Fake, Server) {
    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.get("http://a/");
    server.answer(OK).await;
    response(attempt).await.into_body().collect().await.unwrap();
    fake.events.until("ar").await;
    (fake, server)
}

#[tokio::test(start_paused = true)]
async fn the_server_may_close_after_a_response() {
    // P24
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let (fake, mut server) = Fake::new(4096).await;
        let attempt = fake.get("http://a/");
        server.answer(answer).await;
        assert_eq!(
            response(attempt)
                .await
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes(),
            "ok"
        );
        // Closed is reported first: nobody is granted the slot.
        fake.events.until("acr").await;
        server.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_the_server_closes_is_reported() {
    // P14
    let (fake, server) = at_rest().await;
    drop(server);
    fake.events.until("arc").await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_comes_back_before_the_end_is_reported_is_granted_to_nobody() {
    // P4: the transport is dropped in between, which takes its time; the slot would go from one waiter to the next.
    let (fake, _server) = at_rest().await;
    fake.h1.control().end(Error::new(Kind::Io, "it ended"));
    let attempt = fake.attempt(Request::get("http://a/"), None).now_or_never();
    assert!(matches!(attempt.unwrap().0, Err(Failure::NotSent(_))));
    assert_eq!(fake.events.seen(), "arfr");
}

#[tokio::test(start_paused = true)]
async fn what_an_idle_server_says_serves_nobody() {
    // P3
    let (fake, mut server) = Fake::new(4096).await;
    server
        .write("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n")
        .await;
    fake.events.until("c").await;
    assert!(!fake.events.cause().is_unprocessed());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_races_the_servers_close_comes_back_with_its_body() {
    // P4, P14, P22
    let (fake, server) = Fake::new(4096).await;
    tokio::task::yield_now().await;
    // Neither the driver nor the request has run when the connection is gone.
    drop(server);
    let body = Outgoing::new(Full::new(Bytes::from_static(b"kept")), 0);
    let (result, body) = fake.start(Request::post("http://a/"), body).await.unwrap();
    let Err(Failure::NotSent(error)) = result else {
        panic!("it was not sent");
    };
    assert!(error.is_unprocessed() && error.is_transient(), "{error:?}");
    fake.events.until("cfr").await;

    // The same for one that comes when the end is known.
    let body = body.unwrap();
    assert_eq!(body.exact_size(), Some(4));
    let (result, body) = fake.start(Request::post("http://a/"), Some(body)).await.unwrap();
    assert!(matches!(result, Err(Failure::NotSent(_))));
    assert_eq!(body.unwrap().exact_size(), Some(4));
    fake.events.until("cfrfr").await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_on_a_session_about_to_end_is_kept_until_it_has() {
    // P4, P14
    let (fake, mut server) = Fake::new(4096).await;
    fake.h1.control().close();
    let (parts, ()) = Request::get("http://a/").body(()).unwrap().into_parts();
    let sent = H1Sending::start(fake.h1.clone(), fake.slot(), &parts, &mut None, fake.patience);
    assert!(matches!(sent, Err(Failure::NotSent(_))));
    assert_eq!(fake.events.seen(), "f", "the driver has not run yet");
    fake.events.until("fcr").await;
    server.closed().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_before_the_response_is_ambiguous() {
    // P22
    for (answer, events) in [("", "cr"), ("HTTP/1.1 200 OK\r\ncontent", "acr")] {
        let (fake, mut server) = Fake::new(4096).await;
        let body = Outgoing::new(Full::new(Bytes::from_static(b"sent")), 1024);
        let attempt = fake.start(Request::post("http://a/"), body);
        server.answer(answer).await;
        drop(server);
        let error = failure(attempt).await;
        assert!(
            error.to_string().contains("ended before the response"),
            "{error:?}"
        );
        fake.events.until(events).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http1_is_an_error_that_says_so() {
    // P44
    let large = format!(
        "HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n",
        "x".repeat(16 * 1024)
    );
    for (answer, says) in [
        (large.as_str(), "max_header_list_size"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "not valid HTTP/1.1"),
        ("HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1"),
    ] {
        let (fake, mut server) = Fake::new(64 * 1024).await;
        let attempt = fake.get("http://a/");
        server.answer(answer).await;
        let error = failure(attempt).await;
        assert!(error.to_string().contains(says), "{error:?}");
        server.closed().await;
        fake.events.until("acr").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_cancelled_before_its_response_closes_the_connection() {
    // P12, P24
    let (fake, mut server) = Fake::new(4096).await;
    let (frames, body) = piecewise();
    let attempt = fake.start(Request::post("http://a/"), body);
    server.head().await;
    attempt.abort();
    server.closed().await;
    fake.events.until("gcr").await;
    assert!(frames.is_closed());
}

#[tokio::test(start_paused = true)]
async fn closing_lets_the_request_under_way_finish() {
    // P20
    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.get("http://a/");
    server.head().await;
    fake.h1.control().close();
    fake.h1.control().close();
    server.write(OK).await;
    assert_eq!(
        response(attempt)
            .await
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes(),
        "ok"
    );
    server.closed().await;
    fake.events.until("acr").await;
}

#[tokio::test(start_paused = true)]
async fn the_session_ends_with_its_last_handle() {
    // P20
    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.get("http://a/");
    server.answer(OK).await;
    let (events, body) = (fake.events.clone(), response(attempt).await.into_body());
    drop(fake);
    // The body holds the session.
    assert_eq!(body.collect().await.unwrap().to_bytes(), "ok");
    server.closed().await;
    drop(server);
    events.until("arc").await;
}

#[tokio::test(start_paused = true)]
async fn killing_ends_what_runs_with_the_reason() {
    // P20
    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.get("http://a/");
    server.head().await;
    fake.h1.control().kill(killed(Reason::Closed));
    assert!(failure(attempt).await.is_closed());
    fake.events.until("cr").await;
    assert!(fake.events.cause().is_closed());

    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.get("http://a/");
    server
        .answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")
        .await;
    let response = response(attempt).await;
    fake.h1.control().kill(killed(Reason::Closed));
    let error = response.into_body().collect().await.unwrap_err();
    assert!(
        error.is_closed() && error.is_body() && !error.is_unprocessed(),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_task_panics_has_not_lost_its_runtime() {
    // P22, P36, P41: it would be sent again, and panic again; here in a caller's own ear for interim responses. Nor is it
    // the body of the request that panicked.
    for uploads in [false, true] {
        let (fake, mut server) = Fake::new(4096).await;
        let mut request = Request::new(());
        hyper::ext::on_informational(&mut request, |_| panic!("a bug in the caller, on purpose"));
        let mut builder = Request::post("http://a/");
        *builder.extensions_mut().unwrap() = request.extensions().clone();
        let (_frames, body) = piecewise();
        let attempt = fake.start(builder, body.filter(|_| uploads));
        server.answer("HTTP/1.1 103 Early Hints\r\n\r\n").await;
        let error = failure(attempt).await;
        assert_eq!(error.kind(), Kind::Io, "{error:?}");
        fake.events.until("cr").await;
        assert_eq!(fake.events.cause().kind(), Kind::Io);
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_with_its_runtime_reports_the_end() {
    // P36
    let (fake, mut server) = Fake::new(4096).await;
    let attempt = fake.get("http://a/");
    server.head().await;
    fake.driver.abort();
    let error = failure(attempt).await;
    assert!(error.to_string().contains("runtime"), "{error:?}");
    fake.events.until("cr").await;
    let events = Arc::clone(&fake.events);
    let (result, _) = fake.get("http://a/").await.unwrap();
    assert!(matches!(result, Err(Failure::NotSent(_))));
    events.until("crfr").await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_hears_that_the_session_has_ended() {
    // P14: a request that was handed over at the very end may be forgotten in hyper's queue, and whatever would end it.
    let (fake, mut server) = Fake::new(4096).await;
    let (parts, ()) = Request::get("http://a/").body(()).unwrap().into_parts();
    let mut sending = H1Sending::start(fake.h1.clone(), fake.slot(), &parts, &mut None, fake.patience)
        .ok()
        .unwrap();
    let mut answer = tokio_test::task::spawn(poll_fn(|cx| sending.poll(&mut None, cx)));
    assert!(answer.poll().is_pending());
    server.head().await;
    assert!(answer.poll().is_pending() && !answer.is_woken());
    fake.h1.control().end(Error::new(Kind::Io, "over"));
    assert!(answer.is_woken());
    assert!(answer.poll().is_pending());
    // Without its sender hyper's connection ends with the response.
    server.write(OK).await;
    server.closed().await;
}
