//! Requests by chance against servers by chance, which break off, refuse, stall and answer early, and know what may come of
//! each request. In the end they are calm: everything ends, and every slot is free.
//!
//! `H2POOL_STORMS=500 cargo test --test session storms` runs so many seeds, `H2POOL_STORM=17` begins with that one.

mod client;
mod h1;

mod h2;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use h2pool::connect::{Connection, from_fn};
use h2pool::{Builder, Error, H2Pool, Origin};
use http::Version;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::DuplexStream;

use self::client::{Asked, Outcome, ask};
use crate::support::memory::memory;

const REQUESTS: usize = 40;
/// Of a default run, which takes a second or two.
const SEEDS: u64 = 12;

/// What a server noted of each request, by its number; one that was sent twice has two.
type Book<A> = Arc<Mutex<HashMap<usize, Vec<A>>>>;

/// What a server by chance is given: a connection.
struct Fate<A> {
    io: DuplexStream,
    connection: usize,
    rng: SmallRng,
    book: Book<A>,
    calm: Arc<AtomicBool>,
}

impl<A> Fate<A> {
    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }
}

/// What is wrong with what came of a request.
type Judge<A> = fn(&Asked, &Outcome, &[A]) -> Option<String>;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |number| number.parse().expect(name))
}

/// Runs storms, one after the other, each on a paused clock.
fn run<A, F>(version: Version, serve: fn(Fate<A>) -> F, judge: Judge<A>)
where
    A: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let first = number("H2POOL_STORM", 0);
    for seed in first..first + number("H2POOL_STORMS", SEEDS) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let faults = runtime.block_on(storm(seed, version, serve, judge));
        assert!(faults.is_empty(), "H2POOL_STORM={seed}: {}", faults.join("\n"));
    }
}

async fn storm<A, F>(seed: u64, version: Version, serve: fn(Fate<A>) -> F, judge: Judge<A>) -> Vec<String>
where
    A: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut rng = SmallRng::seed_from_u64(seed);
    let (book, calm) = (Book::default(), Arc::<AtomicBool>::default());
    let pool = pool(seed, version, serve, (book.clone(), calm.clone()), &mut rng);
    let mut requests = Vec::new();
    for id in 0..REQUESTS {
        let asked = Asked::by_chance(id, version, &mut rng);
        requests.push(tokio::spawn(judged(pool.clone(), asked, book.clone(), judge)));
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
    }
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..2000))).await;
    calm.store(true, Ordering::SeqCst);
    let mut faults = Vec::new();
    for request in requests {
        faults.extend(request.await.unwrap_or_else(|panic| Some(panic.to_string())));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    if pool.stats().streams > 0 {
        faults.push(format!(
            "{} slots are not free: {:?}",
            pool.stats().streams,
            pool.sessions()
        ));
    }
    for id in REQUESTS..REQUESTS + 3 {
        let last = judged(pool.clone(), Asked::last(id), book.clone(), judge).await;
        faults.extend(last.map(|fault| format!("afterwards, {fault}")));
    }
    faults
}

/// Sends one request, and says what is wrong with what came of it.
async fn judged<A: Clone>(pool: H2Pool, asked: Asked, book: Book<A>, judge: Judge<A>) -> Option<String> {
    let outcome = ask(&pool, &asked).await;
    let attempts = book.lock().get(&asked.id).cloned().unwrap_or_default();
    let fault = match &outcome {
        Outcome::GivenUp => return None,
        Outcome::Hangs(at) => Some(format!("it hangs {at}")),
        Outcome::Failed(_) | Outcome::Read { .. } => None,
    };
    let fault = fault.or_else(|| judge(&asked, &outcome, &attempts))?;
    Some(format!("request {}: {fault}: {asked:?}, {outcome:?}", asked.id))
}

/// A pool whose options are chosen by chance, too.
fn pool<A, F>(
    seed: u64,
    version: Version,
    serve: fn(Fate<A>) -> F,
    (book, calm): (Book<A>, Arc<AtomicBool>),
    rng: &mut SmallRng,
) -> H2Pool
where
    A: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let narrow = rng.random_bool(0.5);
    let buffer = if narrow {
        rng.random_range(20..300)
    } else {
        rng.random_range(300..65_536)
    };
    let (dialer, mut acceptor) = memory(buffer);
    let connector = from_fn(move |_: &Origin, _| {
        let dialed = dialer.dial().map_err(Error::connect);
        async move { Ok(Connection::new(dialed?, version).authenticated(true)) }
    });
    tokio::spawn(async move {
        for connection in 1.. {
            let fate = Fate {
                io: acceptor.accept().await,
                connection,
                rng: SmallRng::seed_from_u64(seed * 1000 + connection as u64),
                book: book.clone(),
                calm: calm.clone(),
            };
            tokio::spawn(serve(fate));
        }
    });
    let builder = H2Pool::builder()
        .max_sessions(rng.random_range(1..4))
        .max_h1_connections(rng.random_range(1..5))
        .acquire_timeout(Duration::from_secs(200));
    options(builder, rng).connector(connector).build().unwrap()
}

type Setter = fn(Builder, Duration) -> Builder;

fn options(mut builder: Builder, rng: &mut SmallRng) -> Builder {
    let times: [(Setter, _); 6] = [
        (Builder::body_idle_timeout, 20..2000),
        (Builder::header_timeout, 20..2000),
        (Builder::write_timeout, 20..2000),
        (Builder::keep_alive_interval, 1000..2000),
        (Builder::max_age, 1000..3000),
        (Builder::drain_timeout, 1000..4000),
    ];
    for (set, range) in times {
        if rng.random_bool(0.3) {
            builder = set(builder, Duration::from_millis(rng.random_range(range)));
        }
    }
    if rng.random_bool(0.3) {
        builder = builder.max_streams_per_session(rng.random_range(1..10));
    }
    if rng.random_bool(0.3) {
        builder = builder.limit_concurrency(rng.random_range(1..6));
    }
    if rng.random_bool(0.3) {
        builder = builder.replay_buffer(rng.random_range(0..20_000));
    }
    if rng.random_bool(0.3) {
        builder = builder.max_replays(rng.random_range(0..3));
    }
    builder
}
