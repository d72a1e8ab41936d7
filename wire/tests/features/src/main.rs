//! Prints the sample batches as this build writes them, after reading them back, and what it says
//! of a batch whose codec it leaves out: its argument is the file of one compressed with zstd.

use ringway_wire::batch::{BatchBytes, CheckedBatch, Inflater, StoredBatch, check_produced};

#[path = "../../support/samples.rs"]
mod samples;

fn main() {
    // Proof that rkyv's formats really are other ones here.
    let native = rkyv::to_bytes::<rkyv::rancor::Error>(&1_u32).expect("it is an integer");
    let pointer = size_of::<rkyv::primitive::ArchivedUsize>();
    println!("integer {native:?} pointer {pointer}");
    let show = |name: &str, produced: BatchBytes| {
        check_produced(&produced).expect("a producer's batch is good");
        let batch = samples::stamped(produced);
        CheckedBatch::check(&batch).expect("a stamped batch is good");
        print!("{name}\n{}", samples::hex(&batch));
    };
    show("stamped", samples::produced_batch());
    show("typed", samples::produced_typed_batch());

    let path = std::env::args().nth(1).expect("a file is given");
    let text = std::fs::read_to_string(path).expect("it is there");
    let mut bytes = BatchBytes::new();
    for byte in text.split_whitespace() {
        bytes.push(u8::from_str_radix(byte, 16).expect("it is a byte"));
    }
    let batch = StoredBatch::check(&bytes).expect("the door needs no codec");
    assert!(!batch.codec().available(), "zstd is off by default");
    let inflated = batch.inflate(&mut Inflater::new(), &mut BatchBytes::new());
    println!("{}", inflated.expect_err("it was left out"));
}
