//! No configuration makes anything panic; what is accepted survives being written and read.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| h2pool_fuzz_whole::configuration::run(bytes));
