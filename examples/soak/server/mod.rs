//! The server: HTTP/2 by prior knowledge, frame by frame, so that it can do what no library allows.
//!
//! Each connection is a task ([`connection`]) that answers ([`stream`]) and misbehaves ([`chaos`]) by a random sequence
//! of its own.

mod chaos;
mod connection;
mod limit;
mod stream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::peer::Peer;
use crate::world::{Phase, World};

use connection::Connection;

/// The content of every body, here and at the clients: what lies at this offset.
pub(crate) fn pattern(id: u64, length: usize) -> Vec<u8> {
    let start = id.to_le_bytes()[0];
    (0..length)
        .map(|offset| start.wrapping_add(offset.to_le_bytes()[0]))
        .collect()
}

/// A running server.
pub(crate) struct Server {
    addr: SocketAddr,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(world: Arc<World>, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let open = Arc::<AtomicUsize>::default();
        Ok(Self {
            addr: listener.local_addr()?,
            task: tokio::spawn(accept(listener, world, seed, Arc::clone(&open))),
            open,
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Accepts no more.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

/// A connection that has not ended.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, world: Arc<World>, seed: u64, open: Arc<AtomicUsize>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    while let Ok((tcp, _)) = listener.accept().await {
        world.count("server: connections");
        if *world.phases().borrow() == Phase::Storm && rng.random_bool(0.03) {
            world.count("server: connections refused at once");
            continue;
        }
        let rng = SmallRng::seed_from_u64(rng.random());
        open.fetch_add(1, Ordering::SeqCst);
        let (world, open) = (Arc::clone(&world), Open(Arc::clone(&open)));
        tokio::spawn(async move {
            serve(tcp, world, rng).await;
            drop(open);
        });
    }
}

async fn serve(tcp: TcpStream, world: Arc<World>, mut rng: SmallRng) {
    let resets = rng.random_bool(0.5);
    if tcp.set_nodelay(true).is_err() || (resets && tcp.set_zero_linger().is_err()) {
        return;
    }
    // The error of a client that went away, or of a cut of ours, is an end like any other.
    drop(Connection::new(Peer::new(tcp), world, rng).run().await);
}
