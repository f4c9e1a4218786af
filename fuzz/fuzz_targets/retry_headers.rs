//! Whatever a server says about trying again is understood, or ignored.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| h2pool_fuzz::retry::run(bytes));
