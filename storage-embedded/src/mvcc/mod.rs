//! All revisions of the keys: what etcd's API needs and the contract does not ask for. Ranges at a revision, transactions with
//! branches, leases, the history.
//!
//! [`Mvcc`] works on the same keys as the contract's [`EmbeddedStore`](crate::EmbeddedStore). Its revisions are those of etcd,
//! where an empty store has revision 1: one more than the contract's.
//!
//! # How much of the past there is
//! The latest [`MAX_CHANGES`] changes with [`MAX_HISTORY_BYTES`] of keys and values. What is older counts as compacted, on every
//! replica alike, also when nobody has asked for a compaction.

mod answer;
mod encoding;
mod error;
mod request;
mod store;

pub use answer::{Event, Events, KeyValue, LeaseLife, OpAnswer, Ranged, TxnAnswer};
pub(crate) use encoding::{life, put_life, put_txn, put_txn_answer, txn, txn_answer};
pub use error::{MvccError, Refused, Result};
pub use request::{
    Compare, Delete, Direction, KeyRange, Op, Operand, Order, OrderBy, Put, Range, Relation, RevisionFilter, Txn,
};

pub use store::Mvcc;

use crate::state_machine::History;

/// How many changes of the past can be read and watched.
pub const MAX_CHANGES: usize = History::CHANGES;

/// How many bytes of keys and values, new and old, the changes of the past have that can be read and watched.
pub const MAX_HISTORY_BYTES: usize = History::BYTES;

/// How many bytes of keys and values the answer to a transaction that writes may have (16 MiB): it has to fit into one message
/// between nodes. A transaction whose answer would be larger is refused and changes nothing.
pub const MAX_ANSWER_BYTES: usize = 16 << 20;

/// How many leases there may be.
pub const MAX_LEASES: usize = crate::state_machine::Leases::MAX;

/// A revision of the state as those who ask see it: as in etcd, the empty store has revision 1.
pub(crate) const fn shown(revision: u64) -> u64 {
    revision + 1
}

/// The reverse of [`shown`]; what was before the empty store is the empty store.
pub(crate) const fn engine(shown: u64) -> u64 {
    shown.saturating_sub(1)
}
