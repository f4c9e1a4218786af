//! `h2-bare`: eight bare connections of the h2 crate, the floor below which no pool on that crate can come.
//!
//! They are opened before the clock starts. Requests take the connections in turn, and each connection counts its own
//! streams, so that h2 never holds one back beyond the server's limit.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Uri, Version};
use tokio::sync::Semaphore;

use super::{Answer, Transport};
use crate::target::Target;

/// How many connections are opened.
const CONNECTIONS: u64 = 8;

/// Bytes that the server may send ahead on a stream and on a connection; what hyper's client allows.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;

/// The open connections.
pub(crate) struct Bare {
    lanes: Vec<Lane>,
    next: AtomicUsize,
    uri: Uri,
}

struct Lane {
    send: SendRequest<Bytes>,
    room: Semaphore,
}

impl Bare {
    /// Opens the connections, and waits until each knows its server's limit.
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let mut lanes = Vec::new();
        for _ in 0..CONNECTIONS {
            lanes.push(
                Lane::open(target)
                    .await
                    .with_context(|| format!("connection to {}", target.authority()))?,
            );
        }
        Ok(Self {
            lanes,
            next: AtomicUsize::new(0),
            uri: target.uri.clone(),
        })
    }
}

impl Lane {
    async fn open(target: &Target) -> Result<Self> {
        let io = target.connect(&[b"h2"]).await?;
        let (send, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io)
            .await?;
        let mut ping = connection.ping_pong().context("PING is in use")?;
        tokio::spawn(connection);
        // SETTINGS are the server's first frame (RFC 9113 §3.4), so they are here before the answer to a PING.
        ping.ping(h2::Ping::opaque()).await?;
        let limit = send.current_max_send_streams().min(Semaphore::MAX_PERMITS);
        Ok(Self {
            send,
            room: Semaphore::new(limit),
        })
    }
}

impl Transport for Bare {
    async fn get(&self) -> Result<Answer> {
        let lane = &self.lanes[self.next.fetch_add(1, Relaxed) % self.lanes.len()];
        let _room = lane.room.acquire().await?;
        let mut request = Request::new(());
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        let (response, _) = lane.send.clone().ready().await?.send_request(request, true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut body_bytes = 0;
        while let Some(chunk) = body.data().await.transpose()? {
            body_bytes += chunk.len();
            body.flow_control().release_capacity(chunk.len())?;
        }
        Ok(Answer {
            status: head.status,
            body_bytes,
        })
    }

    fn opened(&self) -> u64 {
        CONNECTIONS
    }
}
