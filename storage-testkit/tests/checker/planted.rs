//! Stores with one defect each, under concurrent clients: their histories are rejected, and the counterexample is the defect.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use fastrand::Rng;
use storage_core::{
    Capabilities, Conflict, Entry, Error, Expected, FaultInjecting, Key, MemoryStore, Op, Outcome, Page, ReadOptions,
    Result, ScanOptions, Store, StoreExt, Txn, WatchOptions, WatchStream, WriteOptions,
};
use storage_testkit::{
    checker::{Checker, Findings, Violation},
    history::{Action, History, Recorder},
};
use tokio::task::{JoinSet, yield_now};

const CLIENTS: u64 = 6;
const OPERATIONS: u64 = 120;

/// Goes wrong now and then.
#[async_trait]
trait Defect: Debug + Send + Sync + 'static {
    async fn get(&self, sound: &MemoryStore, key: &Key) -> Result<Option<Entry>> {
        sound.get(key, ReadOptions::default()).await
    }
    async fn commit(&self, sound: &MemoryStore, txn: Txn) -> Result<Outcome> {
        sound.commit(txn, WriteOptions::default()).await
    }
}

#[derive(Debug)]
struct Defective<D> {
    sound: MemoryStore,
    defect: D,
}

#[async_trait]
impl<D: Defect> Store for Defective<D> {
    fn capabilities(&self) -> &Capabilities {
        self.sound.capabilities()
    }
    async fn get(&self, key: &Key, _: ReadOptions) -> Result<Option<Entry>> {
        // As if there were a network: others come in between.
        yield_now().await;
        let answer = self.defect.get(&self.sound, key).await;
        yield_now().await;
        answer
    }
    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.sound.get_many(keys, options).await
    }
    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.sound.scan(prefix, options).await
    }
    async fn commit(&self, txn: Txn, _: WriteOptions) -> Result<Outcome> {
        yield_now().await;
        let answer = self.defect.commit(&self.sound, txn).await;
        yield_now().await;
        answer
    }
    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.sound.watch(prefix, options).await
    }
    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.sound.ping(options).await
    }
    async fn close(&self) -> Result<()> {
        self.sound.close().await
    }
}

/// Strikes once, at the thirtieth chance, when every client has begun.
#[derive(Debug, Default)]
struct Once(AtomicUsize);

impl Once {
    fn strikes(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) == 30
    }
}

#[derive(Debug)]
struct Sound;
impl Defect for Sound {}

/// Swaps although the guard does not hold.
#[derive(Debug, Default)]
struct IgnoresGuard(Once);
#[async_trait]
impl Defect for IgnoresGuard {
    async fn commit(&self, sound: &MemoryStore, txn: Txn) -> Result<Outcome> {
        let outcome = sound.commit(txn.clone(), WriteOptions::default()).await?;
        if outcome.is_committed() || txn.ops.is_empty() || !self.0.strikes() {
            return Ok(outcome);
        }
        sound.commit(Txn { guards: Vec::new(), ..txn }, WriteOptions::default()).await
    }
}

/// Reads what was there before the last write that was acknowledged.
#[derive(Debug, Default)]
struct ReadsStale {
    once: Once,
    before: Mutex<HashMap<Key, Option<Entry>>>,
}
#[async_trait]
impl Defect for ReadsStale {
    async fn get(&self, sound: &MemoryStore, key: &Key) -> Result<Option<Entry>> {
        let before = self.before.lock().unwrap().get(key).cloned();
        match before.filter(|before| before.is_some()) {
            Some(before) if self.once.strikes() => Ok(before),
            _ => sound.get(key, ReadOptions::default()).await,
        }
    }
    async fn commit(&self, sound: &MemoryStore, txn: Txn) -> Result<Outcome> {
        let key = txn.ops[0].key().clone();
        let before = sound.get(&key, ReadOptions::default()).await?;
        let outcome = sound.commit(txn, WriteOptions::default()).await?;
        if outcome.is_committed() {
            // The acknowledgement is on its way before anybody reads.
            yield_now().await;
            self.before.lock().unwrap().insert(key, before);
        }
        Ok(outcome)
    }
}

/// Acknowledges a write, and then forgets it.
#[derive(Debug, Default)]
struct LosesWrite(Once);
#[async_trait]
impl Defect for LosesWrite {
    async fn commit(&self, sound: &MemoryStore, txn: Txn) -> Result<Outcome> {
        if !txn.guards.is_empty() || !self.0.strikes() {
            return sound.commit(txn, WriteOptions::default()).await;
        }
        // Applied elsewhere, where its version is made too.
        let lost = Key::new("lost")?;
        let ops = txn.ops.into_iter().map(|op| match op {
            Op::Put { value, .. } => Op::Put { key: lost.clone(), value },
            Op::Delete { .. } => Op::Delete { key: lost.clone() },
        });
        sound.commit(Txn { guards: Vec::new(), ops: ops.collect() }, WriteOptions::default()).await
    }
}

/// Applies a write, loses the answer, and applies it again later, when others have written: both are seen.
#[derive(Debug, Default)]
struct RetriesUnknown {
    once: Once,
    again: Mutex<Option<(Txn, usize)>>,
    /// The client is told that the outcome is unknown, or that it was applied.
    tells: bool,
}
#[async_trait]
impl Defect for RetriesUnknown {
    async fn commit(&self, sound: &MemoryStore, txn: Txn) -> Result<Outcome> {
        let due = {
            let mut again = self.again.lock().unwrap();
            if let Some((_, wait)) = &mut *again {
                *wait -= 1;
            }
            again.take_if(|(_, wait)| *wait == 0)
        };
        if let Some((again, _)) = due {
            let _ = sound.commit(again, WriteOptions::default()).await?;
        }
        let blind = txn.guards.is_empty() && matches!(txn.ops[0], Op::Put { .. });
        let outcome = sound.commit(txn.clone(), WriteOptions::default()).await?;
        if blind && self.once.strikes() {
            *self.again.lock().unwrap() = Some((txn, 20));
            if !self.tells {
                return Err(Error::unknown_outcome("the answer was lost"));
            }
        }
        Ok(outcome)
    }
}

/// Tells of a conflict, and applies the write nevertheless.
#[derive(Debug, Default)]
struct AppliesRefused(Once);
#[async_trait]
impl Defect for AppliesRefused {
    async fn commit(&self, sound: &MemoryStore, txn: Txn) -> Result<Outcome> {
        let [guard] = &txn.guards[..] else { return sound.commit(txn, WriteOptions::default()).await };
        let current = sound.get(&guard.key, ReadOptions::default()).await?;
        if !self.0.strikes() {
            return sound.commit(txn, WriteOptions::default()).await;
        }
        let _ = sound.commit(Txn { guards: Vec::new(), ..txn }, WriteOptions::default()).await?;
        Ok(Outcome::Conflict(Conflict { guard: 0, current: current.into() }))
    }
}

/// Clients that read, put, delete and swap a few keys; each put writes a value of its own.
async fn clients<S: Store + Clone>(store: &S, seed: u64) -> History {
    let recorder = Recorder::new();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (store, mut rng) = (recorder.wrap(store.clone()), Rng::with_seed(seed * CLIENTS + client));
        clients.spawn(async move {
            let mut known = HashMap::new();
            for number in 0..OPERATIONS {
                let key = Key::new(format!("key/{}", rng.u8(0..2))).unwrap();
                let value = format!("{client}.{number}");
                let read = match rng.u8(0..10) {
                    0..4 => store.get(&key, ReadOptions::default()).await,
                    4..6 => store.put(&key, value).await.map(|_| None),
                    6 => store.delete(&key).await.map(|()| None),
                    _ => {
                        let expected = known.get(&key).map_or(Expected::Absent, |version| Expected::Version(*version));
                        store.put_expecting(&key, expected, value).await.map(|_| None)
                    }
                };
                match read {
                    Ok(Some(entry)) => _ = known.insert(key, entry.version),
                    Ok(None) => {}
                    Err(error) => assert!(error.may_be_applied() || error.is_retryable(), "{error}"),
                }
            }
        });
    }
    clients.join_all().await;
    recorder.history()
}

async fn checked<D: Defect>(defect: D, seed: u64) -> Findings {
    let store = Arc::new(Defective { sound: MemoryStore::new(), defect });
    let history = clients(&store, seed).await;
    assert_eq!(history.operations().len() as u64, CLIENTS * OPERATIONS);
    Checker::default().check(&history)
}

/// The one violation that there is, of a history that a defect made.
async fn violation<D: Defect>(defect: impl Fn() -> D) -> Violation {
    // A defect may strike where nobody looks; never in all of these.
    for seed in 0..20 {
        let mut report = checked(defect(), seed).await;
        assert!(report.undecided.is_empty(), "{report}");
        if let Some(violation) = report.violations.pop() {
            println!("seed {seed}: {violation}");
            assert!(violation.operations.len() <= 5, "smaller is possible: {violation}");
            report.violations = vec![violation.clone()];
            let page = report.html();
            assert!(page.matches("<rect").count() == violation.operations.len(), "{page}");
            return violation;
        }
    }
    panic!("{:?} was never caught", defect());
}

fn puts(violation: &Violation) -> usize {
    let actions = violation.operations.iter().map(|cited| &cited.operation.action);
    actions.filter(|action| matches!(action, Action::Put(_))).count()
}

#[tokio::test]
async fn a_swap_that_ignores_its_guard_is_caught() {
    let violation = violation(IgnoresGuard::default).await;
    let guarded = violation.operations.iter().any(|cited| cited.operation.guard != Expected::Any);
    assert!(guarded && puts(&violation) >= 1, "{violation}");
}

#[tokio::test]
async fn a_stale_read_is_caught() {
    let violation = violation(ReadsStale::default).await;
    let reads = violation.operations.iter().filter(|cited| cited.operation.action == Action::Read);
    assert!(reads.count() >= 1, "{violation}");
}

#[tokio::test]
async fn a_lost_acknowledged_write_is_caught() {
    let violation = violation(LosesWrite::default).await;
    assert!(violation.operations.len() >= 2, "{violation}");
}

#[tokio::test]
async fn an_unknown_write_that_is_sent_again_as_a_new_one_is_caught() {
    let violation = violation(RetriesUnknown::default).await;
    let unknown = |action: &&Action| matches!(action, Action::Put(_));
    assert!(
        violation.operations.iter().map(|cited| &cited.operation.action).any(|action| unknown(&action)),
        "{violation}"
    );
}

#[tokio::test]
async fn a_write_that_is_applied_twice_is_caught() {
    let twice = || RetriesUnknown { tells: true, ..RetriesUnknown::default() };
    assert!(puts(&violation(twice).await) >= 1);
}

#[tokio::test]
async fn a_refused_write_that_is_applied_is_caught() {
    let violation = violation(AppliesRefused::default).await;
    assert!(violation.operations.len() >= 2, "{violation}");
}

#[tokio::test]
async fn a_sound_store_passes() {
    for seed in 0..10 {
        let report = checked(Sound, seed).await;
        assert!(report.is_linearizable(), "seed {seed}: {report}");
        assert_eq!((report.operations as u64, report.keys), (CLIENTS * OPERATIONS, 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_store_whose_answers_get_lost_passes() {
    for seed in 0..10 {
        let store = Arc::new(FaultInjecting::new(Defective { sound: MemoryStore::new(), defect: Sound }));
        store.lose_replies(100);
        store.fail_before_send(50);
        let report = Checker::default().check(&clients(&store, seed).await);
        assert!(report.is_linearizable(), "seed {seed}: {report}");
        assert_eq!((report.unknown, report.failed), (100, 50), "the faults have to bite");
    }
}
