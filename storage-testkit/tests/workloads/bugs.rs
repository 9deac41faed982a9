//! Stores with one bug each, as such bugs look from the client's side.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::StreamExt;
use storage_core::{
    Capabilities, Entry, Error, Expected, Key, MemoryStore, Op, Outcome, Page, ReadOptions, Result, ScanOptions, Store,
    Txn, WatchOptions, WatchStream, WriteOptions,
};

/// Which bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Now and then a commit does not look at its guards.
    IgnoresGuards,
    /// Now and then a read is answered by a replica that lags behind.
    StaleRead,
    /// Writes are acknowledged before they are synced, and the power fails.
    AcknowledgedBeforeSync,
    /// A write without an answer is sent again as a new one, with what is there by then as its guard.
    UnknownRetriedAsNew,
    /// Now and then a watch loses an event.
    LostEvent,
    /// Now and then a watch gets an event twice.
    EventTwice,
    /// The guard of a lock is not looked at.
    NoFence,
    /// The write that is under way when the leader changes is acknowledged, and gone.
    DroppedAtLeaderChange,
    /// Of a transaction of several keys, now and then the last is not written.
    TornTransaction,
    /// A refused transaction is applied later all the same.
    RefusedAndApplied,
}

/// One in so many calls is struck by a bug that comes now and then.
const NOW_AND_THEN: usize = 40;

/// A sound store with a bug in front of it. Clones share the data.
#[derive(Clone, Debug)]
pub(crate) struct Planted {
    sound: Arc<MemoryStore>,
    bug: Bug,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: AtomicUsize,
    /// What a lagging replica has.
    lagging: Mutex<HashMap<Key, Option<Entry>>>,
    /// What the power takes: keys that were written since the last sync, with what was there then.
    unsynced: Mutex<Vec<(Key, Option<Entry>)>>,
}

impl Planted {
    pub(crate) fn new(bug: Bug) -> Self {
        Self { sound: Arc::new(MemoryStore::new()), bug, shared: Arc::default() }
    }

    fn strikes(&self) -> bool {
        self.shared.calls.fetch_add(1, Ordering::Relaxed) % NOW_AND_THEN == NOW_AND_THEN - 1
    }

    async fn current(&self, key: &Key) -> Option<Entry> {
        self.sound.get(key, ReadOptions::default()).await.unwrap()
    }

    /// The power fails: what was not synced is gone.
    pub(crate) async fn power_loss(&self) {
        let lost = std::mem::take(&mut *self.shared.unsynced.lock().unwrap());
        for (key, before) in lost.into_iter().rev() {
            let txn = match before {
                Some(entry) => Txn::new().put(key, entry.value),
                None => Txn::new().delete(key),
            };
            let _ = self.sound.commit(txn, WriteOptions::default()).await;
        }
    }

    async fn decide(&self, mut txn: Txn) -> Result<Outcome> {
        let options = WriteOptions::default();
        let keys: Vec<Key> = txn.ops.iter().map(|op| op.key().clone()).collect();
        match self.bug {
            Bug::IgnoresGuards if self.strikes() => txn.guards.clear(),
            Bug::NoFence => txn.guards.retain(|guard| !is_lock(&guard.key) || keys.contains(&guard.key)),
            Bug::TornTransaction if keys.len() > 2 && self.strikes() => {
                let whole = self.sound.commit(Txn { guards: txn.guards.clone(), ops: Vec::new() }, options).await?;
                let Outcome::Committed(_) = whole else { return Ok(whole) };
                txn.ops.remove(0);
                txn.guards.clear();
                let answer = self.sound.commit(txn, options).await?;
                return Ok(match answer {
                    Outcome::Committed(mut committed) => {
                        let version = committed.versions[0];
                        committed.versions.insert(0, version);
                        Outcome::Committed(committed)
                    }
                    conflict => conflict,
                });
            }
            Bug::DroppedAtLeaderChange if self.strikes() => {
                // Acknowledged by the old leader, which nobody follows any more: the versions are its own.
                let elsewhere = MemoryStore::new();
                for guard in &txn.guards {
                    if !guard.expected.holds(self.current(&guard.key).await.as_ref().map(|e| (&*e.value, e.version))) {
                        return self.sound.commit(txn, options).await;
                    }
                }
                txn.guards.clear();
                return elsewhere.commit(txn, options).await;
            }
            Bug::RefusedAndApplied if self.strikes() => {
                let _ = self.sound.commit(txn, options).await;
                return Err(Error::unavailable("the leader has gone"));
            }
            Bug::UnknownRetriedAsNew if self.strikes() => {
                // The reply to the first was lost; the guards of the second are what is there by then.
                let _ = self.sound.commit(txn.clone(), options).await;
                for guard in &mut txn.guards {
                    guard.expected = match self.current(&guard.key).await {
                        Some(entry) => Expected::Version(entry.version),
                        None => Expected::Absent,
                    };
                }
                // As a client does that reads, adds, and writes.
                for op in &mut txn.ops {
                    if let (Op::Put { key, value }, false) = (op, keys.len() > 1)
                        && let Some(entry) = self.current(key).await
                        && let Some(number) =
                            str::from_utf8(&entry.value).ok().and_then(|text| text.parse::<i64>().ok())
                    {
                        *value = (number + 1).to_string().into();
                    }
                }
            }
            Bug::AcknowledgedBeforeSync => {
                for key in keys {
                    let before = self.current(&key).await;
                    let mut unsynced = self.shared.unsynced.lock().unwrap();
                    unsynced.push((key, before));
                    let synced = unsynced.len().saturating_sub(20);
                    unsynced.drain(..synced);
                }
            }
            _ => {}
        }
        self.sound.commit(txn, options).await
    }
}

fn is_lock(key: &Key) -> bool {
    key.starts_with(b"lock/")
}

#[async_trait]
impl Store for Planted {
    fn capabilities(&self) -> &Capabilities {
        self.sound.capabilities()
    }

    async fn get(&self, key: &Key, _: ReadOptions) -> Result<Option<Entry>> {
        // As if there were a network: others come in between.
        tokio::task::yield_now().await;
        let current = self.current(key).await;
        tokio::task::yield_now().await;
        if self.bug == Bug::StaleRead {
            let mut lagging = self.shared.lagging.lock().unwrap();
            let lags = lagging.get(key).cloned();
            if self.strikes() {
                lagging.insert(key.clone(), current.clone());
            } else if let (Some(stale), true) = (lags, self.shared.calls.load(Ordering::Relaxed) % NOW_AND_THEN == 7) {
                return Ok(stale);
            }
        }
        Ok(current)
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        tokio::task::yield_now().await;
        self.sound.get_many(keys, options).await
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.sound.scan(prefix, options).await
    }

    async fn commit(&self, txn: Txn, _: WriteOptions) -> Result<Outcome> {
        tokio::task::yield_now().await;
        let answer = self.decide(txn).await;
        tokio::task::yield_now().await;
        answer
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let events = self.sound.watch(prefix, options).await?;
        let planted = self.clone();
        Ok(match self.bug {
            Bug::LostEvent => events
                .filter(move |_| {
                    let lost = planted.strikes();
                    async move { !lost }
                })
                .boxed(),
            Bug::EventTwice => events
                .flat_map(move |event| {
                    let twice = planted.strikes().then(|| event.as_ref().ok().cloned().map(Ok)).flatten();
                    futures::stream::iter([Some(event), twice].into_iter().flatten())
                })
                .boxed(),
            _ => events,
        })
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.sound.ping(options).await
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
