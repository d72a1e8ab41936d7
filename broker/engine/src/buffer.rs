//! Aligned memory for direct I/O: appended to by one owner, read by many, returned to a pool.
//!
//! A [`Chunk`] only grows: bytes below its length never change, so a [`Slice`] of them may be in
//! flight to a disk or a socket while the chunk is appended to. All of it belongs to one thread.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use crate::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX};

/// A block larger than this isn't kept: it held a single large batch.
const KEPT_BLOCK_BYTES_MAX: usize = 2 * CHUNK_BYTES_MAX;

/// Memory for blocks, kept for the next when one is dropped. Cloning gives another handle.
#[derive(Clone)]
pub struct Pool {
    inner: Rc<PoolInner>,
}

struct PoolInner {
    /// Free memory by its [`class`].
    free: UnsafeCell<Vec<Vec<NonNull<u8>>>>,
    kept_bytes: Cell<usize>,
    kept_bytes_max: usize,
    used_bytes: Cell<usize>,
}

impl Pool {
    /// A pool that keeps at most so many bytes of free memory.
    #[must_use]
    pub fn new(kept_bytes_max: usize) -> Self {
        let free = UnsafeCell::new((0..CLASSES).map(|_| Vec::new()).collect());
        let inner = PoolInner {
            free,
            kept_bytes: Cell::new(0),
            kept_bytes_max,
            used_bytes: Cell::new(0),
        };
        Self {
            inner: Rc::new(inner),
        }
    }

    /// Memory for at least so many bytes, and no more than a quarter above it from some blocks on;
    /// whole blocks of a size that is too rare to be kept. Its contents are zeros or what it held
    /// before.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Block {
        let capacity = if bytes > KEPT_BLOCK_BYTES_MAX {
            bytes.next_multiple_of(BLOCK_BYTES)
        } else {
            class_bytes(bytes)
        };
        let pool = &*self.inner;
        let kept = if capacity > KEPT_BLOCK_BYTES_MAX {
            None
        } else {
            // SAFETY: the pool belongs to one thread (`Rc`), and no reference into the lists
            // outlives this statement.
            unsafe { (&mut *pool.free.get())[class(capacity)].pop() }
        };
        let start = match kept {
            Some(start) => {
                pool.kept_bytes.set(pool.kept_bytes.get() - capacity);
                start
            }
            None => allocate(capacity),
        };
        pool.used_bytes.set(pool.used_bytes.get() + capacity);
        Block {
            start,
            capacity,
            pool: self.clone(),
        }
    }

    /// Bytes in blocks that are in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.inner.used_bytes.get()
    }

    fn give_back(&self, start: NonNull<u8>, capacity: usize) {
        let pool = &*self.inner;
        pool.used_bytes.set(pool.used_bytes.get() - capacity);
        let rare = capacity > KEPT_BLOCK_BYTES_MAX;
        if rare || pool.kept_bytes.get() + capacity > pool.kept_bytes_max {
            release(start, capacity);
            return;
        }
        pool.kept_bytes.set(pool.kept_bytes.get() + capacity);
        // SAFETY: as in `take`.
        unsafe { (&mut *pool.free.get())[class(capacity)].push(start) };
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("used_bytes", &self.used_bytes())
            .finish_non_exhaustive()
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        for (class, list) in self.free.get_mut().iter().enumerate() {
            for &start in list {
                release(start, bytes_of(class));
            }
        }
    }
}

/// Kept sizes to each power of two, from the one below it on.
const STEPS: usize = 4;
/// Sizes below this one are powers of two: a step would be less than a block.
const STEPPED_BYTES_MIN: usize = 2 * STEPS * BLOCK_BYTES;
/// More than there are kept sizes.
const CLASSES: usize = usize::BITS as usize * STEPS;

/// The kept size for so many bytes.
fn class_bytes(bytes: usize) -> usize {
    let power = bytes.max(BLOCK_BYTES).next_power_of_two();
    if power < STEPPED_BYTES_MIN {
        return power;
    }
    bytes.next_multiple_of(power / 2 / STEPS)
}

/// The place of a kept size among all of them.
const fn class(capacity: usize) -> usize {
    let power = capacity.ilog2() as usize;
    let steps = ((capacity - (1 << power)) * STEPS) >> power;
    power * STEPS + steps
}

/// The kept size at a place.
const fn bytes_of(class: usize) -> usize {
    let (power, steps) = (class / STEPS, class % STEPS);
    (1 << power) + ((steps << power) / STEPS)
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, BLOCK_BYTES)
        .expect("a capacity is far below the address space")
}

fn allocate(capacity: usize) -> NonNull<u8> {
    // SAFETY: the layout's size is at least a block, never zero.
    let start = unsafe { alloc_zeroed(layout(capacity)) };
    NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout(capacity)))
}

fn release(start: NonNull<u8>, capacity: usize) {
    // SAFETY: `start` came from `allocate` with this capacity and nothing points to it any more.
    unsafe { dealloc(start.as_ptr(), layout(capacity)) };
}

/// Memory with one owner, aligned to a block.
pub struct Block {
    start: NonNull<u8>,
    capacity: usize,
    pool: Pool,
}

impl Block {
    /// The first `bytes` of the block, from now on unchangeable.
    ///
    /// # Panics
    /// When the block is shorter.
    #[must_use]
    pub fn freeze(self, bytes: usize) -> Slice {
        assert!(bytes <= self.capacity, "a slice lies inside its block");
        Slice {
            block: Rc::new(self),
            start: 0,
            end: bytes,
        }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is initialised, `capacity` bytes long and owned.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.give_back(self.start, self.capacity);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Bytes that never change, shared by whoever reads them.
#[derive(Clone)]
pub struct Slice {
    block: Rc<Block>,
    start: usize,
    end: usize,
}

impl Slice {
    /// A part of this slice.
    ///
    /// # Panics
    /// When the range goes beyond the slice.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "a part lies inside"
        );
        let (start, end) = (self.start + range.start, self.start + range.end);
        Self {
            block: Rc::clone(&self.block),
            start,
            end,
        }
    }

    /// Tells when the memory that the slice is part of is used by nobody any more.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch {
            block: Rc::downgrade(&self.block),
            bytes: self.block.capacity,
        }
    }

    /// This slice and the next as one, if they are neighbours in memory.
    #[must_use]
    pub fn joined(&self, next: &Self) -> Option<Self> {
        let neighbours = Rc::ptr_eq(&self.block, &next.block) && self.end == next.start;
        neighbours.then(|| Self {
            end: next.end,
            ..self.clone()
        })
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies inside the block, and bytes that a slice covers are never written
        // again: `Block::freeze` gives up the block, `Chunk` writes only above its length.
        unsafe {
            std::slice::from_raw_parts(
                self.block.start.as_ptr().add(self.start),
                self.end - self.start,
            )
        }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice")
            .field("start", &self.start)
            .field("end", &self.end)
            .finish()
    }
}

/// Memory that is watched until nobody uses it any more.
#[derive(Clone)]
pub struct Watch {
    block: Weak<Block>,
    bytes: usize,
}

impl Watch {
    /// Whether the memory has gone back to its pool.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.block.strong_count() == 0
    }

    /// Bytes of the memory.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("bytes", &self.bytes)
            .field("is_over", &self.is_over())
            .finish()
    }
}

/// A block that is filled from its start; what is filled never changes.
#[derive(Debug)]
pub struct Chunk {
    block: Rc<Block>,
    len: usize,
}

impl Chunk {
    /// An empty chunk over a block.
    #[must_use]
    pub fn new(block: Block) -> Self {
        Self {
            block: Rc::new(block),
            len: 0,
        }
    }

    /// Bytes filled.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is filled.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.block.capacity
    }

    /// The space not yet filled.
    pub fn spare(&mut self) -> &mut [u8] {
        // SAFETY: no slice covers bytes from `len` on, this chunk is the only one that writes
        // (it isn't `Clone`, and its block's `Rc` is given away only inside slices), and `self` is
        // borrowed exclusively.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.block.start.as_ptr().add(self.len),
                self.block.capacity - self.len,
            )
        }
    }

    /// Says that the first `bytes` of the spare space are filled.
    ///
    /// # Panics
    /// When that is more space than there is.
    pub fn fill(&mut self, bytes: usize) {
        assert!(
            bytes <= self.block.capacity - self.len,
            "filled bytes lie inside the chunk"
        );
        self.len += bytes;
    }

    /// A slice of filled bytes.
    ///
    /// # Panics
    /// When the range goes beyond them.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "only filled bytes are shared"
        );
        Slice {
            block: Rc::clone(&self.block),
            start: range.start,
            end: range.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_as_they_were_while_the_chunk_grows() {
        let pool = Pool::new(1 << 20);
        let mut chunk = Chunk::new(pool.take(BLOCK_BYTES));
        chunk.spare()[..3].copy_from_slice(b"abc");
        chunk.fill(3);
        let first = chunk.slice(0..3);
        chunk.spare()[..2].copy_from_slice(b"de");
        chunk.fill(2);
        let second = chunk.slice(3..5);
        assert_eq!(&*first, b"abc");
        assert_eq!(&*first.joined(&second).unwrap(), b"abcde");
        assert!(second.joined(&first).is_none());
    }

    #[test]
    fn memory_is_used_again_and_bounded() {
        let pool = Pool::new(2 * BLOCK_BYTES);
        let blocks: Vec<Block> = (0..3).map(|_| pool.take(1)).collect();
        assert_eq!(pool.used_bytes(), 3 * BLOCK_BYTES);
        let kept = [blocks[0].start, blocks[1].start];
        drop(blocks);
        assert_eq!(pool.used_bytes(), 0);
        assert_eq!(pool.inner.kept_bytes.get(), 2 * BLOCK_BYTES);
        assert!(kept.contains(&pool.take(1).start));
    }

    #[test]
    fn every_size_is_kept_in_its_own_place_and_is_little_more_than_asked_for() {
        let mut bytes = 1;
        while bytes <= KEPT_BLOCK_BYTES_MAX {
            for bytes in [bytes - 1, bytes, bytes + 1] {
                let capacity = class_bytes(bytes);
                assert!(
                    capacity >= bytes && capacity.is_multiple_of(BLOCK_BYTES),
                    "{bytes}"
                );
                assert!(
                    capacity <= (bytes + bytes / 4).max(STEPPED_BYTES_MIN),
                    "{bytes}"
                );
                assert_eq!(bytes_of(class(capacity)), capacity, "{bytes}");
            }
            bytes += bytes.div_ceil(7);
        }
    }

    #[test]
    fn large_blocks_are_no_larger_than_asked_for_and_not_kept() {
        let pool = Pool::new(1 << 30);
        let bytes = KEPT_BLOCK_BYTES_MAX + 1;
        let block = pool.take(bytes);
        assert_eq!(block.len(), KEPT_BLOCK_BYTES_MAX + BLOCK_BYTES);
        drop(block);
        assert_eq!(pool.used_bytes(), 0);
        assert_eq!(pool.inner.kept_bytes.get(), 0);
        assert_eq!(pool.take(bytes - 1).len(), KEPT_BLOCK_BYTES_MAX);
    }

    #[test]
    #[should_panic(expected = "only filled bytes")]
    fn what_is_not_filled_is_not_shared() {
        let chunk = Chunk::new(Pool::new(0).take(1));
        let _ = chunk.slice(0..1);
    }
}
