//! Bytes as the head of a reply of any kind.
#![no_main]

#[path = "../../wire/tests/fuzzed/mod.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzed::reply(input));
