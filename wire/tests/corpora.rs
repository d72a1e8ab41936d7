//! The fuzz targets over their committed corpora: what fuzzing found once stays found.
//! `RINGWAY_CORPORA=write cargo test -p ringway-wire --test corpora` writes the samples' seeds anew.

use std::path::{Path, PathBuf};

use ringway_wire::CorrelationId;
use ringway_wire::batch::{Codec, check_produced};
use ringway_wire::limits::{BATCH_HEADER_BYTES, ENTRY_BYTES};

mod fuzzed;
#[path = "support/samples.rs"]
mod samples;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target)
}

/// One well-formed input per sample, for each target.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = vec![
        (
            "batch",
            "produced".to_owned(),
            samples::produced_batch().to_vec(),
        ),
        (
            "batch",
            "typed".to_owned(),
            samples::produced_typed_batch().to_vec(),
        ),
        (
            "batch",
            "stamped".to_owned(),
            samples::stamped(samples::produced_batch()).to_vec(),
        ),
    ];
    for (number, codec) in [(0, Codec::Lz4), (1, Codec::Zstd)] {
        let packed = samples::packed_batch(codec, None);
        seeds.push(("batch", codec.to_string(), packed.to_vec()));
        let stored = check_produced(&packed).unwrap();
        let mut input = vec![number];
        input.extend_from_slice(&stored.header().blob_bytes.to_le_bytes());
        let root = packed.last_chunk::<4>().unwrap();
        let blob = BATCH_HEADER_BYTES + ENTRY_BYTES * stored.entries().len();
        input.extend_from_slice(&packed[blob..][..u32::from_le_bytes(*root) as usize]);
        seeds.push(("inflate", codec.to_string(), input));
    }
    let mut stream = vec![6];
    for request in samples::requests() {
        let name = format!("{:?}", request.kind()).to_lowercase();
        let mut input = vec![request.kind().number() as u8];
        input.extend_from_slice(&request.to_head());
        seeds.push(("request", name, input));
        stream.extend_from_slice(&request.to_frame(CorrelationId(5), 0));
    }
    for reply in samples::replies() {
        let name = format!("{:?}", reply.kind()).to_lowercase();
        let mut input = vec![reply.kind().number() as u8];
        input.extend_from_slice(&reply.to_head());
        seeds.push(("reply", name, input));
    }
    seeds.push(("frame", "requests".to_owned(), stream));
    seeds
}

#[test]
fn every_input_of_the_corpora_holds() {
    let write = std::env::var_os("RINGWAY_CORPORA").is_some_and(|value| value == "write");
    for (target, name, input) in seeds().iter().filter(|_| write) {
        std::fs::create_dir_all(corpus(target)).unwrap();
        std::fs::write(corpus(target).join(name), input).unwrap();
    }
    for (target, body) in fuzzed::TARGETS {
        let mut inputs = 0;
        for file in std::fs::read_dir(corpus(target)).unwrap() {
            let path = file.unwrap().path();
            eprintln!("{}", path.display());
            body(&std::fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "the corpus of {target} is empty");
    }
}

/// The shapes of what fuzzing looks for, without a fuzzer: every bit of every seed flipped, and
/// every cut.
#[test]
fn everything_near_the_seeds_holds() {
    for (target, _, mut input) in seeds() {
        let (_, body) = fuzzed::TARGETS
            .iter()
            .find(|(name, _)| *name == target)
            .unwrap();
        for bit in 0..input.len() * 8 {
            input[bit / 8] ^= 1 << (bit % 8);
            body(&input);
            input[bit / 8] ^= 1 << (bit % 8);
        }
        for left in 0..input.len() {
            body(&input[..left]);
        }
    }
}
