//! The replicated state.

use std::sync::Arc;

use bytes::Bytes;
use storage_core::{Committed, Conflict, Guard, Observed, Op, OperationId, Outcome, Revision, Txn, Version};

use crate::{
    codec::Decoded,
    command::{Applied, Command, Rejection, Request, RowChange, contract_growth},
    keys::{History, etcd_revision, own_key},
    mvcc,
    tables::{MAX_ALARMS, Tables},
};

/// The most rows in the configuration table.
const MAX_ROWS: u64 = 4096;

/// The longest name of a row, in bytes.
const MAX_ROW_NAME_BYTES: usize = 256;

/// The longest content of a row, in bytes.
const MAX_ROW_BYTES: usize = 64 << 10;

/// The work of finding out whether one may have a key, in the units of [`mvcc::MAX_WORK`]: two searches.
const CHECK_WORK: u64 = 32;

/// The replicated state: what the same entries of the log make the same on every replica.
///
/// It is pure: no clock, no randomness, no I/O. Its limits are part of what is replicated: those of transactions have versions, which the
/// commands carry ([`mvcc::Limits`]); a release that changes another may not run in a cluster together with a release before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    tables: Tables,
}

impl State {
    /// A state with these tables.
    pub(crate) fn new(tables: Tables) -> Self {
        Self { tables }
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Forgets the history, on this replica alone: for tests.
    pub(crate) fn forget_history(&mut self) {
        let keys = &mut self.tables.keys;
        keys.history = History::after(keys.revision, Some(etcd_revision(keys.revision + 1)));
    }

    /// Applies the proposal of the entry at `index`.
    #[cfg(test)]
    pub(crate) fn apply_proposal(&mut self, index: u64, proposal: &crate::raft::Proposal) -> Applied {
        self.apply_decoded(index, Command::decode(proposal.0.clone()))
    }

    /// Applies what the entry at `index` was decoded to. What is no command changes nothing, on every replica alike.
    pub(crate) fn apply_decoded(&mut self, index: u64, command: Decoded<Command>) -> Applied {
        match command {
            Ok(command) => self.apply(index, command),
            Err(error) => {
                // The entry is committed: to end here would end every replica, again after each restart.
                tracing::error!(index, %error, "the log holds a proposal that is no command");
                Applied::Rejected(Rejection::Malformed)
            }
        }
    }

    /// How much work a command may take, in the units of [`mvcc::MAX_WORK`]; `None`: more than [`mvcc::SHORT_WORK`]. It is found out in less.
    pub(crate) fn short_work(&self, command: &Command) -> Option<u64> {
        let keys = &self.tables.keys;
        match command {
            Command::Mvcc { txn, .. } => mvcc::short_work(keys, txn),
            Command::LeaseRevoke { id } | Command::LeaseExpire { id, .. } => {
                mvcc::short_writes(keys, keys.lease(*id).into_iter().flat_map(|lease| &lease.keys))
            }
            Command::Txn { txn, .. } => {
                mvcc::short_writes(keys, txn.ops.iter().map(|(Op::Put { key, .. } | Op::Delete { key })| key))
            }
            Command::Once { command, .. } => self.short_work(command),
            // Up to 65,536 changes are dropped.
            Command::Compact { .. } => None,
            // What all users of a role may do is found out anew.
            Command::Auth(_) => None,
            Command::By { command, .. } => {
                let checks = CHECK_WORK.saturating_mul(self.tables.checks(command) as u64);
                let work = self.short_work(command)?.saturating_add(checks);
                (work <= mvcc::SHORT_WORK).then_some(work)
            }
            Command::OpenSession { .. }
            | Command::Alarm { .. }
            | Command::LeaseGrant { .. }
            | Command::RowPut { .. }
            | Command::RowDelete { .. }
            | Command::Rows(_) => Some(0),
        }
    }

    /// Applies the command of the entry at `index`.
    pub(crate) fn apply(&mut self, index: u64, command: Command) -> Applied {
        match command {
            Command::Txn { txn, operation, request } => self.once(index, request, usize::MAX, |state| {
                state.txn(txn, operation).map_or_else(Applied::Rejected, Applied::Outcome)
            }),
            Command::LeaseGrant { .. } | Command::Mvcc { .. } if self.tables.is_full() && command.growth() > 0 => {
                Applied::Rejected(Rejection::NoSpace)
            }
            Command::OpenSession { nonce } => Applied::Session(self.tables.open_session(index, nonce)),
            Command::LeaseGrant { id, ttl_seconds } => {
                match mvcc::grant_lease(&mut self.tables.keys, index, id, ttl_seconds) {
                    Ok(id) => Applied::Lease { id, ttl_seconds },
                    Err(refused) => refused.into(),
                }
            }
            Command::LeaseRevoke { id } => ended(mvcc::revoke_lease(&mut self.tables.keys, id)),
            Command::LeaseExpire { id, granted } => ended(mvcc::expire_lease(&mut self.tables.keys, id, granted)),
            Command::RowPut { name, value } => self.put_row(&name, &value),
            Command::RowDelete { name } => {
                self.tables.delete_row(&name);
                Applied::Nothing
            }
            Command::Rows(change) => self.change_rows(&change),
            Command::Once { request, command } => {
                let most_bytes = command.limits().map_or(usize::MAX, |limits| limits_of(limits).unacknowledged_bytes);
                self.once(index, Some(request), most_bytes, |state| state.apply(index, *command))
            }
            Command::Mvcc { txn, limits } => match mvcc::execute(&mut self.tables.keys, &txn, limits_of(limits)) {
                Ok(answer) => Applied::Mvcc(Arc::new(answer)),
                Err(refused) => refused.into(),
            },
            Command::Compact { revision } => {
                mvcc::compact(&mut self.tables.keys, revision).map_or_else(Applied::from, |()| Applied::Nothing)
            }
            Command::Auth(change) => self.tables.auth.change(&change).map_or_else(Applied::from, |()| Applied::Nothing),
            Command::Alarm { member, raise } => self.set_alarm(member, raise),
            Command::By { who, command } => match self.tables.allow(&who, &command) {
                Ok(()) => self.apply(index, *command),
                Err(denied) => denied.into(),
            },
        }
    }

    /// Changes what no command has changed, as damage and a state machine with a defect do: for tests.
    pub(crate) fn disturb(&mut self, by: u64) {
        self.tables.disturb(by);
    }

    /// Applies a request unless it was applied before, or so many bytes of answers of its session are unacknowledged.
    fn once(
        &mut self,
        index: u64,
        request: Option<Request>,
        most_bytes: usize,
        apply: impl FnOnce(&mut Self) -> Applied,
    ) -> Applied {
        let Some(request) = request else { return apply(self) };
        // A proposal that was sent again, after a change of leaders, may stand in the log twice: the second gets the answer of the first.
        if let Err(answer) = self.tables.begin_request(index, &request) {
            #[cfg(simulated)]
            if crate::simulated::is_planted(crate::simulated::Flaw::RepeatedWrite) && answer != Applied::UnknownSession
            {
                return apply(self);
            }
            return answer;
        }
        let answer = if self.tables.unacknowledged_bytes(request.session) < most_bytes {
            apply(self)
        } else {
            // Remembered as every answer is: a late copy must not be applied after its caller was told this.
            Applied::Rejected(Rejection::TooManyRequests)
        };
        self.tables.remember_answer(request.session, request.sequence, answer.clone());
        answer
    }

    /// Applies a transaction unless its operation was applied before.
    fn txn(&mut self, txn: Txn, operation: Option<OperationId>) -> Result<Outcome, Rejection> {
        // The caller's own name for the write, which outlives this process and its session: the same outcome again, and nothing is applied. Of a
        // conflict the guard is remembered, and what stands there now is reported.
        match operation.and_then(|id| self.tables.operation(id)) {
            Some(Outcome::Conflict(Conflict { guard, .. })) => {
                return Ok(Outcome::Conflict(self.conflict_at(*guard, &txn.guards)));
            }
            Some(committed) => return Ok(committed.clone()),
            None => {}
        }
        // Not remembered as its outcome: made again when there is space, it is carried out.
        if self.tables.is_full() && contract_growth(&txn) > 0 {
            return Err(Rejection::NoSpace);
        }
        let outcome = match txn.guards.iter().position(|guard| !self.holds(guard)) {
            Some(guard) => Outcome::Conflict(self.conflict_at(guard, &txn.guards)),
            None => Outcome::Committed(self.commit(txn.ops)),
        };
        if let Some(id) = operation {
            self.tables.remember_operation(id, outcome.clone());
        }
        Ok(outcome)
    }

    fn set_alarm(&mut self, member: u64, raise: bool) -> Applied {
        if raise && self.tables.alarms().len() >= MAX_ALARMS {
            return Applied::Rejected(Rejection::TooManyAlarms);
        }
        if !self.tables.set_alarm(member, raise) && !raise {
            return Applied::Rejected(Rejection::NoSuchAlarm);
        }
        Applied::Nothing
    }

    fn holds(&self, Guard { key, expected }: &Guard) -> bool {
        let record = self.tables.keys.record(key);
        expected.holds(record.map(|record| (record.value.as_ref(), record.contract_version())))
    }

    fn conflict_at(&self, guard: usize, guards: &[Guard]) -> Conflict {
        let current = guards.get(guard).map_or(Observed::Unknown, |Guard { key, .. }| {
            self.tables.keys.record(key).map(|record| record.to_entry(&own_key(key))).into()
        });
        Conflict { guard, current }
    }

    fn commit(&mut self, ops: Vec<Op>) -> Committed {
        let mut write = self.tables.keys.write();
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

    fn put_row(&mut self, name: &Bytes, value: &Bytes) -> Applied {
        let next = [(name.clone(), Some(value.clone()))].into();
        self.change_rows(&RowChange { next, ..RowChange::default() })
    }

    /// All of it or nothing.
    fn change_rows(&mut self, RowChange { expected, next }: &RowChange) -> Applied {
        if expected.iter().any(|(name, content)| self.tables.row(name) != content.as_ref()) {
            return Applied::Rejected(Rejection::RowsDiffer);
        }
        let mut count = self.tables.counts().rows;
        let (mut is_too_large, mut grows) = (false, false);
        for (name, content) in next {
            match (content, self.tables.row(name).is_some()) {
                (Some(_), false) => (count, grows) = (count + 1, true),
                (None, true) => count -= 1,
                _ => {}
            }
            let bytes = content.as_ref().map_or(0, Bytes::len);
            is_too_large |= name.len() > MAX_ROW_NAME_BYTES || bytes > MAX_ROW_BYTES;
        }
        if is_too_large || grows && count > MAX_ROWS {
            return Applied::Rejected(Rejection::TooManyRows);
        }
        for (name, content) in next {
            match content {
                Some(content) => self.tables.put_row(name, content),
                None => self.tables.delete_row(name),
            }
        }
        Applied::Nothing
    }
}

/// The limits of a version.
#[expect(clippy::expect_used, reason = "a command with another is not decoded")]
fn limits_of(version: u8) -> mvcc::Limits {
    mvcc::Limits::of(version).expect("the limits of a command that was decoded are known")
}

/// How the end of a lease went.
fn ended(revision: Result<Option<Revision>, mvcc::Refused>) -> Applied {
    match revision {
        Ok(revision) => Applied::Outcome(Outcome::Committed(Committed { versions: Vec::new(), revision })),
        Err(refused) => refused.into(),
    }
}
