//! What a store declares of itself: its limits, and what it can do beyond the contract's floor.
//!
//! The conformance suite holds a store to it in both directions, so that callers can rely on what is declared.

use crate::{Error, Key, Result};

/// What a store can do beyond the floor of the contract, and its limits. The conformance suite holds a store to what
/// it declares, in both directions: what is declared has to work, and what is not has to be refused.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// The name of the backend, for logs and reports: `memory`, `embedded`, `etcd`, `consul`, `zookeeper`.
    pub backend: &'static str,
    /// Acknowledged writes survive the end of the process, and the loss of power on a minority of servers.
    pub durable: bool,
    /// The largest value, in bytes; at least [`Capabilities::MIN_VALUE_BYTES`].
    pub max_value_bytes: usize,
    /// The most guards and operations in one transaction, together; at least [`Capabilities::MIN_TXN_OPS`].
    pub max_txn_ops: usize,
    /// The most bytes of keys and values in one transaction, together.
    pub max_txn_bytes: usize,
    /// Commits have a [`Revision`](crate::Revision): a global order.
    pub revisions: bool,
    /// [`Expected::Value`](crate::Expected::Value) is compared by the store itself, in the same round trip.
    pub native_value_compare: bool,
    /// A [`Conflict`](crate::Conflict) carries what the store saw, without a further round trip.
    pub conflict_reports_current: bool,
    /// `get_many` reads all its keys at one point in time.
    pub atomic_get_many: bool,
    /// [`Consistency::Stale`](crate::Consistency::Stale) reads are cheaper than linearizable ones. A store without them serves such a read linearizably.
    pub stale_reads: bool,
    /// A write with an operation id is applied once, however often it is sent, for at least
    /// this many further writes with an id. `None`: operation ids are refused.
    pub deduplicates: Option<usize>,
    /// What a watch promises.
    pub watch: WatchSupport,
}

/// What a watch promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchSupport {
    /// The latest state of each changed key, in no order between keys; intermediate values may be missing.
    /// Enough to know when to read again. Cannot resume.
    Latest,
    /// Every change of every key once, in commit order, with its revision; resumable after any revision that is still kept.
    Ordered,
}

impl Capabilities {
    /// The least that a store must allow for a value, in bytes (256 KiB).
    pub const MIN_VALUE_BYTES: usize = 256 * 1024;
    /// The least number of guards and operations that a store must allow in one transaction.
    /// Consul's limit of 64 for a transaction, of which a backend may need up to two for each.
    pub const MIN_TXN_OPS: usize = 32;

    /// The floor: what every store can do. A backend starts here and raises what it has.
    pub const fn new(backend: &'static str) -> Self {
        Self {
            backend,
            durable: true,
            max_value_bytes: Self::MIN_VALUE_BYTES,
            max_txn_ops: Self::MIN_TXN_OPS,
            max_txn_bytes: Self::MIN_VALUE_BYTES + Key::MAX_BYTES * Self::MIN_TXN_OPS,
            revisions: false,
            native_value_compare: false,
            conflict_reports_current: false,
            atomic_get_many: false,
            stale_reads: false,
            deduplicates: None,
            watch: WatchSupport::Latest,
        }
    }

    /// For backends: whether so many keys may be read at once: as many as a transaction may have operations.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn check_keys(&self, keys: &[Key]) -> Result<()> {
        let (actual, limit) = (keys.len(), self.max_txn_ops);
        if actual > limit { Err(Error::TooLarge { what: "keys in one read", actual, limit }) } else { Ok(()) }
    }
}
