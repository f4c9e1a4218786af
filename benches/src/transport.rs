//! The clients that are compared: the same requests, each by its own means.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result};
use bytes::{Buf, Bytes};
use h2::client::SendRequest;
use h2pool::{H2Pool, PoolConfig};
use http::{Request, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::server::Server;

/// hyper's windows, for the bare connections.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;

/// Sends requests.
pub trait Transport: Send + Sync + 'static {
    /// Sends one request, reads the answer to its end, and returns the length of its body.
    fn get(&self, uri: &Uri) -> impl Future<Output = Result<usize>> + Send;
}

impl Transport for H2Pool {
    async fn get(&self, uri: &Uri) -> Result<usize> {
        let response = self.request(request(uri)).await?;
        length(response.into_body()).await
    }
}

/// A pool with this configuration.
pub fn pool(server: &Server, config: PoolConfig) -> Result<H2Pool> {
    let tls = server.tls(&[b"h2", b"http/1.1"])?;
    Ok(H2Pool::builder().config(config).tls_config(tls).build()?)
}

/// Connections of the h2 crate, taken in turn.
pub struct Bare {
    senders: Vec<SendRequest<Bytes>>,
    next: AtomicUsize,
}

impl Bare {
    /// Opens them, and waits for their SETTINGS.
    pub async fn open(server: &Server, connections: usize, frame: u32) -> Result<Self> {
        let tls = TlsConnector::from(std::sync::Arc::new(server.tls(&[b"h2"])?));
        let mut senders = Vec::new();
        for _ in 0..connections {
            let tcp = TcpStream::connect(server.addr).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("localhost")?;
            senders.push(bare(tls.connect(name, tcp).await?, frame).await?);
        }
        Ok(Self::new(senders))
    }

    /// Of connections that are open.
    pub fn new(senders: Vec<SendRequest<Bytes>>) -> Self {
        Self {
            senders,
            next: AtomicUsize::new(0),
        }
    }
}

/// A bare connection over any transport; `frame` is the size of the largest frame that it takes.
pub async fn bare<T>(io: T, frame: u32) -> Result<SendRequest<Bytes>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(frame)
        .handshake(io)
        .await?;
    let mut ping = connection.ping_pong().context("PING is in use")?;
    tokio::spawn(connection);
    ping.ping(h2::Ping::opaque()).await?;
    Ok(sender)
}

impl Transport for Bare {
    async fn get(&self, uri: &Uri) -> Result<usize> {
        let turn = self.next.fetch_add(1, Relaxed) % self.senders.len();
        let mut request = Request::new(());
        *request.uri_mut() = uri.clone();
        *request.version_mut() = Version::HTTP_2;
        let mut sender = self.senders[turn].clone().ready().await?;
        let (response, _) = sender.send_request(request, true)?;
        let mut body = response.await?.into_body();
        let mut length = 0;
        while let Some(chunk) = body.data().await.transpose()? {
            length += chunk.len();
            body.flow_control().release_capacity(chunk.len())?;
        }
        Ok(length)
    }
}

/// hyper-util's client.
pub type HyperUtil = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// hyper-util's client, `http2_only` or HTTP/1.1 only.
pub fn hyper_util(server: &Server, h2: bool) -> Result<HyperUtil> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(server.tls(&[])?)
        .https_only();
    let connector = if h2 {
        tls.enable_http2().wrap_connector(tcp)
    } else {
        tls.enable_http1().wrap_connector(tcp)
    };
    Ok(Client::builder(TokioExecutor::new())
        .http2_only(h2)
        .build(connector))
}

impl<C> Transport for Client<C, Empty<Bytes>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    async fn get(&self, uri: &Uri) -> Result<usize> {
        let response = self.request(request(uri)).await?;
        length(response.into_body()).await
    }
}

/// reqwest's client.
pub fn reqwest(server: &Server) -> Result<reqwest::Client> {
    let tls = server.tls(&[b"h2", b"http/1.1"])?;
    Ok(reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .tcp_nodelay(true)
        .build()?)
}

impl Transport for reqwest::Client {
    async fn get(&self, uri: &Uri) -> Result<usize> {
        let mut request = request(uri).map(|_| reqwest::Body::default());
        *request.version_mut() = Version::HTTP_2;
        let response: http::Response<reqwest::Body> = self
            .execute(request.try_into()?)
            .await?
            .error_for_status()?
            .into();
        length(response.into_body()).await
    }
}

fn request(uri: &Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.clone();
    request
}

async fn length<B>(body: B) -> Result<usize>
where
    B: http_body::Body,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let mut body = pin!(body);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Buf::remaining);
    }
    Ok(length)
}
