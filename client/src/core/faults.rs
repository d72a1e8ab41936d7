//! What an error code of a broker means to whoever asked.

use ringway_wire::ErrorCode;

/// Whether an error passes by itself or with newer metadata.
pub(crate) const fn passes(code: ErrorCode) -> bool {
    code.retriable() || matches!(code, ErrorCode::UnknownTopic | ErrorCode::UnknownPartition)
}

/// Whether an error says that the partition may be led elsewhere now, or be no more.
pub(crate) const fn metadata_in_doubt(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownTopic
            | ErrorCode::UnknownPartition
            | ErrorCode::NotLeader
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::ShuttingDown
    )
}
