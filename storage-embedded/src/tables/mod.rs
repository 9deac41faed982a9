//! The replicated tables: all that a snapshot holds. How commands change them is in `state_machine`.
//!
//! # Invariants
//! - All but the keys are bounded, by the same numbers on every replica.
//! - The digest is the sum over all items, whatever the way there: a snapshot that was read has the same one as the state it was taken of.
//!
//! # What it must not do
//! Depend on when or where it runs: no clock, no randomness, no order of a hash map in anything that can be seen.

mod allow;
mod digest;
mod operations;
mod sessions;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use storage_core::{OperationId, Outcome};

use operations::Operations;
pub(crate) use sessions::{Session, Sessions};

use crate::{
    auth::AuthTable,
    codec::{DecodeError, Decoded},
    command::{Applied, Request},
    keys::{Digest, KeySpace, own},
};

/// How many operations are remembered by their ids, behind the newest: minutes of retries of a busy service, in some 10 MiB.
pub(crate) const MAX_OPERATIONS: usize = 65_536;

/// How many alarms there may be: more than a cluster has members.
pub(crate) const MAX_ALARMS: usize = 256;

/// The replicated tables. A clone costs next to nothing and shares what neither side changes afterwards,
/// so a snapshot is written from a clone while the original goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// The keys of the users, their leases and their history.
    pub(crate) keys: KeySpace,
    /// The users and roles of the clients.
    pub(crate) auth: AuthTable,
    /// The hash of the other tables.
    digest: Digest,
    rows: OrdMap<Bytes, Bytes>,
    /// The members that have no space.
    alarms: OrdSet<u64>,
    sessions: Sessions,
    operations: Operations,
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
        self.keys.digest().with(self.digest).with(self.auth.digest())
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            records: self.keys.len() as u64,
            leases: self.keys.leases.0.len() as u64,
            rows: self.rows.len() as u64,
            sessions: self.sessions.0.len() as u64,
            operations: self.operations.len() as u64,
            changes: self.keys.history.len() as u64,
        }
    }

    pub(crate) fn row(&self, name: &[u8]) -> Option<&Bytes> {
        self.rows.get(name)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.rows.iter()
    }

    /// The members that have raised an alarm, in order: they have no space.
    pub(crate) fn alarms(&self) -> impl ExactSizeIterator<Item = u64> {
        self.alarms.iter().copied()
    }

    /// Whether what grows is refused.
    pub(crate) fn is_full(&self) -> bool {
        !self.alarms.is_empty()
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = (u64, &Session)> {
        self.sessions.0.iter().map(|(id, session)| (*id, session))
    }

    /// How an operation went, if it is remembered.
    pub(crate) fn operation(&self, id: OperationId) -> Option<&Outcome> {
        self.operations.get(id)
    }

    /// From the oldest to the newest.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (OperationId, &Outcome)> {
        self.operations.iter()
    }
}

/// Changing. What is put in is a copy: a slice would keep alive the whole buffer that it came in.
impl Tables {
    pub(crate) fn put_row(&mut self, name: &Bytes, value: &Bytes) {
        self.digest.add(digest::row(name, value));
        if let Some(old) = self.rows.insert(own(name), own(value)) {
            self.digest.remove(digest::row(name, &old));
        }
    }

    pub(crate) fn delete_row(&mut self, name: &[u8]) {
        if let Some(value) = self.rows.remove(name) {
            self.digest.remove(digest::row(name, &value));
        }
    }

    /// Raises the alarm of a member, or takes it back. Whether that changed something.
    pub(crate) fn set_alarm(&mut self, member: u64, raise: bool) -> bool {
        let before = if raise { self.alarms.insert(member) } else { self.alarms.remove(&member) };
        let changed = before.is_some() != raise;
        match (changed, raise) {
            (false, _) => {}
            (true, true) => self.digest.add(digest::alarm(member)),
            (true, false) => self.digest.remove(digest::alarm(member)),
        }
        changed
    }

    /// Puts in the alarm of a member.
    pub(crate) fn restore_alarm(&mut self, member: u64) -> Decoded<()> {
        if self.set_alarm(member, true) { Ok(()) } else { Err(DecodeError("an alarm that stands there twice")) }
    }

    /// Changes what no command has changed, as damage and a state machine with a defect do: for tests.
    pub(crate) fn disturb(&mut self, by: u64) {
        self.digest.add(by);
    }

    /// Opens a session, or finds the one with this nonce; gives its id.
    pub(crate) fn open_session(&mut self, index: u64, nonce: u64) -> u64 {
        self.sessions.open(index, nonce, &mut self.digest)
    }

    /// Whether a request is to be applied now; otherwise the answer that it gets instead.
    pub(crate) fn begin_request(&mut self, index: u64, request: &Request) -> Result<(), Applied> {
        self.sessions.begin(index, request, &mut self.digest)
    }

    /// How many bytes the answers of a session have that it has not acknowledged.
    pub(crate) fn unacknowledged_bytes(&self, session: u64) -> usize {
        self.sessions.unacknowledged_bytes(session)
    }

    /// Puts in a session as it is.
    ///
    /// # Errors
    /// For one that contradicts what is there. So for the others.
    pub(crate) fn restore_session(&mut self, id: u64, session: Session) -> Decoded<()> {
        if self.sessions.0.contains_key(&id) {
            return Err(DecodeError("a session that stands there twice"));
        }
        self.sessions.restore(id, session, &mut self.digest);
        Ok(())
    }

    /// Puts in an answer of a session that is there already.
    pub(crate) fn restore_answer(&mut self, session: u64, sequence: u64, answer: Applied) -> Decoded<()> {
        if !self.sessions.awaits(session, sequence) {
            return Err(DecodeError("an answer that stands there twice, or that no session waits for"));
        }
        self.remember_answer(session, sequence, answer);
        Ok(())
    }

    /// Puts in the outcome of an operation.
    pub(crate) fn restore_operation(&mut self, id: OperationId, outcome: Outcome) -> Decoded<()> {
        if self.operation(id).is_some() {
            return Err(DecodeError("an operation that stands there twice"));
        }
        self.remember_operation(id, outcome);
        Ok(())
    }

    /// Keeps the answer of a request of a session that is there.
    pub(crate) fn remember_answer(&mut self, session: u64, sequence: u64, answer: Applied) {
        self.sessions.remember(session, sequence, answer, &mut self.digest);
    }

    /// Keeps the outcome of an operation, and forgets the oldest if there are too many.
    pub(crate) fn remember_operation(&mut self, id: OperationId, outcome: Outcome) {
        self.operations.remember(id, outcome, &mut self.digest);
    }
}
