//! Lengths and counts that were only announced allocate nothing: the decoders of heads and batches
//! are run under an allocator that keeps the largest request.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringway_wire::DecodeError;
use ringway_wire::batch::{
    BatchBuilder, BatchBytes, CheckedBatch, Codec, Compressor, Inflater, at, check_produced,
};
use ringway_wire::request::{Reply, Request, RequestKind};

#[path = "support/samples.rs"]
mod samples;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Watched;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `alloc` took it from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn largest_while(run: impl FnOnce()) -> usize {
    LARGEST.set(0);
    run();
    LARGEST.get()
}

#[test]
fn the_watch_sees_an_allocation() {
    assert_eq!(
        largest_while(|| drop(std::hint::black_box(vec![0_u8; 12_345]))),
        12_345
    );
}

/// Every four bytes of a head in turn claim 2^32 - 1: wherever there is a count, it lies.
#[test]
fn lying_counts_in_heads_allocate_nothing() {
    let requests = samples::requests()
        .into_iter()
        .map(|request| request.to_head());
    let replies = samples::replies().into_iter().map(|reply| reply.to_head());
    for head in requests.chain(replies) {
        for start in 0..head.len().saturating_sub(3) {
            let mut lying = head.clone();
            lying[start..start + 4].fill(0xff);
            for &kind in RequestKind::ALL {
                let largest = largest_while(|| {
                    let _ = Request::from_head(kind, &lying);
                    let _ = Reply::from_head(kind, &lying);
                });
                assert!(largest <= 4_096, "{kind:?}, {start}: {largest} bytes");
            }
        }
    }
    let largest = largest_while(|| {
        let count = [1, 0xff, 0xff, 0xff, 0xff];
        Request::from_head(RequestKind::Metadata, &count).unwrap_err();
    });
    assert_eq!(largest, 0);
}

/// All of these bytes would decode as brokers; there are only fewer than announced.
#[test]
fn a_count_above_the_rest_is_refused_before_any_item_is_read() {
    let mut head = vec![0; 1 << 20];
    head[2..6].fill(0xff);
    let largest = largest_while(|| {
        let refused = Reply::from_head(RequestKind::Metadata, &head).unwrap_err();
        assert!(matches!(
            refused,
            DecodeError::Truncated {
                field: "brokers",
                ..
            }
        ));
    });
    assert_eq!(largest, 0);
}

/// The space grows to the batch's uncompressed length and no further, whatever the blob is; packing
/// and inflating the next one takes nothing more.
#[test]
fn inflating_takes_the_announced_length_once() {
    let packed = samples::packed_batch(Codec::Lz4, None);
    let stored = check_produced(&packed).unwrap();
    let (mut inflater, mut space) = (Inflater::new(), BatchBytes::new());
    let largest = largest_while(|| stored.inflate(&mut inflater, &mut space).unwrap());
    assert!(
        largest <= stored.header().inflated_bytes(),
        "{largest} bytes"
    );
    let largest = largest_while(|| {
        stored.inflate(&mut inflater, &mut space).unwrap();
        CheckedBatch::check_inflated(&space).unwrap();
    });
    assert_eq!(largest, 0);

    let (mut builder, mut compressor) = (BatchBuilder::new(Default::default()), Compressor::new());
    let mut seal = || {
        samples::repeated_records(&mut builder);
        let sealed = builder.seal_with(Default::default(), Codec::Lz4, &mut compressor);
        sealed.unwrap().bytes
    };
    seal();
    assert_eq!(
        largest_while(|| drop(seal())),
        packed.len(),
        "the batch itself"
    );
}

#[test]
fn a_good_batch_allocates_nothing_and_a_lying_one_no_more_than_its_error() {
    let produced = samples::produced_batch();
    let batch = samples::stamped(samples::produced_batch());
    let largest = largest_while(|| {
        check_produced(&produced).unwrap();
        let checked = CheckedBatch::check(&batch).unwrap();
        assert!(checked.records().all(|record| record.verify().is_ok()));
    });
    assert_eq!(largest, 0);
    for start in (at::BATCH_BYTES..batch.len()).step_by(4) {
        let mut lying: BatchBytes = produced.clone();
        lying[start..start + 4].fill(0xff);
        let body_crc = crc32c::crc32c(&lying[48..]);
        lying[at::BODY_CRC..at::BODY_CRC + 4].copy_from_slice(&body_crc.to_le_bytes());
        let largest = largest_while(|| drop(check_produced(&lying)));
        assert!(largest <= 1_024, "{start}: {largest} bytes");
    }
}
