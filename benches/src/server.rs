//! A TLS server in a process of its own.
//!
//! It does as little as it can: small answers are sent from the connection's own task. `/` has no body, `/N` one of N
//! bytes; the server time, where there is one, passes before each answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;
use http_body_util::BodyExt;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The first argument that makes a program of this crate the server.
const ARGUMENT: &str = "__server";
/// The server's windows for what clients send, in bytes.
const WINDOW: u32 = 4 << 20;

/// What the server is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub streams: u32,
    /// Before each answer.
    pub delay: Duration,
}

/// A running server; ends when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    certificate: CertificateDer<'static>,
}

/// In `main`, before anything else: true when this process was the server, and is done.
pub fn is_server() -> Result<bool> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(ARGUMENT) {
        return Ok(false);
    }
    let mut number = || Ok::<u64, anyhow::Error>(args.next().context("two numbers")?.parse()?);
    let settings = Settings {
        streams: u32::try_from(number()?)?,
        delay: Duration::from_millis(number()?),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(serve(settings))?;
    runtime.shutdown_background();
    Ok(true)
}

impl Server {
    /// Starts this program again, as the server.
    pub fn start(settings: Settings) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .arg(settings.streams.to_string())
            .arg(settings.delay.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("the server's output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let (addr, certificate) = line
            .trim()
            .split_once(' ')
            .context("an address and a certificate")?;
        let certificate: Result<Vec<u8>, _> = (0..certificate.len() / 2)
            .map(|i| u8::from_str_radix(&certificate[2 * i..2 * i + 2], 16))
            .collect();
        Ok(Self {
            child,
            addr: addr.parse()?,
            certificate: certificate?.into(),
        })
    }

    /// What a client needs to trust it.
    pub fn tls(&self, protocols: &[&[u8]]) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = rustls::crypto::ring::default_provider();
        let mut tls = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(tls)
    }

    /// An absolute URI of it.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.addr.port())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its standard input ends, and so does it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

async fn serve(settings: Settings) -> Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])?.self_signed(&key)?;
    let hex: String = certificate
        .der()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut tls = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let listener = socket.listen(4096)?;
    let line = format!("{} {hex}\n", listener.local_addr()?);
    std::io::stdout().lock().write_all(line.as_bytes())?;
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), settings));
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    Ok(())
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, settings: Settings) {
    while let Ok((tcp, _)) = listener.accept().await {
        let tls = tls.clone();
        tokio::spawn(async move {
            // Whatever ends a connection is the client's to report.
            let _ = connection(tcp, tls, settings).await;
        });
    }
}

async fn connection(tcp: TcpStream, tls: TlsAcceptor, settings: Settings) -> Result<()> {
    tcp.set_nodelay(true)?;
    let tls = tls.accept(tcp).await?;
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        return h2(tls, settings).await;
    }
    let answer = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
        let body = http_body_util::Full::new(body(request.uri().path()));
        let mut upload = request.into_body();
        while let Some(frame) = upload.frame().await {
            frame?;
        }
        if !settings.delay.is_zero() {
            tokio::time::sleep(settings.delay).await;
        }
        Ok::<_, hyper::Error>(Response::new(body))
    });
    let io = hyper_util::rt::TokioIo::new(tls);
    Ok(hyper::server::conn::http1::Builder::new()
        .serve_connection(io, answer)
        .await?)
}

/// An h2 connection of the benchmarks' servers.
pub async fn h2(io: impl AsyncRead + AsyncWrite + Unpin, settings: Settings) -> Result<()> {
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(settings.streams)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buffer_size(1 << 20)
        .handshake(io)
        .await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let body = body(request.uri().path());
        if body.is_empty() && settings.delay.is_zero() && request.body().is_end_stream() {
            answer(respond, body).await?;
            continue;
        }
        tokio::spawn(async move {
            let mut upload = request.into_body();
            while let Some(Ok(data)) = upload.data().await {
                let _ = upload.flow_control().release_capacity(data.len());
            }
            if !settings.delay.is_zero() {
                tokio::time::sleep(settings.delay).await;
            }
            let _ = answer(respond, body).await;
        });
    }
    Ok(())
}

/// `/N`: N bytes.
fn body(path: &str) -> Bytes {
    static BYTES: [u8; 8 << 20] = [b'.'; 8 << 20];
    let length = path.trim_start_matches('/').parse().unwrap_or(0);
    Bytes::from_static(&BYTES[..length])
}

async fn answer(mut respond: SendResponse<Bytes>, mut body: Bytes) -> Result<()> {
    let mut stream = respond.send_response(Response::new(()), body.is_empty())?;
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let granted = granted.context("the stream is over")??;
        let part = body.split_to(granted.min(body.len()));
        stream.send_data(part, body.is_empty())?;
    }
    Ok(())
}
