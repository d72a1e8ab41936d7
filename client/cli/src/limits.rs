//! Every bound of the command line, and why they fit together.

use std::time::Duration;

use ringway_wire::limits::BATCH_BYTES_MAX;

/// Bytes read from the input at a time: several pipes' worth, small beside the client's buffer.
pub(crate) const INPUT_BLOCK_BYTES: usize = 256 << 10;
/// Input blocks between the reading thread and the producer; more would only take memory.
pub(crate) const INPUT_BLOCKS: usize = 4;
/// Largest record that the input may hold, in bytes: what fits a batch alone, with room for the
/// batch's own header, its table entry and its root.
pub(crate) const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - 4096;
/// Bytes of output collected before they are written.
pub(crate) const OUTPUT_BUFFER_BYTES: usize = 256 << 10;
/// Partitions that a summary names one by one; the JSON summary names all.
pub(crate) const SUMMARY_PARTITIONS: usize = 32;
/// Partitions whose offsets are looked up at a time.
pub(crate) const LOOK_UPS: usize = 256;
/// How long an interrupted command waits for the acknowledgements of what was sent.
pub(crate) const INTERRUPT_GRACE: Duration = Duration::from_secs(5);
/// Largest duration that a trace tells apart, in nanoseconds: ten minutes.
pub(crate) const TRACE_NS_MAX: u64 = 600_000_000_000;

const _: () = {
    assert!(
        INPUT_BLOCK_BYTES < RECORD_BYTES_MAX,
        "a record may take many blocks, a block never many of the largest records"
    );
    assert!(
        INPUT_BLOCKS >= 2,
        "one block is filled while another is cut"
    );
};
