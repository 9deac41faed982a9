//! Defects that need more than one function: races, memory, time.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use storage_core::{
    Conflict, Entry, Error, Expected, Guard, Key, MemoryStore, Observed, Op, OperationId, Outcome, Page, ReadOptions,
    Result, Revision, ScanOptions, Store, StoreExt, Txn, Version, WatchEvent, WatchOptions, WatchStream, WriteOptions,
};

use crate::{
    harness::{Accident, Defect, Sound},
    shapes::nothing,
};

const READ: ReadOptions =
    ReadOptions { consistency: storage_core::Consistency::Linearizable, timeout: Duration::from_secs(5) };

fn invalid(reason: &str) -> Error {
    Error::invalid_argument(reason)
}

/// The first guard that does not hold, looked at one by one without a lock.
async fn first_conflict(sound: &Sound, guards: &[Guard]) -> Result<Option<Conflict>> {
    for (place, guard) in guards.iter().enumerate() {
        let entry = sound.get(&guard.key, READ).await?;
        if !guard.expected.holds(entry.as_ref().map(|entry| (entry.value.as_ref(), entry.version))) {
            return Ok(Some(Conflict { guard: place, current: entry.into() }));
        }
    }
    Ok(None)
}

/// Neither knows nor cares what is there.
#[derive(Debug)]
pub(crate) struct Blind;
#[async_trait]
impl Defect for Blind {
    async fn get_many(&self, _: &Sound, keys: &[Key], _: ReadOptions) -> Result<Vec<Option<Entry>>> {
        Ok(vec![None; keys.len()])
    }
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        sound.commit(Txn { guards: Vec::new(), ..txn }, options).await
    }
}

/// Looks at the guards, and then writes without them: between the two, others come through.
#[derive(Debug)]
pub(crate) struct ChecksThenWrites;
#[async_trait]
impl Defect for ChecksThenWrites {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        txn.validate(sound.capabilities())?;
        if let Some(conflict) = first_conflict(sound, &txn.guards).await? {
            return Ok(Outcome::Conflict(conflict));
        }
        if txn.ops.is_empty() {
            return Ok(Outcome::Committed(nothing()));
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        sound.commit(Txn { guards: Vec::new(), ..txn }, options).await
    }
}

/// Refuses a transaction whenever any other was committed while it was on its way.
#[derive(Debug, Default)]
pub(crate) struct OneWriterAtATime(AtomicUsize);
#[async_trait]
impl Defect for OneWriterAtATime {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let before = self.0.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
        if !txn.guards.is_empty() && self.0.fetch_add(1, Ordering::SeqCst) != before {
            return Ok(Outcome::Conflict(Conflict { guard: 0, current: Observed::Unknown }));
        }
        sound.commit(txn, options).await
    }
}

/// Writes the operations of a transaction one after the other.
#[derive(Debug)]
pub(crate) struct WritesInSteps;
#[async_trait]
impl Defect for WritesInSteps {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        if txn.ops.len() < 2 {
            return sound.commit(txn, options).await;
        }
        txn.validate(sound.capabilities())?;
        if let Some(conflict) = first_conflict(sound, &txn.guards).await? {
            return Ok(Outcome::Conflict(conflict));
        }
        let mut all = nothing();
        for op in txn.ops {
            let txn = Txn { guards: Vec::new(), ops: vec![op] };
            let Some(committed) = sound.commit(txn, options).await?.committed() else { continue };
            all.versions.extend(committed.versions);
            all.revision = committed.revision;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Outcome::Committed(all))
    }
}

/// What a refused or rejected transaction leaves: its first operation.
#[derive(Debug)]
pub(crate) struct AppliesHalf;
#[async_trait]
impl Defect for AppliesHalf {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let first = txn.ops.first().cloned();
        let outcome = sound.commit(txn, options).await;
        let refused = matches!(outcome, Ok(Outcome::Conflict(_)) | Err(Error::InvalidArgument { .. }));
        if let (true, Some(op)) = (refused, first) {
            let _ = sound.commit(Txn { guards: Vec::new(), ops: vec![op] }, options).await?;
        }
        outcome
    }
}

/// Takes what is over a limit, or malformed, in as many pieces as it needs.
#[derive(Debug)]
pub(crate) struct AcceptsAnything;
#[async_trait]
impl Defect for AcceptsAnything {
    async fn get_many(&self, sound: &Sound, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        let mut entries = Vec::new();
        for some in keys.chunks(10) {
            entries.extend(sound.get_many(some, options).await?);
        }
        Ok(entries)
    }
    async fn scan(&self, sound: &Sound, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let limit = options.limit.clamp(1, ScanOptions::MAX_LIMIT);
        sound.scan(prefix, options.limit(limit)).await
    }
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        if txn.validate(sound.capabilities()).is_ok() {
            return sound.commit(txn, options).await;
        }
        let mut all = nothing();
        for op in txn.ops {
            let op = match op {
                Op::Put { key, value } if value.len() > MemoryStore::MAX_VALUE_BYTES => {
                    Op::Put { key, value: value.slice(..MemoryStore::MAX_VALUE_BYTES) }
                }
                op => op,
            };
            let txn = Txn { guards: Vec::new(), ops: vec![op] };
            all.versions.extend(sound.commit(txn, options).await?.committed().unwrap().versions);
        }
        Ok(Outcome::Committed(all))
    }
}

/// Deletes what is below a deleted key too.
#[derive(Debug)]
pub(crate) struct DeletesBelow;
#[async_trait]
impl Defect for DeletesBelow {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let deleted: Vec<_> =
            txn.ops.iter().filter(|op| matches!(op, Op::Delete { .. })).map(Op::key).cloned().collect();
        let outcome = sound.commit(txn, options).await?;
        for key in deleted.iter().filter_map(|key| key.with_suffix("/").ok()).filter(|_| outcome.is_committed()) {
            for entry in sound.scan(key.as_bytes(), ScanOptions::default()).await?.entries {
                sound.data.delete(&entry.key).await?;
            }
        }
        Ok(outcome)
    }
}

/// Writes a key anew when a transaction without operations only looks at it.
#[derive(Debug)]
pub(crate) struct LookingWrites;
#[async_trait]
impl Defect for LookingWrites {
    async fn commit(&self, sound: &Sound, mut txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let looked_at = txn.guards.first().map(|guard| guard.key.clone()).filter(|_| txn.ops.is_empty());
        if let Some(key) = looked_at
            && let Some(entry) = sound.get(&key, READ).await?
        {
            txn = txn.put(key, entry.value);
        }
        sound.commit(txn, options).await
    }
}

/// A key that was deleted counts as present for those who want it absent.
#[derive(Debug, Default)]
pub(crate) struct TombstonesExist(Mutex<HashSet<Key>>);
#[async_trait]
impl Defect for TombstonesExist {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let dead = |guard: &Guard| guard.expected == Expected::Absent && self.0.lock().unwrap().contains(&guard.key);
        if let Some(guard) = txn.guards.iter().position(dead) {
            return Ok(Outcome::Conflict(Conflict { guard, current: Observed::Absent }));
        }
        let deleted: Vec<_> =
            txn.ops.iter().filter(|op| matches!(op, Op::Delete { .. })).map(Op::key).cloned().collect();
        let outcome = sound.commit(txn, options).await?;
        if outcome.is_committed() {
            self.0.lock().unwrap().extend(deleted);
        }
        Ok(outcome)
    }
}

/// Counts versions for each key as some servers do: from one again after a delete, or not at a write of the same value.
#[derive(Debug, Default)]
pub(crate) struct CountsVersions {
    pub(crate) restarts: bool,
    pub(crate) keeps_on_same_value: bool,
    counts: tokio::sync::Mutex<HashMap<Key, u64>>,
}
impl CountsVersions {
    pub(crate) fn restarting() -> Self {
        Self { restarts: true, ..Self::default() }
    }
    pub(crate) fn keeping() -> Self {
        Self { keeps_on_same_value: true, ..Self::default() }
    }
    fn outer(counts: &HashMap<Key, u64>, entry: Entry) -> Entry {
        Entry { version: Version::from_u64(counts.get(&entry.key).copied().unwrap_or(0)), ..entry }
    }
}
#[async_trait]
impl Defect for CountsVersions {
    async fn get(&self, sound: &Sound, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        let counts = self.counts.lock().await;
        Ok(sound.get(key, options).await?.map(|entry| Self::outer(&counts, entry)))
    }
    async fn get_many(&self, sound: &Sound, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        let counts = self.counts.lock().await;
        let entries = sound.get_many(keys, options).await?.into_iter();
        Ok(entries.map(|entry| entry.map(|entry| Self::outer(&counts, entry))).collect())
    }
    async fn scan(&self, sound: &Sound, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let counts = self.counts.lock().await;
        let page = sound.scan(prefix, options).await?;
        Ok(Page { entries: page.entries.into_iter().map(|entry| Self::outer(&counts, entry)).collect(), ..page })
    }
    async fn commit(&self, sound: &Sound, mut txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let mut counts = self.counts.lock().await;
        for guard in &mut txn.guards {
            if let Expected::Version(version) = guard.expected {
                let current = sound.get(&guard.key, READ).await?;
                let count = counts.get(&guard.key).copied().map(Version::from_u64);
                let held = current.filter(|_| count == Some(version)).map(|entry| entry.version);
                guard.expected = Expected::Version(held.unwrap_or(Version::from_u64(0)));
            }
        }
        let mut before = HashMap::new();
        for op in &txn.ops {
            before.insert(op.key().clone(), sound.get(op.key(), READ).await?);
        }
        let ops = txn.ops.clone();
        let mut committed = match sound.commit(txn, options).await? {
            Outcome::Committed(committed) => committed,
            Outcome::Conflict(mut conflict) => {
                if let Observed::Present(entry) = conflict.current {
                    conflict.current = Observed::Present(Self::outer(&counts, entry));
                }
                return Ok(Outcome::Conflict(conflict));
            }
        };
        for (op, version) in ops.into_iter().zip(&mut committed.versions) {
            let old = before.get(op.key()).cloned().flatten();
            let count = counts.entry(op.key().clone()).or_default();
            match op {
                Op::Put { value, .. } => {
                    if !(self.keeps_on_same_value && old.is_some_and(|old| old.value == value)) {
                        *count += 1;
                    }
                    *version = Some(Version::from_u64(*count));
                }
                Op::Delete { .. } if self.restarts => *count = 0,
                Op::Delete { .. } => {}
            }
        }
        Ok(Outcome::Committed(committed))
    }
}

/// Serves reads from what the handle read first, until it writes that key itself.
#[derive(Debug, Default)]
pub(crate) struct CachesReads(Mutex<HashMap<(usize, Key), Option<Entry>>>);
#[async_trait]
impl Defect for CachesReads {
    async fn get(&self, sound: &Sound, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        let place = (sound.handle, key.clone());
        if let Some(cached) = self.0.lock().unwrap().get(&place) {
            return Ok(cached.clone());
        }
        let entry = sound.get(key, options).await?;
        self.0.lock().unwrap().insert(place, entry.clone());
        Ok(entry)
    }
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        for op in &txn.ops {
            self.0.lock().unwrap().remove(&(sound.handle, op.key().clone()));
        }
        sound.commit(txn, options).await
    }
}

/// Answers the first read after a write with what was there before.
#[derive(Debug, Default)]
pub(crate) struct ReadsLate(Mutex<HashMap<Key, Option<Entry>>>);
#[async_trait]
impl Defect for ReadsLate {
    async fn get(&self, sound: &Sound, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        let late = self.0.lock().unwrap().remove(key);
        match late {
            Some(entry) => Ok(entry),
            None => sound.get(key, options).await,
        }
    }
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        for op in &txn.ops {
            let before = sound.get(op.key(), READ).await?;
            self.0.lock().unwrap().insert(op.key().clone(), before);
        }
        sound.commit(txn, options).await
    }
}

/// A stale read never gets past the empty store of the beginning.
#[derive(Debug)]
pub(crate) struct StaysStale;
#[async_trait]
impl Defect for StaysStale {
    async fn get(&self, sound: &Sound, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        if options.consistency == storage_core::Consistency::Linearizable {
            sound.get(key, options).await
        } else {
            Ok(None)
        }
    }
}

/// Reads several keys one after the other.
#[derive(Debug)]
pub(crate) struct ReadsInSteps;
#[async_trait]
impl Defect for ReadsInSteps {
    async fn get_many(&self, sound: &Sound, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        let mut entries = Vec::new();
        for key in keys {
            entries.push(sound.get(key, options).await?);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(entries)
    }
}

/// Serves all pages of a prefix from what was there when its first page was read.
#[derive(Debug, Default)]
pub(crate) struct ScansASnapshot(Mutex<HashMap<Vec<u8>, Vec<Entry>>>);
#[async_trait]
impl Defect for ScansASnapshot {
    async fn scan(&self, sound: &Sound, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let all = sound.scan(prefix, ScanOptions::default()).await?;
        let mut snapshots = self.0.lock().unwrap();
        if options.after.is_none() {
            snapshots.insert(prefix.to_vec(), all.entries.clone());
        }
        let snapshot = snapshots.get(prefix).cloned().unwrap_or(all.entries);
        let mut rest = snapshot.into_iter().filter(|entry| Some(&entry.key) > options.after.as_ref());
        let entries: Vec<_> = rest.by_ref().take(options.limit).collect();
        let next = rest.next().and_then(|_| entries.last().map(|entry| entry.key.clone()));
        Ok(Page { entries, next, revision: all.revision })
    }
}

/// Ends a scan that goes on after a key that is gone.
#[derive(Debug)]
pub(crate) struct LosesItsPlace;
#[async_trait]
impl Defect for LosesItsPlace {
    async fn scan(&self, sound: &Sound, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        if let Some(after) = &options.after
            && sound.get(after, READ).await?.is_none()
        {
            return Ok(Page { entries: Vec::new(), next: None, revision: None });
        }
        sound.scan(prefix, options).await
    }
}

/// Writes a key to see whether the store works.
#[derive(Debug)]
pub(crate) struct PingWrites;
#[async_trait]
impl Defect for PingWrites {
    async fn ping(&self, sound: &Sound, _: ReadOptions) -> Result<()> {
        sound.put(&Key::new("ping")?, "").await.map(|_| ())
    }
}

/// All namespaces are one.
#[derive(Debug)]
pub(crate) struct SharesNamespaces;
impl Defect for SharesNamespaces {
    fn data(&self) -> MemoryStore {
        static DATA: LazyLock<MemoryStore> = LazyLock::new(MemoryStore::new);
        DATA.handle()
    }
}

/// Loses its data, or serves when it must not.
#[derive(Debug)]
pub(crate) struct Loses(pub(crate) Accident);
#[async_trait]
impl Defect for Loses {
    async fn survive(&self, data: &MemoryStore, accident: Accident) {
        if accident == self.0
            && let Some(last) = data.scan(b"", ScanOptions::default()).await.unwrap().entries.pop()
        {
            data.delete(&last.key).await.unwrap();
        }
    }
}

/// A minority goes on as if it were all.
#[derive(Debug)]
pub(crate) struct SplitBrain;
impl Defect for SplitBrain {
    fn minority_refuses(&self) -> bool {
        false
    }
}

/// Tells watches of writes that were refused, too.
#[derive(Debug)]
pub(crate) struct TellsOfConflicts(tokio::sync::broadcast::Sender<WatchEvent>);
impl Default for TellsOfConflicts {
    fn default() -> Self {
        Self(tokio::sync::broadcast::Sender::new(64))
    }
}
#[async_trait]
impl Defect for TellsOfConflicts {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let outcome = sound.commit(txn.clone(), options).await?;
        if let (false, Some(Op::Put { key, value })) = (outcome.is_committed(), txn.ops.into_iter().next()) {
            let entry = Entry { key, value, version: Version::from_u64(1) };
            self.0.send(WatchEvent::Put { entry, revision: None }).ok();
        }
        Ok(outcome)
    }
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let refused = stream::unfold(self.0.subscribe(), |mut events| async {
            let event = events.recv().await.ok()?;
            Some((Ok(event), events))
        });
        Ok(stream::select(refused.boxed(), sound.watch(prefix, options).await?).boxed())
    }
}

/// A watch sees what its own handle wrote, and nothing else.
#[derive(Debug, Default)]
pub(crate) struct SeesOwnWrites(Arc<Mutex<HashSet<(usize, Key)>>>);
#[async_trait]
impl Defect for SeesOwnWrites {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let mut writers = self.0.lock().unwrap().clone();
        for op in &txn.ops {
            writers.retain(|(_, key)| key != op.key());
            writers.insert((sound.handle, op.key().clone()));
        }
        *self.0.lock().unwrap() = writers;
        sound.commit(txn, options).await
    }
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let (writers, handle) = (Arc::clone(&self.0), sound.handle);
        let events = sound.watch(prefix, options).await?;
        let own = move |event: &Result<WatchEvent>| {
            let own = event.as_ref().is_ok_and(|e| writers.lock().unwrap().contains(&(handle, e.key().clone())));
            std::future::ready(own)
        };
        Ok(events.filter(own).boxed())
    }
}

/// Swaps each event with the next of the same moment.
#[derive(Debug)]
pub(crate) struct Reorders;
#[async_trait]
impl Defect for Reorders {
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let pairs = sound.watch(prefix, options).await?.ready_chunks(2);
        Ok(pairs.flat_map(|pair| stream::iter(pair.into_iter().rev().collect::<Vec<_>>())).boxed())
    }
}

/// Begins with what is new when the history is gone, and says nothing of it.
#[derive(Debug)]
pub(crate) struct SkipsLostHistory;
#[async_trait]
impl Defect for SkipsLostHistory {
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        match sound.watch(prefix, options).await {
            Err(Error::Compacted { .. }) => sound.watch(prefix, WatchOptions { after: None, ..options }).await,
            watch => watch,
        }
    }
}

/// Has room for so many watches, and does not notice when one is dropped.
#[derive(Debug, Default)]
pub(crate) struct LeaksWatches(AtomicUsize);
#[async_trait]
impl Defect for LeaksWatches {
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        if self.0.fetch_add(1, Ordering::SeqCst) >= 128 {
            return Err(invalid("too many watches"));
        }
        sound.watch(prefix, options).await
    }
}

/// Watches on a handle of its own, which stays open.
#[derive(Debug)]
pub(crate) struct WatchesOutlive;
#[async_trait]
impl Defect for WatchesOutlive {
    async fn watch(&self, sound: &Sound, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        sound.ping(READ).await?;
        sound.data.watch(prefix, options).await
    }
}

/// Goes on working after it was closed.
#[derive(Debug)]
pub(crate) struct NeverCloses;
#[async_trait]
impl Defect for NeverCloses {
    async fn close(&self, _: &Sound) -> Result<()> {
        Ok(())
    }
}

/// Says that it is closed when it is closed.
#[derive(Debug)]
pub(crate) struct ClosesOnce;
#[async_trait]
impl Defect for ClosesOnce {
    async fn close(&self, sound: &Sound) -> Result<()> {
        sound.ping(READ).await?;
        sound.close().await
    }
}

/// Takes its time, whatever the deadline is.
#[derive(Debug)]
pub(crate) struct IgnoresDeadlines;
#[async_trait]
impl Defect for IgnoresDeadlines {
    async fn get(&self, sound: &Sound, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        if options.timeout < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        sound.get(key, options).await
    }
}

/// Takes a deadline that its clock cannot tell for one that has passed.
#[derive(Debug)]
pub(crate) struct HasNoEndlessDeadline;
#[async_trait]
impl Defect for HasNoEndlessDeadline {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        match std::time::Instant::now().checked_add(options.timeout) {
            Some(_) => sound.commit(txn, options).await,
            None => Err(Error::deadline(options.timeout)),
        }
    }
}

/// Waits for a store that is away for as long as it takes.
#[derive(Debug)]
pub(crate) struct WaitsOutOutages;
#[async_trait]
impl Defect for WaitsOutOutages {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        sound.commit(txn, options.timeout(options.timeout + Duration::from_secs(60))).await
    }
}

/// Says that a write which got no answer was not applied.
#[derive(Debug)]
pub(crate) struct CallsUnknownUnavailable;
#[async_trait]
impl Defect for CallsUnknownUnavailable {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        match sound.commit(txn.clone(), options).await {
            Err(Error::UnknownOutcome { source }) => {
                // The request waits in some queue until the store is back.
                let store = sound.store.clone();
                let later = options.timeout(Duration::from_secs(60));
                tokio::spawn(async move { store.commit(txn, later).await });
                Err(Error::Unavailable { source })
            }
            answer => answer,
        }
    }
}

/// Gives up early, and the write goes through.
#[derive(Debug)]
pub(crate) struct GivesUpAfterSending;
#[async_trait]
impl Defect for GivesUpAfterSending {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let outcome = sound.commit(txn, options).await;
        if options.timeout < Duration::from_millis(2) { Err(Error::deadline(options.timeout)) } else { outcome }
    }
}

/// Treats operation ids other than it has to.
#[derive(Debug)]
pub(crate) struct MapsIds(pub(crate) fn(Option<OperationId>) -> Option<OperationId>);
#[async_trait]
impl Defect for MapsIds {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        sound.commit(txn, WriteOptions { operation_id: (self.0)(options.operation_id), ..options }).await
    }
}

/// Gives commits a revision that stands still.
#[derive(Debug)]
pub(crate) struct StandsStill;
#[async_trait]
impl Defect for StandsStill {
    async fn commit(&self, sound: &Sound, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        Ok(match sound.commit(txn, options).await? {
            Outcome::Committed(mut committed) => {
                committed.revision = committed.revision.map(|_| Revision(1));
                Outcome::Committed(committed)
            }
            conflict => conflict,
        })
    }
}
