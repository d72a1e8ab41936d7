//! What all partitions of a producer share: the bytes it holds, batch numbers, builders and the
//! compressor's memory to be used again.

use std::sync::Arc;

use ringway_wire::PartitionIndex;
use ringway_wire::batch::{BatchBuilder, Compressor};

use crate::core::delivery::{BatchOutcome, OnBatch};
use crate::core::producer::Settings;

/// Builders kept for the next batches; each keeps the space of a batch.
const SPARE_BUILDERS_MAX: usize = 8;

/// The books of a producer.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    held_bytes: usize,
    batches: u64,
    spare: Vec<BatchBuilder>,
    compressor: Compressor,
    /// Bytes were freed since [`Ledger::take_freed`].
    freed: bool,
    /// Told of every batch.
    on_batch: Option<OnBatch>,
}

impl Ledger {
    pub(super) fn new(on_batch: Option<OnBatch>) -> Self {
        Self {
            on_batch,
            ..Self::default()
        }
    }

    /// The state of a new batch.
    pub(super) fn outcome(&self, topic: &Arc<str>, to: PartitionIndex) -> Arc<BatchOutcome> {
        Arc::new(BatchOutcome::new(
            Arc::clone(topic),
            to,
            self.on_batch.clone(),
        ))
    }

    /// Bytes of records that are not acknowledged or given up.
    pub(super) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) const fn charge(&mut self, bytes: usize) {
        self.held_bytes += bytes;
    }

    pub(super) const fn free(&mut self, bytes: usize) {
        debug_assert!(self.held_bytes >= bytes, "bytes are freed once");
        self.held_bytes -= bytes;
        self.freed = true;
    }

    /// Whether bytes were freed since the last call.
    pub(super) const fn take_freed(&mut self) -> bool {
        std::mem::replace(&mut self.freed, false)
    }

    /// The number of a new batch; numbers rise.
    pub(super) const fn next_batch(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    /// A number above those of all batches so far.
    pub(super) const fn above_all(&self) -> u64 {
        self.batches + 1
    }

    /// An empty builder.
    pub(super) fn builder(&mut self, settings: &Settings) -> BatchBuilder {
        self.spare.pop().unwrap_or_else(|| match settings.layout {
            None => BatchBuilder::new(settings.limits),
            Some(layout) => BatchBuilder::typed(settings.limits, layout),
        })
    }

    /// Compresses one batch after another.
    pub(super) const fn compressor(&mut self) -> &mut Compressor {
        &mut self.compressor
    }

    /// Takes a builder back; one that still has records is not used again.
    pub(super) fn recycle(&mut self, builder: BatchBuilder) {
        if builder.is_empty() && self.spare.len() < SPARE_BUILDERS_MAX {
            self.spare.push(builder);
        }
    }
}
