//! Which servers and cases run, and how: several servers at the same time, the cases of one in their order.

use std::env;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};

use crate::Failure;
use crate::client::{Client, Options};
use crate::context::{Context, REQUESTS};
use crate::fixtures;
use crate::matrix::{Case, cases};
use crate::process::version;
use crate::report::{Outcome, Row, say, summary, write_table};
use crate::running::Running;
use crate::settings::{Fixture, Settings};
use crate::site::Site;

/// A case that takes longer hangs; the slowest takes 8 s on an idle machine.
const CASE: Duration = Duration::from_secs(300);
/// How many servers are under way at the same time: some cases only wait for a server.
const AT_ONCE: usize = 3;

/// What to run.
pub(crate) struct Plan {
    words: Vec<String>,
    left_out: Vec<&'static str>,
    list: bool,
    write_table: bool,
    baseline: bool,
}

impl Plan {
    /// Reads arguments and environment.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        let (flags, words): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|arg| arg.starts_with('-'));
        let names = env::var("H2POOL_SKIP_SERVERS").unwrap_or_default();
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let left_out = names
            .map(|name| {
                let known = fixtures::ALL.iter().find(|fixture| fixture.name == name);
                known
                    .map(|fixture| fixture.name)
                    .ok_or_else(|| format!("H2POOL_SKIP_SERVERS: no server {name}"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            words,
            left_out,
            list: flags.iter().any(|flag| flag == "--list"),
            write_table: env::var("H2POOL_WRITE_TABLE").is_ok_and(|value| value == "1"),
            baseline: match env::var("H2POOL_CLIENT").as_deref() {
                Ok("hyper") => true,
                Ok("pool") | Err(_) => false,
                Ok(other) => return Err(format!("H2POOL_CLIENT is pool or hyper, not {other}").into()),
            },
        })
    }

    /// Whether hyper-util's client is driven instead of the pool.
    pub(crate) fn baseline(&self) -> bool {
        self.baseline
    }

    /// Runs it; whether all went well.
    pub(crate) async fn carry_out<C: Client>(self) -> Result<bool, Failure> {
        let fixtures: Vec<_> = fixtures::ALL
            .iter()
            .copied()
            .filter(|fixture| self.wants(fixture))
            .collect();
        if self.list {
            fixtures
                .iter()
                .for_each(|fixture| say(&format!("{}: test", fixture.name)));
            return Ok(true);
        }
        let start = now();
        let mut site = Site::create()?;
        let rows: Vec<Row> = stream::iter(fixtures)
            .map(|fixture| self.serve::<C>(fixture, &site))
            .buffered(AT_ONCE)
            .collect()
            .await;
        let well = rows.iter().all(|row| row.failed() == 0);
        if !well {
            say(&format!(
                "servers: configuration and logs are left in {}",
                site.keep().display()
            ));
        }
        if self.write_table {
            self.table::<C>(&rows)?;
        }
        say(&summary(
            &rows,
            &self.left_out,
            REQUESTS.load(Ordering::Relaxed),
            start.elapsed(),
        ));
        Ok(well)
    }

    fn wants(&self, fixture: &Fixture) -> bool {
        let named = |word: &String| fixture.name.contains(word.split('/').next().unwrap_or_default());
        !self.left_out.contains(&fixture.name) && (self.words.is_empty() || self.words.iter().any(named))
    }

    fn wants_case(&self, fixture: &Fixture, case: &str) -> bool {
        let named = |word: &String| {
            let (server, part) = word.split_once('/').unwrap_or((word, ""));
            fixture.name.contains(server) && case.contains(part)
        };
        self.words.is_empty() || self.words.iter().any(named)
    }

    /// All cases on one server.
    async fn serve<C: Client>(&self, fixture: &'static Fixture, site: &Site) -> Row {
        let cases = cases::<C>();
        let cases = cases.iter().filter(|case| self.wants_case(fixture, case.name));
        let mut row = Row {
            fixture,
            version: "not there".to_owned(),
            outcomes: Vec::new(),
        };
        match version(fixture.version) {
            Ok(version) => row.version = version,
            Err(error) => {
                say(&format!("{}: FAILED: {error}", fixture.name));
                row.outcomes
                    .extend(cases.map(|case| (case.name, Outcome::Failed)));
                return row;
            }
        }
        let mut running: Option<(Settings, Arc<Running>)> = None;
        for case in cases {
            if !case.suits(&fixture.can) {
                row.outcomes.push((case.name, Outcome::Impossible));
                continue;
            }
            let start = now();
            let (outcome, line) = one(fixture, site, case, &mut running).await;
            let took = start.elapsed().as_millis();
            say(&format!("{}/{}: {line} ({took} ms)", fixture.name, case.name));
            row.outcomes.push((case.name, outcome));
        }
        row
    }

    fn table<C: Client>(&self, rows: &[Row]) -> Result<(), Failure> {
        if !self.words.is_empty() || !self.left_out.is_empty() {
            return Err("the table is written by a run that leaves nothing out".into());
        }
        let legend: Vec<_> = cases::<C>().iter().map(|case| (case.name, case.about)).collect();
        write_table(rows, &legend, C::NAME)
    }
}

/// One case, on the server that runs already if it was started with the same settings; with what there is to say.
async fn one<C: Client>(
    fixture: &'static Fixture,
    site: &Site,
    case: &Case<C>,
    running: &mut Option<(Settings, Arc<Running>)>,
) -> (Outcome, String) {
    let server = match running {
        Some((settings, server)) if *settings == case.settings => Arc::clone(server),
        _ => {
            // The one before is ended first: it may be large.
            *running = None;
            match Running::start(fixture, site, &case.settings).await {
                Ok(server) => Arc::clone(&running.insert((case.settings, Arc::new(server))).1),
                Err(error) => return (Outcome::Failed, format!("FAILED: cannot be started: {error}")),
            }
        }
    };
    let mut notes = Vec::new();
    for _ in 0..case.rounds {
        match drive(fixture, case, Arc::clone(&server)).await {
            Ok(note) if note.is_empty() => {}
            Ok(note) => notes.push(note),
            Err(error) => {
                return (
                    Outcome::Failed,
                    format!("FAILED: {error}\n{}", server.tail().await),
                );
            }
        }
    }
    let notes: String = notes.iter().map(|note| format!(", {note}")).collect();
    (Outcome::Passed, format!("ok{notes}"))
}

/// Runs a case in a task, so that a panic is a failure like any other.
async fn drive<C: Client>(
    fixture: &'static Fixture,
    case: &Case<C>,
    server: Arc<Running>,
) -> Result<String, Failure> {
    let client = C::build(&Options {
        pings: !fixture.can.goes_on,
        ..case.options
    })?;
    let context = Context {
        case: case.name,
        client: client.clone(),
        server,
        settings: case.settings,
        can: fixture.can,
    };
    let task = tokio::spawn((case.run)(context));
    let stop = task.abort_handle();
    let done = match timeout(CASE, task).await {
        Ok(done) => done?,
        Err(_) => Err(format!("not done after {CASE:?}").into()),
    };
    // Before what still runs is dropped, so that a hanging case shows what hangs.
    let state = client.state();
    stop.abort();
    done.map_err(|error| format!("{error}\n{state}").into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "real servers, real time: how long the run takes"
)]
fn now() -> Instant {
    Instant::now()
}
