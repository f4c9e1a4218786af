//! TLS: ALPN as the pool offers it, certificates, errors that say what is wrong, tenants kept apart.
#![cfg(feature = "tls")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
#[path = "../support/certs.rs"]
mod certs;

mod certificates;
mod platform;
mod sessions;

use std::io;
use std::sync::Arc;

use certs::Tls;
use h2pool::connect::{Connect, Connection, Offer, TcpConnector, TlsConnector, from_fn};
use h2pool::{Error, Origin};
use http::Version;
use rustls::pki_types::CertificateDer;
use rustls::server::Acceptor;
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::LazyConfigAcceptor;

/// What the server saw of one handshake.
#[derive(Debug)]
struct Seen {
    alpn: Vec<Vec<u8>>,
    name: Option<String>,
    client: Option<CertificateDer<'static>>,
    resumed: bool,
}

/// A TLS server on loopback, which greets each client with one byte and then waits for its end.
struct Server {
    port: u16,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Server {
    async fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (report, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(greet(tcp, config.clone(), report.clone()));
            }
        });
        Self { port, seen }
    }

    fn origin(&self) -> Origin {
        Origin::https("localhost", self.port).unwrap()
    }
}

async fn greet(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    report: mpsc::UnboundedSender<Seen>,
) -> io::Result<()> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
    let hello = start.client_hello();
    let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
    let name = hello.server_name().map(str::to_owned);
    let mut stream = start.into_stream(config).await?;
    let session = stream.get_ref().1;
    let client = session
        .peer_certificates()
        .map(|chain| chain[0].clone().into_owned());
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let _ = report.send(Seen {
        alpn,
        name,
        client,
        resumed,
    });
    stream.write_all(b"!").await?;
    stream.flush().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Reads the greeting, with which TLS 1.3 session tickets arrive.
async fn greeted(mut connection: Connection) {
    assert_eq!(connection.read_u8().await.unwrap(), b'!');
}

/// Whatever the origin, to this port on loopback.
fn always_to(port: u16) -> impl Connect<Origin> {
    from_fn(move |_: &Origin, _| async move {
        let tcp = TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(Error::connect)?;
        Ok(Connection::new(tcp, Version::HTTP_11))
    })
}

async fn dial(connector: &impl Connect<Origin>, origin: &Origin, offer: Offer) -> Result<Connection, Error> {
    connector.connect(origin, offer).await
}

#[tokio::test]
async fn the_offer_decides_what_alpn_says_and_the_server_what_is_spoken() {
    // P24, P25
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (server, offer, offered, version) in [
        (Tls::any(), Offer::Any, both, Version::HTTP_2),
        (Tls::any(), Offer::H1, &both[1..], Version::HTTP_11),
        (Tls::any(), Offer::H2, &both[..1], Version::HTTP_2),
        (Tls::any().tls12(), Offer::Any, both, Version::HTTP_2),
        (Tls::h1(), Offer::Any, both, Version::HTTP_11),
        (Tls::new(&[]), Offer::Any, both, Version::HTTP_11),
        (Tls::new(&[]), Offer::H2, &both[..1], Version::HTTP_11),
    ] {
        let mut server = Server::start(server.server()).await;
        // The configuration's own ALPN does not count.
        let connector = TlsConnector::new(Tls::new(&[b"spdy/3"]).client());
        let connection = dial(&connector, &server.origin(), offer).await.unwrap();
        assert_eq!(connection.version(), version, "{offer:?}");
        assert!(connection.is_authenticated());
        assert_eq!(connection.peer().map(|peer| peer.port()), Some(server.port));
        assert!(connection.local().is_some());
        let seen = server.seen.recv().await.unwrap();
        assert_eq!(seen.alpn, offered);
        assert_eq!(seen.name.as_deref(), Some("localhost"));
        greeted(connection).await;
    }
}

#[tokio::test]
async fn a_server_that_refuses_alpn_says_what_it_lacks() {
    // P26, P27
    let connector = TlsConnector::new(certs::client_config());
    let h1 = Server::start(Tls::h1().server()).await;
    let error = dial(&connector, &h1.origin(), Offer::H2).await.unwrap_err();
    assert!(error.is_h1_only() && error.is_unprocessed(), "{error:?}");

    let h2 = Server::start(Tls::h2().server()).await;
    let error = dial(&connector, &h2.origin(), Offer::H1).await.unwrap_err();
    assert!(
        error.is_connect() && !error.is_certificate() && error.to_string().contains("ALPN"),
        "{error:?}"
    );
}

#[tokio::test]
async fn addresses_are_verified_as_addresses() {
    let mut server = Server::start(Tls::any().server()).await;
    let connector = TlsConnector::new(certs::client_config()).over(always_to(server.port));
    for host in ["127.0.0.1", "::1"] {
        let origin = Origin::https(host, 443).unwrap();
        greeted(dial(&connector, &origin, Offer::Any).await.unwrap()).await;
        assert_eq!(
            server.seen.recv().await.unwrap().name,
            None,
            "RFC 6066 §3: no address in SNI"
        );
    }
    let other = Origin::https("127.0.0.2", 443).unwrap();
    assert!(
        dial(&connector, &other, Offer::Any)
            .await
            .unwrap_err()
            .is_certificate()
    );
}

#[tokio::test]
async fn a_name_that_tls_cannot_verify_is_a_configuration_error() {
    // P41
    let connector = TlsConnector::new(certs::client_config());
    let origin = Origin::https("a..b", 443).unwrap();
    let error = dial(&connector, &origin, Offer::Any).await.unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("`a..b`"),
        "{error}"
    );
}

#[tokio::test]
async fn plain_origins_pass_through() {
    // P28
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin::http("127.0.0.1", server.local_addr().unwrap().port()).unwrap();
    let connector = TlsConnector::new(certs::client_config());
    let plain = dial(&connector, &origin, Offer::Any).await.unwrap();
    assert!(plain.version() == Version::HTTP_11 && !plain.is_authenticated());
    let prior = connector.tcp(TcpConnector::new().http2_prior_knowledge(true));
    let plain = dial(&prior, &origin, Offer::Any).await.unwrap();
    assert!(plain.version() == Version::HTTP_2 && !plain.is_authenticated());
}

#[tokio::test]
async fn a_server_without_tls_is_recognised() {
    // P41
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\x04\0\0\0\0\0",
    ];
    let connector = TlsConnector::new(certs::client_config());
    for answer in answers {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin::https("localhost", listener.local_addr().unwrap().port()).unwrap();
        let server = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.read_u8().await.unwrap();
            tcp.write_all(answer).await.unwrap();
            tcp
        });
        let error = dial(&connector, &origin, Offer::Any).await.unwrap_err();
        assert!(
            error.is_connect() && error.is_transient() && !error.is_certificate(),
            "{error:?}"
        );
        assert!(error.to_string().contains("does not speak TLS"), "{error}");
        drop(server.await.unwrap());
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_in_the_handshake_is_a_connect_error() {
    // P41
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin::https("localhost", listener.local_addr().unwrap().port()).unwrap();
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = tcp.into_split();
        write.shutdown().await.unwrap();
        let _ = read.read_to_end(&mut Vec::new()).await;
    });
    let connector = TlsConnector::new(certs::client_config());
    let error = dial(&connector, &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && error.is_transient(), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("closed the connection during the TLS handshake"),
        "{error}"
    );
    server.await.unwrap();
}
