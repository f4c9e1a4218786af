//! Connections within the process, for tests and examples: every dial is seen, and answered, by the test.
//!
//! With both ends on one runtime whose clock is paused, a whole pool runs without sockets and without waiting.
//!
//! ```
//! use h2pool::connect::{Connect, Offer, memory};
//! use h2pool::Origin;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (connector, mut listener) = memory::pair::<Origin>();
//! // `connector` goes to the pool's builder; here it is called by hand.
//! let client = tokio::spawn(connector.connect(&"https://a".parse()?, Offer::Any));
//!
//! let dial = listener.accept().await.ok_or("the connector is gone")?;
//! assert_eq!(dial.key().host(), "a");
//! let mut server = dial.accept(http::Version::HTTP_2);
//! server.write_all(b"hello").await?;
//! # let _connection = client.await??;
//! # Ok(())
//! # }
//! ```

use std::fmt;

use http::Version;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};

use super::{Connect, Connection, Offer};
use crate::error::{Error, Kind};

/// How many bytes each direction holds.
const BUFFER: usize = 64 * 1024;

/// How many unanswered dials the listener holds; further ones wait, as in a full TCP backlog.
const BACKLOG: usize = 1024;

/// A connector and the listener that answers its dials. Each direction of a connection holds 64 KiB.
#[must_use]
pub fn pair<O>() -> (MemoryConnector<O>, MemoryListener<O>) {
    let (dials, incoming) = mpsc::channel(BACKLOG);
    (MemoryConnector { dials }, MemoryListener { incoming })
}

/// Dials the [`MemoryListener`] made with it; see [`pair`]. Once the listener is dropped, dials are refused.
pub struct MemoryConnector<O> {
    dials: mpsc::Sender<Dial<O>>,
}

impl<O: Clone + Send + Sync + 'static> Connect<O> for MemoryConnector<O> {
    fn connect(
        &self,
        key: &O,
        offer: Offer,
    ) -> impl Future<Output = Result<Connection, Error>> + Send + 'static {
        let (dials, key) = (self.dials.clone(), key.clone());
        async move {
            let (answer, answered) = oneshot::channel();
            let dial = Dial {
                key,
                offer,
                authenticated: true,
                answer,
            };
            dials.send(dial).await.map_err(|_| refused())?;
            answered.await.unwrap_or_else(|_| Err(refused()))
        }
    }
}

impl<O> Clone for MemoryConnector<O> {
    fn clone(&self) -> Self {
        Self {
            dials: self.dials.clone(),
        }
    }
}

impl<O> fmt::Debug for MemoryConnector<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConnector").finish_non_exhaustive()
    }
}

/// The server's side: hands out the dials in their order; see [`pair`].
pub struct MemoryListener<O> {
    incoming: mpsc::Receiver<Dial<O>>,
}

impl<O> MemoryListener<O> {
    /// Waits for the next dial. `None` once every connector is gone.
    ///
    /// # Cancel safety
    /// A dial is either returned or still waiting.
    pub async fn accept(&mut self) -> Option<Dial<O>> {
        self.incoming.recv().await
    }

    /// The next dial, if one waits already.
    pub fn try_accept(&mut self) -> Option<Dial<O>> {
        self.incoming.try_recv().ok()
    }
}

impl<O> fmt::Debug for MemoryListener<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryListener").finish_non_exhaustive()
    }
}

/// One dial, waiting for its answer. Held, it hangs; dropped, it is refused.
pub struct Dial<O> {
    key: O,
    offer: Offer,
    authenticated: bool,
    answer: oneshot::Sender<Result<Connection, Error>>,
}

impl<O> Dial<O> {
    /// What the connection is for.
    pub fn key(&self) -> &O {
        &self.key
    }

    /// Which protocols the pool offers.
    pub fn offer(&self) -> Offer {
        self.offer
    }

    /// Whether the caller has given up.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Whether the protocol counts as settled by the authenticated server; see [`Connection::authenticated`].
    /// Default: true.
    #[must_use]
    pub fn authenticated(mut self, authenticated: bool) -> Self {
        self.authenticated = authenticated;
        self
    }

    /// Opens the connection, with `version` settled, and returns the server's end.
    ///
    /// If the caller has given up, the end reads EOF.
    pub fn accept(self, version: Version) -> DuplexStream {
        let (client, server) = tokio::io::duplex(BUFFER);
        let connection = Connection::new(client, version).authenticated(self.authenticated);
        let _ = self.answer.send(Ok(connection));
        server
    }

    /// Fails the dial. A caller that has given up never hears of it.
    pub fn refuse(self, error: Error) {
        let _ = self.answer.send(Err(error));
    }
}

impl<O: fmt::Debug> fmt::Debug for Dial<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial")
            .field("key", &self.key)
            .field("offer", &self.offer)
            .finish_non_exhaustive()
    }
}

fn refused() -> Error {
    Error::new(Kind::Connect, "the memory listener refused the connection")
}
