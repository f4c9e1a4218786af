//! Closing a pool while an origin is used for the first time (P20).

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use h2pool::connect::memory::{MemoryListener, pair};
use h2pool::{Builder, Error, H2Pool, Key, Lease, Origin};
use http::Version;
use http::request::Parts;
use parking_lot::Mutex;

use crate::support::peer::Peer;
use crate::support::within;
use crate::util::*;

/// A key that does something, once, while the pool makes its origin.
#[derive(Clone)]
struct Slow {
    origin: Origin,
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

impl Slow {
    fn new(origin: Origin) -> Self {
        Self {
            origin,
            meanwhile: Arc::default(),
        }
    }

    fn doing(self, meanwhile: impl FnOnce() + Send + 'static) -> Self {
        *self.meanwhile.lock() = Some(Box::new(meanwhile));
        self
    }
}

impl PartialEq for Slow {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin
    }
}

impl Eq for Slow {}

impl Hash for Slow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.origin.hash(state);
    }
}

impl Key for Slow {
    fn from_parts(parts: &Parts) -> Result<Self, Error> {
        Origin::from_uri(&parts.uri).map(Self::new)
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn detached(&self) -> Self {
        let meanwhile = self.meanwhile.lock().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        self.clone()
    }
}

fn slow(text: &str) -> Slow {
    Slow::new(origin(text))
}

/// A pool with one permit, which a lease has, and the server of that lease.
async fn leased() -> (H2Pool<Slow>, MemoryListener<Slow>, Lease<Slow>, Peer) {
    let (connector, mut listener) = pair::<Slow>();
    let builder = Builder::<Slow>::new().connector(connector);
    let pool = builder.limit_concurrency(1).build().unwrap();
    let lease = acquire(&pool, "https://a");
    let dial = within("a dial", listener.accept()).await.unwrap();
    let mut peer = Peer::new(dial.accept(Version::HTTP_2));
    peer.handshake(&streams(10)).await;
    (pool, listener, join(lease).await.unwrap(), peer)
}

fn acquire(pool: &H2Pool<Slow>, key: &'static str) -> tokio::task::JoinHandle<Result<Lease<Slow>, Error>> {
    let pool = pool.clone();
    tokio::spawn(async move { pool.acquire(&slow(key)).await })
}

/// Whoever is woken lets a thread go on, and waits until it is through.
struct Baton(Mutex<(Sender<()>, Receiver<()>)>);

impl Wake for Baton {
    fn wake(self: Arc<Self>) {
        let (go, through) = &*self.0.lock();
        let _ = go.send(());
        let _ = through.recv_timeout(Duration::from_secs(10));
    }
}

/// A thread that uses an origin for the first time. It stands in the middle of that until the waker is woken.
fn newcomer(pool: &H2Pool<Slow>) -> (JoinHandle<Result<(), Error>>, Waker) {
    let (go, may_go) = channel();
    let (through, is_through) = channel();
    let (reached, is_reached) = channel();
    let key = slow("https://b").doing(move || {
        reached.send(()).unwrap();
        may_go.recv().unwrap();
    });
    let pool = pool.clone();
    let thread = std::thread::spawn(move || {
        let warmed = pool.warm(&key, 1);
        through.send(()).unwrap();
        warmed
    });
    is_reached.recv().unwrap();
    let baton = Baton(Mutex::new((go, is_through)));
    (thread, Waker::from(Arc::new(baton)))
}

#[tokio::test(start_paused = true)]
async fn what_drains_is_shown_though_an_origin_came_too_late() {
    // P20, P40
    let (pool, _listener, lease, _peer) = leased().await;
    let closer = pool.clone();
    let late = slow("https://b").doing(move || closer.close());
    assert!(pool.warm(&late, 1).unwrap_err().is_closed());
    assert_eq!((pool.sessions().len(), pool.stats().sessions_draining), (1, 1));
    let ((), took) = timed(pool.closed()).await;
    assert_eq!(took.as_secs(), 30, "`drain_timeout`");
    assert_eq!(pool.stats().origins, 0);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn what_drains_has_its_deadline_though_an_origin_came_while_the_pool_closed() {
    // P20: between the pool's end and that of its origins, as a waiter for the permit is woken.
    let (pool, _listener, lease, _peer) = leased().await;
    let (thread, waker) = newcomer(&pool);
    let key = slow("https://a");
    let mut waits = Box::pin(pool.acquire(&key));
    assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    pool.close();
    assert!(thread.join().unwrap().unwrap_err().is_closed());
    assert_eq!(pool.stats().sessions_draining, 1);
    let ((), took) = timed(pool.closed()).await;
    assert_eq!(took.as_secs(), 30, "`drain_timeout`");
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn who_waits_out_a_back_off_hears_of_it_though_an_origin_came_while_the_pool_closed() {
    // P9, P20: no session and no dial is left then.
    let (pool, mut listener, lease, peer) = leased().await;
    let (thread, waker) = newcomer(&pool);
    let key = slow("https://a");
    let mut waits = Box::pin(pool.acquire(&key));
    assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(peer);
    settle().await;
    let fails = acquire(&pool, "https://c");
    drop(within("a dial", listener.accept()).await.unwrap());
    assert!(join(fails).await.unwrap_err().is_connect());
    let backs_off = acquire(&pool, "https://c");
    tokio::task::yield_now().await;
    assert_eq!((pool.stats().waiters, pool.stats().sessions_dialing), (2, 0));
    pool.close();
    assert!(thread.join().unwrap().unwrap_err().is_closed());
    let error = join(backs_off).await.unwrap_err();
    assert!(error.is_closed(), "{error:?}");
    drop(lease);
}
