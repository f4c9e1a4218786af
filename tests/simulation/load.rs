//! Clients that ask all the time, and what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2pool::{Error, H2Pool};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::server::ID;

/// Longer than all the time limits of one request together, replays included: whoever takes longer is stuck.
const STUCK: Duration = Duration::from_secs(180);

/// What came of the requests so far.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) answered: AtomicUsize,
    pub(crate) given_up: AtomicUsize,
    /// The numbers of those that failed, with their errors.
    pub(crate) failed: Mutex<Vec<(usize, Error)>>,
    numbers: AtomicUsize,
}

impl Tally {
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    pub(crate) fn failures(&self) -> usize {
        self.failed.lock().len()
    }

    /// How many requests there were; they have the numbers below it.
    pub(crate) fn numbers(&self) -> usize {
        self.numbers.load(Ordering::SeqCst)
    }
}

/// Clients at work.
pub(crate) struct Load {
    pub(crate) tally: Arc<Tally>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Load {
    /// So many clients, each of which asks, reads, and thinks for `pause` on average.
    pub(crate) fn start(pool: &H2Pool, clients: u64, pause: Duration, seed: u64) -> Self {
        let tally = Arc::new(Tally::default());
        let stop = watch::Sender::new(false);
        let mut set = JoinSet::new();
        for client in 0..clients {
            let random = SmallRng::seed_from_u64(seed * 1000 + client);
            set.spawn(work(pool.clone(), random, pause, tally.clone(), stop.subscribe()));
        }
        Self {
            tally,
            stop,
            clients: set,
        }
    }

    /// Lets all finish what they are at.
    pub(crate) async fn end(self) -> Arc<Tally> {
        self.stop.send_replace(true);
        // A client that panicked says why.
        self.clients.join_all().await;
        self.tally
    }
}

async fn work(
    pool: H2Pool,
    mut random: SmallRng,
    pause: Duration,
    tally: Arc<Tally>,
    stop: watch::Receiver<bool>,
) {
    while !*stop.borrow() {
        sleep(pause.mul_f64(2.0 * random.random::<f64>())).await;
        let number = tally.numbers.fetch_add(1, Ordering::SeqCst);
        let (request, expected) = request(&mut random, number);
        let exchange = async {
            let response = pool.request(request).await?;
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await?.to_bytes();
            assert_eq!(body.len(), expected, "all of it");
            Ok(())
        };
        let impatient = random.random_bool(0.05);
        let patience = if impatient {
            pause.mul_f64(random.random())
        } else {
            STUCK
        };
        match timeout(patience, exchange).await {
            Ok(Ok(())) => drop(tally.answered.fetch_add(1, Ordering::SeqCst)),
            Ok(Err(error)) => tally.failed.lock().push((number, error)),
            Err(_) => {
                assert!(impatient, "request {number} did not settle");
                tally.given_up.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// A request of any kind, and how long its answer is.
fn request(random: &mut SmallRng, number: usize) -> (Request<Full<Bytes>>, usize) {
    let length = random.random_range(0..30_000);
    let (request, body, expected) = match random.random_range(0..4) {
        0 => (Request::post("https://a/echo"), vec![b'x'; length], length),
        1 => (
            Request::get(format!("https://a/bytes/{length}")),
            Vec::new(),
            length,
        ),
        2 => (
            Request::get(format!("https://a/delay/{}", length / 30)),
            Vec::new(),
            2,
        ),
        _ => (Request::get("https://a/"), Vec::new(), 2),
    };
    let request = request.header(ID, number);
    (request.body(Full::new(body.into())).unwrap(), expected)
}
