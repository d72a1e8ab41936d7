//! A stream of bytes through the frame decoder.
#![no_main]

#[path = "../../wire/tests/fuzzed/mod.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzed::frame(input));
