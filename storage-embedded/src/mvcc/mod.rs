//! What etcd's API needs of the keys and the contract does not ask for: ranges at a revision, transactions with branches, leases. Requests,
//! answers and their encoding, and how they are carried out on `keys`; the handle for users is [`Mvcc`](crate::Mvcc).
//!
//! [`Mvcc`](crate::Mvcc) works on the same keys as the contract's [`EmbeddedStore`](crate::EmbeddedStore). Its revisions are those of etcd,
//! where an empty store has revision 1: one more than the contract's.
//!
//! # How much of the past there is
//! The latest [`MAX_CHANGES`] changes with [`MAX_HISTORY_BYTES`] of keys and values. What is older counts as compacted, on every
//! replica alike, also when nobody has asked for a compaction.

mod answer;
mod denied;
mod encoding;
mod error;
mod estimate;
mod execute;
mod intervals;
mod lease_clock;
mod limits;
mod request;

pub use answer::{Event, EventLimit, Events, KeyValue, LeaseLife, OpAnswer, Ranged, TxnAnswer};
pub use denied::Denied;
pub(crate) use encoding::{life, put_entry, put_life, put_txn, put_txn_answer, txn, txn_answer};
pub use error::{MvccError, Refused, Result};
pub(crate) use estimate::{is_short, short_work, short_writes};
pub(crate) use execute::{compact, each, event, execute, expire_lease, grant_lease, range, read, revoke_lease};
pub use intervals::Intervals;
pub(crate) use lease_clock::{Leading, LeaseClock};
#[cfg(test)]
pub(crate) use limits::counted;
pub(crate) use limits::{Limits, SHORT_WORK};
pub use limits::{
    MAX_ANSWER_BYTES, MAX_DELETED_BYTES, MAX_DELETED_KEYS, MAX_LEASE_KEYS, MAX_OPS, MAX_READ_BYTES, MAX_WORK,
};
pub use request::{
    Compare, Delete, Direction, KeyRange, Op, Operand, Order, OrderBy, Put, Range, Relation, RevisionFilter, Txn,
};

use crate::keys::{History, Leases};

/// How many changes of the past can be read and watched.
pub const MAX_CHANGES: usize = History::CHANGES;

/// How many bytes of keys and values, new and old, the changes of the past have that can be read and watched.
pub const MAX_HISTORY_BYTES: usize = History::BYTES;

/// How many leases there may be.
pub const MAX_LEASES: usize = Leases::MAX;
