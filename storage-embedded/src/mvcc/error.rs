//! Why a call was not carried out.

use storage_core::Error;

use crate::state_machine::Refusal;

/// The result of a call of this module.
pub type Result<T, E = MvccError> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum MvccError {
    /// It was looked at and refused. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// As for every other call of the store.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Why a call was refused, by the state as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The revision was given up.
    #[error("the revision has been compacted")]
    Compacted,
    /// The revision is yet to come.
    #[error("the revision is a future revision")]
    FutureRevision,
    /// A put that keeps the value or the lease of its key, and there is no such key.
    #[error("the key was not found")]
    KeyNotFound,
    /// There is no lease of this id.
    #[error("the lease was not found")]
    LeaseNotFound,
    /// There is a lease of this id already.
    #[error("the lease exists")]
    LeaseExists,
    /// There are too many leases.
    #[error("there are too many leases")]
    TooManyLeases,
    /// The answer would be over [`MAX_ANSWER_BYTES`](super::MAX_ANSWER_BYTES).
    #[error("the answer would be too large")]
    AnswerTooLarge,
}

impl From<Refusal> for MvccError {
    fn from(refusal: Refusal) -> Self {
        let refused = match refusal {
            Refusal::Compacted => Refused::Compacted,
            Refusal::FutureRevision => Refused::FutureRevision,
            Refusal::KeyNotFound => Refused::KeyNotFound,
            Refusal::TooManyLeases => Refused::TooManyLeases,
            Refusal::AnswerTooLarge => Refused::AnswerTooLarge,
            Refusal::TooManyRequests => {
                return Error::Throttled { retry_after: None, source: refusal.to_string().into() }.into();
            }
            Refusal::Malformed | Refusal::Acknowledged | Refusal::TooManyRows => {
                return Error::corrupt(refusal.to_string()).into();
            }
        };
        refused.into()
    }
}
