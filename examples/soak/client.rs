//! The clients: each sends one request after the other, of a random kind, and checks what comes back.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use h2pool::{Error, H2Pool};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use crate::server::pattern;
use crate::world::{Phase, World};

/// No request may take longer, whatever the server does: the pool's own time limits are far below.
const PATIENCE: Duration = Duration::from_secs(30);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// All clients.
pub(crate) struct Clients {
    tasks: JoinSet<()>,
    busy: Arc<AtomicUsize>,
}

/// What one client needs.
struct Client {
    pool: H2Pool,
    base: String,
    world: Arc<World>,
    rng: SmallRng,
}

/// A request to be made.
struct Plan {
    id: u64,
    method: Method,
    upload: usize,
    download: usize,
    conduct: Conduct,
}

/// How a client treats its request.
#[derive(Clone, Copy)]
enum Conduct {
    /// Waits for all of it.
    Patient,
    /// Drops it after this time, without telling.
    Cancel(Duration),
    /// Drops it after this time, and calls that a timeout.
    Timeout(Duration),
    /// Drops the body after its first frame.
    Leave,
}

impl Clients {
    pub(crate) fn start(count: usize, pool: &H2Pool, base: &str, world: &Arc<World>, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x636c_6965_6e74);
        let busy = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let client = Client {
                pool: pool.clone(),
                base: base.to_owned(),
                world: Arc::clone(world),
                rng: SmallRng::seed_from_u64(rng.random()),
            };
            tasks.spawn(client.run(Arc::clone(&busy)));
        }
        Self { tasks, busy }
    }

    /// Requests that are not settled.
    pub(crate) fn busy(&self) -> usize {
        self.busy.load(Ordering::SeqCst)
    }

    /// Waits for the end of all.
    pub(crate) async fn ended(&mut self) {
        // A panic is a breach already, by the hook.
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Sends `count` requests at once and waits for their answers: every run, and both rests of it, do the same here.
pub(crate) async fn drill(count: usize, pool: &H2Pool, base: &str, world: &Arc<World>) {
    let mut tasks = JoinSet::new();
    for nth in 0..count {
        let mut client = Client {
            pool: pool.clone(),
            base: base.to_owned(),
            world: Arc::clone(world),
            rng: SmallRng::seed_from_u64(u64::try_from(nth).unwrap_or(0)),
        };
        let plan = Plan {
            id: world.next_id(),
            method: if nth % 4 == 0 { Method::POST } else { Method::GET },
            upload: if nth % 4 == 0 { 4_096 } else { 0 },
            download: 16 * 1024,
            conduct: Conduct::Patient,
        };
        tasks.spawn(async move {
            let id = plan.id;
            if let Err(error) = client.exchange(&plan).await {
                client
                    .world
                    .breach(format!("request {id} of the drill failed: {error}"));
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

impl Client {
    async fn run(mut self, busy: Arc<AtomicUsize>) {
        let mut phases = self.world.phases();
        loop {
            match phases.wait_for(|phase| *phase != Phase::Rest).await.as_deref() {
                Ok(Phase::Storm) => {}
                _ => return,
            }
            busy.fetch_add(1, Ordering::SeqCst);
            let goes_on = self.one().await;
            busy.fetch_sub(1, Ordering::SeqCst);
            if !goes_on {
                return;
            }
            if self.rng.random_bool(0.2) {
                let pause = Duration::from_millis(self.rng.random_range(1..20));
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// One request of any kind. False: the pool is closed.
    async fn one(&mut self) -> bool {
        let plan = self.plan();
        let kind = plan.kind();
        let world = Arc::clone(&self.world);
        let settled = tokio::time::timeout(PATIENCE, self.perform(&plan)).await;
        let outcome = match settled {
            Ok(outcome) => outcome,
            Err(_) => {
                let stats = self.pool.stats();
                let id = plan.id;
                world.breach(format!("{kind} {id} did not settle in {PATIENCE:?}: {stats:?}"));
                "not settled"
            }
        };
        world.count("client: requests settled");
        world.count(&format!("client: {kind}: {outcome}"));
        !self.pool.is_closed()
    }

    fn plan(&mut self) -> Plan {
        let rng = &mut self.rng;
        let soon = Duration::from_micros(rng.random_range(0..15_000));
        let conduct = match rng.random_range(0..100) {
            0..10 => Conduct::Cancel(soon),
            10..20 => Conduct::Timeout(soon * 4),
            20..24 => Conduct::Leave,
            _ => Conduct::Patient,
        };
        let posts = rng.random_bool(0.3);
        let downloads = matches!(conduct, Conduct::Leave) || rng.random_bool(0.2);
        Plan {
            id: self.world.next_id(),
            method: if posts { Method::POST } else { Method::GET },
            upload: if posts { rng.random_range(0..20_000) } else { 0 },
            download: if downloads {
                rng.random_range(1..200_000)
            } else {
                rng.random_range(0..200)
            },
            conduct,
        }
    }

    async fn perform(&mut self, plan: &Plan) -> &'static str {
        let outcome = match plan.conduct {
            Conduct::Patient | Conduct::Leave => self.exchange(plan).await,
            Conduct::Cancel(after) => match tokio::time::timeout(after, self.exchange(plan)).await {
                Ok(outcome) => outcome,
                Err(_) => return "cancelled",
            },
            Conduct::Timeout(after) => match tokio::time::timeout(after, self.exchange(plan)).await {
                Ok(outcome) => outcome,
                Err(_) => return "timed out",
            },
        };
        match outcome {
            Ok(()) => "answered",
            Err(error) => {
                if error.is_unprocessed() && self.world.was_processed(plan.id) {
                    let id = plan.id;
                    self.world
                        .breach(format!("{id} was processed, and its error denies it: {error}"));
                }
                kind_of(&error)
            }
        }
    }

    async fn exchange(&mut self, plan: &Plan) -> Result<(), Error> {
        let request = Request::builder()
            .method(plan.method.clone())
            .uri(format!("{}/", self.base))
            .header("x-id", plan.id)
            .header("x-upload", plan.upload)
            .header("x-download", plan.download);
        let body = self.body(plan);
        let Ok(request) = request.body(body) else {
            return Err(Error::connect("the request cannot be built"));
        };
        let response = self.pool.request(request).await?;
        self.check(plan, response).await
    }

    fn body(&mut self, plan: &Plan) -> Body {
        if plan.method == Method::GET {
            return Empty::new().boxed_unsync();
        }
        let content = Bytes::from(pattern(plan.id, plan.upload));
        if self.rng.random_bool(0.5) {
            return Full::new(content).boxed_unsync();
        }
        // In pieces, and not all at once.
        let frames = stream::unfold(content, |mut rest| async move {
            if rest.is_empty() {
                return None;
            }
            tokio::task::yield_now().await;
            let piece = rest.split_to(rest.len().min(3_000));
            Some((Ok(Frame::data(piece)), rest))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn check(&self, plan: &Plan, response: Response<h2pool::Body>) -> Result<(), Error> {
        let id = plan.id;
        let answers = response.headers().get("x-id");
        let answers = answers
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        if answers != Some(id) {
            self.world
                .breach(format!("{id} got the answer of another: {response:?}"));
        }
        if !self.world.was_processed(id) {
            self.world
                .breach(format!("{id} was answered and not processed: {response:?}"));
        }
        let mut body = response.into_body();
        let mut content = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                content.extend_from_slice(&data);
            }
            if matches!(plan.conduct, Conduct::Leave) {
                return Ok(());
            }
        }
        if content != pattern(id, plan.download) {
            let length = content.len();
            self.world.breach(format!(
                "{id} was to download {} bytes and got {length}",
                plan.download
            ));
        }
        Ok(())
    }
}

impl Plan {
    fn kind(&self) -> &'static str {
        match (self.conduct, &self.method) {
            (Conduct::Cancel(_), _) => "cancel",
            (Conduct::Timeout(_), _) => "short timeout",
            (Conduct::Leave, _) => "download left",
            (Conduct::Patient, &Method::POST) => "POST",
            (Conduct::Patient, _) if self.download > 200 => "download",
            (Conduct::Patient, _) => "GET",
        }
    }
}

fn kind_of(error: &Error) -> &'static str {
    let kinds = [
        (error.is_closed(), "pool closed"),
        (error.is_saturated(), "saturated"),
        (error.is_keep_alive_timeout(), "keep-alive timeout"),
        (error.is_connect(), "connect failed"),
        (error.is_unprocessed(), "not processed, replays used up"),
        (error.is_goaway(), "GOAWAY"),
        (error.is_reset(), "reset"),
        (error.is_timeout(), "timeout of the pool"),
    ];
    let found = kinds.iter().find(|(is, _)| *is);
    found.map_or("connection lost", |(_, name)| name)
}
