//! What a case works with: handles on a namespace of its own, opened, tracked, and closed at the end.
//!
//! Handles here are patient with what was certainly not applied, and with nothing else: a case must not hide a wrong
//! answer behind a retry. Whatever a case opened or broke is cleaned up, also when it fails.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Faults, Harness, Namespace,
    stop::{Checked, Stop, Trouble, show},
};
use crate::{
    Backoff, Capabilities, Committed, Conflict, Entry, Error, Expected, Key, Outcome, Page, ReadOptions, Result,
    ScanOptions, Store, Txn, Version, WatchEvent, WatchOptions, WatchStream, WriteOptions,
};

/// How long the suite waits for one answer, one event, or for a store to become available again: longer than an
/// election of any backend on a machine that runs many tests at once and stands still for seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// What a case works with: a namespace of its own and the handles it opened there.
pub(crate) struct Context<'h> {
    harness: &'h dyn Harness,
    namespace: Box<dyn Namespace>,
    opened: Mutex<Vec<Arc<dyn Store>>>,
    others: Mutex<Vec<Box<dyn Namespace>>>,
    broken: Mutex<bool>,
}

impl<'h> Context<'h> {
    pub(crate) const NO_FAULTS: &'static str = "the harness cannot make faults";

    pub(crate) async fn new(harness: &'h dyn Harness) -> Result<Self> {
        let namespace = harness.namespace().await?;
        let (opened, others, broken) = Default::default();
        Ok(Self { harness, namespace, opened, others, broken })
    }

    /// One more handle.
    pub(crate) async fn open(&self) -> Result<Handle> {
        Ok(self.track(self.namespace.open().await?))
    }

    /// Two handles of different replicas.
    pub(crate) async fn open_two(&self) -> Result<(Handle, Handle)> {
        Ok((self.open().await?, self.open().await?))
    }

    /// So many handles of different replicas.
    pub(crate) async fn open_many(&self, count: usize) -> Result<Vec<Handle>> {
        let mut handles = Vec::with_capacity(count);
        for _ in 0..count {
            handles.push(self.open().await?);
        }
        Ok(handles)
    }

    /// Closes all handles and opens one on what is left, see [`Namespace::reopen`].
    pub(crate) async fn reopen(&self) -> Result<Handle> {
        self.close_all().await?;
        Ok(self.track(self.namespace.reopen().await?))
    }

    /// A handle on another fresh namespace.
    pub(crate) async fn open_elsewhere(&self) -> Result<Handle> {
        let namespace = self.harness.namespace().await?;
        let store = namespace.open().await?;
        lock(&self.others).push(namespace);
        Ok(self.track(store))
    }

    /// The longest key that is possible.
    pub(crate) fn max_key_bytes(&self) -> usize {
        self.namespace.max_key_bytes()
    }

    /// What can be broken here; skips the case if nothing can.
    pub(crate) fn faults(&self) -> Checked<&dyn Faults> {
        let faults = self.namespace.faults().ok_or_else(|| Stop::skipped(Self::NO_FAULTS))?;
        // Noted before anything is broken, so that a case which fails half-way is healed as well.
        *lock(&self.broken) = true;
        Ok(faults)
    }

    /// A handle that a fault hook gave, closed with the others.
    pub(crate) fn track(&self, store: Arc<dyn Store>) -> Handle {
        lock(&self.opened).push(Arc::clone(&store));
        Handle { store }
    }

    pub(crate) async fn clean_up(self) -> Result<()> {
        let broken = *lock(&self.broken);
        if broken && let Some(faults) = self.namespace.faults() {
            faults.heal().await?;
        }
        self.close_all().await?;
        self.namespace.remove().await?;
        let others = std::mem::take(&mut *lock(&self.others));
        for namespace in others {
            namespace.remove().await?;
        }
        Ok(())
    }

    async fn close_all(&self) -> Result<()> {
        let opened = std::mem::take(&mut *lock(&self.opened));
        for store in opened {
            store.close().await?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs all at once, each as a task, and returns their results in order; the first failure ends the others.
pub(crate) async fn parallel<T, F>(futures: impl IntoIterator<Item = F>) -> Checked<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Checked<T>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for (place, future) in futures.into_iter().enumerate() {
        tasks.spawn(async move { future.await.map(|result| (place, result)) });
    }
    let mut results = Vec::with_capacity(tasks.len());
    while let Some(joined) = tasks.join_next().await {
        results.push(joined.map_err(|error| Stop::failed(format_args!("a task of the case ended: {error}")))??);
    }
    // They end in any order; cases want to know who won.
    results.sort_by_key(|(place, _)| *place);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// A handle on the store under test, with calls as the cases need them: keys as anything with bytes, long deadlines,
/// and patience with what is certainly not applied.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    store: Arc<dyn Store>,
}

impl Handle {
    /// The store itself, for calls with special options and for what may fail.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    pub(crate) async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        let key = &to_key(key)?;
        patiently(|| self.store.get(key, reading())).await
    }

    /// The value alone.
    pub(crate) async fn value(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        Ok(self.get(key).await?.map(|entry| entry.value))
    }

    /// The entry of a key that has to be present.
    pub(crate) async fn present(&self, key: impl AsRef<[u8]>) -> Result<Entry, Trouble> {
        let key = to_key(key)?;
        self.get(&key).await?.ok_or_else(|| Trouble::Mismatch(format!("{key} has to be present, and is absent")))
    }

    pub(crate) async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        patiently(|| self.store.get_many(keys, reading())).await
    }

    pub(crate) async fn commit(&self, txn: Txn) -> Result<Outcome> {
        patiently(|| self.store.commit(txn.clone(), writing())).await
    }

    /// The commit of a transaction whose guards hold.
    pub(crate) async fn committed(&self, txn: Txn) -> Result<Committed, Trouble> {
        match self.commit(txn.clone()).await? {
            Outcome::Committed(committed) => Ok(committed),
            Outcome::Conflict(conflict) => {
                let what = format!("a conflict, although all guards hold: {} for {}", show(&conflict), show(&txn));
                Err(Trouble::Mismatch(what))
            }
        }
    }

    /// The conflict of a transaction of which a guard does not hold.
    pub(crate) async fn conflict(&self, txn: Txn) -> Result<Conflict, Trouble> {
        match self.commit(txn.clone()).await? {
            Outcome::Conflict(conflict) => Ok(conflict),
            Outcome::Committed(_) => {
                Err(Trouble::Mismatch(format!("committed, although a guard does not hold: {}", show(&txn))))
            }
        }
    }

    /// Sets a key, whatever is there, and returns its new version.
    pub(crate) async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Version, Trouble> {
        let committed = self.committed(Txn::new().put(to_key(key)?, value)).await?;
        committed.version().ok_or_else(|| Trouble::Mismatch("a committed put has no version".to_owned()))
    }

    /// A put while servers come and go: repeated when nobody knows what became of it, since twice is the same as once.
    pub(crate) async fn put_again(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Version, Trouble> {
        let (key, value, deadline) = (key.as_ref(), value.into(), Instant::now() + PATIENCE);
        loop {
            match self.put(key, value.clone()).await {
                Err(Trouble::Answer(Error::UnknownOutcome { .. })) if Instant::now() < deadline => {}
                done => return done,
            }
        }
    }

    /// Sets a key if it is as expected.
    pub(crate) async fn put_expecting(
        &self,
        key: impl AsRef<[u8]>,
        expected: Expected,
        value: impl Into<Bytes>,
    ) -> Result<Outcome> {
        let key = to_key(key)?;
        self.commit(Txn::new().guard(key.clone(), expected).put(key, value)).await
    }

    /// A swap while servers come and go, to a value that nobody else writes; whether it was applied. Nobody knows what became of
    /// one that was sent and not answered, and it may be applied as late as after the next one: what is there tells.
    pub(crate) async fn swap_again(&self, key: &str, from: Version, to: &'static str) -> Result<bool, Trouble> {
        let deadline = Instant::now() + PATIENCE;
        let mut asked = false;
        loop {
            match self.put_expecting(key, Expected::Version(from), to).await {
                Ok(Outcome::Committed(_)) => return Ok(true),
                // The first attempt cannot have met itself. A later one can, and then the value tells.
                Ok(Outcome::Conflict(_)) if !asked => return Ok(false),
                Ok(Outcome::Conflict(_)) => return Ok(self.present(key).await?.value == to),
                Err(Error::UnknownOutcome { .. }) if Instant::now() < deadline => asked = true,
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Committed, Trouble> {
        self.committed(Txn::new().delete(to_key(key)?)).await
    }

    /// Removes a key if it is as expected.
    pub(crate) async fn delete_expecting(&self, key: impl AsRef<[u8]>, expected: Expected) -> Result<Outcome> {
        let key = to_key(key)?;
        self.commit(Txn::new().guard(key.clone(), expected).delete(key)).await
    }

    /// One page.
    pub(crate) async fn page(&self, prefix: &[u8], after: Option<Key>, limit: usize) -> Result<Page> {
        let options = ScanOptions { read: reading(), after, limit };
        patiently(|| self.store.scan(prefix, options.clone())).await
    }

    /// All pages, of so many entries at the most. A scan that does not get on is a failure.
    pub(crate) async fn pages(&self, prefix: &[u8], limit: usize) -> Result<Vec<Entry>, Trouble> {
        let (mut entries, mut after) = (Vec::new(), None);
        loop {
            let page = self.page(prefix, after.clone(), limit).await?;
            if page.entries.len() > limit {
                return Err(Trouble::Mismatch(format!("a page of {} entries, at most {limit}", page.entries.len())));
            }
            entries.extend(page.entries);
            let Some(next) = page.next else { return Ok(entries) };
            // A scan that turns back would never end.
            if after.is_some_and(|after| next <= after) {
                return Err(Trouble::Mismatch(format!("the scan of {} turns back to {next}", prefix.escape_ascii())));
            }
            after = Some(next);
        }
    }

    /// All entries with this prefix.
    pub(crate) async fn scan(&self, prefix: impl AsRef<[u8]>) -> Result<Vec<Entry>, Trouble> {
        self.pages(prefix.as_ref(), ScanOptions::MAX_LIMIT).await
    }

    pub(crate) async fn watch(&self, prefix: impl AsRef<[u8]>) -> Result<Watcher> {
        self.watch_from(prefix, WatchOptions::default()).await
    }

    pub(crate) async fn watch_from(&self, prefix: impl AsRef<[u8]>, options: WatchOptions) -> Result<Watcher> {
        let options = WatchOptions { timeout: PATIENCE, ..options };
        let stream = patiently(|| self.store.watch(prefix.as_ref(), options)).await?;
        Ok(Watcher { stream })
    }

    pub(crate) async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}

/// The events of a watch.
pub(crate) struct Watcher {
    stream: WatchStream,
}

impl Watcher {
    /// The next item of the stream; `None` at its end.
    pub(crate) async fn item(&mut self) -> Result<Option<Result<WatchEvent>>, Trouble> {
        let waited = tokio::time::timeout(PATIENCE, self.stream.next()).await;
        waited.map_err(|_| Trouble::Mismatch(format!("a watch saw nothing for {PATIENCE:?}")))
    }

    /// The next event, which has to come.
    pub(crate) async fn event(&mut self) -> Result<WatchEvent, Trouble> {
        self.item().await?.unwrap_or_else(|| Err(Error::Closed)).map_err(Trouble::Answer)
    }

    /// The events up to the one that puts this key, without it.
    pub(crate) async fn until(&mut self, last: impl AsRef<[u8]>) -> Result<Vec<WatchEvent>, Trouble> {
        let mut events = Vec::new();
        loop {
            match self.event().await? {
                WatchEvent::Put { entry, .. } if entry.key.as_bytes() == last.as_ref() => return Ok(events),
                event => events.push(event),
            }
        }
    }
}

/// Calls again what was certainly not applied: a store may be unavailable for a while, above all when others test at the same time.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
    loop {
        // A store that never waits must not keep the others of a race, or the deadline of the case, from running.
        tokio::task::yield_now().await;
        match call().await {
            Err(error) if error.is_retryable() && Instant::now() < deadline => backoff.wait().await,
            answer => return answer,
        }
    }
}

pub(crate) fn to_key(bytes: impl AsRef<[u8]>) -> Result<Key> {
    Key::new(Bytes::copy_from_slice(bytes.as_ref()))
}

pub(crate) fn to_keys(all: impl IntoIterator<Item: AsRef<[u8]>>) -> Result<Vec<Key>> {
    all.into_iter().map(to_key).collect()
}

fn reading() -> ReadOptions {
    ReadOptions::default().timeout(PATIENCE)
}

fn writing() -> WriteOptions {
    WriteOptions::default().timeout(PATIENCE)
}
