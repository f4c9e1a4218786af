//! For tests and fuzzing: a virtual clock, a shell made of vectors, and everything that must hold whatever happens.
//!
//! [`play`] plays a sequence of operations ([`Op`]) against the state and, beside it, against a naive
//! [`model`] of plain vectors. After each operation it checks the books ([`audit`]), the promises ([`promises`]), and
//! that the state granted what the model would have granted, in the same order. At the end it settles all dials and
//! sessions and lets time pass: then every waiter must have its answer, and nothing may be left.
//!
//! It plays by the rules of the shell and no others: it drains the actions, keeps the timer, gives back what it was
//! given, and never orders a runtime that ended to do anything. Ids it mixes as it likes, stale ones too.

mod audit;
mod finish;
mod model;
mod ops;
mod promises;
#[cfg(test)]
mod quiet;
mod shell;

use std::sync::OnceLock;
use std::time::Instant;

use super::Limits;
pub use ops::{Op, limits};
pub use shell::Sim;

/// An instant, the same for the whole process; virtual clocks count from it.
pub fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "where the virtual clock starts does not matter"
    )]
    *EPOCH.get_or_init(Instant::now)
}

/// Plays what the bytes stand for and panics where a promise is broken.
pub fn run(bytes: &[u8]) {
    let mut head = [0; 4];
    let (config, rest) = bytes.split_at(bytes.len().min(head.len()));
    head[..config.len()].copy_from_slice(config);
    let ops = rest.chunks_exact(3).map(|op| Op::decode([op[0], op[1], op[2]]));
    play(limits(head), ops, head[0] & 128 != 0);
}

/// Plays the operations; in the end everything goes well, or everything fails.
pub fn play(limits: Limits, ops: impl IntoIterator<Item = Op>, well: bool) {
    let mut sim = Sim::new(limits);
    for op in ops {
        sim.step(op);
    }
    sim.finish(well);
}

/// Plays the operations, all but the origin's closing, and a long quiet use after them.
#[cfg(test)]
pub fn play_on(limits: Limits, ops: impl IntoIterator<Item = Op>) {
    let mut sim = Sim::new(limits);
    for op in ops {
        if !matches!(op, Op::Close(_)) {
            sim.step(op);
        }
    }
    sim.live_on();
}
