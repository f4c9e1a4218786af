//! The clients that are compared: the same requests, each by its own means.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result};
use bytes::{Buf, Bytes};
use h2::client::SendRequest;
use h2pool::{H2Pool, PoolConfig};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Uri, Version};
use http_body_util::{BodyExt, Empty, Full};
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

    /// The same with a body.
    fn post(&self, uri: &Uri, body: Bytes) -> impl Future<Output = Result<usize>> + Send;
}

impl Transport for H2Pool {
    async fn get(&self, uri: &Uri) -> Result<usize> {
        let response = self.request(request(uri)).await?;
        length(response.into_body()).await
    }

    async fn post(&self, uri: &Uri, body: Bytes) -> Result<usize> {
        let response = self.request(upload(uri, Full::new(body))).await?;
        length(response.into_body()).await
    }
}

/// A pool with this configuration.
pub fn pool(server: &Server, config: PoolConfig) -> Result<H2Pool> {
    let tls = server.tls(&[b"h2", b"http/1.1"])?;
    Ok(H2Pool::builder().config(config).tls_config(tls).build()?)
}

/// A pool that speaks HTTP/1.1 on as many connections.
pub fn pool_h1(server: &Server, connections: usize) -> Result<H2Pool> {
    let config = PoolConfig::default()
        .max_h1_connections(connections)
        .max_waiters(0);
    let pool = pool(server, config)?;
    pool.mark_h1_only(&server.url("/").parse()?);
    Ok(pool)
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

    /// The next one, once it takes a request.
    async fn ready(&self) -> Result<SendRequest<Bytes>> {
        let turn = self.next.fetch_add(1, Relaxed) % self.senders.len();
        Ok(self.senders[turn].clone().ready().await?)
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
        let mut request = Request::new(());
        *request.uri_mut() = uri.clone();
        *request.version_mut() = Version::HTTP_2;
        let (response, _) = self.ready().await?.send_request(request, true)?;
        read(response).await
    }

    async fn post(&self, uri: &Uri, mut body: Bytes) -> Result<usize> {
        let mut request = upload(uri, ());
        *request.version_mut() = Version::HTTP_2;
        // As all others do.
        let length = body.len().into();
        request.headers_mut().insert(CONTENT_LENGTH, length);
        let (response, mut stream) = self.ready().await?.send_request(request, false)?;
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            let granted = poll_fn(|cx| stream.poll_capacity(cx)).await;
            let granted = granted.context("the stream is over")??;
            stream.send_data(body.split_to(granted.min(body.len())), body.is_empty())?;
        }
        read(response).await
    }
}

/// The response's body, to its end.
async fn read(response: h2::client::ResponseFuture) -> Result<usize> {
    let mut body = response.await?.into_body();
    let mut length = 0;
    while let Some(chunk) = body.data().await.transpose()? {
        length += chunk.len();
        body.flow_control().release_capacity(chunk.len())?;
    }
    Ok(length)
}

/// hyper-util's client.
pub type HyperUtil = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

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

impl<C> Transport for Client<C, Full<Bytes>>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    async fn get(&self, uri: &Uri) -> Result<usize> {
        let response = self.request(request(uri).map(|_| Full::default())).await?;
        length(response.into_body()).await
    }

    async fn post(&self, uri: &Uri, body: Bytes) -> Result<usize> {
        let response = self.request(upload(uri, Full::new(body))).await?;
        length(response.into_body()).await
    }
}

/// reqwest's client, of HTTP/2 where the server has it or of HTTP/1.1 only.
pub fn reqwest(server: &Server, h2: bool) -> Result<reqwest::Client> {
    let tls: &[&[u8]] = if h2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    let tls = server.tls(tls)?;
    Ok(reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .tcp_nodelay(true)
        .build()?)
}

impl Transport for reqwest::Client {
    async fn get(&self, uri: &Uri) -> Result<usize> {
        exchange(self, request(uri).map(|_| reqwest::Body::default())).await
    }

    async fn post(&self, uri: &Uri, body: Bytes) -> Result<usize> {
        exchange(self, upload(uri, body.into())).await
    }
}

async fn exchange(client: &reqwest::Client, request: Request<reqwest::Body>) -> Result<usize> {
    let response = client.execute(request.try_into()?).await?;
    let response: http::Response<reqwest::Body> = response.error_for_status()?.into();
    length(response.into_body()).await
}

fn request(uri: &Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.clone();
    request
}

fn upload<B>(uri: &Uri, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
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
