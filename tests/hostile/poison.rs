//! Nobody but the authenticated server may say that an origin speaks only HTTP/1.1 (P25), and nobody for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2pool::connect::{Connection, Offer, from_fn};
use h2pool::{Error, H2Pool, Origin};
use http::{Request, Version};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::arena::chain;
use crate::support::memory::{Acceptor, memory};
use crate::support::peer::{Peer, code};
use crate::support::server::Server;
use crate::support::server::body::empty;
use crate::support::within;

/// A pool whose connections are what `settled` says: version and whether the server was authenticated.
struct Poisoned {
    pool: H2Pool,
    origin: Origin,
    acceptor: Acceptor,
    settled: Arc<Mutex<(Version, bool)>>,
    offers: Arc<Mutex<Vec<Offer>>>,
}

impl Poisoned {
    fn new(version: Version, authenticated: bool) -> Self {
        let (dialer, acceptor) = memory(64 * 1024);
        let settled = Arc::new(Mutex::new((version, authenticated)));
        let offers = Arc::<Mutex<Vec<Offer>>>::default();
        let (settle, offered) = (Arc::clone(&settled), Arc::clone(&offers));
        let connector = from_fn(move |_: &Origin, offer| {
            offered.lock().push(offer);
            let (version, authenticated) = *settle.lock();
            let dialed = dialer.dial().map_err(Error::connect);
            async move { Ok(Connection::new(dialed?, version).authenticated(authenticated)) }
        });
        let pool = H2Pool::builder().connector(connector).build().unwrap();
        Self {
            pool,
            origin: "https://poisoned.test".parse().unwrap(),
            acceptor,
            settled,
            offers,
        }
    }

    fn request(&self) -> tokio::task::JoinHandle<Result<Bytes, Error>> {
        let pool = self.pool.clone();
        let request = Request::builder()
            .uri("https://poisoned.test/")
            .body(empty())
            .unwrap();
        tokio::spawn(async move {
            Ok(pool
                .request(request)
                .await?
                .into_body()
                .collect()
                .await?
                .to_bytes())
        })
    }

    /// A request that was answered with HTTP_1_1_REQUIRED; later dials settle on HTTP/1.1.
    async fn refused_for_h1(&mut self) -> tokio::task::JoinHandle<Result<Bytes, Error>> {
        let request = self.request();
        let mut peer = Peer::new(within("a dial", self.acceptor.accept()).await);
        peer.handshake(&[]).await;
        let head = peer.next_headers().await;
        self.settled.lock().0 = Version::HTTP_11;
        peer.send_rst(head.stream, code::HTTP_1_1_REQUIRED).await;
        // Goes on until the client has no more use for it.
        tokio::spawn(async move { while let Ok(Some(_)) = peer.recv().await {} });
        request
    }

    /// One request, served by hyper in whatever protocol it begins with.
    async fn served(&mut self) {
        let server = Server::builder().start_in_memory();
        let mut request = self.request();
        let answer = loop {
            tokio::select! {
                answer = &mut request => break answer.unwrap(),
                io = self.acceptor.accept() => server.attach(io),
            }
        };
        assert_eq!(answer.unwrap_or_else(|error| panic!("{}", chain(&error))), "ok");
        drop(server);
        crate::arena::settle().await;
    }

    fn last_offer(&self) -> Offer {
        *self.offers.lock().last().unwrap()
    }
}

/// P25: somebody in the way who speaks HTTP/1.1 without a certificate is obeyed and not remembered.
#[tokio::test(start_paused = true)]
async fn an_unauthenticated_downgrade_is_not_remembered() {
    let mut poisoned = Poisoned::new(Version::HTTP_11, false);
    poisoned.served().await;
    assert!(!poisoned.pool.is_h1_only(&poisoned.origin));
    *poisoned.settled.lock() = (Version::HTTP_2, true);
    poisoned.served().await;
    assert_eq!(poisoned.last_offer(), Offer::Any);
}

/// P25: an authenticated one is remembered, until the TTL is over; then h2 is offered again, and clears it.
#[tokio::test(start_paused = true)]
async fn a_forced_downgrade_heals_after_the_ttl() {
    let mut poisoned = Poisoned::new(Version::HTTP_11, true);
    poisoned.served().await;
    assert!(poisoned.pool.is_h1_only(&poisoned.origin));
    poisoned.served().await;
    assert_eq!(poisoned.last_offer(), Offer::H1);

    *poisoned.settled.lock() = (Version::HTTP_2, true);
    tokio::time::advance(Duration::from_secs(5 * 60 + 1)).await;
    poisoned.served().await;
    assert_eq!(poisoned.last_offer(), Offer::Any);
    assert!(!poisoned.pool.is_h1_only(&poisoned.origin));
}

/// P25: failures say nothing about protocols.
#[tokio::test(start_paused = true)]
async fn a_failed_dial_is_not_remembered_as_h1() {
    let mut poisoned = Poisoned::new(Version::HTTP_2, true);
    for words in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"",
        b"\x15\x03\x03\x00\x02\x02\x46",
    ] {
        let mut request = poisoned.request();
        let ended = loop {
            tokio::select! {
                ended = &mut request => break ended.unwrap(),
                io = poisoned.acceptor.accept() => {
                    let mut peer = Peer::new(io);
                    drop(peer.try_send_raw(words).await);
                }
            }
        };
        assert!(ended.is_err());
        assert!(!poisoned.pool.is_h1_only(&poisoned.origin), "{words:?}");
    }
    poisoned.served().await;
    assert_eq!(poisoned.last_offer(), Offer::Any);
}

/// P25, P26: HTTP_1_1_REQUIRED from the authenticated server: marked, and the request goes out over HTTP/1.1.
#[tokio::test(start_paused = true)]
async fn http_1_1_required_is_believed_from_an_authenticated_server() {
    let mut poisoned = Poisoned::new(Version::HTTP_2, true);
    let request = poisoned.refused_for_h1().await;
    let server = Server::builder().start_in_memory();
    server.attach(within("a dial for HTTP/1.1", poisoned.acceptor.accept()).await);
    assert_eq!(within("the answer", request).await.unwrap().unwrap(), "ok");
    assert!(poisoned.pool.is_h1_only(&poisoned.origin));
}

/// P25: from anybody else it is not remembered, whatever becomes of the request.
#[tokio::test(start_paused = true)]
async fn http_1_1_required_is_not_remembered_from_anybody_else() {
    let mut poisoned = Poisoned::new(Version::HTTP_2, false);
    let mut request = poisoned.refused_for_h1().await;
    let server = Server::builder().start_in_memory();
    let serving = async {
        loop {
            tokio::select! {
                ended = &mut request => return drop(ended.unwrap()),
                io = poisoned.acceptor.accept() => server.attach(io),
            }
        }
    };
    within("the end of the request", serving).await;
    assert!(!poisoned.pool.is_h1_only(&poisoned.origin));
}
