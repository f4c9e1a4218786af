//! HTTP/2 connections of the embedded server.
//!
//! The client and the server share the machine's cores, so the server does as little as it can: since every answer
//! takes equally long, the requests of a connection fall due in the order in which they came, and one queue and one
//! timer serve them all, without a task for each.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite};

use super::child::Shared;
use super::count::Connection;
use crate::clock::{Instant, now};

/// Bytes that a client may send ahead, on a stream and on the connection.
const WINDOW: u32 = 1 << 20;

/// Serves one connection until it ends.
pub(super) async fn serve<T: AsyncRead + AsyncWrite + Unpin>(io: T, connection: Connection, shared: &Shared) {
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(shared.streams)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(io);
    let Ok(mut h2) = handshake.await else { return };
    let mut due = VecDeque::new();
    let mut timer = pin!(tokio::time::sleep(shared.delay));
    poll_fn(|cx| {
        loop {
            // Reads requests, and writes the answers that were given before.
            while let Poll::Ready(next) = h2.poll_accept(cx) {
                let Some(Ok((_, respond))) = next else {
                    return Poll::Ready(());
                };
                connection.request();
                due.push_back(Due {
                    at: now() + shared.delay,
                    respond,
                });
            }
            if answer_due(&mut due, &shared.body) {
                continue;
            }
            let Some(next) = due.front() else {
                return Poll::Pending;
            };
            timer.as_mut().reset(next.at.into());
            ready!(timer.as_mut().poll(cx));
        }
    })
    .await
}

/// A request that waits for its answer.
struct Due {
    at: Instant,
    respond: SendResponse<Bytes>,
}

/// Answers what is due; whether there was anything.
fn answer_due(due: &mut VecDeque<Due>, body: &Bytes) -> bool {
    let now = now();
    let count = due.iter().take_while(|request| request.at <= now).count();
    for mut request in due.drain(..count) {
        // An error means that the client has given the request up.
        if let Ok(mut stream) = request.respond.send_response(Response::new(()), body.is_empty()) {
            if !body.is_empty() {
                let _ = stream.send_data(body.clone(), true);
            }
        }
    }
    count > 0
}
