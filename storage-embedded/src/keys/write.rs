//! The writes of one transaction on the keys: they share a revision, which is used up only if something changes.
//!
//! Invariant: records, leases, digest and history change together, here and nowhere else.

use bytes::Bytes;
use storage_core::{Key, Revision};

use super::{Change, KeySpace, Record, digest, own, own_key};

/// The writes of one transaction: they share a revision, which is used up only if something changes.
///
/// Dropped without [`Write::end`], it leaves changes of a revision that does not exist: whoever gives up puts back a clone of before.
pub(crate) struct Write<'a> {
    keys: &'a mut KeySpace,
    /// The revision that the first change makes.
    pub(crate) revision: u64,
    changed: bool,
}

impl KeySpace {
    /// Begins a transaction.
    pub(crate) fn write(&mut self) -> Write<'_> {
        Write { revision: self.revision + 1, changed: false, keys: self }
    }
}

impl Write<'_> {
    /// The keys with what was written so far.
    pub(crate) fn keys(&self) -> &KeySpace {
        self.keys
    }

    /// The revision of the keys with what was written so far.
    pub(crate) fn revision_so_far(&self) -> u64 {
        if self.changed { self.revision } else { self.keys.revision }
    }

    pub(crate) fn put(&mut self, key: &Key, value: &Bytes, lease: u64) {
        let KeySpace { records, record_bytes, leases, digest, .. } = &mut *self.keys;
        let mut record = Record {
            value: own(value),
            create_revision: self.revision,
            mod_revision: self.revision,
            version: 1,
            lease,
        };
        // A key that is stored already is used again, shared by all tables and the history. A new one is copied: it would keep alive the
        // whole buffer that the command came in.
        let (key, previous) = match records.get_key_value_mut(key) {
            Some((key, current)) => {
                digest.remove(digest::record(key.as_bytes(), current));
                record.create_revision = current.create_revision;
                record.version = current.version + 1;
                (key.clone(), Some(std::mem::replace(current, record.clone())))
            }
            None => {
                let key = own_key(key);
                records.insert(key.clone(), record.clone());
                (key, None)
            }
        };
        digest.add(digest::record(key.as_bytes(), &record));
        *record_bytes += KeySpace::record_bytes(&key, &record);
        *record_bytes -= previous.as_ref().map_or(0, |previous| KeySpace::record_bytes(&key, previous));
        leases.attach(&key, previous.as_ref().map_or(0, |previous| previous.lease), lease);
        self.change(Change { revision: self.revision, key, record: Some(record), previous });
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        let KeySpace { records, record_bytes, leases, digest, .. } = &mut *self.keys;
        if let Some((key, record)) = records.remove_with_key(key) {
            digest.remove(digest::record(key.as_bytes(), &record));
            *record_bytes -= KeySpace::record_bytes(&key, &record);
            leases.attach(&key, record.lease, 0);
            self.change(Change { revision: self.revision, key, record: None, previous: Some(record) });
        }
    }

    fn change(&mut self, change: Change) {
        self.changed = true;
        self.keys.history.push(change);
    }

    /// Ends the transaction: the revision, if it was used up.
    pub(crate) fn end(self) -> Option<Revision> {
        if !self.changed {
            return None;
        }
        assert_eq!(self.revision, self.keys.revision + 1, "a revision rises by one");
        self.keys.revision = self.revision;
        self.keys.history.trim();
        Some(Revision(self.revision))
    }
}
