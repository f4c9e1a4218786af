//! What is shown: a table, or JSON lines; and a picture.

pub(crate) mod chart;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Result;

use crate::measure::{Measured, Round, Row};
use crate::options::{Kind, Options};

/// Prints one JSON object on a line of its own.
pub(crate) fn json(row: &Row) -> Result<()> {
    let mut line = serde_json::to_string(row)?;
    line.push('\n');
    print(&line)
}

/// Prints the table of all rounds.
pub(crate) fn table(all: &[Measured], options: &Options) -> Result<()> {
    let rows: Vec<&Row> = all.iter().map(|one| &one.row).collect();
    print(&format!(
        "{}\n\n{}",
        title(options),
        render(&rows, options.url.is_some())
    ))
}

/// Writes all at once: a reader that has gone away is an error to end on, not a panic.
fn print(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

fn title(options: &Options) -> String {
    let burst = format!("{} requests, {} at once", options.requests, options.concurrency());
    match &options.url {
        Some(url) => format!("{burst}, to {url}"),
        None => format!(
            "{burst}; the server answers {} bytes after {} ms and allows {} streams on a connection",
            options.body_bytes, options.delay_ms, options.server_streams
        ),
    }
}

fn render(rows: &[&Row], opened: bool) -> String {
    let mut text = format!(
        "{:<11}{:>6}{:>8}{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}{:>13}{:>11}\n",
        "transport",
        "round",
        "ok",
        "errors",
        "p50 ms",
        "p90 ms",
        "p95 ms",
        "p99 ms",
        "wall ms",
        "connections",
        "h2pool/it"
    );
    let mut compared = false;
    for round in [Round::Cold, Round::Warm] {
        let pool = rows
            .iter()
            .find(|row| row.round == round && row.transport == Kind::H2Pool && row.ok > 0);
        for row in rows.iter().filter(|row| row.round == round) {
            let ratio = pool
                .filter(|_| row.ok > 0)
                .map(|pool| format!("{:.2}", pool.wall_ms / row.wall_ms));
            compared |= ratio.is_some();
            let ratio = ratio.as_deref().unwrap_or("-");
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:<11}{round:>6}{:>8}{:>8}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>13}{ratio:>11}",
                row.transport.name(),
                row.ok,
                row.errors,
                row.p50_ms,
                row.p90_ms,
                row.p95_ms,
                row.p99_ms,
                row.wall_ms,
                row.connections,
            );
        }
        text.push('\n');
    }
    text += match opened {
        true => "connections: opened by the client up to the end of the round\n",
        false => "connections: that carried the round or were opened in it, as the server counted them\n",
    };
    if compared {
        text += "h2pool/it: h2pool's wall time divided by that of the row's transport (below 1: h2pool is faster)\n";
    }
    text
}
