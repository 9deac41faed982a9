//! What the log carries: every change of the replicated state is one [`Command`].

mod encoding;

use storage_core::{Key, OperationId, Txn};

use bytes::Bytes;

use crate::mvcc;

/// A change of the replicated state.
///
/// Its encoding begins with a version and a tag (see [`Command::encode`]); a tag is never given a second meaning,
/// because logs and snapshots outlive the program that wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// A transaction of the contract.
    Txn {
        /// What to check and write. The keys it writes are detached from their leases.
        txn: Txn,
        /// The caller's name for this write, if it gave one.
        operation: Option<OperationId>,
        /// The engine's own name for this write, if it may be proposed more than once.
        request: Option<Request>,
    },
    /// Opens a session: the frame in which [`Request`]s are numbered. The answer is its id.
    OpenSession {
        /// A random number; the same nonce finds the same session, so that opening it twice opens it once.
        nonce: u64,
    },
    /// Grants a lease.
    LeaseGrant {
        /// The id of the lease; 0: the state machine chooses a free one.
        id: u64,
        /// How long the lease lives after it was last kept alive, in seconds.
        ttl_seconds: u64,
    },
    /// Ends a lease and deletes the keys that are attached to it, in one revision. The state machine has no clock: it is the
    /// leader who sees that a lease has run out, and proposes this.
    LeaseRevoke {
        /// The id of the lease.
        id: u64,
    },
    /// Writes one key and attaches it to a lease.
    LeasedPut {
        /// The key to set.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// The lease whose end deletes the key.
        lease: u64,
        /// As in [`Command::Txn`].
        request: Option<Request>,
    },
    /// Sets a row of the configuration table, which stands apart from the keys of the users.
    RowPut {
        /// The name of the row.
        name: Bytes,
        /// Its new content.
        value: Bytes,
    },
    /// Removes a row of the configuration table.
    RowDelete {
        /// The name of the row.
        name: Bytes,
    },
    /// A command that has no [`Request`] of its own, applied once however often it is proposed.
    Once {
        /// As in [`Command::Txn`].
        request: Request,
        /// What is applied.
        command: Box<Command>,
    },
    /// A transaction with branches, ranges and leases.
    Mvcc {
        /// What to compare, read and write.
        txn: mvcc::Txn,
    },
    /// Ends a lease as [`Command::LeaseRevoke`], unless its id has been given to another lease since.
    LeaseExpire {
        /// The id of the lease.
        id: u64,
        /// The index of the entry that granted it.
        granted: u64,
    },
    /// Gives up the history before a revision.
    Compact {
        /// The oldest revision that can still be read.
        revision: u64,
    },
}

impl Command {
    /// Whether it says itself how it is applied once.
    fn has_request(&self) -> bool {
        matches!(self, Self::Txn { .. } | Self::LeasedPut { .. } | Self::OpenSession { .. } | Self::Once { .. })
    }
}

/// Names one proposal, so that it is applied once however often it gets into the log (Ongaro's thesis, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The session, from [`Command::OpenSession`].
    pub(crate) session: u64,
    /// The number of the request in its session. Every request gets a new one; one that is proposed again keeps its own.
    pub(crate) sequence: u64,
    /// The session no longer waits for any request below this, and never proposes one again.
    pub(crate) acknowledged_below: u64,
}

#[cfg(test)]
mod tests;
