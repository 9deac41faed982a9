//! All keys, leases and the history of one replica, and the few ways to change them.
//!
//! Invariants: the digest is that of the records and leases at every moment, so each change goes through here. A record
//! names a lease that there is. A clone is cheap and never changes: long reads and snapshots work on one.

use std::ops::Bound;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use storage_core::Key;

use super::{Change, Digest, History, ITEM_BYTES, Lease, Leases, Record, digest, own, own_key};
use crate::codec::{DecodeError, Decoded};

/// All keys, leases and the history. A clone costs next to nothing and shares what neither side changes afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySpace {
    /// The revision of the last transaction that changed something.
    pub(crate) revision: u64,
    /// The hash of the records and the leases. The history is not in it: every change was when it was made.
    pub(super) digest: Digest,
    pub(super) records: OrdMap<Key, Record>,
    /// What the records count for.
    pub(super) record_bytes: u64,
    pub(crate) leases: Leases,
    pub(crate) history: History,
}

/// How much there is.
impl KeySpace {
    /// What a lease takes: as much as in etcd.
    pub(crate) const LEASE_BYTES: u64 = 64;

    /// How large all of it is: records, history and leases. It follows from what they hold and not from the way there or from how they are laid out, so it is
    /// the same on every replica.
    pub(crate) fn bytes(&self) -> u64 {
        self.record_bytes + self.history.bytes() + Self::LEASE_BYTES * self.leases.0.len() as u64
    }

    /// What a record counts for.
    pub(super) fn record_bytes(key: &Key, record: &Record) -> u64 {
        ITEM_BYTES + (key.as_bytes().len() + record.value.len()) as u64
    }

    /// How much a put adds at the most, but for what the key held before: a record, and a change in the history.
    pub(crate) fn put_bytes(key: &Key, value: usize) -> u64 {
        2 * (ITEM_BYTES + (key.as_bytes().len() + value) as u64)
    }
}

/// Reading.
impl KeySpace {
    /// The hash of the records and the leases.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// As [`KeySpace::record`], with the key as it is stored.
    pub(crate) fn key_and_record(&self, key: &[u8]) -> Option<(&Key, &Record)> {
        self.records.get_key_value(key)
    }

    /// The records of the keys within bounds, in order.
    pub(crate) fn range<'a>(
        &'a self,
        bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>),
    ) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
        self.records.range::<_, [u8]>(bounds)
    }

    /// The records of the keys with a prefix, in order, beginning behind `after`.
    pub(crate) fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Record)> + 'a {
        let from = match (after, Key::new(Bytes::copy_from_slice(prefix))) {
            (Some(after), _) if after.as_bytes() >= prefix => Bound::Excluded(after.clone()),
            (_, Ok(first)) => Bound::Included(first),
            // The empty prefix, or one that is longer than any key.
            (_, Err(_)) => Bound::Unbounded,
        };
        let possible = prefix.len() <= Key::MAX_BYTES;
        self.records.range((from, Bound::Unbounded)).take_while(move |(key, _)| possible && key.starts_with(prefix))
    }

    /// Whether the next transaction can follow: what changed last is of this revision, and clients can be told the next.
    pub(crate) fn history_ends_now(&self) -> bool {
        let follows = match self.history.newest() {
            Some(newest) => newest == self.revision,
            None => self.history.oldest() <= self.revision,
        };
        follows && self.revision < i64::MAX.cast_unsigned() - 1
    }

    pub(crate) fn lease(&self, id: u64) -> Option<&Lease> {
        self.leases.0.get(&id)
    }
}

/// Changing.
impl KeySpace {
    /// Puts in a record as it is. What is put in is a copy: a slice would keep alive the whole buffer that it came in.
    ///
    /// # Errors
    /// For a record that contradicts what is there. So for the others.
    pub(crate) fn restore_record(&mut self, key: &Key, record: Record) -> Decoded<()> {
        if self.records.contains_key(key) {
            return Err(DecodeError("a key that stands there twice"));
        }
        if record.lease != 0 && self.lease(record.lease).is_none() {
            return Err(DecodeError("a key that is attached to a lease that there is not"));
        }
        let key = own_key(key);
        self.digest.add(digest::record(key.as_bytes(), &record));
        self.leases.attach(&key, 0, record.lease);
        self.record_bytes += Self::record_bytes(&key, &record);
        self.records.insert(key, Record { value: own(&record.value), ..record });
        Ok(())
    }

    /// Puts in a lease that has no keys yet.
    pub(crate) fn restore_lease(&mut self, id: u64, ttl_seconds: u64, granted: u64) -> Decoded<()> {
        if id == 0 || self.lease(id).is_some() {
            return Err(DecodeError("a lease that stands there twice, or has no id"));
        }
        self.add_lease(id, ttl_seconds, granted);
        Ok(())
    }

    /// Puts in a change that follows those that are there.
    pub(crate) fn restore_change(&mut self, change: Change) -> Decoded<()> {
        if !self.history.takes(&change) {
            return Err(DecodeError("a change whose revision does not follow"));
        }
        self.history.push(change);
        Ok(())
    }

    /// Adds a lease of this id.
    ///
    /// # Panics
    /// If there is one: its keys would outlive it.
    pub(crate) fn add_lease(&mut self, id: u64, ttl_seconds: u64, granted: u64) {
        self.digest.add(digest::lease(id, ttl_seconds));
        let before = self.leases.0.insert(id, Lease { ttl_seconds, granted, keys: OrdSet::new() });
        assert!(before.is_none() && id != 0, "a lease is granted under the id of another one, or of none");
    }

    /// Takes a lease out. Its keys stay, and still name it: whoever takes it out deletes them.
    pub(crate) fn remove_lease(&mut self, id: u64) -> Option<Lease> {
        let lease = self.leases.0.remove(&id)?;
        self.digest.remove(digest::lease(id, lease.ttl_seconds));
        Some(lease)
    }
}
