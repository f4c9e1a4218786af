//! Connectors made for hyper serve the pool: hyper-util's, hyper-rustls's, and a proxy tunnel.
#![cfg(all(feature = "tls", feature = "http1"))]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
#[path = "support/certs.rs"]
mod certs;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use certs::Tls;
use h2pool::connect::{Connect, Connection, HyperConnector, Offer, TlsConnector};
use h2pool::{Error, H2Pool, Origin};
use http::{Request, Uri, Version};
use http_body_util::Empty;
use hyper::rt::ReadBufCursor;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tower::service_fn;

/// A TLS server that greets with one byte and reports the ALPN that it settled.
async fn start(config: Arc<ServerConfig>) -> (Origin, mpsc::UnboundedReceiver<Option<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin::https("localhost", listener.local_addr().unwrap().port()).unwrap();
    let (report, settled) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else {
                continue;
            };
            let _ = report.send(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec));
            stream.write_all(b"!").await.unwrap();
            stream.flush().await.unwrap();
            tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    (origin, settled)
}

fn both() -> HttpsConnector<HttpConnector> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(certs::client_config());
    builder.https_or_http().enable_all_versions().build()
}

fn only_h1() -> HttpsConnector<HttpConnector> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(certs::client_config());
    builder.https_or_http().enable_http1().build()
}

async fn dial(connector: &impl Connect<Origin>, origin: &Origin, offer: Offer) -> Result<Connection, Error> {
    connector.connect(origin, offer).await
}

async fn greeted(mut connection: Connection) {
    assert_eq!(connection.read_u8().await.unwrap(), b'!');
}

#[tokio::test]
async fn hyper_rustls_settles_the_protocol_by_alpn() {
    // P25
    let connector = HyperConnector::new(both());
    for (server, version) in [
        (Tls::any(), Version::HTTP_2),
        (Tls::h1(), Version::HTTP_11),
        (Tls::new(&[]), Version::HTTP_11),
    ] {
        let (origin, _settled) = start(server.server()).await;
        let connection = dial(&connector, &origin, Offer::Any).await.unwrap();
        assert_eq!(connection.version(), version);
        assert!(connection.is_authenticated());
        assert_eq!(connection.peer().unwrap().port(), origin.port());
        greeted(connection).await;
    }
}

#[tokio::test]
async fn a_second_connector_serves_where_only_h1_is_wanted() {
    // P25: without it, an h2 answer is obeyed.
    let (origin, mut settled) = start(Tls::any().server()).await;
    let narrow = HyperConnector::new(both()).h1(only_h1());
    let obeying = HyperConnector::new(both());
    let h2 = Some(b"h2".to_vec());
    for (connector, offer, version, alpn) in [
        (&narrow, Offer::Any, Version::HTTP_2, h2.clone()),
        (&narrow, Offer::H1, Version::HTTP_11, None),
        (&obeying, Offer::H1, Version::HTTP_2, h2),
    ] {
        let connection = dial(connector, &origin, offer).await.unwrap();
        assert_eq!(connection.version(), version, "{offer:?}");
        let settled = settled.recv().await.unwrap();
        assert_eq!(settled.filter(|name| name == b"h2"), alpn);
        greeted(connection).await;
    }
}

#[tokio::test]
async fn errors_of_hyper_connectors_are_classified() {
    // P22, P41
    let connector = HyperConnector::new(both());
    let (origin, _settled) = start(Tls::any().wrong_name().server()).await;
    let error = dial(&connector, &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_certificate() && !error.is_transient(), "{error:?}");
    assert_eq!(error.origin(), Some(origin.to_string().as_str()));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = Origin::http("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
    drop(listener);
    let error = dial(&connector, &closed, Offer::Any).await.unwrap_err();
    assert!(
        error.is_connect() && error.is_transient() && !error.is_certificate(),
        "{error:?}"
    );
}

/// A connector for hyper that fails.
fn failing<E>(fail: fn() -> E) -> impl Connect<Origin>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    HyperConnector::new(service_fn(move |_: Uri| async move {
        Err::<TokioIo<TcpStream>, _>(fail())
    }))
}

#[tokio::test]
async fn time_limits_within_hyper_connectors_are_told() {
    // P41: also from within what an `io::Error` wraps.
    let origin = Origin::http("a.test", 80).unwrap();
    let limits: [fn() -> io::Error; 2] = [
        || io::ErrorKind::TimedOut.into(),
        || io::Error::other(io::Error::from(io::ErrorKind::TimedOut)),
    ];
    for limit in limits {
        let error = dial(&failing(limit), &origin, Offer::Any).await.unwrap_err();
        assert!(error.is_connect() && error.is_timeout(), "{error:?}");
    }
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let error = dial(&failing(refused), &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && !error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn errors_of_our_own_pass_through_hyper_connectors() {
    // P41: a connector that says what is wrong is believed.
    let origin = Origin::http("a.test", 80).unwrap();
    let config = failing(|| Error::config("no such tenant"));
    let error = dial(&config, &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("no such tenant"));
    assert_eq!(error.origin(), Some("http://a.test:80"));
    let pinned = failing(|| Error::certificate("not the pinned one"));
    let error = dial(&pinned, &origin, Offer::Any).await.unwrap_err();
    assert!(error.is_certificate() && !error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn plain_text_by_hyper_util_speaks_h1_or_h2_by_prior_knowledge() {
    // P28
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin::http("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
    let plain = HyperConnector::new(HttpConnector::new());
    let prior = plain.clone().http2_prior_knowledge(true);
    for (connector, offer, version) in [
        (&plain, Offer::Any, Version::HTTP_11),
        (&prior, Offer::Any, Version::HTTP_2),
        (&prior, Offer::H1, Version::HTTP_11),
    ] {
        let connection = dial(connector, &origin, offer).await.unwrap();
        let (_server, client) = listener.accept().await.unwrap();
        assert!(
            connection.version() == version && !connection.is_authenticated(),
            "{offer:?}"
        );
        assert_eq!(connection.local(), Some(client));
    }
}

/// A CONNECT proxy that reports what it was asked for.
async fn proxy() -> (Uri, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let (report, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, report.clone()));
        }
    });
    (uri, asked)
}

async fn relay(client: TcpStream, report: mpsc::UnboundedSender<String>) -> std::io::Result<()> {
    let mut client = BufStream::new(client);
    let mut request = String::new();
    client.read_line(&mut request).await?;
    while client.read_line(&mut String::new()).await? > 2 {}
    let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let _ = report.send(target.clone());
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    client.flush().await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[tokio::test]
async fn a_proxy_tunnel_carries_our_tls_which_narrows_alpn_by_itself() {
    // P25
    let (origin, mut settled) = start(Tls::any().server()).await;
    let (proxy, mut asked) = proxy().await;
    let tunnel = HyperConnector::new(Tunnel::new(proxy, HttpConnector::new()));
    let connector = TlsConnector::new(certs::client_config()).over(tunnel);
    for (offer, version, alpn) in [
        (Offer::Any, Version::HTTP_2, "h2"),
        (Offer::H1, Version::HTTP_11, "http/1.1"),
    ] {
        let connection = dial(&connector, &origin, offer).await.unwrap();
        assert_eq!(connection.version(), version);
        assert!(connection.is_authenticated());
        assert_eq!(
            asked.recv().await.unwrap(),
            format!("localhost:{}", origin.port())
        );
        assert_eq!(settled.recv().await.unwrap(), Some(alpn.into()));
        greeted(connection).await;
    }
}

/// A connection that says that it leads to a forward proxy.
struct ToProxy(TokioIo<DuplexStream>);

impl hyper_util::client::legacy::connect::Connection for ToProxy {
    fn connected(&self) -> Connected {
        Connected::new().proxy(true)
    }
}

impl hyper::rt::Read for ToProxy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for ToProxy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_forward_proxy_gets_the_absolute_form() {
    // P28
    let (report, mut heard) = mpsc::unbounded_channel();
    let connector = HyperConnector::new(service_fn(move |_: Uri| {
        let (ours, theirs) = tokio::io::duplex(4096);
        report.send(BufStream::new(theirs)).unwrap();
        async { Ok::<_, Error>(ToProxy(TokioIo::new(ours))) }
    }));
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    for (method, uri, line) in [
        (
            "GET",
            "http://u:p@a.test/x?y",
            "GET http://a.test/x?y HTTP/1.1\r\n",
        ),
        ("CONNECT", "http://b.test:80", "CONNECT b.test:80 HTTP/1.1\r\n"),
    ] {
        let request = Request::builder().method(method).uri(uri);
        let request = pool.request(request.body(Empty::<Bytes>::new()).unwrap());
        let _request = tokio::spawn(request);
        let mut said = String::new();
        heard.recv().await.unwrap().read_line(&mut said).await.unwrap();
        assert_eq!(said, line);
    }
}
