//! The reference store: the whole contract in the plainest way that fulfils it.

mod state;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch::{Receiver, Sender};

use self::state::State;
use crate::{
    Capabilities, Entry, Error, Key, Outcome, Page, ReadOptions, Result, Revision, ScanOptions, Store, Txn,
    WatchOptions, WatchStream, WatchSupport, WriteOptions,
};

/// A store in the memory of this process: for tests, for examples, and to read when the contract leaves a doubt.
///
/// It is linearizable because every call holds one mutex, and not durable. Stale reads are served linearizably.
/// [`MemoryStore::handle`] gives further handles on the same data, as if they belonged to other replicas.
///
/// ```
/// use storage_core::{Key, MemoryStore, ReadOptions, Store, StoreExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> storage_core::Result<()> {
/// let one = MemoryStore::new();
/// let other = one.handle();
/// let key = Key::new("channel/7")?;
/// let version = one.put(&key, "open").await?;
/// one.close().await?;
/// let entry = other.get(&key, ReadOptions::default()).await?;
/// assert_eq!(entry.map(|entry| entry.version), Some(version));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    closed: Sender<bool>,
}

/// What all handles share.
#[derive(Debug)]
struct Shared {
    capabilities: Capabilities,
    /// A std mutex: it is held for a few map operations and never across an await.
    state: Mutex<State>,
    /// The last revision; wakes the watches.
    revision: Sender<Revision>,
}

impl MemoryStore {
    /// The largest value, in bytes (1 MiB): what etcd and ZooKeeper can take at their best, so that nothing that
    /// fits there is refused here.
    pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
    /// The most guards and operations in one transaction: what etcd allows by default.
    pub const MAX_TXN_OPS: usize = 128;
    /// The most bytes in one transaction (4 MiB): a few values of the largest size.
    pub const MAX_TXN_BYTES: usize = 4 * Self::MAX_VALUE_BYTES;
    /// How many commits are kept for watches to resume after: a watch that is further behind gets [`Error::Compacted`].
    pub const HISTORY_COMMITS: usize = 4096;
    /// How many bytes of keys and values the kept commits may have together (32 MiB, room for several of the largest
    /// transactions); older commits go first.
    pub const HISTORY_BYTES: usize = 8 * Self::MAX_TXN_BYTES;
    /// How many operation ids are remembered, first in, first out: far more than a client has in flight.
    pub const DEDUPLICATED_OPERATIONS: usize = 1024;

    /// An empty store.
    pub fn new() -> Self {
        let capabilities = Capabilities {
            durable: false,
            max_value_bytes: Self::MAX_VALUE_BYTES,
            max_txn_ops: Self::MAX_TXN_OPS,
            max_txn_bytes: Self::MAX_TXN_BYTES,
            revisions: true,
            native_value_compare: true,
            conflict_reports_current: true,
            atomic_get_many: true,
            deduplicates: Some(Self::DEDUPLICATED_OPERATIONS),
            watch: WatchSupport::Ordered,
            ..Capabilities::new("memory")
        };
        let state = Mutex::new(State::default());
        let revision = Sender::new(Revision(0));
        Self::of(Arc::new(Shared { capabilities, state, revision }))
    }

    /// Another handle on the same data. Each is closed on its own.
    pub fn handle(&self) -> Self {
        Self::of(Arc::clone(&self.shared))
    }

    /// Forgets the history so far: a watch that has not read it all gets [`Error::Compacted`].
    pub fn compact(&self) {
        self.shared.lock().compact();
    }

    fn of(shared: Arc<Shared>) -> Self {
        Self { shared, closed: Sender::new(false) }
    }

    fn open(&self) -> Result<&Shared> {
        if *self.closed.borrow() { Err(Error::Closed) } else { Ok(&self.shared) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    /// The state. A panic of another holder is ignored: no change of the state can panic half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No call waits for anything, so each ends before any deadline.
#[async_trait]
impl Store for MemoryStore {
    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    async fn get(&self, key: &Key, _: ReadOptions) -> Result<Option<Entry>> {
        Ok(self.open()?.lock().get(key))
    }

    async fn get_many(&self, keys: &[Key], _: ReadOptions) -> Result<Vec<Option<Entry>>> {
        let shared = self.open()?;
        shared.capabilities.check_keys(keys)?;
        let state = shared.lock();
        Ok(keys.iter().map(|key| state.get(key)).collect())
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let shared = self.open()?;
        options.validate()?;
        Ok(shared.lock().scan(prefix, options.after.as_ref(), options.limit))
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let shared = self.open()?;
        txn.validate(&shared.capabilities)?;
        let mut state = shared.lock();
        let outcome = state.commit(txn, options.operation_id);
        // Sent under the lock, so that revisions arrive in order.
        shared.revision.send_if_modified(|last| std::mem::replace(last, state.revision()) != state.revision());
        Ok(outcome)
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let shared = self.open()?;
        let after = {
            let state = shared.lock();
            // Under the lock: a commit that begins after this call has returned has a higher revision.
            let after = options.after.unwrap_or(state.revision());
            state.check_kept(after)?;
            after
        };
        let closed: Receiver<bool> = self.closed.subscribe();
        Ok(watch::stream(Arc::clone(&self.shared), closed, prefix, after))
    }

    async fn ping(&self, _: ReadOptions) -> Result<()> {
        self.open().map(|_| ())
    }

    async fn close(&self) -> Result<()> {
        self.closed.send_replace(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
