//! The state as the rest of the node reads it.

use std::sync::Arc;

use parking_lot::RwLock;
use storage_core::{Entry, Error, Key, Page, Revision, WatchEvent};
use tokio::sync::{
    Semaphore,
    watch::{self, error::RecvError},
};

use super::{State, recent::RecentHashes};
use crate::{
    host::{self, blocking},
    keys::{Changes, Compacted, History, KeySpace, Piece, hash_numbers},
    raft::{LogId, StoredMembership},
    tables::Tables,
};

/// How many may wait to look at the keys for long: about as many as one processor gets done within a request's time.
const WAITING_LOOKS: usize = 128;

/// How many bytes of keys and values, new and old, are taken from the history at once, and the rest of the last revision.
const PIECE_BYTES: usize = 1 << 20;

/// The state of this replica, for reading: cheap to clone. What it shows is as new as what was applied here;
/// a linearizable read waits with [`SharedState::wait_applied`] first.
#[derive(Clone, Debug)]
pub(crate) struct SharedState {
    /// Written by the state machine alone, a batch of entries at a time; readers hold it for a few look-ups.
    /// Never held across an await.
    replica: Arc<RwLock<Replica>>,
    /// The index of the last entry that was applied (0 before the first). The state machine has the sender.
    applied: watch::Receiver<u64>,
    /// How many may look at the keys for long at a time: half of the processors, so that the others are left to raft and to those who want little.
    long_looks: Arc<Semaphore>,
    /// Who looks for long, and who waits to.
    lookers: Arc<Semaphore>,
}

/// The state, and how far in the log it is.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) state: State,
    pub(crate) last_applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(super) recent: RecentHashes,
}

impl SharedState {
    /// The state, and where to say how far it has come: see [`SharedState::write`].
    pub(super) fn new(replica: Replica) -> (Self, watch::Sender<u64>) {
        let (sender, applied) = watch::channel(replica.applied_index());
        let at_once = (host::processors() / 2).max(1);
        let [long_looks, lookers] = [at_once, at_once + WAITING_LOOKS].map(|places| Arc::new(Semaphore::new(places)));
        (Self { replica: Arc::new(RwLock::new(replica)), applied, long_looks, lookers }, sender)
    }

    /// One key.
    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        self.read_keys(|keys| keys.record(key).map(|record| record.to_entry(key)))
    }

    /// Some keys, at one point in time, in the order given.
    pub(crate) fn get_many(&self, keys: &[Key]) -> Vec<Option<Entry>> {
        self.read_keys(|space| keys.iter().map(|key| space.record(key).map(|record| record.to_entry(key))).collect())
    }

    /// Up to `limit` keys with a prefix, in order, beginning behind `after`; the page ends with the value that brings it to `max_bytes`.
    pub(crate) fn scan(&self, prefix: &[u8], after: Option<&Key>, limit: usize, max_bytes: usize) -> Page {
        let keys = self.keys();
        let mut found = keys.scan(prefix, after);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < limit && bytes < max_bytes {
            let Some((key, record)) = found.next() else { break };
            bytes += record.value.len();
            entries.push(record.to_entry(key));
        }
        let next = found.next().and_then(|_| entries.last()).map(|entry: &Entry| entry.key.clone());
        Page { entries, next, revision: Some(Revision(keys.revision)) }
    }

    /// The revision of the last transaction that changed something.
    pub(crate) fn revision(&self) -> Revision {
        self.read_keys(|keys| Revision(keys.revision))
    }

    /// The next changes of keys with a prefix after a revision, up to `limit` and the rest of the last revision, and the
    /// revision after which to ask next. There are none only if there are no more for now: [`SharedState::subscribe`] then.
    ///
    /// A watch keeps no queue, so a slow one costs nothing. It reads a copy, so writers wait for none.
    ///
    /// # Errors
    /// [`Compacted`] if the history does not reach back so far.
    pub(crate) fn events_after(
        &self,
        revision: Revision,
        prefix: &[u8],
        limit: usize,
    ) -> Result<(Vec<WatchEvent>, Revision), Compacted> {
        let piece = Piece { changes: limit, bytes: PIECE_BYTES };
        let (mut after, history) = (revision.0, self.history());
        loop {
            let Changes { changes, upto } = history.changes_after(after, |key| key.starts_with(prefix), piece)?;
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

    /// The keys as they are now: a copy that costs next to nothing, so that no writer waits for who reads it.
    pub(crate) fn keys(&self) -> KeySpace {
        self.read_keys(KeySpace::clone)
    }

    /// The history as it is now, as [`SharedState::keys`].
    pub(crate) fn history(&self) -> History {
        self.read_keys(|keys| keys.history.clone())
    }

    /// Looks at the state on a copy and on another thread, where that may take long. Only so many look at a time, and some others wait.
    ///
    /// # Errors
    /// [`Error::Throttled`] if too many wait, [`Error::Closed`] when the runtime ends.
    pub(crate) async fn look_long<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Tables) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let Ok(_place) = self.lookers.try_acquire() else {
            let source = "too many long reads wait already".into();
            return Err(Error::Throttled { retry_after: None, source });
        };
        let permit = Arc::clone(&self.long_looks).acquire_owned().await.map_err(|_| Error::Closed)?;
        let tables = self.read(|replica| replica.state.tables().clone());
        let looked = blocking(move || {
            // Also when nobody waits for it any more.
            let _permit = permit;
            Ok(look(&tables))
        });
        looked.await.map_err(|_| Error::Closed)
    }

    /// Looks at the keys. Writers wait meanwhile.
    pub(crate) fn read_keys<T>(&self, look: impl FnOnce(&KeySpace) -> T) -> T {
        self.read(|replica| look(&replica.state.tables().keys))
    }

    /// Looks at the whole replica. Writers wait meanwhile.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Replica) -> T) -> T {
        look(&self.replica.read())
    }

    /// The last entry that was applied, and the hash of the state after it.
    pub(crate) fn latest_hash(&self) -> Option<(u64, u64)> {
        self.read(|replica| replica.last_applied.map(|id| (id.index, replica.hash())))
    }

    /// The hash of the state after the entry at `index`. `None`: it was not applied yet, or is too long ago.
    pub(crate) fn hash_after(&self, index: u64) -> Option<u64> {
        self.read(|replica| match replica.last_applied?.index {
            last if last == index => Some(replica.hash()),
            _ => replica.recent.after(index),
        })
    }

    /// Changes what no command has changed, as damage does: for tests.
    pub(crate) fn damage(&self) {
        self.write(|replica| replica.state.disturb(1));
    }

    /// Forgets the changes kept for watches on this replica.
    pub(crate) fn forget_history(&self) {
        self.write(|replica| replica.state.forget_history());
    }

    /// Changes the replica. Whoever does so then wakes those who wait, through the sender from [`SharedState::new`].
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Replica) -> T) -> T {
        change(&mut self.replica.write())
    }
}

impl Replica {
    /// A hash of the state. Equal on all replicas that have applied the same entries, after the same beginning.
    pub(super) fn hash(&self) -> u64 {
        let tables = self.state.tables();
        hash_numbers(tables.digest().0, [tables.keys.revision])
    }

    /// The index of the last applied entry (0 before the first).
    pub(crate) fn applied_index(&self) -> u64 {
        self.last_applied.map_or(0, |id| id.index)
    }
}
