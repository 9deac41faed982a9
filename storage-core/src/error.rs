//! The errors of the contract: one variant for each different next action of the caller.
//!
//! Invariant: every variant says whether a write may have been applied. A backend that is not sure says
//! `UnknownOutcome`; a wrong "not applied" is the worst that it can do, since callers then write again.

use std::{error::Error as StdError, fmt, time::Duration};

use crate::Revision;

/// The cause that a backend saw, of whatever type its client library has.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// The result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed: one variant for each different next action of the caller.
///
/// | variant | the write | what to do |
/// |---|---|---|
/// | `InvalidArgument` `TooLarge` `Unsupported` `Unauthenticated` `PermissionDenied` | not applied | mend the call or the configuration |
/// | `Unavailable` `Throttled` | not applied | try again, later |
/// | `UnknownOutcome` | **may have been applied, or may yet be** | read again before anything else |
/// | `LockHeld` | not applied | somebody else holds the lock: wait or give up |
/// | `LeaseLost` | not applied | stop working under the lock |
/// | `Compacted` | (a read) | start again from a scan |
/// | `Corrupt` | not applied | an operator has to look at it |
/// | `Closed` | not applied | open a new handle |
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The call itself is wrong, whatever the store holds.
    #[error("invalid argument: {reason}")]
    InvalidArgument {
        /// What is wrong with it.
        reason: String,
    },
    /// Something is over a limit of the contract or the store.
    #[error("too large: {actual} {what}, at most {limit} are possible")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How many or how long it is.
        actual: usize,
        /// How many or how long it may be.
        limit: usize,
    },
    /// The store cannot do this at all; its [`Capabilities`](crate::Capabilities) say so beforehand.
    #[error("not supported: {feature}")]
    Unsupported {
        /// What is missing.
        feature: String,
    },
    /// The store does not accept who is calling, or cannot prove who it is.
    #[error("not authenticated: {source}")]
    Unauthenticated {
        /// What the store said.
        source: Cause,
    },
    /// The store knows who is calling and does not permit this.
    #[error("permission denied: {source}")]
    PermissionDenied {
        /// What the store said.
        source: Cause,
    },
    /// The store cannot be reached or has no quorum. A write was certainly not applied and never will be.
    #[error("unavailable: {source}")]
    Unavailable {
        /// What was seen.
        source: Cause,
    },
    /// The store has too much to do. A write was certainly not applied and never will be.
    #[error("throttled: {source}")]
    Throttled {
        /// How long to wait, if the store says so.
        retry_after: Option<Duration>,
        /// What the store said.
        source: Cause,
    },
    /// The write left and no answer came: it may have been applied, or may be applied later.
    #[error("outcome unknown, the write may have been applied: {source}")]
    UnknownOutcome {
        /// What was seen.
        source: Cause,
    },
    /// The lock is held by somebody else, for longer than the caller wanted to wait.
    #[error("the lock is held by {owner}")]
    LockHeld {
        /// Who holds it, as that holder called itself.
        owner: String,
    },
    /// The caller's lock ended: its lease ran out, or it was taken away.
    #[error("the lock was lost")]
    LeaseLost,
    /// The history that the call needs is no longer kept.
    #[error("the history before revision {oldest} is gone")]
    Compacted {
        /// The oldest revision that a watch may still resume after.
        oldest: Revision,
    },
    /// Stored data is not what was written.
    #[error("corrupt: {what}")]
    Corrupt {
        /// Which data, where (file and offset, or key), and how it can be seen.
        what: String,
    },
    /// The handle was closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// An [`Error::InvalidArgument`] with this reason.
    pub fn invalid_argument(reason: impl Into<String>) -> Self {
        Self::InvalidArgument { reason: reason.into() }
    }

    /// An [`Error::Unavailable`] with this cause: the write was certainly not applied.
    pub fn unavailable(source: impl Into<Cause>) -> Self {
        Self::Unavailable { source: source.into() }
    }

    /// An [`Error::UnknownOutcome`] with this cause: the write may have been applied.
    pub fn unknown_outcome(source: impl Into<Cause>) -> Self {
        Self::UnknownOutcome { source: source.into() }
    }

    /// An [`Error::Corrupt`] that says what is corrupt.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// An [`Error::Unavailable`] that says that the deadline of a call passed before anything was sent, or of a read.
    pub fn deadline(timeout: Duration) -> Self {
        Self::unavailable(DeadlineExceeded { timeout })
    }

    /// An [`Error::UnknownOutcome`] that says that the deadline of a write passed after it was sent.
    pub fn deadline_after_send(timeout: Duration) -> Self {
        Self::unknown_outcome(DeadlineExceeded { timeout })
    }

    /// Whether a write that ended with this error may have been applied, or may yet be.
    pub fn may_be_applied(&self) -> bool {
        matches!(self, Self::UnknownOutcome { .. })
    }

    /// Whether the same call may succeed if it is made again, and cannot then be applied twice.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Throttled { .. })
    }

    /// The name of the variant in `snake_case`, for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. } => "invalid_argument",
            Self::TooLarge { .. } => "too_large",
            Self::Unsupported { .. } => "unsupported",
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::PermissionDenied { .. } => "permission_denied",
            Self::Unavailable { .. } => "unavailable",
            Self::Throttled { .. } => "throttled",
            Self::UnknownOutcome { .. } => "unknown_outcome",
            Self::LockHeld { .. } => "lock_held",
            Self::LeaseLost => "lease_lost",
            Self::Compacted { .. } => "compacted",
            Self::Corrupt { .. } => "corrupt",
            Self::Closed => "closed",
        }
    }
}

/// The cause of an error when the deadline of a call passed.
#[derive(Debug, Clone, Copy)]
struct DeadlineExceeded {
    timeout: Duration,
}

impl fmt::Display for DeadlineExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?}", self.timeout)
    }
}

impl StdError for DeadlineExceeded {}
