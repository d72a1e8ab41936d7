//! Values that are more than bytes: any type that rkyv archives goes in as it is and comes out as
//! its archive, checked, in place.

mod batch;
mod layout;
mod record;

pub use batch::{TypedBatch, TypedRecordView, TypedRecords};
pub use layout::{Layout, Shape, layout_of};
pub use record::TypedRecord;
pub(crate) use record::{Scratch, encode};

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

use ringway_wire::limits::ALIGNMENT;

/// Values as plain bytes: what producers and consumers send and read unless told otherwise.
#[derive(Clone, Copy, Debug)]
pub enum Bytes {}

/// What a value is written with.
pub(crate) type Encoder<'a> = HighSerializer<AlignedVec<ALIGNMENT>, ArenaHandle<'a>, Error>;

/// A type that a producer can send: it derives rkyv's `Archive` and `Serialize`, and [`Layout`].
pub trait Writable: Layout + for<'a> rkyv::Serialize<Encoder<'a>> {}

impl<T: Layout + for<'a> rkyv::Serialize<Encoder<'a>>> Writable for T {}

/// A type that a consumer can read: it derives rkyv's `Archive`, and [`Layout`].
pub trait Readable:
    Layout<Archived: for<'a> CheckBytes<HighValidator<'a, Error>> + 'static>
{
}

impl<T> Readable for T where
    T: Layout<Archived: for<'a> CheckBytes<HighValidator<'a, Error>> + 'static>
{
}
