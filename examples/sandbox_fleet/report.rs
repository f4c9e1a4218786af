//! What is shown: progress on the way, a table at the end.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use h2pool::Stats;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::Client;
use crate::fleet::Outcome;
use crate::gateway::world::Ledger;
use crate::options::Options;

/// Two bars: sandboxes that are ready, and those with which all is done. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Progress {
    ready: ProgressBar,
    done: ProgressBar,
}

impl Progress {
    pub(crate) fn new(sandboxes: usize) -> Self {
        let bars = indicatif::MultiProgress::new();
        let style = ProgressStyle::with_template("{prefix:>6} [{bar:40}] {pos}/{len} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = |prefix: &'static str| {
            let bar = ProgressBar::new(sandboxes as u64);
            bars.add(bar).with_style(style.clone()).with_prefix(prefix)
        };
        if bars.is_hidden() {
            note(format_args!("waking {sandboxes} sandboxes"));
        }
        Self {
            ready: bar("ready"),
            done: bar("done"),
        }
    }

    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self {
            ready: ProgressBar::hidden(),
            done: ProgressBar::hidden(),
        }
    }

    pub(crate) fn ready(&self) {
        step(&self.ready, "ready");
    }

    pub(crate) fn done(&self) {
        step(&self.done, "done");
    }

    pub(crate) fn finish(&self) {
        self.ready.finish();
        self.done.finish();
    }
}

/// Where no terminal shows the bar, every quarter is a line.
fn step(bar: &ProgressBar, what: &str) {
    bar.inc(1);
    let (position, length) = (bar.position(), bar.length().unwrap_or(0));
    if bar.is_hidden() && length > 0 && position % length.div_ceil(4) == 0 {
        note(format_args!("{position} of {length} {what}"));
    }
}

/// A line on standard error; nobody there to read it is no reason to stop.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints the closing table.
pub(crate) fn table(
    options: &Options,
    client: &Client,
    stats: &Stats,
    ledger: &Ledger,
    outcome: &Outcome,
) -> Result<()> {
    let totals = client.tally().totals();
    let mut rows: Vec<(String, String)> = vec![
        (
            "sandboxes".into(),
            format!("{} (seed {})", options.sandboxes, options.seed),
        ),
        ("requests".into(), totals.requests.to_string()),
        ("attempts".into(), totals.attempts.to_string()),
    ];
    for (reason, times) in &totals.reasons {
        rows.push((format!("  retries after {reason}"), times.to_string()));
    }
    let lost = outcome.failures.len();
    rows.extend([
        ("replays by the pool".into(), stats.replays.to_string()),
        ("answers looked up".into(), totals.lookups.to_string()),
        ("time to ready".into(), percentiles(&outcome.ready)?),
        (
            "connections".into(),
            format!(
                "{} ({} by GOAWAY closed)",
                stats.sessions_opened, stats.sessions_closed.goaway
            ),
        ),
        (
            "POSTs executed".into(),
            format!("{}, {} twice", ledger.executed(), ledger.doubled()),
        ),
        (
            "reads".into(),
            format!("{}, {lost} operations lost", outcome.read),
        ),
    ]);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        text.push_str(&format!("{name:<width$}  {value}\n"));
    }
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

fn percentiles(times: &[Duration]) -> Result<String> {
    let mut histogram = Histogram::<u64>::new(3)?;
    for time in times {
        histogram.record(u64::try_from(time.as_millis())?)?;
    }
    let at = |quantile| {
        let millis = histogram.value_at_quantile(quantile);
        format!("{}.{:02} s", millis / 1_000, millis % 1_000 / 10)
    };
    Ok(format!("p50 {}, p95 {}, p99 {}", at(0.5), at(0.95), at(0.99)))
}
