//! Connectors from functions, and the in-memory pair: what a test or an application of its own brings.

use std::sync::Arc;

use h2pool::connect::{Connect, Connection, Offer, blocking, from_fn, memory};
use h2pool::{Error, Origin};
use http::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

fn origin() -> Origin {
    Origin::https("a.test", 443).unwrap()
}

async fn round_trip(mut client: Connection, mut server: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    client.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    server.read_exact(&mut heard).await.unwrap();
    server.write_all(b"pong").await.unwrap();
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"pong");
}

#[tokio::test]
async fn memory_dials_are_answered_one_by_one() {
    let (connector, mut listener) = memory::pair::<Origin>();
    assert!(listener.try_accept().is_none());

    let client = tokio::spawn(connector.connect(&origin(), Offer::H1));
    let dial = listener.accept().await.unwrap();
    assert_eq!((dial.key(), dial.offer()), (&origin(), Offer::H1));
    let server = dial.accept(Version::HTTP_11);
    let client = client.await.unwrap().unwrap();
    assert_eq!(client.version(), Version::HTTP_11);
    assert!(client.is_authenticated() && client.peer().is_none());
    round_trip(client, server).await;

    let client = tokio::spawn(connector.connect(&origin(), Offer::Any));
    let _server = listener
        .accept()
        .await
        .unwrap()
        .authenticated(false)
        .accept(Version::HTTP_2);
    let client = client.await.unwrap().unwrap();
    assert!(client.version() == Version::HTTP_2 && !client.is_authenticated());
}

#[tokio::test]
async fn memory_dials_fail_hang_and_are_refused_as_the_test_says() {
    // P8
    let (connector, mut listener) = memory::pair::<Origin>();
    let client = tokio::spawn(connector.connect(&origin(), Offer::Any));
    listener
        .accept()
        .await
        .unwrap()
        .refuse(Error::certificate("not today"));
    assert!(client.await.unwrap().unwrap_err().is_certificate());

    let client = tokio::spawn(connector.connect(&origin(), Offer::Any));
    drop(listener.accept().await.unwrap());
    assert!(client.await.unwrap().unwrap_err().is_connect());

    let client = tokio::spawn(connector.connect(&origin(), Offer::Any));
    let held = listener.accept().await.unwrap();
    assert!(!held.is_abandoned() && !client.is_finished());
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    assert!(held.is_abandoned());
    let mut server = held.accept(Version::HTTP_2);
    assert_eq!(
        server.read(&mut [0; 1]).await.unwrap(),
        0,
        "the abandoned connection is at its end"
    );

    drop(listener);
    let error = connector.connect(&origin(), Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && error.is_transient());
}

#[tokio::test]
async fn the_listener_ends_with_the_last_connector() {
    let (connector, mut listener) = memory::pair::<Origin>();
    let clone = connector.clone();
    drop(connector);
    let client = tokio::spawn(clone.connect(&origin(), Offer::Any));
    assert!(listener.accept().await.is_some());
    drop(clone);
    assert!(client.await.unwrap().is_err());
    assert!(listener.accept().await.is_none());
}

#[tokio::test]
async fn a_function_is_a_connector_and_an_arc_of_one_too() {
    let connector = Arc::new(from_fn(|key: &Origin, offer| {
        let host = key.host().to_owned();
        async move {
            assert_eq!((host.as_str(), offer), ("a.test", Offer::H2));
            Ok(Connection::new(duplex(64).0, Version::HTTP_2))
        }
    }));
    let connection = connector.connect(&origin(), Offer::H2).await.unwrap();
    assert_eq!(connection.version(), Version::HTTP_2);
    assert!(!connection.is_authenticated());
}

#[tokio::test]
async fn wrapping_keeps_what_is_known() {
    // P45
    let peer = ([192, 0, 2, 1], 443).into();
    let local = ([192, 0, 2, 2], 50_000).into();
    let (client, server) = duplex(64);
    let connection = Connection::new(client, Version::HTTP_2)
        .authenticated(true)
        .peer_addr(peer)
        .local_addr(local)
        .wrap(tokio::io::BufStream::new);
    assert_eq!((connection.peer(), connection.local()), (Some(peer), Some(local)));
    assert!(connection.is_authenticated() && connection.version() == Version::HTTP_2);
    round_trip_flushed(connection, server).await;
}

/// The wrapper buffers, so what was written shows only once it is flushed.
async fn round_trip_flushed(mut client: Connection, mut server: tokio::io::DuplexStream) {
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let mut heard = [0; 4];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
}

#[tokio::test]
async fn a_blocking_function_runs_off_the_async_thread() {
    // P38
    let (report, mut ran_on) = tokio::sync::mpsc::unbounded_channel();
    let connector = blocking(move |_: &Origin, _| {
        report.send(std::thread::current().id()).unwrap();
        Ok(Connection::new(duplex(64).0, Version::HTTP_11))
    });
    let connection = connector.connect(&origin(), Offer::Any).await.unwrap();
    assert_eq!(connection.version(), Version::HTTP_11);
    assert_ne!(ran_on.recv().await.unwrap(), std::thread::current().id());
}

#[tokio::test]
async fn a_blocking_function_that_panics_fails_its_dial_alone() {
    // P8
    let connector = blocking(|key: &Origin, _| {
        assert_ne!(key.port(), 1, "on purpose");
        Ok(Connection::new(duplex(64).0, Version::HTTP_11))
    })
    .threads(1);
    let bad = Origin::https("a.test", 1).unwrap();
    let error = connector.connect(&bad, Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && error.is_unprocessed());
    connector.connect(&origin(), Offer::Any).await.unwrap();
}
