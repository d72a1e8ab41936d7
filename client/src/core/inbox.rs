//! How much space a connection offers to a read.

use ringway_wire::frame::FrameDecoder;

use crate::limits::READ_BYTES_MIN;

/// Space to read into. It grows with what came, not with what a frame's header announces.
pub(crate) fn space(decoder: &mut FrameDecoder) -> &mut [u8] {
    let most = decoder.held().max(READ_BYTES_MIN);
    let wanted = decoder.lacking().unwrap_or(0).clamp(READ_BYTES_MIN, most);
    decoder.spare(wanted)
}
