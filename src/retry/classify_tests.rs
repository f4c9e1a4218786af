//! Real errors of the libraries below, and h2pool's own.

use std::convert::Infallible;
use std::fmt;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::error::Kind;
use crate::retry::Verdict;

fn verdict(error: impl StdError + 'static) -> (Verdict, Failure) {
    let found = classify(&error);
    (found.outcome.verdict(), found.failure)
}

/// An error of somebody's around another one.
#[derive(Debug)]
struct Wrapped(Box<dyn StdError + Send + Sync>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrapped")
    }
}

impl StdError for Wrapped {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

#[test]
fn our_own_error_speaks_for_itself() {
    // R4 R5 (P22): unprocessed and worth a retry; unprocessed and not; ambiguous.
    for (kind, expected, failure) in [
        (Kind::Connect, Verdict::Unprocessed, Failure::Connect),
        (Kind::Acquire, Verdict::Unprocessed, Failure::Timeout),
        (Kind::Certificate, Verdict::Final, Failure::Certificate),
        (Kind::Config, Verdict::Final, Failure::Config),
        (Kind::Saturated, Verdict::Final, Failure::Refusal),
        (Kind::Closed, Verdict::Final, Failure::Refusal),
        (Kind::H1Only, Verdict::Final, Failure::Refusal),
        (Kind::Goaway, Verdict::Transient, Failure::Reset),
        (Kind::Reset, Verdict::Transient, Failure::Reset),
        (Kind::KeepAlive, Verdict::Transient, Failure::Timeout),
        (Kind::Timeout, Verdict::Transient, Failure::Timeout),
        (Kind::Io, Verdict::Transient, Failure::Incomplete),
        (Kind::Protocol, Verdict::Transient, Failure::Protocol),
        (Kind::Body, Verdict::Final, Failure::Body),
    ] {
        assert_eq!(verdict(Error::new(kind, "x")), (expected, failure), "{kind:?}");
    }
    let refused = Error::new(Kind::Reset, "refused").with_unprocessed(true);
    assert_eq!(verdict(refused.clone()), (Verdict::Unprocessed, Failure::Refused));
    // R9: what the server refused is free to send again, what never reached it is not.
    assert!(!classify(&refused).outcome.costs());
    assert!(classify(&Error::new(Kind::Connect, "x")).outcome.costs());
}

#[test]
fn our_own_error_of_a_connection_is_named_by_what_lies_beneath() {
    // R14
    let over = |kind: io::ErrorKind| Error::new(Kind::Io, "x").with_source(io::Error::from(kind));
    for (kind, failure) in [
        (io::ErrorKind::ConnectionReset, Failure::Reset),
        (io::ErrorKind::BrokenPipe, Failure::Reset),
        (io::ErrorKind::UnexpectedEof, Failure::Incomplete),
        // Only connect(2) answers so, and this is none.
        (io::ErrorKind::ConnectionRefused, Failure::Io),
        (io::ErrorKind::OutOfMemory, Failure::Io),
    ] {
        assert_eq!(verdict(over(kind)), (Verdict::Transient, failure), "{kind:?}");
    }
}

#[test]
fn what_the_same_request_would_meet_again_is_final() {
    // R4: a response that is malformed, or over a bound of its own; a session that broke takes others along.
    for kind in [Kind::Protocol, Kind::Reset] {
        let error = Error::new(kind, "x").lasting();
        assert!(!error.is_transient());
        assert_eq!(verdict(error), (Verdict::Final, Failure::Protocol), "{kind:?}");
    }
}

#[test]
fn a_connection_that_breaks_within_a_response_is_no_fault_of_the_body() {
    // W2 R4: a round of a long poll that reads its answer, or a service below the layer that does.
    for (kind, expected, failure) in [
        (Kind::Io, Verdict::Transient, Failure::Incomplete),
        (Kind::Reset, Verdict::Transient, Failure::Reset),
        (Kind::Goaway, Verdict::Transient, Failure::Reset),
        (Kind::KeepAlive, Verdict::Transient, Failure::Timeout),
        (Kind::Timeout, Verdict::Transient, Failure::Timeout),
        (Kind::Closed, Verdict::Final, Failure::Refusal),
        (Kind::Body, Verdict::Final, Failure::Body),
    ] {
        let error = Error::new(kind, "x").in_body();
        assert!(error.is_body());
        assert_eq!(verdict(error), (expected, failure), "{kind:?}");
    }
    // A fallback's body is somebody else's, and judged by what it says; the request's is the caller's own.
    let broken = || Error::new(Kind::Body, "x").with_source(io::Error::from(io::ErrorKind::ConnectionReset));
    assert_eq!(verdict(broken().in_body()), (Verdict::Transient, Failure::Reset));
    assert_eq!(verdict(broken()), (Verdict::Final, Failure::Body));
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    let refused = Error::new(Kind::Body, "x").with_source(refused).in_body();
    assert_eq!(
        verdict(refused).0,
        Verdict::Transient,
        "it was processed: a response had come"
    );
}

#[test]
fn our_own_error_decides_wherever_it_is_in_the_chain() {
    // R1 R4
    let ours = Error::certificate(io::Error::from(io::ErrorKind::ConnectionReset));
    let around = io::Error::new(io::ErrorKind::ConnectionReset, Wrapped(Box::new(ours)));
    assert_eq!(verdict(around), (Verdict::Final, Failure::Certificate));
}

#[test]
fn io_errors_by_their_kind() {
    // R4
    use io::ErrorKind as K;
    for (kind, expected, failure) in [
        (K::ConnectionReset, Verdict::Transient, Failure::Reset),
        (K::BrokenPipe, Verdict::Transient, Failure::Reset),
        (K::ConnectionAborted, Verdict::Transient, Failure::Reset),
        (K::UnexpectedEof, Verdict::Transient, Failure::Incomplete),
        (K::TimedOut, Verdict::Transient, Failure::Timeout),
        (K::HostUnreachable, Verdict::Transient, Failure::Connect),
        (K::ConnectionRefused, Verdict::Unprocessed, Failure::Connect),
        (K::InvalidData, Verdict::Final, Failure::Certificate),
        (K::PermissionDenied, Verdict::Final, Failure::Other),
        (K::Other, Verdict::Final, Failure::Other),
    ] {
        assert_eq!(verdict(io::Error::from(kind)), (expected, failure), "{kind:?}");
        assert_eq!(
            verdict(Wrapped(Box::new(io::Error::from(kind)))),
            (expected, failure)
        );
    }
    let hidden = io::Error::other(io::Error::from(K::ConnectionReset));
    assert_eq!(
        verdict(hidden),
        (Verdict::Transient, Failure::Reset),
        "source() would skip the inner error"
    );
}

#[tokio::test(start_paused = true)]
async fn time_limits_of_tokio_and_tower() {
    // R4
    let elapsed = tokio::time::timeout(std::time::Duration::ZERO, std::future::pending::<()>());
    assert_eq!(
        verdict(elapsed.await.unwrap_err()),
        (Verdict::Transient, Failure::Timeout)
    );
    let elapsed = tower::timeout::error::Elapsed::new();
    assert_eq!(verdict(elapsed), (Verdict::Transient, Failure::Timeout));
}

#[test]
fn what_nobody_knows_is_final_and_a_long_chain_ends() {
    // R4
    assert_eq!(verdict(fmt::Error), (Verdict::Final, Failure::Other));
    let mut deep: Box<dyn StdError + Send + Sync> = Box::new(io::Error::from(io::ErrorKind::TimedOut));
    for _ in 0..1_000 {
        deep = Box::new(Wrapped(deep));
    }
    let deep = *deep.downcast::<Wrapped>().unwrap();
    assert_eq!(chain(&deep).count(), DEPTH);
    assert_eq!(verdict(deep), (Verdict::Final, Failure::Other));
}

#[cfg(feature = "tls-no-provider")]
#[test]
fn a_refused_certificate_is_final_under_a_failed_connection() {
    // R4
    let refused = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
    let error = io::Error::new(io::ErrorKind::ConnectionAborted, refused);
    assert_eq!(verdict(error), (Verdict::Final, Failure::Certificate));
}

/// What a client sees when the server does this to its only request.
async fn h2_error<F>(server: impl FnOnce(h2::server::Connection<DuplexStream, Bytes>) -> F) -> h2::Error
where
    F: Future<Output = ()>,
{
    h2_error_over(|far| async { server(h2::server::handshake(far).await.unwrap()).await }).await
}

/// The same, where the server is made of bytes.
async fn h2_error_over<F>(server: impl FnOnce(DuplexStream) -> F) -> h2::Error
where
    F: Future<Output = ()>,
{
    let (near, far) = duplex(64 * 1024);
    let accept = server(far);
    let request = async {
        let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
        let ask = async {
            match sender.send_request(http::Request::new(()), true) {
                Ok((response, _)) => response.await.unwrap_err(),
                Err(error) => error,
            }
        };
        tokio::select! { error = ask => error, error = driven(connection) => match error {} }
    };
    tokio::join!(accept, request).1
}

async fn driven<T>(connection: impl Future<Output = T>) -> Infallible {
    connection.await;
    std::future::pending().await
}

#[tokio::test]
async fn a_refused_stream_and_a_goaway_that_excludes_it_were_not_processed() {
    // R5
    for (reason, expected, failure) in [
        (h2::Reason::REFUSED_STREAM, Verdict::Unprocessed, Failure::Refused),
        (h2::Reason::HTTP_1_1_REQUIRED, Verdict::Final, Failure::Refusal),
        (h2::Reason::INTERNAL_ERROR, Verdict::Transient, Failure::Reset),
        (h2::Reason::CANCEL, Verdict::Transient, Failure::Reset),
    ] {
        let error = h2_error(|mut connection| async move {
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            respond.send_reset(reason);
            connection.accept().await;
        });
        assert_eq!(verdict(error.await), (expected, failure), "{reason:?}");
    }
    let error = h2_error(|mut connection| async move {
        connection.abrupt_shutdown(h2::Reason::NO_ERROR);
        let _ = connection.accept().await;
    });
    let error = error.await;
    assert!(error.is_go_away() && error.is_remote(), "{error:?}");
    assert_eq!(verdict(error), (Verdict::Unprocessed, Failure::Refused));
}

#[tokio::test]
async fn a_connection_that_ends_is_ambiguous() {
    // R4
    let error = h2_error(|mut connection| async move {
        let _request = connection.accept().await.unwrap().unwrap();
        drop(connection);
    });
    let (verdict, failure) = verdict(error.await);
    assert_eq!(verdict, Verdict::Transient);
    assert!(
        matches!(failure, Failure::Reset | Failure::Incomplete | Failure::Io),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_ambiguous_and_a_misuse_is_final() {
    // R4
    let broken = h2_error_over(|mut far| async move {
        // SETTINGS, and DATA on stream 0.
        let frames = [[0, 0, 0, 4, 0, 0, 0, 0, 0], [0; 9]].concat();
        far.write_all(&frames).await.unwrap();
        // Until the client hangs up.
        tokio::io::copy(&mut far, &mut tokio::io::sink()).await.unwrap();
    });
    let broken = broken.await;
    assert!(broken.is_go_away() && broken.is_library(), "{broken:?}");
    assert_eq!(verdict(broken), (Verdict::Transient, Failure::Protocol));

    let misused = h2::Error::from(h2::Reason::NO_ERROR);
    assert_eq!(verdict(misused), (Verdict::Final, Failure::Config));
}

#[cfg(all(feature = "tcp", feature = "http1"))]
#[tokio::test]
async fn hyper_util_says_whether_it_could_connect() {
    // R4 R5
    use http_body_util::Empty;
    use hyper_util::client::legacy::{Client, Error as LegacyError};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    async fn error(kind: io::ErrorKind) -> LegacyError {
        let connector = tower::service_fn(move |_: http::Uri| {
            std::future::ready(Err::<TokioIo<tokio::net::TcpStream>, _>(io::Error::from(kind)))
        });
        let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
        client
            .get(http::Uri::from_static("http://a.example/"))
            .await
            .unwrap_err()
    }
    let unreachable = error(io::ErrorKind::HostUnreachable).await;
    assert_eq!(verdict(unreachable), (Verdict::Unprocessed, Failure::Connect));
    let tls = error(io::ErrorKind::InvalidData).await;
    assert_eq!(verdict(tls), (Verdict::Final, Failure::Certificate));
}

/// What hyper says of a request to a server that hears it begin, says this, and hangs up.
#[cfg(feature = "http1")]
async fn hyper_error<B>(request: http::Request<B>, answer: &[u8]) -> hyper::Error
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + 'static,
{
    use tokio::io::AsyncReadExt;

    let (near, mut far) = duplex(1024);
    let near = hyper_util::rt::TokioIo::new(near);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(near).await.unwrap();
    let serve = async move {
        let _ = far.read_u8().await;
        far.write_all(answer).await.unwrap();
    };
    let (_, answer, ()) = tokio::join!(connection, sender.send_request(request), serve);
    answer.unwrap_err()
}

#[cfg(feature = "http1")]
#[tokio::test]
async fn hyper_reports_an_incomplete_message() {
    // R4
    let request = || http::Request::new(http_body_util::Empty::<Bytes>::new());
    let incomplete = hyper_error(request(), b"").await;
    assert_eq!(verdict(incomplete), (Verdict::Transient, Failure::Incomplete));
    let nonsense = hyper_error(request(), b"nonsense\r\n\r\n").await;
    assert_eq!(verdict(nonsense), (Verdict::Final, Failure::Protocol));
}

#[cfg(feature = "http1")]
#[tokio::test]
async fn a_body_shorter_than_it_was_announced_is_the_callers_mistake() {
    // R4
    let chunk = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"x")))]);
    let short = http::Request::put("/")
        .header("content-length", "2")
        .body(http_body_util::StreamBody::new(chunk))
        .unwrap();
    let error = hyper_error(short, b"").await;
    assert!(error.is_body_write_aborted(), "{error:?}");
    assert_eq!(verdict(error), (Verdict::Final, Failure::Config));
}

#[cfg(feature = "http1")]
#[tokio::test]
async fn hyper_says_that_a_connection_is_gone() {
    // R4
    let (near, _far) = duplex(1024);
    let near = hyper_util::rt::TokioIo::new(near);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(near).await.unwrap();
    drop(connection);
    let request = http::Request::new(http_body_util::Empty::<Bytes>::new());
    let canceled = sender.send_request(request).await.unwrap_err();
    let closed = sender.ready().await.unwrap_err();
    assert!(canceled.is_canceled() && closed.is_closed());
    for error in [canceled, closed] {
        assert_eq!(verdict(error), (Verdict::Transient, Failure::Reset));
    }
}

#[cfg(feature = "http1")]
#[tokio::test]
async fn hyper_says_that_a_connection_is_gone_in_flight() {
    use tokio::io::AsyncReadExt as _;
    let (near, mut far) = duplex(1024);
    let near = hyper_util::rt::TokioIo::new(near);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(near).await.unwrap();
    let task = tokio::spawn(connection);
    let request = http::Request::new(http_body_util::Empty::<Bytes>::new());
    let answer = tokio::spawn(sender.send_request(request));
    assert!(far.read(&mut [0; 1024]).await.unwrap() > 0);
    task.abort();
    let error = answer.await.unwrap().unwrap_err();
    assert_eq!(verdict(error), (Verdict::Transient, Failure::Reset));
}
