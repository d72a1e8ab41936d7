//! Prints the sample batches as this build writes them, after reading them back.

use ringway_wire::batch::{BatchBytes, CheckedBatch, check_produced};

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
}
