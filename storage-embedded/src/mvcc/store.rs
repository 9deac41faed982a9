use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use storage_core::{Consistency, Error, ReadOptions};
use tokio::{sync::watch, task::spawn_blocking};

use super::{Event, Events, KeyRange, LeaseLife, Range, Ranged, Refused, Result, Txn, TxnAnswer, engine, shown};
use crate::{
    Node,
    command::Command,
    state_machine::{self, Applied, Refusal, Tables},
};

/// The keys of a cluster with their revisions, through a node of it. Any node will do: writes and linearizable reads go to
/// the leader, wherever it is.
#[derive(Clone, Debug)]
pub struct Mvcc {
    node: Node,
}

impl Node {
    /// The keys with all their revisions.
    pub fn mvcc(&self) -> Mvcc {
        Mvcc { node: self.clone() }
    }
}

impl Mvcc {
    /// The node behind this handle.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Reads a range.
    ///
    /// # Errors
    /// [`Refused::Compacted`] and [`Refused::FutureRevision`]; those of the contract if there is no leader in time.
    pub async fn range(&self, range: &Range, options: ReadOptions) -> Result<Ranged> {
        self.fresh(options).await?;
        let Some(tables) = self.look(|tables| takes_long(tables, range).then(|| tables.clone())) else {
            return self.read(|tables| state_machine::range(tables, range));
        };
        // From a copy that costs nothing and on another thread, so that neither writers nor heartbeats wait.
        let range = range.clone();
        let ranged = spawn_blocking(move || state_machine::range(&tables, &range)).await;
        Ok(ranged.map_err(|_| Error::Closed)??)
    }

    /// Carries out a transaction that writes nothing, without a place in the log.
    ///
    /// # Errors
    /// As [`Mvcc::range`]; [`Error::InvalidArgument`] for one that writes.
    pub async fn read_txn(&self, txn: &Txn, options: ReadOptions) -> Result<TxnAnswer> {
        if !txn.is_read_only() {
            return Err(Error::invalid_argument("a transaction that writes cannot be read").into());
        }
        self.fresh(options).await?;
        self.read(|tables| state_machine::read(tables, txn))
    }

    /// Carries out a transaction, whole or not at all, and once, however often leaders change meanwhile.
    ///
    /// It is for the caller to see that no key is put twice, or put and deleted, whatever branches are taken. A transaction that
    /// does is carried out operation by operation, with changes that watches show one by one.
    ///
    /// # Errors
    /// Those of [`Refused`] for what cannot be carried out; nothing is written then. [`Error::UnknownOutcome`] if nobody knows.
    ///
    /// # Cancel safety
    /// Dropped, it may have been carried out or not.
    pub async fn txn(&self, txn: Txn, timeout: Duration) -> Result<TxnAnswer> {
        match self.apply_once(Command::Mvcc { txn }, timeout).await? {
            Applied::Mvcc(answer) => Ok(std::sync::Arc::unwrap_or_clone(answer)),
            applied => Err(unexpected(&applied)),
        }
    }

    /// Gives up the history before a revision.
    ///
    /// # Errors
    /// [`Refused::Compacted`] if it was given up before, [`Refused::FutureRevision`] for a revision yet to come; those of the contract.
    pub async fn compact(&self, revision: u64, timeout: Duration) -> Result<()> {
        self.apply_once(Command::Compact { revision }, timeout).await.map(drop)
    }

    /// Grants a lease with this id, which is not 0.
    ///
    /// # Errors
    /// [`Refused::LeaseExists`] and [`Refused::TooManyLeases`]; those of the contract.
    pub async fn grant_lease(&self, id: u64, ttl_seconds: u64, timeout: Duration) -> Result<()> {
        self.apply_once(Command::LeaseGrant { id, ttl_seconds }, timeout).await.map(drop)
    }

    /// Ends a lease and deletes its keys; gives the store's revision after that, if keys were deleted.
    ///
    /// # Errors
    /// [`Refused::LeaseNotFound`]; those of the contract.
    pub async fn revoke_lease(&self, id: u64, timeout: Duration) -> Result<Option<u64>> {
        match self.apply_once(Command::LeaseRevoke { id }, timeout).await? {
            Applied::Outcome(storage_core::Outcome::Committed(committed)) => {
                Ok(committed.revision.map(|revision| shown(revision.0)))
            }
            applied => Err(unexpected(&applied)),
        }
    }

    /// Keeps a lease alive. `None`: there is none, or it has run out.
    ///
    /// # Errors
    /// Those of the contract.
    pub async fn keep_lease(&self, id: u64, timeout: Duration) -> Result<Option<LeaseLife>> {
        Ok(self.node.lease(id, true, timeout).await?)
    }

    /// How long a lease lives. `None`: there is none, or it has run out.
    ///
    /// # Errors
    /// Those of the contract.
    pub async fn lease(&self, id: u64, timeout: Duration) -> Result<Option<LeaseLife>> {
        Ok(self.node.lease(id, false, timeout).await?)
    }

    /// The keys that are attached to a lease, as this replica knows them, in order.
    pub fn lease_keys(&self, id: u64) -> Vec<Bytes> {
        self.look(|tables| {
            let keys = tables.lease(id).into_iter().flat_map(|lease| &lease.keys);
            keys.map(|key| Bytes::copy_from_slice(key.as_bytes())).collect()
        })
    }

    /// The ids of all leases.
    ///
    /// # Errors
    /// Those of the contract.
    pub async fn leases(&self, options: ReadOptions) -> Result<Vec<u64>> {
        self.fresh(options).await?;
        Ok(self.look(|tables| tables.leases().map(|(id, _)| id).collect()))
    }

    /// The store's revision, as this replica knows it.
    pub fn revision(&self) -> u64 {
        self.look(|tables| shown(tables.revision))
    }

    /// The oldest revision that can be read and watched; `None` if all can.
    pub fn compacted(&self) -> Option<u64> {
        self.look(|tables| tables.history.compacted())
    }

    /// The next events of keys that `wanted` takes, from a revision on: up to `limit`, and the rest of the last revision. There may be
    /// none although there are more: ask again from behind [`Events::upto`] until that does not move. `wanted` is called while writers wait.
    ///
    /// # Errors
    /// [`Refused::Compacted`].
    pub fn events(&self, from: u64, wanted: impl Fn(&[u8]) -> bool, limit: usize) -> Result<Events> {
        self.look(|tables| {
            let compacted = tables.history.compacted();
            if compacted.is_some_and(|compacted| from < compacted) {
                return Err(Refused::Compacted.into());
            }
            let after = engine(from).saturating_sub(1);
            let changes = tables.history.changes_after(after, |key| wanted(key.as_bytes()), limit);
            let changes = changes.map_err(|_| Refused::Compacted)?;
            let events = changes.changes.into_iter().map(|change| state_machine::event(change, compacted));
            let mut events: Vec<_> = events.collect();
            before_their_revisions(&mut events);
            Ok(Events { events, upto: shown(changes.upto) })
        })
    }

    /// Changes whenever something was applied on this replica. The sender is gone when the node has stopped.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.node.state().subscribe()
    }

    /// Waits until this replica has applied everything that was acknowledged before the call.
    ///
    /// # Errors
    /// Those of the contract.
    pub async fn barrier(&self, timeout: Duration) -> Result<()> {
        Ok(self.node.patient_barrier(timeout).await?)
    }

    /// A hash of all keys and what is stored under them at a revision (0: now), equal on all replicas, and the revision.
    ///
    /// # Errors
    /// As [`Mvcc::range`].
    pub fn hash(&self, revision: u64) -> Result<(u32, u64)> {
        let mut all = Range::new(KeyRange::From(Bytes::new()));
        all.revision = revision;
        // From a copy that costs nothing, so that no writer waits.
        let tables = self.look(Tables::clone);
        let ranged = state_machine::range(&tables, &all)?;
        let mut bytes = Vec::new();
        let hash = ranged.entries.iter().fold(0, |hash, entry| {
            bytes.clear();
            super::encoding::put_entry(&mut bytes, entry);
            crc32c::crc32c_append(hash, &bytes)
        });
        Ok((hash, if revision == 0 { ranged.revision } else { revision }))
    }

    async fn fresh(&self, options: ReadOptions) -> Result<()> {
        if options.consistency == Consistency::Linearizable {
            self.node.patient_barrier(options.timeout).await?;
        }
        Ok(())
    }

    fn read<T>(&self, read: impl FnOnce(&Tables) -> Result<T, Refusal>) -> Result<T> {
        Ok(self.look(read)?)
    }

    fn look<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        self.node.state().read(|replica| look(replica.state.tables()))
    }

    async fn apply_once(&self, command: Command, timeout: Duration) -> Result<Applied> {
        match self.node.apply_once(&command, timeout).await? {
            Applied::Refused(refusal) => Err(refusal.into()),
            Applied::LeaseNotFound => Err(Refused::LeaseNotFound.into()),
            Applied::LeaseExists => Err(Refused::LeaseExists.into()),
            applied => Ok(applied),
        }
    }
}

/// How many keys a store has at which a range may hold up the others: that many are walked over in about a millisecond.
const MANY_KEYS: u64 = 10_000;

/// A range is walked over to its end, however small its limit: the answer says how many keys there are.
fn takes_long(tables: &Tables, range: &Range) -> bool {
    !matches!(range.keys, KeyRange::One(_)) && tables.counts().records > MANY_KEYS
}

fn unexpected(applied: &Applied) -> super::MvccError {
    Error::corrupt(format!("a call was answered with {applied}")).into()
}

/// Shows of a key that one transaction changed twice what it held before the transaction, and not in between, as etcd does.
fn before_their_revisions(events: &mut [Event]) {
    let of_one = |a: &Event, b: &Event| a.entry.mod_revision == b.entry.mod_revision;
    for events in events.chunk_by_mut(of_one).filter(|events| events.len() > 1) {
        let mut before = HashMap::new();
        for Event { entry, deleted, previous } in events {
            let held = before.entry(entry.key.clone()).or_insert_with(|| previous.clone());
            let created = !*deleted && entry.create_revision == entry.mod_revision;
            *previous = held.clone().filter(|_| !created);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::KeyValue, *};

    #[test]
    fn what_a_key_held_is_that_of_the_revision_before() {
        let entry = |create_revision, mod_revision| KeyValue {
            key: Bytes::from_static(b"k"),
            value: Bytes::new(),
            create_revision,
            mod_revision,
            version: 1,
            lease: 0,
        };
        let put = |entry: KeyValue, previous| Event { entry, deleted: false, previous };
        let delete = |entry: KeyValue, previous| Event { entry, deleted: true, previous };
        // Each within revision 7: changed and deleted; created and deleted; deleted and created.
        let mut changed = [put(entry(2, 7), Some(entry(2, 5))), delete(entry(0, 7), Some(entry(2, 7)))];
        let mut created = [put(entry(7, 7), None), delete(entry(0, 7), Some(entry(7, 7)))];
        let mut deleted = [delete(entry(0, 7), Some(entry(2, 5))), put(entry(7, 7), None)];
        for events in [&mut changed, &mut created, &mut deleted] {
            before_their_revisions(events);
        }
        assert_eq!(changed.map(|event| event.previous), [Some(entry(2, 5)), Some(entry(2, 5))]);
        assert_eq!(created.map(|event| event.previous), [None, None]);
        assert_eq!(deleted.map(|event| event.previous), [Some(entry(2, 5)), None]);
        // Of another revision: nothing changes.
        let mut later = [put(entry(2, 7), Some(entry(2, 5))), delete(entry(0, 8), Some(entry(2, 7)))];
        before_their_revisions(&mut later);
        assert_eq!(later.map(|event| event.previous), [Some(entry(2, 5)), Some(entry(2, 7))]);
    }
}
