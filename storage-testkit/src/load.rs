//! Writers that go on while servers fail, and what is asked of a store afterwards.
//!
//! What a store does wrong fails the test: everything in here panics then.

#![expect(clippy::panic, reason = "these are assertions of tests")]

use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use storage_core::{Error, Expected, Key, Outcome, ReadOptions, Store, StoreExt, Txn, WatchOptions, WriteOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// A load that has not got on for so long will not: the slowest election that was seen took half of it.
const STANDS_STILL: Duration = Duration::from_secs(60);

/// How long [`recovers`] waits for one answer: a call that went to a server which does not answer must leave time for another.
const ONE_TRY: Duration = Duration::from_secs(2);

/// The keys of the writers begin with this.
const PREFIX: &str = "load/";

/// Writers that go on until they are told to end.
#[derive(Debug)]
pub struct Load {
    writers: JoinSet<Ends>,
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    end: AtomicBool,
    acknowledged: watch::Sender<usize>,
    refused: watch::Sender<usize>,
}

/// How the writes of a load ended. Each wrote a key of its own, so each can be looked up afterwards.
#[derive(Debug, Default)]
pub struct Ends {
    /// The store said that these are applied.
    pub acknowledged: BTreeSet<Key>,
    /// The store said that these are not applied.
    pub unapplied: BTreeSet<Key>,
    /// The store said that it does not know.
    pub unknown: BTreeSet<Key>,
}

impl Load {
    /// So many writers on one handle, whose writes each have this deadline.
    pub fn start<S: Store + ?Sized + 'static>(store: &Arc<S>, writers: usize, timeout: Duration) -> Self {
        Self::on(iter::repeat_n(store, writers), timeout)
    }

    /// A writer on each of these handles.
    pub fn on<'a, S: Store + ?Sized + 'static>(
        stores: impl IntoIterator<Item = &'a Arc<S>>,
        timeout: Duration,
    ) -> Self {
        let mut load = Self { writers: JoinSet::new(), progress: Arc::default() };
        for (writer, store) in stores.into_iter().enumerate() {
            load.writers.spawn(write(Arc::clone(store), writer, timeout, Arc::clone(&load.progress)));
        }
        load
    }

    /// Waits for so many more acknowledged writes.
    pub async fn progress(&self, writes: usize) {
        rise(&self.progress.acknowledged, writes).await;
    }

    /// Waits for a write that is told not to be applied.
    pub async fn refusal(&self) {
        rise(&self.progress.refused, 1).await;
    }

    /// Ends the writers after the writes that are under way.
    pub async fn end(self) -> Ends {
        self.progress.end.store(true, Ordering::SeqCst);
        self.writers.join_all().await.into_iter().fold(Ends::default(), |mut all, mut ends| {
            all.acknowledged.append(&mut ends.acknowledged);
            all.unapplied.append(&mut ends.unapplied);
            all.unknown.append(&mut ends.unknown);
            all
        })
    }
}

async fn write(store: Arc<impl Store + ?Sized>, writer: usize, timeout: Duration, progress: Arc<Progress>) -> Ends {
    let mut ends = Ends::default();
    let mut number = 0;
    while !progress.end.load(Ordering::SeqCst) {
        // A store that never waits must let those run who end this.
        tokio::task::yield_now().await;
        number += 1;
        let key = key(&format!("{PREFIX}{writer}/{number:07}"));
        // Half of them with a guard, which takes other calls of most servers.
        let txn = Txn::new().put(key.clone(), "1");
        let txn = if number % 2 == 0 { txn } else { txn.guard(key.clone(), Expected::Absent) };
        match store.commit(txn, WriteOptions::default().timeout(timeout)).await {
            Ok(Outcome::Committed(_)) => {
                progress.acknowledged.send_modify(|count| *count += 1);
                ends.acknowledged.insert(key);
            }
            Ok(other) => panic!("nobody else writes {key:?}: {other:?}"),
            Err(Error::UnknownOutcome { .. }) => {
                ends.unknown.insert(key);
            }
            Err(error) if error.is_retryable() => {
                progress.refused.send_modify(|count| *count += 1);
                ends.unapplied.insert(key);
            }
            Err(error) => panic!("{error}"),
        }
    }
    ends
}

/// Waits in its sleep: the servers need the processors.
async fn rise(count: &watch::Sender<usize>, by: usize) {
    let mut count = count.subscribe();
    let goal = *count.borrow() + by;
    let risen = timeout(STANDS_STILL, count.wait_for(|count| *count >= goal)).await;
    assert!(matches!(risen, Ok(Ok(_))), "the load stands still");
}

impl Ends {
    /// Holds what the writers were told against what is there.
    pub async fn check(&self, store: &impl Store) {
        let entries: Vec<_> = store.scan_all(PREFIX.as_bytes()).collect().await;
        let present = entries.into_iter().collect::<Result<Vec<_>, _>>();
        let present = present.unwrap_or_else(|error| panic!("what is there: {error}"));
        let present: BTreeSet<Key> = present.into_iter().map(|entry| entry.key).collect();
        let lost: Vec<_> = self.acknowledged.difference(&present).collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        let undead: Vec<_> = self.unapplied.intersection(&present).collect();
        assert!(undead.is_empty(), "said to be not applied, and there: {undead:?}");
        let known = |key: &&Key| self.acknowledged.contains(*key) || self.unknown.contains(*key);
        let strangers: Vec<_> = present.iter().filter(|key| !known(key)).collect();
        assert!(strangers.is_empty(), "there, and nobody was told of it: {strangers:?}");
        let (acknowledged, unapplied) = (self.acknowledged.len(), self.unapplied.len());
        println!("{acknowledged} acknowledged, {unapplied} not applied, {} unknown", self.unknown.len());
    }
}

/// Waits until a write and a read of this handle succeed, at the longest so long from now.
pub async fn recovers(store: &impl Store, within: Duration) {
    let (began, key) = (Instant::now(), key("recovered"));
    let (read, write) = (ReadOptions::default().timeout(ONE_TRY), WriteOptions::default().timeout(ONE_TRY));
    let again = |error: Error| match error {
        Error::UnknownOutcome { .. } | Error::Unavailable { .. } | Error::Throttled { .. } => {
            assert!(began.elapsed() < within, "not back {within:?} after the servers are: {error}");
        }
        error => panic!("{error}"),
    };
    while let Err(error) = store.commit(Txn::new().put(key.clone(), "1"), write).await {
        again(error);
    }
    while let Err(error) = store.get(&key, read).await {
        again(error);
    }
    assert!(began.elapsed() < within, "back only after {:?}", began.elapsed());
}

/// Makes every kind of call with this deadline on a store without servers; returns by how much the latest was late.
pub async fn lateness(store: &impl Store, timeout: Duration) -> Duration {
    let (read, write) = (ReadOptions::default().timeout(timeout), WriteOptions::default().timeout(timeout));
    let (a, b) = (key("a"), key("b"));
    let began = Instant::now();
    let answer = store.get(&a, read).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    let first = began.elapsed();
    let began = Instant::now();
    let answer = store.commit(Txn::new().put(b, "1"), write).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. } | Error::UnknownOutcome { .. })), "{answer:?}");
    let second = began.elapsed();
    let began = Instant::now();
    let answer = store.watch(b"", WatchOptions { timeout, ..WatchOptions::default() }).await.map(|_| ());
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    first.max(second).max(began.elapsed()).saturating_sub(timeout)
}

fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_core::MemoryStore;

    /// What the writers of a short load were told.
    async fn told(store: &Arc<MemoryStore>) -> Ends {
        let load = Load::start(store, 2, Duration::from_secs(10));
        load.progress(10).await;
        load.end().await
    }

    #[tokio::test]
    async fn a_store_that_does_what_it_says_passes() {
        let store = Arc::new(MemoryStore::new());
        told(&store).await.check(&store).await;
        recovers(&store, Duration::from_secs(10)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "acknowledged and not there")]
    async fn a_lost_write_is_seen() {
        let store = Arc::new(MemoryStore::new());
        let ends = told(&store).await;
        store.delete(ends.acknowledged.first().unwrap()).await.unwrap();
        ends.check(&store).await;
    }

    #[tokio::test]
    #[should_panic(expected = "said to be not applied, and there")]
    async fn a_write_that_was_denied_is_seen() {
        let store = Arc::new(MemoryStore::new());
        let mut ends = told(&store).await;
        ends.unapplied.extend(ends.acknowledged.pop_first());
        ends.check(&store).await;
    }

    #[tokio::test]
    #[should_panic(expected = "nobody was told of it")]
    async fn a_write_from_nowhere_is_seen() {
        let store = Arc::new(MemoryStore::new());
        let ends = told(&store).await;
        store.put(&key("load/9/1"), "1").await.unwrap();
        ends.check(&store).await;
    }
}
