//! The replicated state.

use bytes::Bytes;
use storage_core::{Committed, Conflict, Guard, Key, Observed, Op, OperationId, Outcome, Revision, Txn, Version};

use super::{
    Applied, Record, Refusal, Tables, digest,
    history::{Change, Changes, Compacted, History},
    leases::Leases,
    mvcc,
    tables::{own, own_key},
};
use crate::{
    command::{Command, Request},
    raft::Proposal,
};

/// The most rows in the configuration table.
const MAX_ROWS: usize = 4096;

/// The longest name of a row, in bytes.
const MAX_ROW_NAME_BYTES: usize = 256;

/// The longest content of a row, in bytes.
const MAX_ROW_BYTES: usize = 64 << 10;

/// The replicated state: what the same entries of the log make the same on every replica.
///
/// It is pure: no clock, no randomness, no I/O. Its limits are part of what is replicated: a release that changes one may not
/// run in a cluster together with a release before it.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(super) tables: Tables,
}

impl State {
    /// A state with these tables.
    pub(crate) fn new(tables: Tables) -> Self {
        Self { tables }
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The next changes after a revision of keys that `wanted` takes: up to `limit`, and the rest of the last revision.
    ///
    /// # Errors
    /// [`Compacted`] if the history does not reach back so far.
    pub(crate) fn changes_after(
        &self,
        revision: u64,
        wanted: impl Fn(&Key) -> bool,
        limit: usize,
    ) -> Result<Changes, Compacted> {
        self.tables.history.changes_after(revision, wanted, limit)
    }

    /// Forgets the history, on this replica alone: for tests.
    pub(crate) fn forget_history(&mut self) {
        self.tables.history = History::after(self.tables.revision, Some(crate::mvcc::shown(self.tables.revision + 1)));
    }

    /// Applies the entry at `index`. What is no command changes nothing, on every replica alike.
    pub(crate) fn apply_proposal(&mut self, index: u64, proposal: &Proposal) -> Applied {
        match Command::decode(proposal.0.clone()) {
            Ok(command) => self.apply(index, command),
            Err(error) => {
                tracing::error!(index, %error, "the log holds a proposal that is no command");
                Applied::Refused(Refusal::Malformed)
            }
        }
    }

    /// Applies the command of the entry at `index`.
    pub(crate) fn apply(&mut self, index: u64, command: Command) -> Applied {
        match command {
            Command::Txn { txn, operation, request } => {
                self.once(index, request, |state| Applied::Outcome(state.txn(txn, operation)))
            }
            Command::LeasedPut { key, value, lease, request } => {
                self.once(index, request, |state| state.leased_put(key, value, lease))
            }
            Command::OpenSession { nonce } => {
                let Tables { sessions, digest, .. } = &mut self.tables;
                Applied::Session(sessions.open(index, nonce, digest))
            }
            Command::LeaseGrant { id, ttl_seconds } => self.grant(index, id, ttl_seconds),
            Command::LeaseRevoke { id } => self.revoke(id),
            Command::LeaseExpire { id, granted } => match self.tables.lease(id) {
                Some(lease) if lease.granted == granted => self.revoke(id),
                _ => Applied::LeaseNotFound,
            },
            Command::RowPut { name, value } => self.put_row(&name, &value),
            Command::RowDelete { name } => self.delete_row(&name),
            Command::Once { request, command } => self.once(index, Some(request), |state| state.apply(index, *command)),
            Command::Mvcc { txn } => mvcc::apply(self, &txn),
            Command::Compact { revision } => mvcc::compact(&mut self.tables, revision),
        }
    }

    /// Changes what no command has changed, as a state machine with a defect does.
    #[cfg(simulated)]
    pub(super) fn disturb(&mut self, by: u64) {
        self.tables.digest.add(by);
    }

    /// Applies a request unless it was applied before.
    fn once(&mut self, index: u64, request: Option<Request>, apply: impl FnOnce(&mut Self) -> Applied) -> Applied {
        let Some(request) = request else { return apply(self) };
        let Tables { sessions, digest, .. } = &mut self.tables;
        if let Err(answer) = sessions.begin(index, &request, digest) {
            #[cfg(simulated)]
            if crate::simulated::is_planted(crate::simulated::Flaw::RepeatedWrite) && answer != Applied::UnknownSession
            {
                return apply(self);
            }
            return answer;
        }
        let answer = apply(self);
        let Tables { sessions, digest, .. } = &mut self.tables;
        sessions.remember(request.session, request.sequence, answer.clone(), digest);
        answer
    }

    /// Applies a transaction unless its operation was applied before.
    fn txn(&mut self, txn: Txn, operation: Option<OperationId>) -> Outcome {
        match operation.and_then(|id| self.tables.operations.get(id)) {
            Some(Outcome::Conflict(Conflict { guard, .. })) => {
                return Outcome::Conflict(self.conflict_at(*guard, &txn.guards));
            }
            Some(committed) => return committed.clone(),
            None => {}
        }
        let outcome = match txn.guards.iter().position(|guard| !self.holds(guard)) {
            Some(guard) => Outcome::Conflict(self.conflict_at(guard, &txn.guards)),
            None => Outcome::Committed(self.commit(txn.ops)),
        };
        if let Some(id) = operation {
            self.tables.restore_operation(id, outcome.clone());
        }
        outcome
    }

    fn holds(&self, Guard { key, expected }: &Guard) -> bool {
        let record = self.tables.record(key);
        expected.holds(record.map(|record| (record.value.as_ref(), record.contract_version())))
    }

    fn conflict_at(&self, guard: usize, guards: &[Guard]) -> Conflict {
        let current = guards.get(guard).map_or(Observed::Unknown, |Guard { key, .. }| {
            self.tables.record(key).map(|record| record.to_entry(&own_key(key))).into()
        });
        Conflict { guard, current }
    }

    fn commit(&mut self, ops: Vec<Op>) -> Committed {
        let mut write = self.write();
        let version = Version::from_u64(write.revision);
        let mut versions = Vec::with_capacity(ops.len());
        for op in ops {
            versions.push(match op {
                Op::Put { key, value } => {
                    write.put(&key, &value, 0);
                    Some(version)
                }
                Op::Delete { key } => {
                    write.delete(&key);
                    None
                }
            });
        }
        Committed { versions, revision: write.end() }
    }

    fn leased_put(&mut self, key: Key, value: Bytes, lease: u64) -> Applied {
        if self.tables.lease(lease).is_none() {
            return Applied::LeaseNotFound;
        }
        let mut write = self.write();
        write.put(&key, &value, lease);
        let versions = vec![Some(Version::from_u64(write.revision))];
        Applied::Outcome(Outcome::Committed(Committed { versions, revision: write.end() }))
    }

    fn grant(&mut self, index: u64, id: u64, ttl_seconds: u64) -> Applied {
        let leases = &self.tables.leases;
        if leases.0.contains_key(&id) {
            return Applied::LeaseExists;
        }
        if leases.0.len() >= Leases::MAX {
            return Applied::Refused(Refusal::TooManyLeases);
        }
        let id = if id == 0 { leases.free_id(index) } else { id };
        self.tables.restore_lease(id, ttl_seconds, index);
        Applied::Lease { id, ttl_seconds }
    }

    fn revoke(&mut self, id: u64) -> Applied {
        let Some(lease) = self.tables.leases.0.remove(&id) else { return Applied::LeaseNotFound };
        self.tables.digest.remove(digest::lease(id, lease.ttl_seconds));
        let mut write = self.write();
        lease.keys.iter().for_each(|key| write.delete(key));
        Applied::Outcome(Outcome::Committed(Committed { versions: Vec::new(), revision: write.end() }))
    }

    fn put_row(&mut self, name: &Bytes, value: &Bytes) -> Applied {
        let is_new = self.tables.row(name).is_none();
        if (is_new && self.tables.rows.len() >= MAX_ROWS)
            || name.len() > MAX_ROW_NAME_BYTES
            || value.len() > MAX_ROW_BYTES
        {
            return Applied::Refused(Refusal::TooManyRows);
        }
        self.tables.put_row(name, value);
        Applied::Nothing
    }

    fn delete_row(&mut self, name: &Bytes) -> Applied {
        if let Some(value) = self.tables.rows.remove(name) {
            self.tables.digest.remove(digest::row(name, &value));
        }
        Applied::Nothing
    }

    pub(super) fn write(&mut self) -> Write<'_> {
        Write { revision: self.tables.revision + 1, changed: false, state: self }
    }
}

/// The writes of one transaction: they share a revision, which is used up only if something changes.
pub(super) struct Write<'a> {
    pub(super) state: &'a mut State,
    /// The revision that the first change makes.
    pub(super) revision: u64,
    pub(super) changed: bool,
}

impl Write<'_> {
    pub(super) fn put(&mut self, key: &Key, value: &Bytes, lease: u64) {
        let Tables { records, leases, digest, .. } = &mut self.state.tables;
        let mut record = Record {
            value: own(value),
            create_revision: self.revision,
            mod_revision: self.revision,
            version: 1,
            lease,
        };
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
        leases.attach(&key, previous.as_ref().map_or(0, |previous| previous.lease), lease);
        self.change(Change { revision: self.revision, key, record: Some(record), previous });
    }

    pub(super) fn delete(&mut self, key: &Key) {
        let Tables { records, leases, digest, .. } = &mut self.state.tables;
        if let Some((key, record)) = records.remove_with_key(key) {
            digest.remove(digest::record(key.as_bytes(), &record));
            leases.attach(&key, record.lease, 0);
            self.change(Change { revision: self.revision, key, record: None, previous: Some(record) });
        }
    }

    fn change(&mut self, change: Change) {
        self.changed = true;
        self.state.tables.history.push(change);
    }

    /// Ends the transaction: the revision, if it was used up.
    pub(super) fn end(self) -> Option<Revision> {
        if !self.changed {
            return None;
        }
        self.state.tables.revision = self.revision;
        self.state.tables.history.trim();
        Some(Revision(self.revision))
    }
}
