//! Memory that the kernel picks from when bytes arrive: one set of buffers for all connections of
//! a shard instead of one waiting at each.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, cqueue};

/// The group's number; a ring has one.
pub(super) const GROUP: u16 = 0;
/// Buffers of a shard.
const BUFFERS: u16 = 256;
/// Bytes of each: a lone small message wastes little, a large frame comes in few completions.
const BUFFER_BYTES: usize = 16 << 10;
/// Alignment of the ring of entries, which the kernel maps by whole pages; 64 KiB is the largest
/// page in use.
const RING_ALIGNMENT: usize = 64 << 10;

const _: () = assert!(
    BUFFERS.is_power_of_two(),
    "the kernel's ring is a power of two"
);

/// The buffers of a shard.
#[derive(Debug)]
pub(crate) struct ReceiveBuffers {
    ring: Memory,
    data: Memory,
    tail: u16,
}

/// Received bytes in a buffer that the kernel leaves alone until it is given back.
#[derive(Debug)]
pub(crate) struct Received {
    buffer: u16,
    bytes: usize,
}

#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn new(bytes: usize, alignment: usize) -> Self {
        let layout = Layout::from_size_align(bytes, alignment).expect("sizes are small");
        // SAFETY: the layout isn't empty.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the memory came from `new` with this layout. The owner (`Ring`) drops it only
        // when nothing is in flight, after which the kernel writes no more to it.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl ReceiveBuffers {
    /// Registers the buffers and offers them all.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let ring_bytes = usize::from(BUFFERS) * size_of::<BufRingEntry>();
        let mut buffers = Self {
            ring: Memory::new(ring_bytes, RING_ALIGNMENT),
            data: Memory::new(usize::from(BUFFERS) * BUFFER_BYTES, RING_ALIGNMENT),
            tail: 0,
        };
        let address = buffers.ring.start.as_ptr() as u64;
        // SAFETY: the memory is that large, aligned to a page, and freed only after the ring has
        // nothing in flight (`Ring::drop`).
        unsafe { submitter.register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)? };
        for buffer in 0..BUFFERS {
            buffers.offer(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The received bytes of a completion, if it has any.
    pub(super) fn claim(&mut self, entry: &cqueue::Entry) -> Option<Received> {
        let buffer = cqueue::buffer_select(entry.flags())?;
        assert!(
            buffer < BUFFERS,
            "the kernel picks a buffer that it was given"
        );
        let bytes = usize::try_from(entry.result()).unwrap_or(0);
        assert!(bytes <= BUFFER_BYTES, "the kernel writes inside the buffer");
        Some(Received { buffer, bytes })
    }

    /// The bytes.
    pub(super) fn bytes(&self, received: &Received) -> &[u8] {
        let start = usize::from(received.buffer) * BUFFER_BYTES;
        // SAFETY: the range lies inside the data (`claim`), is initialised (zeros or what the
        // kernel wrote), and the kernel doesn't write to it before it is given back, which needs
        // `&mut self` and the one `Received` of this buffer.
        unsafe { std::slice::from_raw_parts(self.data.start.as_ptr().add(start), received.bytes) }
    }

    /// Offers the buffer to the kernel again.
    pub(super) fn give_back(&mut self, received: Received) {
        self.offer(received.buffer);
        self.publish();
    }

    fn offer(&mut self, buffer: u16) {
        let entries = self.ring.start.cast::<BufRingEntry>();
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: the place lies inside the ring of entries; the kernel doesn't read an entry from
        // the tail on. The first entry's last two bytes are the tail itself, which `set_bid` and
        // the others don't touch.
        let entry = unsafe { &mut *entries.as_ptr().add(place) };
        let address = self.data.start.as_ptr() as u64 + u64::from(buffer) * BUFFER_BYTES as u64;
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        let entries = self.ring.start.cast::<BufRingEntry>();
        // SAFETY: the tail is an aligned u16 inside the ring that only this thread writes; the
        // kernel reads it atomically.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
