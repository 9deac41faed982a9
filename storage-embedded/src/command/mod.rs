//! What the log carries, and what applying it gives: every change of the replicated state is one [`Command`], and its answer is
//! [`Applied`]. Words only: how a command changes the state is in `state_machine`.
//!
//! # Invariants
//! - One value has one encoding, so equal commands have equal bytes.
//! - What was written once is read for ever: a tag never gets a second meaning. Golden files in `tests/` hold it to that.
//! - Bytes of anybody are decoded without a panic, and in memory that they themselves bound.

mod applied;
mod encoding;
mod rows;

use storage_core::{Op, OperationId, Txn};

use bytes::Bytes;

pub(crate) use applied::{Applied, Rejection, outcome, put_outcome};
pub use rows::RowChange;

use crate::{
    auth::{AuthChange, Identity},
    keys::KeySpace,
    mvcc,
};

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
    /// Sets and removes rows of the configuration table together, if others are as expected.
    Rows(RowChange),
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
        /// The version of the limits that it is judged by, by every replica alike, which [`mvcc::Limits`] knows.
        limits: u8,
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
    /// Changes users or roles.
    Auth(AuthChange),
    /// Raises the alarm of a member that has no space, or takes it back. While one stands, whatever grows is refused.
    Alarm {
        /// The id of the member.
        member: u64,
        /// Whether it is raised.
        raise: bool,
    },
    /// A command of a client, which is carried out if that may do it when it is applied. Commands without it are of the process that holds the node.
    By {
        /// Who asks.
        who: Identity,
        /// What is asked: one of those that [`Command::may_be_asked`] names.
        command: Box<Command>,
    },
}

impl Command {
    /// A transaction within the limits of this program.
    pub(crate) fn mvcc(txn: mvcc::Txn) -> Self {
        Self::Mvcc { txn, limits: mvcc::Limits::VERSION }
    }

    /// The version of the limits of a transaction.
    pub(crate) fn limits(&self) -> Option<u8> {
        match self {
            Self::Mvcc { limits, .. } => Some(*limits),
            Self::By { command, .. } => command.limits(),
            _ => None,
        }
    }

    /// How many bytes the state grows by at the most through what clients put in with it; 0: it can be carried out without space. A transaction counts by the
    /// larger of its branches, whichever it takes, as in etcd.
    pub(crate) fn growth(&self) -> u64 {
        match self {
            Self::Txn { txn, .. } => contract_growth(txn),
            Self::LeaseGrant { .. } => KeySpace::LEASE_BYTES,
            Self::Mvcc { txn, .. } => mvcc_growth(txn),
            Self::Once { command, .. } | Self::By { command, .. } => command.growth(),
            // Rows are the cluster's own, and bounded; users and sessions are bounded, too.
            Self::OpenSession { .. }
            | Self::LeaseRevoke { .. }
            | Self::LeaseExpire { .. }
            | Self::RowPut { .. }
            | Self::RowDelete { .. }
            | Self::Rows(_)
            | Self::Compact { .. }
            | Self::Auth(_)
            | Self::Alarm { .. } => 0,
        }
    }

    /// Whether it is one that clients ask for.
    fn may_be_asked(&self) -> bool {
        matches!(
            self,
            Self::Mvcc { .. }
                | Self::Compact { .. }
                | Self::LeaseGrant { .. }
                | Self::LeaseRevoke { .. }
                | Self::Auth(_)
                | Self::Alarm { .. }
        )
    }

    /// Whether it says itself how it is applied once.
    fn has_request(&self) -> bool {
        matches!(self, Self::Txn { .. } | Self::OpenSession { .. } | Self::Once { .. })
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

/// [`Command::growth`] of a transaction of the contract.
pub(crate) fn contract_growth(txn: &Txn) -> u64 {
    let puts = txn.ops.iter().map(|op| match op {
        Op::Put { key, value } => KeySpace::put_bytes(key, value.len()),
        Op::Delete { .. } => 0,
    });
    puts.sum()
}

fn mvcc_growth(txn: &mvcc::Txn) -> u64 {
    let branch = |ops: &[mvcc::Op]| -> u64 {
        let puts = ops.iter().map(|op| match op {
            mvcc::Op::Put(put) => KeySpace::put_bytes(&put.key, put.value.as_ref().map_or(0, Bytes::len)),
            mvcc::Op::Txn(txn) => mvcc_growth(txn),
            mvcc::Op::Range(_) | mvcc::Op::Delete(_) => 0,
        });
        puts.sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

#[cfg(test)]
mod tests;
