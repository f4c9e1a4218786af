//! A real h2 client and server with the meter between them.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const NO_ERROR: u8 = 0;
const CANCEL: u8 = 8;

type Client = h2::client::SendRequest<Bytes>;
type Connection = h2::client::Connection<MeteredIo<DuplexStream>, Bytes>;

async fn client(io: DuplexStream) -> (Client, Connection, Arc<Meter>) {
    let meter = Meter::new(Bounds::default());
    let io = MeteredIo::new(io, Arc::clone(&meter));
    let (client, connection) = h2::client::Builder::new().handshake(io).await.unwrap();
    (client, connection, meter)
}

fn post() -> Request<()> {
    Request::post("http://example.test/")
        .version(http::Version::HTTP_2)
        .body(())
        .unwrap()
}

/// Answers each request with an interim response, what was uploaded, and trailers.
async fn serve(io: DuplexStream) {
    let mut server = h2::server::Builder::new()
        .max_concurrent_streams(7)
        .handshake::<_, Bytes>(io)
        .await
        .unwrap();
    while let Some(request) = server.accept().await {
        tokio::spawn(async move {
            let (request, mut respond) = request.unwrap();
            let mut body = request.into_body();
            let mut echo = Vec::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk.unwrap();
                body.flow_control().release_capacity(chunk.len()).unwrap();
                echo.extend(chunk);
            }
            let early = Response::builder()
                .status(StatusCode::EARLY_HINTS)
                .body(())
                .unwrap();
            respond.send_informational(early).unwrap();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(echo.into(), false).unwrap();
            send.send_trailers(HeaderMap::new()).unwrap();
        });
    }
}

// P3: the limit that h2 tells once SETTINGS are applied is the server's; before, it is not.
#[tokio::test]
async fn settings_applied_means_that_the_limit_is_known() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(serve(far));
    let (client, connection, meter) = client(near).await;
    let mut connection = pin!(connection);
    let mut unknown = 0;
    poll_fn(|cx| {
        assert!(connection.as_mut().poll(cx).is_pending());
        if meter.settings_applied() == 0 {
            unknown += 1;
            return Poll::Pending;
        }
        assert_eq!(connection.max_concurrent_send_streams(), 7);
        assert_eq!(client.current_max_send_streams(), 7);
        Poll::Ready(())
    })
    .await;
    assert!(unknown > 0, "seen before and after");
}

// P30, P31, P44: a request through h2 leaves the numbers that its frames say.
#[tokio::test]
async fn exchange() {
    let (near, far) = tokio::io::duplex(4 * 1024);
    tokio::spawn(serve(far));
    let (client, connection, meter) = client(near).await;
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let (response, mut upload) = client.send_request(post(), false).unwrap();
    let id = u32::from(response.stream_id());
    const SIZE: usize = 60_000;
    upload.send_data(Bytes::from(vec![5; SIZE]), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((meter.opened(), meter.data_sent()), (1, SIZE as u64));

    let mut body = response.into_body();
    let mut read = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        assert!(meter.unread_of(id) >= chunk.len() as u64);
        body.flow_control().release_capacity(chunk.len()).unwrap();
        meter.release(id, chunk.len() as u64);
        read += chunk.len();
    }
    body.trailers().await.unwrap().expect("trailers");
    assert_eq!(read, SIZE);
    assert!(meter.has_ended(id));
    assert_eq!(meter.stream_violation(id), None);
    let forgotten = Forgotten {
        unread: 0,
        ended: true,
        quiet: false,
        violation: None,
    };
    assert_eq!(meter.forget(id), Some(forgotten));
    assert_eq!((meter.streams(), meter.unread(), meter.violation()), (0, 0, None));
}

// P30: a body that is dropped unread counts no longer; its reset was a plain cancel.
#[tokio::test]
async fn dropped_unread() {
    let (near, far) = tokio::io::duplex(256 * 1024);
    tokio::spawn(serve(far));
    let (mut client, connection, meter) = client(near).await;
    let connection = tokio::spawn(connection);
    let (response, mut upload) = client.send_request(post(), false).unwrap();
    let id = u32::from(response.stream_id());
    upload.send_data(Bytes::from(vec![5; 30_000]), false).unwrap();
    upload.send_trailers(HeaderMap::new()).unwrap();
    let mut body = response.await.unwrap().into_body();
    body.data().await.unwrap().unwrap();
    assert!(meter.unread() > 0);
    let forgotten = meter.forget(id).unwrap();
    drop((body, upload, client));
    assert!(forgotten.unread > 0);
    assert_eq!(meter.unread(), 0);
    connection.await.unwrap().unwrap();
    assert_eq!((meter.opened(), meter.error_resets_sent()), (1, 0));
}

/// What a request and its connection end with when the peer sends `answer` after SETTINGS.
async fn against(answer: Vec<u8>) -> (h2::Error, h2::Error, Arc<Meter>) {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (mut client, connection, meter) = client(near).await;
    let connection = tokio::spawn(connection);
    let (response, _) = client.send_request(post(), true).unwrap();
    far.write_all(&wire(kind::SETTINGS, 0, 0, &[])).await.unwrap();
    // Wait for the request, so that the stream is open.
    while meter.opened() == 0 {
        far.read_exact(&mut [0; 9]).await.unwrap();
    }
    far.write_all(&answer).await.unwrap();
    let error = response.await.unwrap_err();
    (error, connection.await.unwrap().unwrap_err(), meter)
}

// P44: a flood ends the connection with an error that names the bound, for the request and for the driver.
#[tokio::test(start_paused = true)]
async fn flood_ends_the_session() {
    let (request, connection, meter) = against(wire(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]).repeat(2_000)).await;
    let violation = Violation::ControlRate { per_second: 1_000 };
    assert_eq!(meter.violation(), Some(violation));
    for error in [request, connection] {
        assert!(error.is_io());
        assert!(
            error
                .get_io()
                .unwrap()
                .to_string()
                .contains(&violation.to_string()),
            "{error}"
        );
    }
}

// P44: h2 keeps interim responses as long as nobody polls the response; the meter ends that.
#[tokio::test]
async fn interim_flood_ends_the_session_at_twice_the_bound() {
    let (_, _, meter) = against(wire(kind::HEADERS, END_HEADERS, 1, b"\x08\x03103").repeat(1_000)).await;
    assert_eq!(
        meter.violation(),
        Some(Violation::Informational { stream: 1, max: 64 })
    );
    assert_eq!(
        meter.stream_violation(1),
        Some(Violation::Informational { stream: 1, max: 32 })
    );
}

// P44: h2 wakes the response for each interim response, so that its owner can look and give up.
#[tokio::test]
async fn interim_flood_is_seen_by_the_stream() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (mut client, connection, meter) = client(near).await;
    tokio::spawn(connection);
    let (response, _) = client.send_request(post(), true).unwrap();
    let id = u32::from(response.stream_id());
    far.write_all(&wire(kind::SETTINGS, 0, 0, &[])).await.unwrap();
    while meter.opened() == 0 {
        far.read_exact(&mut [0; 9]).await.unwrap();
    }
    far.write_all(&wire(kind::HEADERS, END_HEADERS, id, b"\x08\x03103").repeat(40))
        .await
        .unwrap();
    let mut response = pin!(response);
    let seen = poll_fn(|cx| {
        assert!(response.as_mut().poll(cx).is_pending());
        meter.stream_violation(id).map_or(Poll::Pending, Poll::Ready)
    })
    .await;
    assert_eq!(seen, Violation::Informational { stream: id, max: 32 });
    assert_eq!(meter.violation(), None, "the session lives");
}

// P31: a reset after a complete response, that comes before any of it is read, is success with h2.
#[tokio::test]
async fn reset_after_a_complete_response() {
    for reset in [NO_ERROR, CANCEL] {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut client, connection, meter) = client(near).await;
        tokio::spawn(connection);
        let (response, _upload) = client.send_request(post(), false).unwrap();
        let id = u32::from(response.stream_id());
        far.write_all(&wire(kind::SETTINGS, 0, 0, &[])).await.unwrap();
        while meter.opened() == 0 {
            far.read_exact(&mut [0; 9]).await.unwrap();
        }
        let mut answer = wire(kind::HEADERS, END_HEADERS, id, &[0x88]);
        answer.extend(wire(kind::DATA, END_STREAM, id, b"all of it"));
        answer.extend(wire(kind::RST_STREAM, 0, id, &[0, 0, 0, reset]));
        far.write_all(&answer).await.unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "all of it");
        assert!(body.data().await.is_none());
        assert!(meter.forget(id).unwrap().ended);
    }
}
