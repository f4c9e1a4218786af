//! A long run of the pool against a server that does everything a server may do to it, and some that it may not.
//!
//! ```text
//! cargo run --release --example soak -- --seconds 60 --seed 1
//!
//!   storm, 10 s ──▶ rest: heap ──▶ storm, the remaining time ──▶ rest: heap ──▶ storm, 1 s ──▶ close() ──▶ closed()
//! ```
//!
//! In the storms [`client`]s send, stream, cancel and time out through one pool of at most four sessions, while the
//! [`server`] lowers and raises its limit, says GOAWAY, refuses, resets, cuts and goes silent, at random by the seed. In
//! the rests all requests settle, fresh sessions serve a drill without an error, and all of them end, so that two heaps
//! are comparable. The [`world`] keeps the books. It ends with counts, and with exit code 1, the seed and the reasons if
//! any of this was breached:
//!
//! - Every request settles within 30 s, and no answer is another's or damaged.
//! - No request is processed twice; no error denies that its request was processed.
//! - No HEADERS that come after the client's SETTINGS acknowledgement exceed the limit.
//! - After `close()`, under load, sessions, connections and tasks go back to where they began.
//! - The live heap at the end is at most 1.1 of that after the first storm.

mod client;
mod clock;
mod heap;
mod run;
mod server;
#[path = "../../tests/support/mod.rs"]
mod support;
mod world;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use world::World;

/// Runs the pool against a server that misbehaves, and proves that it keeps its promises.
#[derive(Parser)]
struct Options {
    /// How long the storms last, all together.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..))]
    seconds: u64,
    /// Where the randomness begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests in flight.
    #[arg(long, default_value_t = 64)]
    clients: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let world = Arc::new(World::new());
    watch_panics(&world);
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run::run(&options, &world)));
    if let Err(error) = result {
        world.breach(format!("{error:#}"));
    }
    report(&options, &world)
}

/// A panic anywhere, in a task of the pool too, is a breach.
fn watch_panics(world: &Arc<World>) {
    let world = Arc::clone(world);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        world.breach(format!("a panic: {info}"));
        usual(info);
    }));
}

fn report(options: &Options, world: &World) -> ExitCode {
    let mut text = String::new();
    for (what, count) in world.counts() {
        text += &format!("{count:>10}  {what}\n");
    }
    let (kept, breaches) = world.breaches();
    let code = if breaches == 0 {
        text += &format!("\nsoak of {} s, seed {}: kept.\n", options.seconds, options.seed);
        ExitCode::SUCCESS
    } else {
        for breach in kept {
            text += &format!("\nbreach: {breach}");
        }
        text += &format!(
            "\n\nsoak of {} s, seed {}: {breaches} breaches.\n",
            options.seconds, options.seed
        );
        ExitCode::FAILURE
    };
    // There is nobody to tell when the output is closed.
    let _ = std::io::stdout().write_all(text.as_bytes());
    code
}
