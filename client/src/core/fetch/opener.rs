//! The last step before a batch is handed out: its body is checked and, if it is compressed,
//! inflated. One batch at a time, so that what is fetched ahead stays as small as it came.

use std::sync::Arc;

use ringway_wire::batch::{BatchBytes, BatchError, BatchHeader, Inflater, StoredBatch};

use crate::batch::Batch;
use crate::core::fetch::{FetchedBytes, Parcel};
use crate::limits::{INFLATED_KEPT_BYTES_MAX, INFLATED_KEPT_MAX};

/// Opens batches. Uses the memory of inflated ones again when they were dropped.
#[derive(Debug, Default)]
pub(crate) struct Opener {
    inflater: Inflater,
    /// Where batches were inflated to; in use as long as somebody else holds them too.
    spaces: Vec<FetchedBytes>,
}

impl Opener {
    /// Checks the batch, inflated if need be.
    pub(crate) fn open(&mut self, parcel: &Parcel) -> Result<Batch, BatchError> {
        let bytes = &parcel.bytes[parcel.start..];
        if BatchHeader::decode(bytes)?.attributes.codec() == 0 {
            return Batch::open(parcel);
        }
        let stored = StoredBatch::check(bytes)?;
        let mut space = self.space(stored.header().inflated_bytes());
        let free = Arc::get_mut(&mut space).expect("nobody else holds a space that is free");
        stored.inflate(&mut self.inflater, free)?;
        if space.capacity() <= INFLATED_KEPT_BYTES_MAX {
            self.spaces.push(Arc::clone(&space));
        }
        Batch::open_inflated(parcel, space)
    }

    /// A space that nobody else holds: a used one, else one that is made for so many bytes.
    fn space(&mut self, bytes: usize) -> FetchedBytes {
        let free = |space: &FetchedBytes| Arc::strong_count(space) == 1;
        let used = self.spaces.iter().position(free);
        if let Some(used) = used {
            return self.spaces.swap_remove(used);
        }
        // All are held by batches that somebody keeps: they go with those.
        if self.spaces.len() >= INFLATED_KEPT_MAX {
            self.spaces.clear();
        }
        Arc::new(BatchBytes::with_capacity(bytes))
    }
}
