//! Bytes as a batch, by both doors, with every record read.
#![no_main]

#[path = "../../wire/tests/fuzzed/mod.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzed::batch(input));
