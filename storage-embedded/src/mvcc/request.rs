//! What can be asked and changed.

use std::ops::Bound;

use bytes::Bytes;
use storage_core::Key;

/// One key, or those of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// This key.
    One(Bytes),
    /// This key and all behind it.
    From(Bytes),
    /// The keys from the first on and before the second; none if the second is not behind the first.
    Between(Bytes, Bytes),
}

impl KeyRange {
    /// Whether a key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => key == one,
            Self::From(first) => key >= first.as_ref(),
            Self::Between(first, end) => key >= first.as_ref() && key < end.as_ref(),
        }
    }

    /// `None` for a range without keys, which maps do not take.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        match self {
            Self::One(key) => Some((Bound::Included(key), Bound::Included(key))),
            Self::From(first) => Some((Bound::Included(first), Bound::Unbounded)),
            Self::Between(first, end) => (first < end).then_some((Bound::Included(first), Bound::Excluded(end))),
        }
    }
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Reads keys of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which keys.
    pub keys: KeyRange,
    /// At which revision; 0: now.
    pub revision: u64,
    /// How many, at most; 0: all.
    pub limit: u64,
    /// In which order.
    pub order: Order,
    /// Without the values.
    pub keys_only: bool,
    /// Only how many there are.
    pub count_only: bool,
    /// Only keys whose revisions are in here.
    pub revisions: RevisionFilter,
}

impl Range {
    /// All of these keys, now.
    pub fn new(keys: KeyRange) -> Self {
        Self {
            keys,
            revision: 0,
            limit: 0,
            order: Order::default(),
            keys_only: false,
            count_only: false,
            revisions: RevisionFilter::default(),
        }
    }
}

/// The order of what is read. Keys that are equal in it come in the order of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub by: OrderBy,
    /// Whether there is an order, and which. Without one, keys are limited in their own order and then sorted upwards by what is asked.
    pub direction: Option<Direction>,
}

/// What is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderBy {
    /// The key.
    #[default]
    Key,
    /// How often the key was written.
    Version,
    /// The revision that created the key.
    Create,
    /// The revision that wrote the value.
    Mod,
    /// The value.
    Value,
}

/// Upwards or downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The smallest first.
    Ascending,
    /// The largest first.
    Descending,
}

/// Bounds on the revisions of keys, inclusive; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevisionFilter {
    /// The least revision that wrote the value.
    pub min_mod: i64,
    /// The greatest revision that wrote the value.
    pub max_mod: i64,
    /// The least revision that created the key.
    pub min_create: i64,
    /// The greatest revision that created the key.
    pub max_create: i64,
}

/// Writes a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// Its new value; `None`: the one that it has.
    pub value: Option<Bytes>,
    /// The lease that it is attached to, 0 for none; `None`: the one that it has.
    pub lease: Option<u64>,
    /// Whether the answer has what was there before.
    pub previous: bool,
}

/// Deletes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Which keys.
    pub keys: KeyRange,
    /// Whether the answer has what was there before.
    pub previous: bool,
}

/// Compares what is stored under keys with something. It holds if it does for each key of the range; where there is none it is
/// compared with zeros, and a value with nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub keys: KeyRange,
    /// How what is stored has to stand to the operand.
    pub relation: Relation,
    /// What is compared, and the operand.
    pub with: Operand,
}

/// How two things stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// What is stored is greater.
    Greater,
    /// What is stored is less.
    Less,
}

/// What is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// How often the key was written.
    Version(i64),
    /// The revision that created the key.
    Create(i64),
    /// The revision that wrote the value.
    Mod(i64),
    /// The value.
    Value(Bytes),
    /// The lease that the key is attached to.
    Lease(i64),
}

/// A transaction: if all comparisons hold, one list of operations, otherwise the other. It makes one revision at the most.
///
/// Comparisons, also those of transactions within this one, are made before anything is written; each operation sees what those
/// before it have written. No key may be written twice: see [`Mvcc::txn`](crate::Mvcc::txn).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What has to hold.
    pub compares: Vec<Compare>,
    /// What is done if it does.
    pub success: Vec<Op>,
    /// What is done if it does not.
    pub failure: Vec<Op>,
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads.
    Range(Range),
    /// Writes a key.
    Put(Put),
    /// Deletes keys.
    Delete(Delete),
    /// A transaction within the transaction.
    Txn(Txn),
}

impl Txn {
    /// How many transactions may stand one within the other within a transaction: as many as etcd's limit of operations lets through.
    pub const MAX_DEPTH: usize = 128;

    /// A transaction that does one thing.
    pub fn of(op: Op) -> Self {
        Self { success: vec![op], ..Self::default() }
    }

    /// Whether nothing is written, whatever the comparisons say.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::Delete(_) => false,
            Op::Txn(txn) => txn.is_read_only(),
        })
    }
}
