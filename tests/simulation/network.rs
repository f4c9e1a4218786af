//! A network in memory, with virtual time: three hosts behind one name, each with a link of its own that has a latency,
//! can be cut and can lose its host.
//!
//! A link that is cut delivers nothing until it is whole again, and then everything, late, as TCP does. A host that is
//! lost says nothing any more, not even that it is gone; one that was killed closes its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2pool::Error;
use h2pool::connect::Connection;
use http::Version;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Sleep, sleep};

use crate::support::server::{Counts, Server};

const BUFFER: usize = 64 * 1024;

/// How a link is at the moment.
#[derive(Clone, Copy)]
struct Link {
    /// One way.
    latency: Duration,
    cut: bool,
    /// Counts the hosts that were lost here.
    lost: usize,
}

/// What answers at one address.
pub(crate) struct Host {
    server: Mutex<Arc<Server>>,
    /// What those that were replaced had counted.
    former: Mutex<Vec<Arc<Server>>>,
    link: watch::Sender<Link>,
    /// Whether the name leads here.
    listed: AtomicBool,
    /// Whether dials are refused.
    down: AtomicBool,
}

impl Host {
    fn new() -> Self {
        Self {
            server: Mutex::new(start()),
            former: Mutex::default(),
            link: watch::Sender::new(Link {
                latency: Duration::from_millis(1),
                cut: false,
                lost: 0,
            }),
            listed: AtomicBool::new(true),
            down: AtomicBool::new(false),
        }
    }

    pub(crate) fn latency(&self, latency: Duration) {
        self.link.send_modify(|link| link.latency = latency);
    }

    /// Cuts the link, or makes it whole.
    pub(crate) fn cut(&self, cut: bool) {
        self.link.send_modify(|link| link.cut = cut);
    }

    /// The name leads here, or no longer.
    pub(crate) fn list(&self, listed: bool) {
        self.listed.store(listed, Ordering::SeqCst);
    }

    /// Closes every connection and refuses dials.
    pub(crate) fn kill(&self) {
        self.down.store(true, Ordering::SeqCst);
        self.server.lock().kill();
    }

    /// The power is gone: connections fall silent, and dials are never answered.
    pub(crate) fn lose(&self) {
        self.link.send_modify(|link| {
            link.lost += 1;
            link.cut = true;
        });
        self.server.lock().kill();
    }

    /// Tells all connections to finish, once.
    pub(crate) fn drain(&self) {
        self.server.lock().drain();
    }

    /// Tells all connections to finish until all have.
    pub(crate) async fn shut_down(&self) {
        while self.server.lock().counts().open() > 0 {
            self.drain();
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Another server takes the place of the old one, on a good link.
    pub(crate) fn restart(&self) {
        let old = std::mem::replace(&mut *self.server.lock(), start());
        old.kill();
        self.former.lock().push(old);
        self.down.store(false, Ordering::SeqCst);
        self.cut(false);
    }

    fn counts(&self) -> Vec<Counts> {
        let former = self.former.lock();
        let servers = former.iter().cloned().chain([self.server.lock().clone()]);
        servers.map(|server| server.counts()).collect()
    }
}

fn start() -> Arc<Server> {
    Arc::new(Server::builder().h2_only().h2_max_streams(4).start_in_memory())
}

/// Three hosts behind one name.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) hosts: Arc<[Host; 3]>,
    turn: Arc<AtomicUsize>,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            hosts: Arc::new(std::array::from_fn(|_| Host::new())),
            turn: Arc::default(),
        }
    }

    /// Opens a connection to one of the hosts that are listed, in turn.
    pub(crate) async fn dial(self) -> Result<Connection, Error> {
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        let order = (turn..turn + self.hosts.len()).map(|index| &self.hosts[index % self.hosts.len()]);
        let mut listed = order.filter(|host| host.listed.load(Ordering::SeqCst));
        let host = listed
            .next()
            .ok_or_else(|| Error::connect("the name leads nowhere"))?;
        let mut link = host.link.subscribe();
        let latency = link.borrow().latency;
        let whole = link.wait_for(|link| !link.cut).await;
        drop(whole.map_err(Error::connect)?);
        sleep(latency * 2).await;
        if host.down.load(Ordering::SeqCst) {
            return Err(Error::connect(std::io::Error::from(
                std::io::ErrorKind::ConnectionRefused,
            )));
        }
        let (ours, near) = tokio::io::duplex(BUFFER);
        let (far, theirs) = tokio::io::duplex(BUFFER);
        host.server.lock().attach(theirs);
        tokio::spawn(carry(near, far, host.link.subscribe()));
        Ok(Connection::new(ours, Version::HTTP_2).authenticated(true))
    }

    /// How often a request was processed, over all hosts.
    pub(crate) fn processed(&self, id: &str) -> usize {
        let counts = self.hosts.iter().flat_map(Host::counts);
        counts.map(|counts| counts.processed(id)).sum()
    }

    /// What all servers there ever were have counted.
    pub(crate) fn counts(&self) -> Vec<Counts> {
        self.hosts.iter().flat_map(Host::counts).collect()
    }
}

/// One connection, until both ends are closed, or until the client has closed after the host was lost.
async fn carry(near: DuplexStream, far: DuplexStream, mut link: watch::Receiver<Link>) {
    let lost = link.borrow().lost;
    let (mut near_reader, mut near_writer) = tokio::io::split(near);
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    let (there, back) = (link.clone(), link.clone());
    let both = async {
        tokio::join!(
            pump(&mut near_reader, &mut far_writer, there),
            pump(&mut far_reader, &mut near_writer, back),
        );
    };
    tokio::select! {
        () = both => return,
        _ = link.wait_for(|link| link.lost > lost) => {}
    }
    let mut nowhere = [0; 1024];
    while near_reader.read(&mut nowhere).await.is_ok_and(|read| read > 0) {}
}

/// One direction: every chunk arrives after the latency that there was when it set out, in order, and not while the
/// link is cut.
async fn pump(
    from: &mut ReadHalf<DuplexStream>,
    to: &mut WriteHalf<DuplexStream>,
    mut link: watch::Receiver<Link>,
) {
    let (sender, mut under_way) = mpsc::channel::<(Sleep, Bytes)>(64);
    let ahead = link.clone();
    let set_out = async move {
        let mut chunk = BytesMut::new();
        while from.read_buf(&mut chunk).await.is_ok_and(|read| read > 0) {
            let latency = ahead.borrow().latency;
            if sender
                .send((sleep(latency), chunk.split().freeze()))
                .await
                .is_err()
            {
                return;
            }
        }
        // The end travels too.
        let latency = ahead.borrow().latency;
        drop(sender.send((sleep(latency), Bytes::new())).await);
    };
    let arrive = async move {
        while let Some((travel, chunk)) = under_way.recv().await {
            travel.await;
            let whole = link.wait_for(|link| !link.cut).await.is_ok();
            if !whole || chunk.is_empty() || to.write_all(&chunk).await.is_err() {
                break;
            }
        }
        drop(to.shutdown().await);
    };
    tokio::join!(set_out, arrive);
}
