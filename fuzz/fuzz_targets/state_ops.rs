//! Whatever happens to an origin, the promises hold: `sim::run` panics where one is broken.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| h2pool_fuzz::state::sim::run(bytes));
