//! Connections in memory: both ends on one runtime, so that tests may pause the clock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::peer::Peer;
use super::within;

/// A listener in memory: what [`Dialer::dial`] opens, [`Acceptor::accept`] yields. `buffer` is what each direction
/// holds before writing blocks, in bytes.
pub fn memory(buffer: usize) -> (Dialer, Acceptor) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let dialer = Dialer {
        sender,
        buffer,
        dials: Arc::default(),
        refusing: Arc::default(),
    };
    (dialer, Acceptor { receiver })
}

/// The client's end: for a connector of the test's own. Clones dial the same acceptor.
#[derive(Clone)]
pub struct Dialer {
    sender: mpsc::UnboundedSender<DuplexStream>,
    buffer: usize,
    dials: Arc<AtomicUsize>,
    refusing: Arc<AtomicBool>,
}

impl Dialer {
    /// Opens a connection.
    ///
    /// # Errors
    /// `ConnectionRefused` while [`refuse`](Self::refuse) says so and once the acceptor is gone.
    pub fn dial(&self) -> io::Result<DuplexStream> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        if self.refusing.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(self.buffer);
        match self.sender.send(theirs) {
            Ok(()) => Ok(ours),
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    /// How many times anybody dialed, refusals included.
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    /// From now on dials are refused, or no longer.
    pub fn refuse(&self, refuse: bool) {
        self.refusing.store(refuse, Ordering::SeqCst);
    }
}

/// The server's end.
pub struct Acceptor {
    receiver: mpsc::UnboundedReceiver<DuplexStream>,
}

impl Acceptor {
    /// The next connection; waits for it as long as it takes, since the clock may be paused.
    pub async fn accept(&mut self) -> DuplexStream {
        self.receiver.recv().await.expect("a dialer is left")
    }

    /// The next connection as a frame-level peer.
    pub async fn peer(&mut self) -> Peer {
        Peer::new(self.accept().await)
    }

    /// The connection that is there already, if one is.
    pub fn try_accept(&mut self) -> Option<DuplexStream> {
        self.receiver.try_recv().ok()
    }
}
