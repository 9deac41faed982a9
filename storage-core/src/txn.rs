//! Transactions and their outcomes: guards, operations, and what a store answers.
//!
//! Invariants: a key stands at most once among the guards and once among the operations, so that no backend needs an
//! order within a transaction. A conflict is an answer and not an error: callers have to look at it.

use bytes::Bytes;

use crate::{Capabilities, Error, Key, Result, Revision, Version};

/// A key with its value and version, as one read saw them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value; may be empty. A present empty value and an absent key are different things.
    pub value: Bytes,
    /// The version that this value has.
    pub version: Version,
}

/// What a guard expects of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Anything, present or absent. Such a guard always holds.
    Any,
    /// No value.
    Absent,
    /// Some value.
    Exists,
    /// The value with this version.
    Version(Version),
    /// A value of exactly these bytes. Weaker than a version: a value that was changed and restored holds.
    /// A store without a native comparison does a read and a version compare: see [`Capabilities::native_value_compare`].
    Value(Bytes),
}

impl Expected {
    /// Whether `current` (`None`: the key is absent) is what is expected.
    pub fn holds(&self, current: Option<(&[u8], Version)>) -> bool {
        match (self, current) {
            (Self::Any, _) => true,
            (Self::Absent, current) => current.is_none(),
            // After `Absent`, everything that is left expects something to be there; so an empty value does not match an absent key.
            (_, None) => false,
            (Self::Exists, Some(_)) => true,
            (Self::Version(expected), Some((_, version))) => *expected == version,
            (Self::Value(expected), Some((value, _))) => expected == value,
        }
    }
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The key it looks at.
    pub key: Key,
    /// What has to be there.
    pub expected: Expected,
}

/// A write to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets the value, whatever was there.
    Put {
        /// The key to set.
        key: Key,
        /// Its new value.
        value: Bytes,
    },
    /// Removes the key; does nothing if it is absent.
    Delete {
        /// The key to remove.
        key: Key,
    },
}

impl Op {
    /// The key that is written.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// A transaction: all guards hold and all operations are applied, or nothing is applied.
///
/// One guard and one put on the same key is a compare-and-swap, which every backend turns into its cheapest call.
///
/// ```
/// # use storage_core::{Expected, Key, Txn};
/// let (from, to) = (Key::new("alice")?, Key::new("bob")?);
/// let transfer = Txn::new()
///     .guard(from.clone(), Expected::Exists)
///     .put(from, "90")
///     .put(to, "10");
/// assert_eq!((transfer.guards.len(), transfer.ops.len()), (1, 2));
/// # Ok::<(), storage_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Txn {
    /// The conditions. A key stands here at most once.
    pub guards: Vec<Guard>,
    /// The writes. A key stands here at most once.
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction; it needs at least one guard or operation before it can be committed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn guard(mut self, key: Key, expected: Expected) -> Self {
        self.guards.push(Guard { key, expected });
        self
    }

    /// Adds a put.
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put { key, value: value.into() });
        self
    }

    /// Adds a delete.
    pub fn delete(mut self, key: Key) -> Self {
        self.ops.push(Op::Delete { key });
        self
    }

    /// For backends: whether the transaction is well-formed and within the limits of the store. Called before anything is sent.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty transaction or one that names a key twice among its guards or among its
    /// operations; [`Error::TooLarge`] for a value, a count or a sum over the limits in `capabilities`.
    pub fn validate(&self, capabilities: &Capabilities) -> Result<()> {
        if self.guards.is_empty() && self.ops.is_empty() {
            return Err(Error::invalid_argument("a transaction has at least one guard or operation"));
        }
        // Before anything is summed or sorted: one of too many parts costs no more than this to refuse.
        limit("operations and guards in a transaction", self.guards.len() + self.ops.len(), capabilities.max_txn_ops)?;
        let mut bytes = 0;
        for guard in &self.guards {
            bytes += guard.key.as_bytes().len();
            if let Expected::Value(value) = &guard.expected {
                limit("value bytes", value.len(), capabilities.max_value_bytes)?;
                bytes += value.len();
            }
        }
        for op in &self.ops {
            bytes += op.key().as_bytes().len();
            if let Op::Put { value, .. } = op {
                limit("value bytes", value.len(), capabilities.max_value_bytes)?;
                bytes += value.len();
            }
        }
        limit("bytes in a transaction", bytes, capabilities.max_txn_bytes)?;
        // Two guards or two writes of one key would need an order among them. Backends have none: Consul and ZooKeeper apply operations one after
        // the other, etcd refuses the second.
        no_duplicates("guards", self.guards.iter().map(|guard| &guard.key))?;
        no_duplicates("operations", self.ops.iter().map(Op::key))
    }
}

fn limit(what: &'static str, actual: usize, limit: usize) -> Result<()> {
    if actual > limit { Err(Error::TooLarge { what, actual, limit }) } else { Ok(()) }
}

fn no_duplicates<'a>(what: &str, keys: impl ExactSizeIterator<Item = &'a Key>) -> Result<()> {
    if keys.len() < 2 {
        return Ok(());
    }
    let mut keys: Vec<_> = keys.collect();
    // Sorted and not hashed: transactions are small, and keys with chosen hashes must not make this slow.
    keys.sort_unstable();
    match keys.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(a),
        _ => None,
    }) {
        Some(key) => Err(Error::invalid_argument(format!("key {key} stands twice among the {what} of a transaction"))),
        None => Ok(()),
    }
}

/// How a transaction ended. Both are answers, not errors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a conflict is an answer that has to be looked at"]
pub enum Outcome {
    /// Every guard held and everything was applied, durably.
    Committed(Committed),
    /// A guard did not hold; nothing was applied.
    Conflict(Conflict),
}

impl Outcome {
    /// The commit, or `None` on a conflict.
    pub fn committed(self) -> Option<Committed> {
        match self {
            Self::Committed(committed) => Some(committed),
            Self::Conflict(_) => None,
        }
    }

    /// The conflict, or `None` if it was committed.
    pub fn conflict(self) -> Option<Conflict> {
        match self {
            Self::Committed(_) => None,
            Self::Conflict(conflict) => Some(conflict),
        }
    }

    /// Whether it was committed.
    pub fn is_committed(&self) -> bool {
        matches!(self, Self::Committed(_))
    }
}

/// What a transaction wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// For each operation, in order: the version that a put gave its key; `None` for a delete.
    pub versions: Vec<Option<Version>>,
    /// The place of the commit in the store's order; `None` where the store has no such order
    /// (see [`Capabilities::revisions`]) or the transaction wrote nothing.
    pub revision: Option<Revision>,
}

impl Committed {
    /// The version given by the first operation: the answer of a transaction of one put.
    pub fn version(&self) -> Option<Version> {
        self.versions.first().copied().flatten()
    }
}

/// Why a transaction was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The place in [`Txn::guards`] of a guard that did not hold: the first one.
    pub guard: usize,
    /// What the store saw at that guard's key.
    pub current: Observed,
}

/// What a store saw at a key when it refused a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// This entry.
    Present(Entry),
    /// Nothing.
    Absent,
    /// The store does not tell in the same round trip (see [`Capabilities::conflict_reports_current`]): read again.
    Unknown,
}

impl From<Option<Entry>> for Observed {
    fn from(entry: Option<Entry>) -> Self {
        entry.map_or(Self::Absent, Self::Present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::try_from(text).unwrap()
    }

    #[test]
    fn every_expectation_against_present_and_absent() {
        let version = Version::from_u64(1);
        let present: Option<(&[u8], Version)> = Some((b"v", version));
        for (expected, if_present, if_absent) in [
            (Expected::Any, true, true),
            (Expected::Absent, false, true),
            (Expected::Exists, true, false),
            (Expected::Version(version), true, false),
            (Expected::Version(Version::from_u64(2)), false, false),
            (Expected::Value("v".into()), true, false),
            (Expected::Value("w".into()), false, false),
        ] {
            assert_eq!(expected.holds(present), if_present, "{expected:?} on a present key");
            assert_eq!(expected.holds(None), if_absent, "{expected:?} on an absent key");
        }
        assert!(!Expected::Value(Bytes::new()).holds(None), "absent is not empty");
    }

    #[test]
    fn malformed_transactions_are_refused() {
        let limits = Capabilities::new("test");
        let ok = Txn::new().guard(key("a"), Expected::Exists).put(key("a"), "1");
        assert!(ok.validate(&limits).is_ok(), "a key may stand among the guards and among the operations");
        let cases = [
            Txn::new(),
            Txn::new().put(key("a"), "1").put(key("b"), "2").delete(key("a")),
            Txn::new().guard(key("a"), Expected::Any).guard(key("a"), Expected::Any).put(key("b"), "1"),
        ];
        for txn in cases {
            assert!(matches!(txn.validate(&limits), Err(Error::InvalidArgument { .. })), "{txn:?}");
        }
        let large = Txn::new().put(key("a"), vec![0; limits.max_value_bytes + 1]);
        assert!(matches!(large.validate(&limits), Err(Error::TooLarge { .. })));
        let many = (0..=limits.max_txn_ops).fold(Txn::new(), |txn, n| txn.delete(key(&n.to_string())));
        assert!(matches!(many.validate(&limits), Err(Error::TooLarge { .. })));
    }
}
