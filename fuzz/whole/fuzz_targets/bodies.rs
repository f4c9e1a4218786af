//! Bodies arrive byte for byte, in both directions, however windows and readers behave.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| h2pool_fuzz_whole::bodies::run(bytes));
