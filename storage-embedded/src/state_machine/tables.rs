//! The replicated tables: all that a snapshot holds.

use std::ops::Bound;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use storage_core::{Entry, Key, OperationId, Outcome, Version};

use super::{
    Applied,
    digest::{self, Digest},
    history::History,
    leases::{Lease, Leases},
    operations::Operations,
    sessions::{Session, Sessions},
};

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) value: Bytes,
    /// The revision that created the key, after its last deletion if it had one.
    pub(crate) create_revision: u64,
    /// The revision that wrote the value.
    pub(crate) mod_revision: u64,
    /// How often the key was written since it was created.
    pub(crate) version: u64,
    /// The lease that the key is attached to; 0: none.
    pub(crate) lease: u64,
}

impl Record {
    /// The version in the sense of the contract: revisions are never repeated.
    pub(crate) fn contract_version(&self) -> Version {
        Version::from_u64(self.mod_revision)
    }

    pub(crate) fn to_entry(&self, key: &Key) -> Entry {
        Entry { key: key.clone(), value: self.value.clone(), version: self.contract_version() }
    }
}

/// The replicated tables. A clone costs next to nothing and shares what neither side changes afterwards,
/// so a snapshot is written from a clone while the original goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// The revision of the last transaction that changed something.
    pub(crate) revision: u64,
    pub(super) digest: Digest,
    pub(super) records: OrdMap<Key, Record>,
    pub(super) leases: Leases,
    pub(super) rows: OrdMap<Bytes, Bytes>,
    pub(super) sessions: Sessions,
    pub(super) operations: Operations,
    /// Not in the hash: every change in it was in the hash when it was made.
    pub(crate) history: History,
}

/// How many items each table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) leases: u64,
    pub(crate) rows: u64,
    pub(crate) sessions: u64,
    pub(crate) operations: u64,
    pub(crate) changes: u64,
}

/// Reading.
impl Tables {
    /// The hash of everything in the tables: equal on all replicas that have applied the same entries.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            records: self.records.len() as u64,
            leases: self.leases.0.len() as u64,
            rows: self.rows.len() as u64,
            sessions: self.sessions.0.len() as u64,
            operations: self.operations.len() as u64,
            changes: self.history.len() as u64,
        }
    }

    pub(crate) fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
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

    pub(crate) fn leases(&self) -> impl Iterator<Item = (u64, &Lease)> {
        self.leases.0.iter().map(|(id, lease)| (*id, lease))
    }

    pub(crate) fn lease_table(&self) -> &Leases {
        &self.leases
    }

    pub(crate) fn lease(&self, id: u64) -> Option<&Lease> {
        self.leases.0.get(&id)
    }

    pub(crate) fn row(&self, name: &[u8]) -> Option<&Bytes> {
        self.rows.get(name)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.rows.iter()
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = (u64, &Session)> {
        self.sessions.0.iter().map(|(id, session)| (*id, session))
    }

    /// From the oldest to the newest.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (OperationId, &Outcome)> {
        self.operations.iter()
    }
}

/// Putting in items as they are. What is put in is a copy: a slice would keep alive the whole buffer that it came in.
impl Tables {
    pub(crate) fn restore_record(&mut self, key: &Key, record: Record) {
        let key = own_key(key);
        self.digest.add(digest::record(key.as_bytes(), &record));
        self.leases.attach(&key, 0, record.lease);
        self.records.insert(key, Record { value: own(&record.value), ..record });
    }

    pub(crate) fn restore_lease(&mut self, id: u64, ttl_seconds: u64, granted: u64) {
        self.digest.add(digest::lease(id, ttl_seconds));
        self.leases.0.insert(id, Lease { ttl_seconds, granted, keys: OrdSet::new() });
    }

    pub(crate) fn put_row(&mut self, name: &Bytes, value: &Bytes) {
        self.digest.add(digest::row(name, value));
        if let Some(old) = self.rows.insert(own(name), own(value)) {
            self.digest.remove(digest::row(name, &old));
        }
    }

    pub(crate) fn restore_session(&mut self, id: u64, session: Session) {
        self.sessions.restore(id, session, &mut self.digest);
    }

    /// Puts in an answer of a session that is there already.
    pub(crate) fn restore_answer(&mut self, session: u64, sequence: u64, answer: Applied) {
        self.sessions.remember(session, sequence, answer, &mut self.digest);
    }

    pub(crate) fn restore_operation(&mut self, id: OperationId, outcome: Outcome) {
        self.operations.remember(id, outcome, &mut self.digest);
    }
}

/// A copy with memory of its own.
pub(super) fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A copy with memory of its own.
pub(crate) fn own_key(key: &Key) -> Key {
    // A copy of a key is a key.
    Key::new(Bytes::copy_from_slice(key.as_bytes())).unwrap_or_else(|_| key.clone())
}
