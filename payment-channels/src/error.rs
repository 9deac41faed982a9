//! What can go wrong with payments: one variant for each different next action of the caller.
//!
//! Every error but two says that nothing was written. Only those two may leave a write open, and `may_be_applied` names
//! them.

use std::time::Duration;

use storage_core::{Key, record::DecodeError};

use crate::{ChainError, ClaimRefusal, MessageRefusal, Refusal, UsageRefusal, operation::Forgotten};

/// The result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed: one variant for each different next action of the caller.
///
/// Only [`Error::Unsettled`] and an [`Error::Store`] that [may be applied](storage_core::Error::may_be_applied) leave open
/// whether something was written; after every other error nothing was, and nothing will be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The payment does not pay for the call: the client has to mend it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is nothing to claim, or it cannot be claimed.
    #[error(transparent)]
    ClaimRefused(#[from] ClaimRefusal),
    /// The counters of a prepaid channel do not allow it.
    #[error(transparent)]
    UsageRefused(#[from] UsageRefusal),
    /// A client's message is not followed.
    #[error(transparent)]
    MessageRefused(#[from] MessageRefusal),
    /// The user has had all the free calls there are.
    #[error("all {limit} free calls are used")]
    FreeCallsExhausted {
        /// How many there are.
        limit: u64,
    },
    /// Another payment is in flight at the channel: try again when it has ended, at the latest when its lease has.
    #[error("a payment held by {owner} is in flight at the channel")]
    Busy {
        /// Who holds the channel.
        owner: String,
        /// For how long its record has to be seen unchanged before another may take over.
        lease: Duration,
    },
    /// The reservation was fenced: its lease ran out and another one took over, or an operator unlocked the channel. The client is not charged.
    #[error("the reservation was lost to another one or to an operator")]
    LeaseLost,
    /// A commit of a reservation that was released: the client is not charged.
    #[error("the reservation was released already")]
    Released,
    /// A release of a reservation that was committed: the client is charged.
    #[error("the reservation was committed already")]
    Committed,
    /// How the operation ended is no longer in the record, because so many came after it.
    #[error("it can no longer be known how the operation ended")]
    Unsettled,
    /// An option is out of range.
    #[error("invalid argument: {reason}")]
    InvalidArgument {
        /// What is wrong.
        reason: String,
    },
    /// A newer program wrote the record: this one has to be updated.
    #[error("the record {key} has version {found}, this program reads up to {supported}")]
    NewerRecord {
        /// Which record.
        key: Key,
        /// Its version.
        found: u16,
        /// The newest version that can be read.
        supported: u16,
    },
    /// A record is not what was written: an operator has to look at it.
    #[error("the record {key} is corrupt: {source}")]
    CorruptRecord {
        /// Which record.
        key: Key,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A record is at the key of another.
    #[error("the record {key} is that of another key")]
    MisplacedRecord {
        /// Where it is.
        key: Key,
    },
    /// A record of this channel or user names no ledger: an earlier version of this program wrote it. Nobody knows but the operator whose it is.
    #[error(
        "the record {key} names neither network nor contract: stop the replicas of the earlier version, and move its records with \
         `snet channel move URL --chain-id NUMBER --contract ADDRESS`"
    )]
    UnnamedRecord {
        /// Which record.
        key: Key,
    },
    /// Where a record is to be moved to there is another one already: an operator has to look at both.
    #[error("there is a record at {key} already, and it is another one")]
    Occupied {
        /// Where it is.
        key: Key,
    },
    /// The blockchain could not be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store did not do what was asked.
    #[error(transparent)]
    Store(#[from] storage_core::Error),
}

impl From<Forgotten> for Error {
    fn from(_: Forgotten) -> Self {
        Self::Unsettled
    }
}

impl Error {
    /// Whether something may have been written although the call failed: the same call again resolves it.
    pub fn may_be_applied(&self) -> bool {
        match self {
            Self::Store(error) => error.may_be_applied(),
            error => matches!(error, Self::Unsettled),
        }
    }

    /// Whether it is about one record, which cannot be read. Others can: who goes through many names it and goes on.
    pub fn is_of_a_record(&self) -> bool {
        matches!(self, Self::NewerRecord { .. } | Self::CorruptRecord { .. } | Self::MisplacedRecord { .. })
    }

    /// What a record that cannot be read comes to.
    pub(crate) fn record(key: &Key, error: DecodeError) -> Self {
        let key = key.clone();
        match error {
            DecodeError::NewerVersion { found, supported } => Self::NewerRecord { key, found, supported },
            source => Self::CorruptRecord { key, source },
        }
    }
}
