//! However a recorded body is read, nothing is lost, sent twice or forgotten.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| h2pool_fuzz_whole::replay_body::run(bytes));
