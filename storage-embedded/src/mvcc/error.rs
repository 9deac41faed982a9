//! Why a call was not carried out.

use storage_core::Error;

use super::Denied;

/// The result of a call of this module.
pub type Result<T, E = MvccError> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum MvccError {
    /// It was looked at and refused. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Whoever asked may not, or users and roles are not to be changed like this. Nothing was changed.
    #[error(transparent)]
    Denied(#[from] Denied),
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
    /// There are too many keys attached to the lease: [`MAX_LEASE_KEYS`](super::MAX_LEASE_KEYS).
    #[error("too many keys are attached to the lease")]
    LeaseFull,
    /// It would take more than [`MAX_WORK`](super::MAX_WORK), delete more than [`MAX_DELETED_KEYS`](super::MAX_DELETED_KEYS) or
    /// [`MAX_DELETED_BYTES`](super::MAX_DELETED_BYTES), or has more than [`MAX_OPS`](super::MAX_OPS).
    #[error("the request takes too much work")]
    TooCostly,
    /// The answer would be over [`MAX_ANSWER_BYTES`](super::MAX_ANSWER_BYTES), or [`MAX_READ_BYTES`](super::MAX_READ_BYTES).
    #[error("the answer would be too large")]
    AnswerTooLarge,
    /// It grows, and an alarm says that there is no space.
    #[error("there is no space")]
    NoSpace,
}
