//! What came out: lines while it runs, one summary line, and the table in `docs/servers.md`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use crate::Failure;
use crate::settings::Fixture;

/// How one case ended on one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// The server cannot be configured so.
    Impossible,
    Failed,
}

/// All cases of one server.
pub(crate) struct Row {
    pub(crate) fixture: &'static Fixture,
    pub(crate) version: String,
    /// In the order of the matrix.
    pub(crate) outcomes: Vec<(&'static str, Outcome)>,
}

impl Row {
    fn count(&self, wanted: Outcome) -> usize {
        self.outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == wanted)
            .count()
    }

    fn passed(&self) -> usize {
        self.count(Outcome::Passed)
    }

    pub(crate) fn failed(&self) -> usize {
        self.count(Outcome::Failed)
    }

    fn possible(&self) -> usize {
        self.outcomes.len() - self.count(Outcome::Impossible)
    }
}

/// Prints a line, whole even when several servers are under way.
pub(crate) fn say(line: &str) {
    // A closed standard output is no reason to fail.
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// The line at the end of a run.
pub(crate) fn summary(rows: &[Row], left_out: &[&str], requests: u64, took: Duration) -> String {
    let sum = |count: fn(&Row) -> usize| rows.iter().map(count).sum::<usize>();
    let left_out = if left_out.is_empty() {
        String::new()
    } else {
        format!(" (left out: {})", left_out.join(", "))
    };
    format!(
        "servers: {} servers{left_out}, {} cases passed, {} failed, {} not possible there, {requests} requests, {} s",
        rows.len(),
        sum(Row::passed),
        sum(Row::failed),
        sum(|row| row.outcomes.len() - row.possible()),
        took.as_secs(),
    )
}

/// Writes the table.
pub(crate) fn write_table(rows: &[Row], legend: &[(&str, &str)], client: &str) -> Result<(), Failure> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/servers.md");
    fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs"))?;
    fs::write(path, table(rows, legend, client)?)?;
    Ok(())
}

fn table(rows: &[Row], legend: &[(&str, &str)], client: &str) -> Result<String, Failure> {
    let mut text = format!(
        "# Servers that {client} is tested against\n\n\
         Made by `H2POOL_WRITE_TABLE=1 scripts/servers`; the servers are started by the test itself, with a\n\
         certificate made for the run, over TLS on the loopback interface. ✓ passed, ✗ failed, – the server cannot be\n\
         configured so.\n\n| server | version | passed |"
    );
    for (name, _) in legend {
        write!(text, " {name} |")?;
    }
    writeln!(text, "\n| --- | --- | --- |{}", " :-: |".repeat(legend.len()))?;
    for row in rows {
        let (name, version) = (row.fixture.name, &row.version);
        write!(
            text,
            "| {name} | {version} | {} of {} |",
            row.passed(),
            row.possible()
        )?;
        for (_, outcome) in &row.outcomes {
            write!(text, " {} |", mark(*outcome))?;
        }
        writeln!(text)?;
    }
    writeln!(text, "\n## The cases\n")?;
    for (name, about) in legend {
        writeln!(text, "- **{name}**: {about}")?;
    }
    writeln!(text, "\n## What each server does that others do not\n")?;
    for row in rows {
        writeln!(text, "- **{}** {}", row.fixture.name, row.fixture.peculiar)?;
    }
    Ok(text)
}

fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "✓",
        Outcome::Impossible => "–",
        Outcome::Failed => "✗",
    }
}
