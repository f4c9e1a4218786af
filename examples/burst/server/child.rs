//! The server's half: accepts connections and answers after the delay, until its standard input ends.

use std::convert::Infallible;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::count::{Connection, Counter};
use super::{Address, Settings, h2};

/// Connections that may wait to be accepted; a burst over HTTP/1.1 opens a thousand at once.
const BACKLOG: u32 = 4_096;

/// What every connection needs.
pub(super) struct Shared {
    pub(super) delay: Duration,
    pub(super) streams: u32,
    pub(super) body: Bytes,
    tls: TlsAcceptor,
    counter: Arc<Counter>,
}

/// Runs the server; returns when the standard input ends.
pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("the server's runtime")?;
    let result = runtime.block_on(serve());
    runtime.shutdown_background();
    result
}

async fn serve() -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let first = lines.next_line().await?.context("no settings")?;
    let settings: Settings = serde_json::from_str(&first)?;
    let (tls, ca_pem) = certificate()?;
    let listener = listen()?;
    let addr = listener.local_addr()?;
    let counter = Arc::new(Counter::default());
    tokio::spawn(accept(
        listener,
        Arc::new(Shared {
            delay: Duration::from_millis(settings.delay_ms),
            streams: settings.streams,
            body: vec![b'.'; settings.body_bytes].into(),
            tls: TlsAcceptor::from(Arc::new(tls)),
            counter: counter.clone(),
        }),
    ));
    answer(&Address { addr, ca_pem })?;
    while lines.next_line().await?.is_some() {
        answer(&counter.next_round())?;
    }
    Ok(())
}

fn answer(message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    let mut output = std::io::stdout().lock();
    output.write_all(line.as_bytes())?;
    Ok(output.flush()?)
}

fn listen() -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(socket.listen(BACKLOG)?)
}

/// A fresh authority and a P-256 certificate for loopback signed by it.
fn certificate() -> Result<(ServerConfig, String)> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = ca.self_signed(&ca_key)?;
    let key = KeyPair::generate()?;
    let names = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    let leaf = CertificateParams::new(names)?.signed_by(&key, &ca, &ca_key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut tls = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((tls, ca.pem()))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let connection = Connection::accepted(&shared.counter);
                tokio::spawn(handle(tcp, connection, shared.clone()));
            }
            // Out of file descriptors, most likely: give running connections time to end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Serves one connection; whatever ends it is the client's to report.
async fn handle(tcp: TcpStream, connection: Connection, shared: Arc<Shared>) {
    let _ = tcp.set_nodelay(true);
    let Ok(tls) = shared.tls.accept(tcp).await else {
        return;
    };
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        h2::serve(tls, connection, &shared).await;
    } else {
        let answer = service_fn(|_request| async {
            connection.request();
            if !shared.delay.is_zero() {
                tokio::time::sleep(shared.delay).await;
            }
            Ok::<_, Infallible>(Response::new(Full::new(shared.body.clone())))
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(tls), answer)
            .await;
    }
}
