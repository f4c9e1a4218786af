//! Random programs: callers of every kind, three origins that speak HTTP/2 and HTTP/1.1 as it pleases them, and a network
//! and servers that do what they may. Whatever happens nobody hangs, the pool recovers, and when it is closed in the middle
//! of it nothing is left (P5, P8, P9, P12, P14, P20, P23, P29, P39).

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use h2pool::connect::Offer;
use h2pool::{Body, Error, H2Pool, SessionState};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::Service;

use crate::util::*;

const ORIGINS: [&str; 3] = ["https://a", "https://b", "https://c"];

/// So many requests of a calm server's connection, and it still goes on.
const NEVER: usize = usize::MAX;

fn millis(random: &mut SmallRng, below: u64) -> Duration {
    Duration::from_millis(random.random_range(0..below))
}

/// What a server does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Whim {
    Answer,
    Refuse,
    Fail,
    Misdirect,
}

impl Whim {
    fn choose(random: &mut SmallRng, calm: bool) -> Self {
        match random.random_range(0..20) {
            0 if !calm => Self::Refuse,
            1 if !calm => Self::Fail,
            2 if !calm => Self::Misdirect,
            _ => Self::Answer,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Misdirect => StatusCode::MISDIRECTED_REQUEST,
            _ => StatusCode::OK,
        }
    }
}

async fn speak_h2(io: DuplexStream, mut random: SmallRng, calm: bool) {
    sleep(millis(&mut random, 30)).await;
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(random.random_range(1..6));
    let Ok(mut server) = builder.handshake::<_, Bytes>(io).await else {
        return;
    };
    let ends = if calm { NEVER } else { random.random_range(1..40) };
    let mut count = 0;
    while let Some(Ok((request, respond))) = server.accept().await {
        count += 1;
        if count == ends {
            match random.random_range(0..3) {
                0 => server.graceful_shutdown(),
                1 => server.abrupt_shutdown(Reason::NO_ERROR),
                _ => return,
            }
        }
        let whim = Whim::choose(&mut random, calm);
        tokio::spawn(answer_h2(
            request.into_body(),
            respond,
            whim,
            millis(&mut random, 300),
        ));
    }
}

async fn answer_h2(mut body: RecvStream, mut respond: SendResponse<Bytes>, whim: Whim, delay: Duration) {
    if whim == Whim::Refuse {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let work = async {
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
        }
        sleep(delay).await;
    };
    tokio::select! {
        () = work => {}
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    }
    if whim == Whim::Fail {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    }
    let response = Response::builder().status(whim.status()).body(()).unwrap();
    if let Ok(mut stream) = respond.send_response(response, false) {
        sleep(delay / 3).await;
        let _ = stream.send_data(Bytes::from_static(b"hello"), true);
    }
}

async fn speak_h1(io: DuplexStream, mut random: SmallRng, calm: bool) {
    let ends = if calm { NEVER } else { random.random_range(1..20) };
    let count = AtomicUsize::new(0);
    let random = parking_lot::Mutex::new(random);
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
        let mut random = random.lock();
        let (whim, delay) = (Whim::choose(&mut random, calm), millis(&mut random, 300));
        let last = count.fetch_add(1, Ordering::SeqCst) + 1 >= ends;
        async move {
            let _ = request.into_body().collect().await;
            sleep(delay).await;
            if whim == Whim::Fail {
                return Err(std::io::Error::other("the server fails"));
            }
            let mut response = Response::builder().status(whim.status());
            if last {
                response = response.header("connection", "close");
            }
            Ok(response.body(Full::new(Bytes::from_static(b"hello"))).unwrap())
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
    let _ = connection.await;
}

/// Answers dials, or does not, until the pool is gone.
async fn network(mut net: Net, mut random: SmallRng, calm: Arc<AtomicBool>) {
    // The third origin speaks HTTP/1.1 in every other program; the others change their minds.
    let third_is_h1 = random.random_bool(0.5);
    while let Some(dial) = net.next_dial().await {
        let (wait, chance) = (millis(&mut random, 50), random.random_range(0..12));
        let (authenticated, other) = (random.random_bool(0.7), random.random_bool(0.25));
        let (random, calm) = (SmallRng::seed_from_u64(random.random()), calm.clone());
        tokio::spawn(async move {
            sleep(wait).await;
            let calm = calm.load(Ordering::SeqCst);
            let third = third_is_h1 && dial.key().host() == "c";
            match chance {
                0 if !calm => drop(dial),
                1 if !calm => pass(3.0).await,
                2 if !calm => drop(dial.accept(Version::HTTP_2)),
                _ if third || (other && !calm) || dial.offer() == Offer::H1 => {
                    let io = dial.authenticated(authenticated).accept(Version::HTTP_11);
                    speak_h1(io, random, calm).await;
                }
                _ => speak_h2(dial.accept(Version::HTTP_2), random, calm).await,
            }
        });
    }
}

/// A caller who begins at some time, and may lose patience.
fn caller(pool: &H2Pool, key: &'static str, mut random: SmallRng) -> JoinHandle<Result<(), Error>> {
    let pool = pool.clone();
    tokio::spawn(async move {
        sleep(millis(&mut random, 20_000)).await;
        let patience = match random.random_range(0..4) {
            0 => millis(&mut random, 600),
            _ => Duration::from_secs(600),
        };
        timeout(patience, use_once(pool, key, random))
            .await
            .unwrap_or(Ok(()))
    })
}

/// A request in one of the ways in which there are requests, or something that ends without one.
async fn use_once(pool: H2Pool, key: &'static str, mut random: SmallRng) -> Result<(), Error> {
    let request = || get(uri(key));
    let hold = millis(&mut random, 400);
    let response = match random.random_range(0..9) {
        0 => pool.request(post(uri(key), "body")).await?,
        1 => {
            let lease = pool.acquire(&origin(key)).await?;
            sleep(hold).await;
            lease.send(request()).await?
        }
        2 => {
            let _unused = pool.acquire(&origin(key)).await?;
            sleep(hold).await;
            return Ok(());
        }
        3 => {
            let mut service = pool.origin(origin(key));
            service.ready().await?;
            sleep(hold).await;
            service.call(post(uri(key), "body")).await?
        }
        4 => left_alone(&pool, key, hold).await?,
        5 => {
            pool.warm(&origin(key), 2)?;
            pool.request(request()).await?
        }
        _ => pool.request(request()).await?,
    };
    if random.random_bool(0.2) {
        sleep(hold).await;
        return Ok(());
    }
    response.into_body().collect().await.map(drop)
}

/// By a service whose readiness is not asked for all the time.
async fn left_alone(pool: &H2Pool, key: &'static str, hold: Duration) -> Result<Response<Body>, Error> {
    let mut service = pool.origin(origin(key));
    for patience in [1, 5] {
        let _ready = timeout(Duration::from_millis(patience), service.ready()).await;
        sleep(hold).await;
    }
    drop(service.clone());
    service.ready().await?;
    service.call(get(uri(key))).await
}

/// A pool with limits that short programs reach.
fn small(random: &mut SmallRng) -> (H2Pool, Net, usize) {
    let mut of = |choices: &[u64]| choices[random.random_range(0..choices.len())];
    let max_sessions = of(&[1, 2, 3]) as usize;
    let seconds = Duration::from_secs;
    let builder = H2Pool::builder()
        .max_sessions(max_sessions)
        .max_h1_connections(max_sessions)
        .min_sessions((of(&[0, 1, 2]) as usize).min(max_sessions))
        .limit_concurrency(of(&[0, 0, 1, 3, 8]) as usize)
        .max_waiters(of(&[0, 5, 2048]) as usize)
        .max_origins(of(&[2, 8]) as usize)
        .max_streams_per_session(of(&[0, 4]) as usize)
        .streams_per_session(of(&[2, 100]) as usize)
        .h1_only_ttl(seconds(of(&[0, 1, 300])))
        .idle_timeout(seconds(of(&[2, 90])))
        .max_age(seconds(of(&[0, 3])))
        .drain_timeout(seconds(of(&[5, 30])))
        .connect_timeout(seconds(1))
        .acquire_timeout(seconds(10));
    let (pool, net) = net(builder);
    (pool, net, max_sessions)
}

/// Looks at the bound on sessions again and again.
async fn watch(pool: H2Pool, max_sessions: usize) -> Infallible {
    loop {
        sleep(Duration::from_millis(7)).await;
        let sessions = pool.sessions();
        for key in ORIGINS.map(origin) {
            let active = sessions
                .iter()
                .filter(|session| session.origin == key.to_string() && session.state == SessionState::Active)
                .count();
            assert!(active <= max_sessions, "{sessions:#?}");
        }
    }
}

/// Once servers and network are calm: connections from before may still end or refuse, but then all is well.
async fn recover(pool: &H2Pool) {
    pass(15.0).await;
    for key in ORIGINS {
        for nth in 0..4 {
            let (answer, took) = timed(pool.request(get(uri(key)))).await;
            let Err(error) = answer else { continue };
            assert!(
                nth < 3 || !(error.is_connect() || error.is_timeout()),
                "{error:?}"
            );
            assert!(nth < 3 || took < Duration::from_secs(5), "{took:?}");
        }
    }
}

async fn play(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let (pool, net, max_sessions) = small(&mut random);
    let calm = Arc::new(AtomicBool::new(false));
    let mut next = || SmallRng::seed_from_u64(random.random());
    tokio::spawn(network(net, next(), calm.clone()));
    let watch = tokio::spawn(watch(pool.clone(), max_sessions));
    let callers: Vec<_> = (0..200).map(|n| caller(&pool, ORIGINS[n % 3], next())).collect();
    for caller in callers {
        let ended = timeout(Duration::from_secs(200), caller).await;
        if let Err(error) = ended.expect("nobody hangs").unwrap() {
            assert!(!error.is_closed() && !error.is_config(), "{error:?}");
        }
    }
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
    calm.store(true, Ordering::SeqCst);
    recover(&pool).await;
    assert!(!watch.is_finished());
    watch.abort();

    let late: Vec<_> = (0..30).map(|n| caller(&pool, ORIGINS[n % 3], next())).collect();
    sleep(millis(&mut random, 20_000)).await;
    pool.close();
    let ended = timeout(Duration::from_secs(31), pool.closed()).await;
    assert!(ended.is_ok(), "within `drain_timeout`: {:#?}", pool.sessions());
    for caller in late {
        let _ended = join(caller).await;
    }
    let stats = pool.stats();
    assert_eq!(stats.sessions_opened, stats.sessions_closed.total());
    let left = (
        stats.streams,
        stats.waiters,
        stats.sessions_dialing,
        stats.origins,
    );
    assert_eq!(left, (0, 0, 0, 0));
}

#[test]
fn whatever_callers_and_servers_do_nobody_hangs_and_nothing_is_left() {
    // P5, P8, P9, P12, P14, P20, P23, P29, P39
    for seed in 0..12 {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let played = std::panic::AssertUnwindSafe(|| runtime.block_on(play(seed)));
        assert!(std::panic::catch_unwind(played).is_ok(), "seed {seed}");
    }
}
