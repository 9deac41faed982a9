use storage_core::channel::BlockNumber;

use crate::SignatureError;

/// Why a client's message is not followed. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageRefusal {
    /// The signature is none.
    #[error("the signature of the message is not valid: {0}")]
    Signature(SignatureError),
    /// Somebody signed it who may not ask.
    #[error("the message was signed by nobody who may ask")]
    Unauthenticated,
    /// It was signed at another time.
    #[error("the message was signed at block {block}, and now it is block {current}")]
    NotRecent {
        /// The block in the message.
        block: BlockNumber,
        /// The current block.
        current: BlockNumber,
    },
}
