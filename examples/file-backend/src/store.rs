//! The contract on a file: handles, deadlines and watches around the pure state and the disk.
//!
//! Handles on one directory share one state, under one lock that a commit holds while it syncs. So reads see only what
//! is durable. A commit that has begun is finished on a thread of its own, whatever becomes of its caller.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use storage_core::{
    Capabilities, Entry, Error, Key, Outcome, Page, ReadOptions, Result, Revision, ScanOptions, Store, Txn, WatchEvent,
    WatchOptions, WatchStream, WriteOptions,
};
use tokio::sync::{OwnedMutexGuard, broadcast, watch};

use crate::{disk::Disk, state::State};

/// How many changes a watch may be behind its store before it is told [`Error::Compacted`]. Values are shared with the
/// data, so this holds on to memory only for what has been overwritten since.
const WATCH_BACKLOG: usize = 1024;

/// A handle on a store in a file.
#[derive(Debug)]
pub struct FileStore {
    capabilities: Capabilities,
    /// `None` once the handle is closed.
    shared: Mutex<Option<Arc<Shared>>>,
    closed: watch::Sender<bool>,
}

/// What all handles on one directory share.
#[derive(Debug)]
struct Shared {
    /// An async mutex, because a commit holds it while it syncs. Reads wait for it too: they may neither see what is
    /// not yet durable nor miss what is.
    disk: Arc<tokio::sync::Mutex<Disk>>,
    changes: broadcast::Sender<WatchEvent>,
}

/// The open directories of this process.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<Shared>>>> = LazyLock::new(Mutex::default);

impl FileStore {
    /// Opens the store in this directory, which is created if its parent exists.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the directory cannot be used now, by this process; [`Error::Corrupt`] for a damaged file.
    pub async fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        let opened = tokio::task::spawn_blocking(move || shared(&dir)).await;
        let shared = Mutex::new(Some(opened.map_err(Error::unavailable)??));
        let mut capabilities = Capabilities::new("file");
        capabilities.revisions = true;
        capabilities.native_value_compare = true;
        capabilities.conflict_reports_current = true;
        capabilities.atomic_get_many = true;
        Ok(Self { capabilities, shared, closed: watch::Sender::new(false) })
    }

    fn shared(&self) -> Result<Arc<Shared>> {
        lock(&self.shared).clone().ok_or(Error::Closed)
    }

    /// Reads under the lock; `f` must be quick.
    async fn read<T>(&self, timeout: Duration, f: impl FnOnce(&State) -> T + Send) -> Result<T> {
        let disk = self.shared()?.disk(timeout).await?;
        disk.state().map(f)
    }

    /// Lets go of the directory, under the lock of the registry: whoever opens it next finds it either open or free.
    fn release(&self) {
        let _registry = lock(&OPEN);
        drop(lock(&self.shared).take());
    }
}

/// A handle that is dropped without being closed.
impl Drop for FileStore {
    fn drop(&mut self) {
        self.release();
    }
}

fn shared(dir: &Path) -> Result<Arc<Shared>> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(Error::unavailable(error)),
        _ => {}
    }
    let dir = fs::canonicalize(dir).map_err(Error::unavailable)?;
    let mut open = lock(&OPEN);
    if let Some(shared) = open.get(&dir).and_then(Weak::upgrade) {
        return Ok(shared);
    }
    let disk = Arc::new(tokio::sync::Mutex::new(Disk::open(dir.clone())?));
    let shared = Arc::new(Shared { disk, changes: broadcast::Sender::new(WATCH_BACKLOG) });
    open.retain(|_, shared| shared.strong_count() > 0);
    open.insert(dir, Arc::downgrade(&shared));
    Ok(shared)
}

impl Shared {
    /// The data, alone. Whoever gives up here has changed nothing.
    async fn disk(&self, timeout: Duration) -> Result<OwnedMutexGuard<Disk>> {
        let waiting = tokio::time::timeout(timeout, Arc::clone(&self.disk).lock_owned());
        waiting.await.map_err(|_| Error::deadline(timeout))
    }

    /// Makes a transaction whose guards hold durable. Blocks.
    fn apply(&self, mut disk: OwnedMutexGuard<Disk>, txn: Txn) -> Result<Outcome> {
        let (next, committed, events) = disk.state()?.after(txn.ops);
        if !events.is_empty() {
            disk.replace(next)?;
        }
        // Sent under the lock, so that watches see commits in their order. Nobody may be listening.
        events.into_iter().for_each(|event| drop(self.changes.send(event)));
        Ok(Outcome::Committed(committed))
    }
}

#[async_trait]
impl Store for FileStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.read(options.timeout, |state| state.get(key)).await
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        let limit = self.capabilities.max_txn_ops;
        if keys.len() > limit {
            return Err(Error::TooLarge { what: "keys in one read", actual: keys.len(), limit });
        }
        self.read(options.timeout, |state| keys.iter().map(|key| state.get(key)).collect()).await
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        options.validate()?;
        let ScanOptions { read, after, limit } = options;
        self.read(read.timeout, |state| state.scan(prefix, after.as_ref(), limit)).await
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let shared = self.shared()?;
        if options.operation_id.is_some() {
            return Err(Error::Unsupported { feature: "operation ids on a store in a file".to_owned() });
        }
        txn.validate(&self.capabilities)?;
        let started = Instant::now();
        let disk = shared.disk(options.timeout).await?;
        if let Some(conflict) = disk.state()?.conflict(&txn) {
            return Ok(Outcome::Conflict(conflict));
        }
        // The write belongs to a thread of its own from here on: it is finished whatever becomes of the caller, who
        // does not know how it ended if the time is over.
        let writing = tokio::task::spawn_blocking(move || shared.apply(disk, txn));
        let left = options.timeout.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, writing).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(ended)) => Err(Error::unknown_outcome(ended)),
            Err(_) => Err(Error::deadline_after_send(options.timeout)),
        }
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let shared = self.shared()?;
        if options.after.is_some() {
            return Err(Error::Unsupported { feature: "resuming a watch of a store in a file".to_owned() });
        }
        let mut closed = self.closed.subscribe();
        let closing = async move { closed.wait_for(|closed| *closed).await.is_ok() };
        let watching = Some((shared.changes.subscribe(), Bytes::copy_from_slice(prefix)));
        Ok(stream::unfold(watching, next_change).take_until(closing).boxed())
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.read(options.timeout, |_| ()).await
    }

    async fn close(&self) -> Result<()> {
        self.closed.send_replace(true);
        if let Ok(shared) = self.shared() {
            // Whoever has the lock still works; a commit that was given up may be among them.
            drop(shared.disk.lock().await);
            drop(shared);
            self.release();
        }
        Ok(())
    }
}

type Watching = (broadcast::Receiver<WatchEvent>, Bytes);

/// The next change of a key with the prefix. The stream ends after an error.
async fn next_change(watching: Option<Watching>) -> Option<(Result<WatchEvent>, Option<Watching>)> {
    let (mut changes, prefix) = watching?;
    loop {
        match changes.recv().await {
            Ok(event) if event.key().starts_with(&prefix) => return Some((Ok(event), Some((changes, prefix)))),
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let oldest = changes.recv().await.ok().and_then(|event| event.revision()).unwrap_or(Revision(0));
                return Some((Err(Error::Compacted { oldest }), None));
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
