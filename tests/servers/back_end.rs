//! The server behind the proxies: hyper on plain HTTP/1.1, which counts what reaches it.
//!
//! - `GET /small`, `GET /big`: what the servers in front serve from files where they can
//! - `POST /upload/{i}`: compares the body with upload `i` while it arrives
//! - `GET|POST /count/{id}`: counts how often `id` was processed
//! - `GET /hold/{n}`: answers when `n` such requests are here at the same time

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::Failure;
use crate::site::{SMALL, big, upload};

/// A running back end; dropping it ends it.
pub(crate) struct BackEnd {
    port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    counts: Mutex<HashMap<String, u32>>,
    held: watch::Sender<usize>,
}

impl BackEnd {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::<State>::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { port, state, task })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How often each id was processed.
    pub(crate) fn counts(&self) -> HashMap<String, u32> {
        self.state.counts.lock().clone()
    }
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(serve(stream, Arc::clone(&state)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, request).await) }
    });
    // Whatever ends the connection is the proxy's doing, and shows at the client's side.
    drop(stream.set_nodelay(true));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    drop(connection.await);
}

async fn answer(state: &State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let (kind, rest) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((&path[1..], ""));
    match kind {
        "small" => reply(StatusCode::OK, Bytes::from_static(SMALL)),
        "big" => reply(StatusCode::OK, big()),
        "upload" => match compare(body, rest).await {
            Ok(()) => reply(StatusCode::OK, Bytes::from_static(b"identical")),
            Err(why) => reply(StatusCode::BAD_REQUEST, why.to_string().into()),
        },
        "count" => {
            // Unread, the body would cost the connection: the proxy may still be sending it.
            if let Err(error) = body.collect().await {
                return reply(StatusCode::BAD_REQUEST, error.to_string().into());
            }
            *state.counts.lock().entry(rest.to_owned()).or_default() += 1;
            reply(StatusCode::OK, rest.to_owned().into())
        }
        "hold" => match rest.parse() {
            Ok(wanted) => {
                hold(&state.held, wanted).await;
                reply(StatusCode::OK, Bytes::from_static(b"held"))
            }
            Err(_) => reply(StatusCode::BAD_REQUEST, rest.to_owned().into()),
        },
        _ => reply(StatusCode::NOT_FOUND, path.to_owned().into()),
    }
}

fn reply(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

/// Reads a body and compares it with the upload of that number.
async fn compare(mut body: Incoming, number: &str) -> Result<(), Failure> {
    let expected = upload(number.parse()?);
    let mut at = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let same = expected.get(at..at + data.len()) == Some(&data[..]);
        if !same {
            return Err(format!("differs after byte {at}").into());
        }
        at += data.len();
    }
    if at == expected.len() {
        Ok(())
    } else {
        Err(format!("{at} bytes of {}", expected.len()).into())
    }
}

/// Waits until `wanted` requests wait here, and lets all of them go.
async fn hold(held: &watch::Sender<usize>, wanted: usize) {
    let mut changes = held.subscribe();
    held.send_modify(|held| *held += 1);
    // The sender is borrowed: the channel cannot close.
    drop(changes.wait_for(|held| *held >= wanted).await);
}
