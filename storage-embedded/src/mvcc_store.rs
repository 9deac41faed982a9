//! The keys of a cluster with their revisions, through one of its nodes: what etcd's API needs beyond the contract.
//!
//! Invariants: a linearizable read waits for the leader's word before it looks; nothing is shown before the state was
//! compared with a majority's. Long reads work on a copy, so that no writer waits for them.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use storage_core::{Consistency, Error, ReadOptions};
use tokio::sync::watch;

use crate::{
    auth::Identity,
    command::{Applied, Command, Rejection},
    keys::{KeySpace, Piece, engine_revision, etcd_revision},
    mvcc::{
        self, Denied, Event, EventLimit, Events, KeyRange, LeaseLife, Limits, MvccError, Range, Ranged, Refused,
        Result, Txn, TxnAnswer,
    },
    node::Node,
    tables::Tables,
};

/// The keys of a cluster with their revisions, through a node of it. Any node will do: writes and linearizable reads go to
/// the leader, wherever it is.
#[derive(Clone, Debug)]
pub struct Mvcc {
    node: Node,
    /// Whose requests these are; `None`: those of this process, which may do everything.
    who: Option<Identity>,
}

impl Node {
    /// The keys with all their revisions.
    pub fn mvcc(&self) -> Mvcc {
        Mvcc { node: self.clone(), who: None }
    }
}

impl Mvcc {
    /// The node behind this handle.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The same for a client: what it may not do is refused, where it is carried out, with [`MvccError::Denied`].
    #[must_use]
    pub fn by(&self, who: Identity) -> Self {
        Self { node: self.node.clone(), who: Some(who) }
    }

    /// Reads a range.
    ///
    /// # Errors
    /// [`Refused::Compacted`] and [`Refused::FutureRevision`]; those of the contract if there is no leader in time.
    pub async fn range(&self, range: &Range, options: ReadOptions) -> Result<Ranged> {
        self.fresh(options).await?;
        // A short read is done under the lock at once: a copy and another thread would cost more than the read itself.
        // Both under one lock: what is read is what there was when it was allowed.
        let ranged = self.look_at(|Tables { keys, auth, .. }| {
            self.who.as_ref().map_or(Ok(()), |who| auth.check_read(who, &range.keys))?;
            Ok::<_, Denied>(mvcc::is_short(keys, range).then(|| mvcc::range(keys, range)))
        })?;
        if let Some(ranged) = ranged {
            return Ok(ranged?);
        }
        let range = range.clone();
        let ranged = self.node.state().look_long(move |tables| mvcc::range(&tables.keys, &range)).await??;
        self.is_of_now()?;
        Ok(ranged)
    }

    /// Carries out a transaction that writes nothing, without a place in the log.
    ///
    /// # Errors
    /// As [`Mvcc::range`]; [`Error::InvalidArgument`] for one that writes.
    pub async fn read_txn(&self, txn: &Txn, options: ReadOptions) -> Result<TxnAnswer> {
        if !txn.is_read_only() {
            return Err(Error::invalid_argument("a transaction that writes cannot be read").into());
        }
        Limits::READING.check(txn)?;
        self.fresh(options).await?;
        let read = self.look_at(|Tables { keys, auth, .. }| {
            self.who.as_ref().map_or(Ok(()), |who| auth.check_txn(keys, who, txn))?;
            Ok::<_, Denied>(mvcc::short_work(keys, txn).map(|_| mvcc::read(keys, txn)))
        })?;
        if let Some(read) = read {
            return Ok(read?);
        }
        let txn = txn.clone();
        let read = self.node.state().look_long(move |tables| mvcc::read(&tables.keys, &txn)).await??;
        self.is_of_now()?;
        Ok(read)
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
        // Here already: refused behind the log, it would have cost every node an entry.
        Limits::CURRENT.check(&txn)?;
        if self.look(|keys| mvcc::short_work(keys, &txn).is_none()) {
            self.try_out(&txn, timeout).await?;
        }
        match self.apply_once(Command::mvcc(txn), timeout).await? {
            Applied::Mvcc(answer) => Ok(std::sync::Arc::unwrap_or_clone(answer)),
            applied => Err(unexpected(&applied)),
        }
    }

    /// The members that have raised an alarm since there is no space, in order. While there are any, whatever grows is refused.
    ///
    /// # Errors
    /// Those of the contract.
    pub async fn alarms(&self, options: ReadOptions) -> Result<Vec<u64>> {
        self.fresh(options).await?;
        Ok(self.look_at(|tables| tables.alarms().collect()))
    }

    /// Raises the alarm of a member, as that does itself when it has no space.
    ///
    /// # Errors
    /// Those of the contract.
    pub async fn raise_alarm(&self, member: u64, timeout: Duration) -> Result<()> {
        self.apply_once(Command::Alarm { member, raise: true }, timeout).await.map(drop)
    }

    /// Takes back the alarm of a member. `false`: it has raised none. If there still is no space, the next write that grows raises it again.
    ///
    /// # Errors
    /// Those of the contract.
    pub async fn disarm(&self, member: u64, timeout: Duration) -> Result<bool> {
        Ok(self.apply_once(Command::Alarm { member, raise: false }, timeout).await?
            != Applied::Rejected(Rejection::NoSuchAlarm))
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

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// [`Refused::LeaseNotFound`]; those of the contract.
    pub async fn revoke_lease(&self, id: u64, timeout: Duration) -> Result<()> {
        self.apply_once(Command::LeaseRevoke { id }, timeout).await.map(drop)
    }

    /// Keeps a lease alive. `None`: there is none, or it has run out.
    ///
    /// # Errors
    /// Those of the contract.
    pub async fn keep_lease(&self, id: u64, timeout: Duration) -> Result<Option<LeaseLife>> {
        if let Some(who) = &self.who {
            let Tables { keys, auth, .. } = self.copy();
            auth.check_lease_write(&keys, who, id)?;
        }
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
    ///
    /// # Errors
    /// [`MvccError::Denied`].
    pub fn lease_keys(&self, id: u64) -> Result<Vec<Bytes>> {
        let Tables { keys, auth, .. } = self.copy();
        if let Some(who) = &self.who {
            auth.check_lease_read(&keys, who, id)?;
        }
        let attached = keys.lease(id).map(|lease| lease.keys.clone()).unwrap_or_default();
        Ok(attached.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect())
    }

    /// The ids of all leases, those first that end first unless they are kept alive.
    ///
    /// # Errors
    /// Those of the contract.
    pub async fn leases(&self, options: ReadOptions) -> Result<Vec<u64>> {
        self.fresh(options).await?;
        let Tables { keys, auth, .. } = self.copy();
        if let Some(who) = &self.who {
            auth.check_leases(&keys, who)?;
        }
        let mut leases: Vec<_> = keys.leases.0.iter().collect();
        leases.sort_by_key(|(id, lease)| (lease.ttl_seconds, lease.granted, **id));
        Ok(leases.into_iter().map(|(id, _)| *id).collect())
    }

    /// The store's revision, as this replica knows it.
    pub fn revision(&self) -> u64 {
        self.look(|keys| etcd_revision(keys.revision))
    }

    /// The oldest revision that can be read and watched; `None` if all can.
    pub fn compacted(&self) -> Option<u64> {
        self.look(|keys| keys.history.compacted())
    }

    /// The next events of keys that `wanted` takes, from a revision on: up to `limit`, and the rest of the last revision. There may be
    /// none although there are more: ask again from behind [`Events::upto`] until that does not move.
    ///
    /// # Errors
    /// [`Refused::Compacted`].
    pub fn events(&self, from: u64, wanted: impl Fn(&[u8]) -> bool, limit: EventLimit) -> Result<Events> {
        self.node.is_compared()?;
        // A copy, so that no writer waits.
        let history = self.node.state().history();
        let compacted = history.compacted();
        if compacted.is_some_and(|compacted| from < compacted) {
            return Err(Refused::Compacted.into());
        }
        let after = engine_revision(from).saturating_sub(1);
        let piece = Piece { changes: limit.events, bytes: limit.bytes };
        let changes = history.changes_after(after, |key| wanted(key.as_bytes()), piece);
        let changes = changes.map_err(|_| Refused::Compacted)?;
        let events = changes.changes.into_iter().map(|change| mvcc::event(change, compacted));
        let mut events: Vec<_> = events.collect();
        before_their_revisions(&mut events);
        Ok(Events { events, upto: etcd_revision(changes.upto) })
    }

    /// Whether the client may watch these keys, as far as this replica knows.
    ///
    /// # Errors
    /// Why not.
    pub fn may_watch(&self, keys: &KeyRange) -> Result<(), Denied> {
        self.look_at(|tables| self.who.as_ref().map_or(Ok(()), |who| tables.auth.check_read(who, keys)))
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

    /// Waits until this replica's state has been compared with that of the others since its start: before, it shows none of it.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Corrupt`] when the node has stopped.
    pub async fn compared(&self) -> Result<()> {
        Ok(self.node.compared(Duration::MAX).await?)
    }

    /// A hash of all keys and what is stored under them at a revision (0: now), equal on all replicas, and the revision.
    ///
    /// # Errors
    /// As [`Mvcc::range`].
    pub async fn hash(&self, revision: u64) -> Result<(u32, u64)> {
        self.node.is_compared()?;
        let hashed = self.node.state().look_long(move |Tables { keys, .. }| {
            let (mut hash, mut bytes) = (0, Vec::new());
            mvcc::each(keys, revision, |entry| {
                bytes.clear();
                mvcc::put_entry(&mut bytes, &entry);
                hash = crc32c::crc32c_append(hash, &bytes);
            })?;
            Ok::<_, Refused>((hash, if revision == 0 { etcd_revision(keys.revision) } else { revision }))
        });
        Ok(hashed.await??)
    }

    /// Finds out whether a long transaction costs too much, among the long reads of this node and before it is proposed: in the log it would hold up
    /// everybody on every replica, only to be refused. What is found holds for no other moment: the replicas judge all the same.
    async fn try_out(&self, txn: &Txn, timeout: Duration) -> Result<()> {
        self.node.patient_barrier(timeout).await?;
        let (who, txn) = (self.who.clone(), txn.clone());
        let tried = self.node.state().look_long(move |Tables { keys, auth, .. }| {
            who.as_ref().map_or(Ok(()), |who| auth.check_txn(keys, who, &txn))?;
            Ok::<_, Denied>(mvcc::execute(&mut keys.clone(), &txn, Limits::CURRENT))
        });
        match tried.await?? {
            Err(refused @ (Refused::TooCostly | Refused::AnswerTooLarge)) => Err(refused.into()),
            // Refused for another reason, it may be carried out behind what is in the log before it.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn fresh(&self, options: ReadOptions) -> Result<()> {
        if options.consistency == Consistency::Linearizable {
            self.node.patient_barrier(options.timeout).await?;
        }
        Ok(self.node.compared(options.timeout).await?)
    }

    fn look<T>(&self, look: impl FnOnce(&KeySpace) -> T) -> T {
        self.node.state().read_keys(look)
    }

    fn look_at<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        self.node.state().read(|replica| look(replica.state.tables()))
    }

    /// All of it, for what may take long: nobody waits meanwhile.
    fn copy(&self) -> Tables {
        self.look_at(Tables::clone)
    }

    /// That users and roles are what they were when it was allowed to read, however long that took.
    fn is_of_now(&self) -> Result<(), Denied> {
        match &self.who {
            Some(who) if who.revision != 0 && who.revision != self.look_at(|tables| tables.auth.revision()) => {
                Err(Denied::OldRevision)
            }
            _ => Ok(()),
        }
    }

    async fn apply_once(&self, command: Command, timeout: Duration) -> Result<Applied> {
        let command = match self.who.clone() {
            Some(who) => {
                // What is refused anyway takes no place in the log. What takes long to find out is found out where it is applied.
                self.look_at(|tables| tables.allow_short(&who, &command))?;
                Command::By { who, command: Box::new(command) }
            }
            None => command,
        };
        if command.growth() > 0 && self.node.has_no_space(timeout).await? {
            return Err(Refused::NoSpace.into());
        }
        match self.node.apply_once(&command, timeout).await? {
            Applied::Rejected(rejection) if rejection != Rejection::NoSuchAlarm => Err(rejection.into()),
            Applied::LeaseNotFound => Err(Refused::LeaseNotFound.into()),
            Applied::LeaseExists => Err(Refused::LeaseExists.into()),
            applied => Ok(applied),
        }
    }
}

impl From<Rejection> for MvccError {
    fn from(rejection: Rejection) -> Self {
        let refused = match rejection {
            Rejection::Compacted => Refused::Compacted,
            Rejection::FutureRevision => Refused::FutureRevision,
            Rejection::KeyNotFound => Refused::KeyNotFound,
            Rejection::TooManyLeases => Refused::TooManyLeases,
            Rejection::AnswerTooLarge => Refused::AnswerTooLarge,
            Rejection::TooCostly => Refused::TooCostly,
            Rejection::LeaseFull => Refused::LeaseFull,
            Rejection::NoSpace => Refused::NoSpace,
            Rejection::Denied(denied) => return denied.into(),
            Rejection::TooManyRequests => {
                return Error::Throttled { retry_after: None, source: rejection.to_string().into() }.into();
            }
            Rejection::TooManyAlarms => return Error::invalid_argument(rejection.to_string()).into(),
            Rejection::Malformed
            | Rejection::Acknowledged
            | Rejection::TooManyRows
            | Rejection::RowsDiffer
            | Rejection::NoSuchAlarm => {
                return Error::corrupt(rejection.to_string()).into();
            }
        };
        refused.into()
    }
}

fn unexpected(applied: &Applied) -> MvccError {
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
    use super::*;
    use crate::mvcc::KeyValue;

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
