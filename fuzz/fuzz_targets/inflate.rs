//! Bytes as a compressed blob, and packed and inflated again.
#![no_main]

#[path = "../../wire/tests/fuzzed/mod.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzed::inflate(input));
