//! Tunnels over HTTP/2: bytes both ways on one stream, beside ordinary requests on the same connection.
//!
//! A plain CONNECT (RFC 9110 §9.3.6) is what a proxy takes: the session is the proxy's, the request names the target. An
//! extended CONNECT (RFC 8441) is how WebSockets open; the pool waits for the server's SETTINGS to allow it. In both the
//! request's body is the way up and the response's body the way down.
//!
//! ```text
//! cargo run --example connect_tunnel
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::stream;
use h2pool::{Body, H2Pool, Origin, Protocol};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower::ServiceExt;

#[tokio::main]
async fn main() -> Result<()> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}

/// Opens both kinds of tunnel to a server of its own, and says what was heard.
async fn run() -> Result<Vec<String>> {
    let address = start_server().await?;
    let home = format!("http://{address}");
    let pool = H2Pool::builder().http2_prior_knowledge(true).build()?;

    let (up, body) = way_up();
    let request = Request::connect("target.example:7").body(body)?;
    let proxy: Origin = home.parse()?;
    let response = pool.origin(proxy).oneshot(request).await?;
    let mut plain = Tunnel::open(up, response)?;

    let (up, body) = way_up();
    let request = Request::connect(format!("{home}/shout"))
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(body)?;
    let mut socket = Tunnel::open(up, pool.request(request).await?)?;

    // Both are open at once, and an ordinary request finds its place beside them.
    let mut heard = Vec::new();
    for word in ["hello", "tunnel"] {
        plain.say(word).await?;
        socket.say(word).await?;
        heard.push(format!("plain:    {word} -> {}", plain.hear().await?));
        heard.push(format!("extended: {word} -> {}", socket.hear().await?));
    }
    let request = Request::get(format!("{home}/")).body(Empty::<Bytes>::new())?;
    let body = pool.request(request).await?.into_body().collect().await?;
    heard.push(format!("request:  {}", String::from_utf8_lossy(&body.to_bytes())));
    heard.push(format!("sessions: {}", pool.stats().sessions_opened));

    plain.close().await?;
    socket.close().await?;
    pool.close();
    pool.closed().await;
    Ok(heard)
}

/// A request body that is fed word by word.
fn way_up() -> (
    mpsc::Sender<Bytes>,
    impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = stream::unfold(receiver, |mut receiver| async move {
        let data = receiver.recv().await?;
        Some((Ok(Frame::data(data)), receiver))
    });
    (sender, StreamBody::new(frames))
}

/// Both ways of a tunnel.
struct Tunnel {
    up: mpsc::Sender<Bytes>,
    down: Body,
}

impl Tunnel {
    fn open(up: mpsc::Sender<Bytes>, response: Response<Body>) -> Result<Self> {
        if !response.status().is_success() {
            bail!("the server opens no tunnel: {}", response.status());
        }
        let down = response.into_body();
        Ok(Self { up, down })
    }

    async fn say(&self, words: &'static str) -> Result<()> {
        Ok(self.up.send(words.into()).await?)
    }

    async fn hear(&mut self) -> Result<String> {
        let frame = self.down.frame().await.context("the tunnel has ended")??;
        let data = frame.into_data().ok().context("trailers in a tunnel")?;
        Ok(String::from_utf8(data.into())?)
    }

    /// Ends the way up, and waits for the end of the way down.
    async fn close(self) -> Result<()> {
        let Self { up, down } = self;
        drop(up);
        down.collect().await?;
        Ok(())
    }
}

/// An HTTP/2 server on loopback that shouts back whatever comes through a tunnel.
async fn start_server() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.enable_connect_protocol();
            tokio::spawn(server.serve_connection(TokioIo::new(tcp), service_fn(answer)));
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::CONNECT {
        return Ok(Response::new("an ordinary answer".into()));
    }
    tokio::spawn(shout(request));
    Ok(Response::default())
}

async fn shout(request: Request<Incoming>) -> Result<()> {
    let mut tunnel = TokioIo::new(hyper::upgrade::on(request).await?);
    let mut buffer = [0; 1024];
    loop {
        let read = tunnel.read(&mut buffer).await?;
        if read == 0 {
            return Ok(tunnel.shutdown().await?);
        }
        buffer[..read].make_ascii_uppercase();
        tunnel.write_all(&buffer[..read]).await?;
    }
}

// P33, P45
#[cfg(test)]
#[tokio::test]
async fn both_kinds_of_tunnel_share_a_session() {
    let heard = run().await.unwrap();
    assert_eq!(
        heard,
        [
            "plain:    hello -> HELLO",
            "extended: hello -> HELLO",
            "plain:    tunnel -> TUNNEL",
            "extended: tunnel -> TUNNEL",
            "request:  an ordinary answer",
            "sessions: 1"
        ]
    );
}
