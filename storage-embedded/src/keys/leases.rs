//! Leases and the keys that are attached to them.

use imbl::{OrdMap, OrdSet};
use storage_core::Key;

/// What is known of a lease. When it ends is the leader's business: the state has no clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// How long it lives after it was last kept alive, in seconds.
    pub(crate) ttl_seconds: u64,
    /// The index of the entry that granted it: another lease may get its id after its end.
    pub(crate) granted: u64,
    /// The keys that its end deletes.
    pub(crate) keys: OrdSet<Key>,
}

/// The leases by their ids. A clone costs next to nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(pub(crate) OrdMap<u64, Lease>);

impl Leases {
    /// How many leases there may be. Each takes up to a few hundred bytes.
    pub(crate) const MAX: usize = 1 << 20;

    /// The first id from `from` on that is free and not 0.
    pub(crate) fn free_id(&self, from: u64) -> u64 {
        let mut id = from.max(1);
        while self.0.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(1);
        }
        id
    }

    /// Moves `key` from one lease to another; 0 stands for none.
    ///
    /// # Panics
    /// For another lease than the key is attached to, and for one that there is not: its key would never be deleted.
    #[expect(clippy::expect_used, reason = "whoever writes a key has looked for its lease")]
    pub(super) fn attach(&mut self, key: &Key, from: u64, to: u64) {
        if from == to {
            return;
        }
        if from != 0 {
            // The end of a lease takes it away first, and then its keys.
            let is_attached = self.0.get_mut(&from).is_none_or(|lease| lease.keys.remove(key).is_some());
            assert!(is_attached, "a key is not attached to the lease that its record names");
        }
        if to != 0 {
            let lease = self.0.get_mut(&to).expect("a key is attached to a lease that there is");
            let is_attached = lease.keys.insert(key.clone()).is_some();
            assert!(!is_attached, "a key is attached to a lease that its record does not name");
        }
    }
}
