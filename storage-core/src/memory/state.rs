//! The reference store's data, and the history that its watches read. Pure: no clock, no task, no lock.
//!
//! Invariants: revisions are consecutive and give the versions; an operation id is decided once. History and ids are
//! bounded; what is forgotten is said to be (`Compacted`).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;

use super::MemoryStore;
use crate::{
    Committed, Conflict, Entry, Error, Key, Observed, Op, OperationId, Outcome, Page, Result, Revision, Txn, Version,
    WatchEvent,
};

/// The data and its recent past. Pure: no clock, no task, no lock.
///
/// Revisions are consecutive: `history[i]` is the commit of revision `forgotten + 1 + i`, and the last revision is
/// `forgotten + history.len()`.
#[derive(Debug, Default)]
pub(super) struct State {
    entries: BTreeMap<Key, (Bytes, Version)>,
    history: VecDeque<Commit>,
    history_bytes: usize,
    forgotten: u64,
    done: HashMap<OperationId, Decision>,
    done_in_order: VecDeque<OperationId>,
}

#[derive(Debug)]
struct Commit {
    events: Vec<WatchEvent>,
    bytes: usize,
}

/// How an operation was decided: small, so that the table of them is bounded by their number.
#[derive(Debug)]
enum Decision {
    Committed(Committed),
    Conflict { guard: usize },
}

impl State {
    /// The revision of the last commit; 0 before the first.
    pub(super) fn revision(&self) -> Revision {
        Revision(self.forgotten + self.history.len() as u64)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).map(|stored| entry(key, stored))
    }

    pub(super) fn scan(&self, prefix: &[u8], after: Option<&Key>, limit: usize) -> Page {
        let start = match after {
            Some(after) if after.as_bytes() >= prefix => Bound::Excluded(after.as_bytes()),
            _ => Bound::Included(prefix),
        };
        let mut rest = self
            .entries
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| entry(key, stored));
        let entries: Vec<_> = rest.by_ref().take(limit).collect();
        let next = rest.next().and_then(|_| entries.last().map(|last| last.key.clone()));
        Page { entries, next, revision: Some(self.revision()) }
    }

    /// Decides a valid transaction, once if it has an id. A conflict is a decision too: could a copy of the
    /// transaction that comes late still be applied, a conflict would not be an answer one can act upon.
    pub(super) fn commit(&mut self, txn: Txn, id: Option<OperationId>) -> Outcome {
        match id.and_then(|id| self.done.get(&id)) {
            Some(Decision::Committed(committed)) => return Outcome::Committed(committed.clone()),
            Some(Decision::Conflict { guard }) => return Outcome::Conflict(self.conflict_at(*guard, &txn)),
            None => {}
        }
        let (answer, outcome) = match self.failed_guard(&txn) {
            Some(guard) => (Decision::Conflict { guard }, Outcome::Conflict(self.conflict_at(guard, &txn))),
            None => {
                let committed = self.apply(txn.ops);
                (Decision::Committed(committed.clone()), Outcome::Committed(committed))
            }
        };
        if let Some(id) = id {
            self.remember(id, answer);
        }
        outcome
    }

    /// # Errors
    /// [`Error::Compacted`] if a commit after `position` is forgotten.
    pub(super) fn check_kept(&self, position: Revision) -> Result<()> {
        if position.0 < self.forgotten { Err(Error::Compacted { oldest: Revision(self.forgotten) }) } else { Ok(()) }
    }

    /// What the first commit after `position` changed, or `None` if there was none yet.
    ///
    /// # Errors
    /// [`Error::Compacted`] if it is forgotten.
    pub(super) fn commit_after(&self, position: Revision) -> Result<Option<&[WatchEvent]>> {
        self.check_kept(position)?;
        // `check_kept` has seen to it that this does not wrap.
        let place = usize::try_from(position.0 - self.forgotten).ok();
        Ok(place.and_then(|place| self.history.get(place)).map(|commit| commit.events.as_slice()))
    }

    pub(super) fn compact(&mut self) {
        self.forgotten = self.revision().0;
        self.history.clear();
        self.history_bytes = 0;
    }

    fn failed_guard(&self, txn: &Txn) -> Option<usize> {
        txn.guards.iter().position(|guard| {
            let current = self.entries.get(&guard.key);
            !guard.expected.holds(current.map(|(value, version)| (value.as_ref(), *version)))
        })
    }

    fn conflict_at(&self, guard: usize, txn: &Txn) -> Conflict {
        let current = txn.guards.get(guard).map_or(Observed::Unknown, |guard| self.get(&guard.key).into());
        Conflict { guard, current }
    }

    fn apply(&mut self, ops: Vec<Op>) -> Committed {
        // Taken before it is known whether anything changes: a transaction that changes nothing gives it back, and no other can come between,
        // since the caller holds the lock.
        let revision = Revision(self.revision().0 + 1);
        // A number that is never used twice is a version that never repeats.
        let version = Version::from_u64(revision.0);
        let mut events = Vec::new();
        let mut versions = Vec::with_capacity(ops.len());
        for op in ops {
            match op {
                Op::Put { key, value } => {
                    self.entries.insert(key.clone(), (value.clone(), version));
                    let entry = Entry { key, value, version };
                    events.push(WatchEvent::Put { entry, revision: Some(revision) });
                    versions.push(Some(version));
                }
                Op::Delete { key } => {
                    // An absent key makes no event and, alone, no revision: as etcd has it, so that watches of both see the same.
                    if self.entries.remove(&key).is_some() {
                        events.push(WatchEvent::Delete { key, revision: Some(revision) });
                    }
                    versions.push(None);
                }
            }
        }
        let changed = !events.is_empty();
        if changed {
            self.record(events);
        }
        Committed { versions, revision: changed.then_some(revision) }
    }

    #[expect(clippy::expect_used, reason = "its bytes are counted with each commit")]
    fn record(&mut self, events: Vec<WatchEvent>) {
        let bytes = events.iter().map(size).sum();
        self.history.push_back(Commit { events, bytes });
        self.history_bytes += bytes;
        while self.history.len() > MemoryStore::HISTORY_COMMITS || self.history_bytes > MemoryStore::HISTORY_BYTES {
            let oldest = self.history.pop_front().expect("a history of some bytes has a commit");
            self.history_bytes -= oldest.bytes;
            self.forgotten += 1;
        }
    }

    fn remember(&mut self, id: OperationId, answer: Decision) {
        let before = self.done.insert(id, answer);
        assert!(before.is_none(), "an operation is applied twice");
        self.done_in_order.push_back(id);
        // The newest is kept besides those that the capability promises to keep behind it.
        if self.done_in_order.len() > MemoryStore::DEDUPLICATED_OPERATIONS + 1
            && let Some(oldest) = self.done_in_order.pop_front()
        {
            self.done.remove(&oldest);
        }
    }
}

fn entry(key: &Key, (value, version): &(Bytes, Version)) -> Entry {
    Entry { key: key.clone(), value: value.clone(), version: *version }
}

fn size(event: &WatchEvent) -> usize {
    match event {
        WatchEvent::Put { entry, .. } => entry.key.as_bytes().len() + entry.value.len(),
        WatchEvent::Delete { key, .. } => key.as_bytes().len(),
    }
}
