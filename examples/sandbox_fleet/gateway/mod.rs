//! The gateway: HTTP/2 over TLS, on the `h2` crate, so that it can misbehave on the level of streams.

mod answer;
pub(crate) mod world;

use std::sync::Arc;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use http::{Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use answer::Answer;
use world::World;

/// Streams that a client may have open on one connection.
const STREAMS: u32 = 100;

/// Serves every connection that comes, until it is aborted.
pub(crate) async fn listen(listener: TcpListener, tls: Arc<ServerConfig>, world: Arc<World>) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, world) = (acceptor.clone(), world.clone());
        connections.spawn(async move {
            if let Ok(io) = acceptor.accept(tcp).await {
                serve(io, world).await;
            }
        });
    }
}

/// Serves one connection; every stream in a task of its own.
pub(crate) async fn serve(io: impl AsyncRead + AsyncWrite + Unpin, world: Arc<World>) {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(STREAMS);
    let Ok(mut connection): Result<Connection<_, Bytes>, _> = settings.handshake(io).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        if world.says_goaway() {
            connection.graceful_shutdown();
        }
        tokio::spawn(stream(request, respond, world.clone()));
    }
}

async fn stream(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, world: Arc<World>) {
    let (head, mut upload) = request.into_parts();
    let mut content = Vec::new();
    while let Some(data) = upload.data().await {
        let Ok(data) = data else { return };
        content.extend_from_slice(&data);
        // An error says that the stream is over; the next read says so too.
        let _ = upload.flow_control().release_capacity(data.len());
    }
    match answer::to(&world, &head, content.into()).await {
        Answer::Reset(reason) => respond.send_reset(reason),
        // A client that has gone meanwhile is no concern of the gateway's.
        Answer::Respond(response) => drop(send(&mut respond, response)),
    }
}

fn send(respond: &mut SendResponse<Bytes>, response: Response<Bytes>) -> Result<(), h2::Error> {
    let (head, body) = response.into_parts();
    let mut stream = respond.send_response(Response::from_parts(head, ()), body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(body, true)?;
    }
    Ok(())
}
