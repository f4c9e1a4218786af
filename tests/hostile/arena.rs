//! The place of the fight: one pool, one bad origin played by the test, one good origin that must not notice.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use h2pool::connect::{Connection, from_fn};
use h2pool::{Builder, Error, H2Pool, Origin, SessionInfo, SessionState};
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::resets::Resets;
use crate::support::memory::{Acceptor, Dialer, memory};
use crate::support::peer::{Peer, code, frame};
use crate::support::server::Server;
use crate::support::server::body::{Boxed, empty};
use crate::support::within;

/// What each direction of a connection holds: what a peer can write without being read.
pub(crate) const PIPE: usize = 64 * 1024;

/// The bad origin. Other ports of it are other origins, played by the same acceptor.
const BAD: &str = "bad.test";

/// What came of a request whose body was read to the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A request under way.
pub(crate) type Fetch = JoinHandle<Result<Answer, Error>>;

pub(crate) struct Arena {
    pub(crate) pool: H2Pool,
    bad: Acceptor,
    dialer: Dialer,
    bystander: Bystander,
    started: Instant,
}

impl Arena {
    /// A pool with its defaults, on a paused clock.
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    /// A pool that is configured for the case, on a paused clock: the bystander asks five times a second.
    pub(crate) fn with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        Self::paced(Duration::from_millis(200), Version::HTTP_2, configure)
    }

    /// The same with a bad origin that speaks HTTP/1.1.
    #[cfg(feature = "http1")]
    pub(crate) fn h1(configure: impl FnOnce(Builder) -> Builder) -> Self {
        Self::paced(Duration::from_millis(200), Version::HTTP_11, configure)
    }

    /// The same where the bad origin's end of a connection shows as a reset of it.
    pub(crate) fn resetting() -> Self {
        Self::made(Duration::from_millis(200), Version::HTTP_2, true, |builder| {
            builder
        })
    }

    /// A pool with its defaults on the real clock: the bystander asks without pause.
    pub(crate) fn real_time() -> Self {
        Self::paced(Duration::ZERO, Version::HTTP_2, |builder| builder)
    }

    fn paced(pace: Duration, bad_version: Version, configure: impl FnOnce(Builder) -> Builder) -> Self {
        Self::made(pace, bad_version, false, configure)
    }

    fn made(
        pace: Duration,
        bad_version: Version,
        resets: bool,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let (dialer, bad) = memory(PIPE);
        let (good_dialer, good) = memory(PIPE);
        let bad_dialer = dialer.clone();
        let connector = from_fn(move |origin: &Origin, _offer| {
            let (dialer, version) = if origin.host() == BAD {
                (&bad_dialer, bad_version)
            } else {
                (&good_dialer, Version::HTTP_2)
            };
            let dialed = dialer.dial().map_err(Error::connect);
            async move {
                let resets = Resets { io: dialed?, resets };
                Ok(Connection::new(resets, version).authenticated(true))
            }
        });
        let pool = configure(H2Pool::builder().connector(connector)).build().unwrap();
        let bystander = Bystander::start(pool.clone(), good, pace);
        Self {
            pool,
            bad,
            dialer,
            bystander,
            started: now(),
        }
    }

    /// The bad origin's connections, for whoever serves them all; afterwards none can be accepted here.
    pub(crate) fn take_acceptor(&mut self) -> Acceptor {
        let (_, none) = memory(1);
        std::mem::replace(&mut self.bad, none)
    }

    /// The next connection to the bad origin, nothing of it read; fails the test when none comes.
    pub(crate) async fn accept(&mut self) -> Peer {
        within("a connection to the bad origin", self.bad.peer()).await
    }

    /// The next connection, greeted with these SETTINGS.
    pub(crate) async fn greeted(&mut self, settings: &[(u16, u32)]) -> Peer {
        let mut peer = self.accept().await;
        peer.handshake(settings).await;
        peer
    }

    /// The next connection, however long it takes: for `select!` beside what ends the test.
    pub(crate) async fn accept_any(&mut self) -> Peer {
        self.bad.peer().await
    }

    /// A connection that is open already, if one is.
    pub(crate) fn try_accept(&mut self) -> Option<Peer> {
        self.bad.try_accept().map(Peer::new)
    }

    /// How often the bad origin was dialed.
    pub(crate) fn dials(&self) -> usize {
        self.dialer.dials()
    }

    /// A GET to the bad origin, on its way at once.
    pub(crate) fn get(&self, path: &str) -> Fetch {
        self.fetch(get(0, path))
    }

    /// A POST to the bad origin, on its way at once.
    pub(crate) fn post(&self, path: &str, body: Boxed) -> Fetch {
        let mut request = get(0, path).map(|_| body);
        *request.method_mut() = http::Method::POST;
        self.fetch(request)
    }

    /// Any request, on its way at once; its answer is read to the end.
    pub(crate) fn fetch(&self, request: Request<Boxed>) -> Fetch {
        let pool = self.pool.clone();
        tokio::spawn(async move {
            let response = pool.request(request).await?;
            let status = response.status();
            let collected = response.into_body().collect().await?;
            let trailers = collected.trailers().cloned();
            Ok(Answer {
                status,
                body: collected.to_bytes(),
                trailers,
            })
        })
    }

    /// From now on the bad origin behaves: a request is answered in time, and nothing remembers. Its sessions are
    /// closed in peace afterwards, so that the next case begins with a connection of its own.
    pub(crate) async fn recovers(&mut self) {
        let mut good = JoinSet::new();
        let leave = watch::Sender::new(false);
        let serving = async {
            // A request would be lost with a session that is not known to be over.
            self.until_left(&mut good, &leave).await;
            let mut fetch = self.get("/recovers");
            loop {
                tokio::select! {
                    answer = &mut fetch => return answer.unwrap(),
                    peer = self.bad.peer() => drop(good.spawn(serve_well(peer, leave.subscribe()))),
                }
            }
        };
        let answer = within("the answer once the server behaves", serving).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (200, &b"recovered"[..])
        );
        leave.send_replace(true);
        within("the end of the good sessions", good.join_all()).await;
        self.until_left(&mut JoinSet::new(), &leave).await;
    }

    /// Waits until the pool has noticed that all sessions of the bad origin are over, but for those that are served
    /// well: connections that nobody has accepted yet are.
    async fn until_left(&mut self, good: &mut JoinSet<()>, leave: &watch::Sender<bool>) {
        let is_active = |session: &&SessionInfo| {
            session.state == SessionState::Active && session.origin.ends_with("bad.test:1000")
        };
        let left = async {
            loop {
                while let Some(peer) = self.try_accept() {
                    good.spawn(serve_well(peer, leave.subscribe()));
                }
                let sessions = self.pool.sessions();
                if sessions.iter().filter(is_active).count() <= good.len() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        within("all bad sessions are known to be over", left).await;
    }

    /// How long the fight took so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The bystander was served all the while, and the process is not fat.
    pub(crate) async fn end(self) {
        self.bystander.end().await;
        if let Some(resident) = resident_bytes() {
            assert!(resident < 512 << 20, "{} MiB resident", resident >> 20);
        }
    }
}

async fn serve_well(mut peer: Peer, mut leave: watch::Receiver<bool>) {
    if peer.greet(&[]).await.is_err() {
        return;
    }
    tokio::select! {
        _ = peer.serve(b"recovered") => return,
        _ = leave.wait_for(|leave| *leave) => {}
    }
    if peer
        .try_send_raw(&frame::goaway(0x7fff_ffff, code::NO_ERROR, b""))
        .await
        .is_ok()
    {
        while let Ok(Some(_)) = peer.recv().await {}
    }
}

/// A GET to the `n`-th bad origin.
pub(crate) fn get(n: u16, path: &str) -> Request<Boxed> {
    let uri = format!("http://{BAD}:{}{path}", 1000 + n);
    Request::builder().uri(uri).body(empty()).unwrap()
}

/// Awaits what must end, and tells what it ended with.
pub(crate) async fn ends(fetch: Fetch) -> Result<Answer, Error> {
    within("the end of the request", fetch).await.unwrap()
}

/// Awaits what must fail.
pub(crate) async fn fails(fetch: Fetch) -> Error {
    ends(fetch).await.expect_err("the request must fail")
}

/// Whether the error, or a cause of it, names something. What a bound is called is for people; programs have the
/// predicates.
pub(crate) fn names(error: &Error, word: &str) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        if error.to_string().contains(word) {
            return true;
        }
        next = error.source();
    }
    false
}

/// All that an error says, for messages of tests.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = format!("{error:?}");
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}\n  because {cause}");
        next = cause.source();
    }
    text
}

/// Lets everything run that can run now.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have no core to hand the time to")]
fn now() -> Instant {
    Instant::now()
}

/// Resident memory of this process, where the system tells: all cases of this file together.
pub(crate) fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Requests to the good origin, one after the other, as long as the fight goes on.
struct Bystander {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Served>,
}

#[derive(Debug, Default)]
struct Served {
    requests: usize,
    slowest: Duration,
}

impl Bystander {
    /// Slower than this is harm: a request in memory takes about a millisecond, and tests run in parallel.
    const SLOW: Duration = Duration::from_secs(2);

    fn start(pool: H2Pool, mut acceptor: Acceptor, pace: Duration) -> Self {
        let server = Server::builder().start_in_memory();
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut served = Served::default();
            let requests = async {
                loop {
                    served.slowest = served.slowest.max(Self::one(&pool).await);
                    served.requests += 1;
                    if pace.is_zero() {
                        tokio::task::yield_now().await;
                    } else {
                        tokio::time::sleep(pace).await;
                    }
                }
            };
            tokio::select! {
                () = requests => {}
                () = async { loop { server.attach(acceptor.accept().await) } } => {}
                _ = &mut stopped => {}
            }
            served
        });
        Self { stop, task }
    }

    async fn one(pool: &H2Pool) -> Duration {
        let start = now();
        let request = Request::builder().uri("http://good.test/").body(empty()).unwrap();
        let response = pool.request(request).await.expect("the bystander is served");
        assert_eq!(response.status(), 200);
        response
            .into_body()
            .collect()
            .await
            .expect("the bystander is served");
        start.elapsed()
    }

    async fn end(self) {
        drop(self.stop);
        let served = within("the bystander's last answer", self.task).await.unwrap();
        assert!(served.requests > 0 && served.slowest < Self::SLOW, "{served:?}");
    }
}
