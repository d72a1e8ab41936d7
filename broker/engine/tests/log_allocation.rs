//! Counts in side files and checkpoints that lie allocate no more than the file's own length
//! allows: the decoders run under an allocator that adds up all requests.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringway_engine::log::{Checkpoint, Side, Slots};
use ringway_wire::{LogId, Offset};

thread_local! {
    static TOTAL: Cell<usize> = const { Cell::new(0) };
}

struct Watched;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TOTAL.set(TOTAL.get() + layout.size());
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

fn total_while(run: impl FnOnce()) -> usize {
    TOTAL.set(0);
    run();
    TOTAL.get()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Makes length and CRC right again.
fn resealed(mut file: Vec<u8>) -> Vec<u8> {
    let length = file.len() as u32;
    file[8..12].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&file[..12]), &file[16..]);
    file[12..16].copy_from_slice(&crc.to_le_bytes());
    file
}

/// A decoded producer is the item that grows most: 25 bytes become some 170 in a tree's node of
/// up to eleven.
const GROWTH_MAX: usize = 128;

#[test]
fn lying_numbers_allocate_no_more_than_the_file_is_worth() {
    let side = bytes_of(include_str!("../src/log/side/golden.hex"));
    let checkpoint = bytes_of(include_str!("../src/log/checkpoint/golden.hex"));
    let log_id = LogId(0x1122_3344_5566_7788);
    assert!(Side::decode(&side, log_id, Offset(1_000)).is_ok());
    assert!(Checkpoint::decode(&resealed(checkpoint.clone())).is_ok());
    let watched = total_while(|| drop(Side::decode(&side, log_id, Offset(1_000))));
    assert!(watched > 0, "the watch sees what a good file allocates");
    for good in [side, checkpoint] {
        for start in 16..good.len() {
            for bytes in 1..=9 {
                // The largest number of so many bytes, in place of what was there.
                let mut lying = good[..start].to_vec();
                lying.extend(std::iter::repeat_n(0xff, bytes - 1));
                lying.push(0x7f);
                lying.extend_from_slice(&good[start + 1..]);
                let lying = resealed(lying);
                let total = total_while(|| {
                    let _ = Side::decode(&lying, log_id, Offset(1_000));
                    let _ = Checkpoint::decode(&lying);
                    let _ = Slots::read(Some(&lying), None);
                });
                let bound = 4_096 + lying.len() * GROWTH_MAX;
                assert!(total <= bound, "{start}, {bytes}: {total} bytes allocated");
            }
        }
    }
}

/// Padding that would decode as items of the list whose count lies.
#[test]
fn a_count_above_the_rest_is_refused_before_any_item_is_read() {
    let checkpoint = bytes_of(include_str!("../src/log/checkpoint/golden.hex"));
    let mut lying = checkpoint[..24].to_vec();
    lying.extend([0xff, 0xff, 0xff, 0x7f]);
    lying.resize(1 << 20, 0);
    let lying = resealed(lying);
    let total = total_while(|| drop(Checkpoint::decode(&lying)));
    assert_eq!(total, 0);
}
