//! Sends a burst of concurrent requests by several HTTP transports, from cold and then warm, and compares them.
//!
//! ```text
//! cargo run --release --example burst                 # needs no argument and no network
//! cargo run --release --example burst -- --url https://localhost:8443/ --insecure
//! ```
//!
//! The embedded server is a process of its own ([`server`]), so that its work is not mixed with the client's. Every
//! transport ([`transport`]) gets a client and a runtime of its own; its cold round opens the connections, its warm
//! round uses them again ([`measure`]). Results go out as a table, as JSON lines, and as a picture ([`report`]).

mod clock;
mod measure;
mod options;
mod report;
mod round;
mod server;
mod target;
mod transport;
mod trust;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};

use measure::{Measured, measure};
use options::{Kind, Options};
use round::Load;
use server::{Server, Settings};
use target::Target;
use trust::Trust;

fn main() -> ExitCode {
    let result = match std::env::args_os().nth(1) {
        Some(first) if first == server::ARGUMENT => server::child::run(),
        _ => compare(&Options::from_command_line()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs every transport and reports.
fn compare(options: &Options) -> Result<()> {
    // An HTTP/1.1 burst needs a descriptor for each request; where the limit cannot be raised its errors will say so.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let (target, mut server) = start(options)?;
    let transports = usable(options, &target)?;
    let load = Load {
        requests: options.requests,
        concurrency: options.concurrency(),
        body_bytes: server.as_ref().map(|_| options.body_bytes),
    };
    let mut all: Vec<Measured> = Vec::new();
    for kind in transports {
        for measured in measure(kind, &target, server.as_mut(), load, options.pool())? {
            if let Some(error) = &measured.first_error {
                let row = &measured.row;
                note(format_args!(
                    "{}, {}: {} errors, the first: {error:#}",
                    kind.name(),
                    row.round,
                    row.errors
                ));
            }
            if options.json {
                report::json(&measured.row)?;
            }
            all.push(measured);
        }
    }
    if !options.json {
        report::table(&all, options)?;
    }
    if let Some(file) = &options.svg {
        report::chart::draw(file, &all)?;
    }
    if let Some(Measured { row, .. }) = all.iter().find(|one| one.row.ok == 0) {
        bail!(
            "{} got no answer at all in its {} round",
            row.transport.name(),
            row.round
        );
    }
    Ok(())
}

/// The server to measure: the user's, or the embedded one, which is started.
fn start(options: &Options) -> Result<(Target, Option<Server>)> {
    if let Some(url) = &options.url {
        let trust = match &options.ca {
            Some(file) => {
                Trust::file(file).unwrap_or_else(|error| Options::reject(format_args!("--ca: {error:#}")))
            }
            None if options.insecure => Trust::Anyone,
            None => Trust::Platform,
        };
        return Ok((Target::new(url.clone(), trust)?, None));
    }
    let server = Server::start(Settings {
        delay_ms: options.delay_ms,
        streams: options.server_streams,
        body_bytes: options.body_bytes,
    })?;
    let uri = format!("https://{}/", server.address.addr).parse()?;
    let trust = Trust::pem(server.address.ca_pem.as_bytes())?;
    Ok((Target::new(uri, trust)?, Some(server)))
}

/// Makes sure that the server can be reached; the transports that can talk to it.
fn usable(options: &Options, target: &Target) -> Result<Vec<Kind>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let speaks_h2 = runtime.block_on(target.speaks_h2())?;
    let (usable, useless): (Vec<_>, Vec<_>) = options
        .transports()
        .into_iter()
        .partition(|kind| speaks_h2 || !kind.needs_h2());
    for kind in useless {
        let cause = format!(
            "{} speaks only HTTP/1.1, which {} does not",
            target.authority(),
            kind.name()
        );
        if options.names_transports() {
            bail!(cause);
        }
        note(format_args!("left out: {cause}"));
    }
    Ok(usable)
}

/// Tells the user something beside the results.
fn note(message: std::fmt::Arguments<'_>) {
    // There is nobody to tell when the standard error is closed.
    let _ = writeln!(std::io::stderr(), "{message}");
}
