//! The command line.

use clap::Parser;
use clap::builder::RangedU64ValueParser;

/// Wakes a fleet of sandboxes at once, behind an embedded gateway that answers badly while they wake.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "sandbox_fleet",
    after_help = "Exit code: 0 nothing lost, nothing doubled; 1 something was; 2 usage."
)]
pub(crate) struct Options {
    /// Sandboxes on standby.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub(crate) sandboxes: usize,

    /// Seed of the gateway's moods.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Sessions that h2pool may open.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100))]
    pub(crate) max_sessions: usize,
}
