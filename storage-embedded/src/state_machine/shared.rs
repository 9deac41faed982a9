//! The state as the rest of the node reads it.

use std::sync::Arc;

use parking_lot::RwLock;
use storage_core::{Entry, Key, Page, Revision, WatchEvent};
use tokio::sync::watch::{self, error::RecvError};

use super::{
    State,
    history::{Changes, Compacted},
};
use crate::raft::{LogId, StoredMembership};

/// The state of this replica, for reading: cheap to clone. What it shows is as new as what was applied here;
/// a linearizable read waits with [`SharedState::wait_applied`] first.
#[derive(Clone, Debug)]
pub(crate) struct SharedState {
    /// Written by the state machine alone, a batch of entries at a time; readers hold it for a few look-ups.
    /// Never held across an await.
    replica: Arc<RwLock<Replica>>,
    /// The index of the last entry that was applied (0 before the first). The state machine has the sender.
    applied: watch::Receiver<u64>,
}

/// The state, and how far in the log it is.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) state: State,
    pub(crate) last_applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

impl SharedState {
    /// The state, and where to say how far it has come: see [`SharedState::write`].
    pub(super) fn new(replica: Replica) -> (Self, watch::Sender<u64>) {
        let (sender, applied) = watch::channel(replica.applied_index());
        (Self { replica: Arc::new(RwLock::new(replica)), applied }, sender)
    }

    /// One key.
    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        self.read(|replica| replica.state.tables().record(key).map(|record| record.to_entry(key)))
    }

    /// Some keys, at one point in time, in the order given.
    pub(crate) fn get_many(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        self.read(|replica| {
            let tables = replica.state.tables();
            keys.iter().map(|key| tables.record(key).map(|record| record.to_entry(key))).collect()
        })
    }

    /// Up to `limit` keys with a prefix, in order, beginning behind `after`; the page ends with the value that brings it to `max_bytes`.
    pub(crate) fn scan(&self, prefix: &[u8], after: Option<&Key>, limit: usize, max_bytes: usize) -> Page {
        self.read(|replica| {
            let tables = replica.state.tables();
            let mut found = tables.scan(prefix, after);
            let (mut entries, mut bytes) = (Vec::new(), 0);
            while entries.len() < limit && bytes < max_bytes {
                let Some((key, record)) = found.next() else { break };
                bytes += record.value.len();
                entries.push(record.to_entry(key));
            }
            let next = found.next().and_then(|_| entries.last()).map(|entry: &Entry| entry.key.clone());
            Page { entries, next, revision: Some(Revision(tables.revision)) }
        })
    }

    /// The revision of the last transaction that changed something.
    pub(crate) fn revision(&self) -> Revision {
        self.read(|replica| Revision(replica.state.tables().revision))
    }

    /// The next changes of keys with a prefix after a revision, up to `limit` and the rest of the last revision, and the
    /// revision after which to ask next. There are none only if there are no more for now: [`SharedState::subscribe`] then.
    ///
    /// A watch keeps no queue, so a slow one costs nothing.
    ///
    /// # Errors
    /// [`Compacted`] if the history does not reach back so far.
    pub(crate) fn events_after(
        &self,
        revision: Revision,
        prefix: &[u8],
        limit: usize,
    ) -> Result<(Vec<WatchEvent>, Revision), Compacted> {
        let mut after = revision.0;
        loop {
            // Each turn looks at a bounded part of the history, and writers get their turn in between.
            let Changes { changes, upto } =
                self.read(|replica| replica.state.changes_after(after, |key| key.starts_with(prefix), limit))?;
            if !changes.is_empty() || upto == after {
                return Ok((changes.into_iter().map(|change| change.into_event()).collect(), Revision(upto)));
            }
            after = upto;
        }
    }

    /// The index of the last applied entry (0 before the first); it changes once for each batch.
    /// The sender is gone when raft has stopped.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Waits until the entry at `index` is applied here.
    ///
    /// # Errors
    /// When raft has stopped.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn wait_applied(&self, index: u64) -> Result<(), RecvError> {
        if *self.applied.borrow() < index {
            self.subscribe().wait_for(|applied| *applied >= index).await?;
        }
        Ok(())
    }

    /// Looks at the whole replica. Writers wait meanwhile.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Replica) -> T) -> T {
        look(&self.replica.read())
    }

    /// Forgets the changes kept for watches on this replica.
    pub(crate) fn forget_history(&self) {
        self.write(|replica| replica.state.forget_history());
    }

    /// Changes the replica. Whoever does so then wakes those who wait, through the sender from [`SharedState::new`].
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Replica) -> T) -> T {
        change(&mut self.replica.write())
    }
}

impl Replica {
    /// The index of the last applied entry (0 before the first).
    pub(crate) fn applied_index(&self) -> u64 {
        self.last_applied.map_or(0, |id| id.index)
    }
}
