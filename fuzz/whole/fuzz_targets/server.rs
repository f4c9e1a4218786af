//! Whatever a server sends, and however slowly, every request settles and nothing leaks.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| h2pool_fuzz_whole::server::run(bytes));
