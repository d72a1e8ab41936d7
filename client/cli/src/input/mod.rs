//! Standard input on its way to the producer: a thread reads blocks, a cutter finds the records in
//! them, in place.

mod cut;
mod source;

pub(crate) use cut::{Cutter, Piece, Shape};
pub(crate) use source::Source;
