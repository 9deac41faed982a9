//! Writes down what goes through the handles that it wraps.
//!
//! Invariants: an operation stands in the history before it is sent, so one that is never answered is there as unknown.
//! Its times enclose the call. Reads that may be stale are not written down, since they promise nothing that could be
//! checked.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;
use storage_core::{
    Capabilities, Consistency, Entry, Expected, Key, Op, Page, ReadOptions, Result, ScanOptions, Store, Txn,
    WatchOptions, WatchStream, WriteOptions,
};

use super::{Action, History, Operation, Outcome, Seen};

/// Writes down what goes through the handles that it wraps. Clones write into the same history.
///
/// All times are of the monotonic clock of this process, or of the clock that was given. An operation is written down when it begins, with an outcome
/// that is unknown, and again when it has ended; so one whose future was dropped, or that is still under way, stands in the
/// history as what it is. The one lock is held for these two moments (well below a microsecond each), never while a call is under way.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    processes: AtomicU64,
    txns: AtomicU64,
    /// A std mutex: it is held for a push, and never across an await.
    operations: Mutex<Vec<Operation>>,
}

impl Recorder {
    /// An empty history that begins now.
    #[must_use]
    pub fn new() -> Self {
        let epoch = Instant::now();
        // Five hundred years fit.
        Self::with_clock(move || u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// An empty history whose times are those of a clock in nanoseconds that never goes back: a simulation's.
    #[must_use]
    pub fn with_clock(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let (processes, txns) = (AtomicU64::new(0), AtomicU64::new(0));
        let (clock, operations) = (Box::new(clock), Mutex::default());
        Self { shared: Arc::new(Shared { clock, processes, txns, operations }) }
    }

    /// The store, with everything written down that goes through it. Each call gives a process of its own.
    #[must_use]
    pub fn wrap<S: Store>(&self, store: S) -> Recording<S> {
        let process = self.shared.processes.fetch_add(1, Ordering::Relaxed);
        Recording { store, process, shared: Arc::clone(&self.shared) }
    }

    /// Now, in nanoseconds, on the clock of the history.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// What was done so far.
    #[must_use]
    pub fn history(&self) -> History {
        History::new(self.shared.lock().clone())
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("operations", &self.lock().len()).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Writes down operations that begin.
    fn begin(&self, operations: impl IntoIterator<Item = Operation>) -> Range<usize> {
        let mut all = self.lock();
        let first = all.len();
        all.extend(operations);
        first..all.len()
    }

    /// Writes down how they ended, in the order in which they began.
    fn end(&self, place: Range<usize>, outcomes: impl IntoIterator<Item = Outcome>) {
        // Before the lock is waited for: the answer was there by now, and a later end would excuse more orders than
        // there were.
        let end = Some(self.now());
        let mut all = self.lock();
        for (operation, outcome) in all.get_mut(place).into_iter().flatten().zip(outcomes) {
            (operation.end, operation.outcome) = (end, outcome);
        }
    }
}

/// A store whose operations are written down by a [`Recorder`].
///
/// Written down are linearizable reads of any kind (of a scan, the keys that it found) and commits. Not written down are
/// reads that may be stale, pings, and watches.
#[derive(Clone, Debug)]
pub struct Recording<S> {
    store: S,
    process: u64,
    shared: Arc<Shared>,
}

impl<S: Store> Recording<S> {
    fn operation(&self, start: u64, key: Key, guard: Expected, action: Action) -> Operation {
        let outcome = Outcome::Unknown;
        Operation { process: self.process, start, end: None, key, guard, action, outcome, txn: None, id: None }
    }

    fn read(&self, start: u64, key: Key) -> Operation {
        self.operation(start, key, Expected::Any, Action::Read)
    }

    /// The operations of a transaction, one for each key, and where each stands in it.
    fn parts(&self, start: u64, txn: &Txn, options: &WriteOptions) -> (Vec<Operation>, Vec<Part>) {
        let id = options.operation_id;
        let guarded = txn.guards.iter().enumerate().map(|(guard, condition)| {
            let op = txn.ops.iter().position(|op| *op.key() == condition.key);
            let operation = self.operation(
                start,
                condition.key.clone(),
                condition.expected.clone(),
                op.and_then(|op| txn.ops.get(op)).map_or(Action::Read, action),
            );
            (operation, Part { guard: Some(guard), op })
        });
        let blind = txn.ops.iter().enumerate().filter(|(_, op)| txn.guards.iter().all(|guard| guard.key != *op.key()));
        let blind = blind.map(|(place, op)| {
            let operation = self.operation(start, op.key().clone(), Expected::Any, action(op));
            (operation, Part { guard: None, op: Some(place) })
        });
        let (mut operations, parts): (Vec<_>, Vec<_>) = guarded.chain(blind).unzip();
        let number = (operations.len() > 1).then(|| self.shared.txns.fetch_add(1, Ordering::Relaxed));
        for operation in &mut operations {
            (operation.txn, operation.id) = (number, id);
        }
        (operations, parts)
    }
}

/// Where an operation stands in its transaction.
struct Part {
    guard: Option<usize>,
    op: Option<usize>,
}

impl Part {
    fn outcome(&self, answer: &Result<storage_core::Outcome>, has_id: bool) -> Outcome {
        match answer {
            Ok(storage_core::Outcome::Committed(committed)) => {
                let version = self.op.and_then(|op| committed.versions.get(op).copied().flatten());
                Outcome::Ok { seen: Seen::Untold, version }
            }
            // What is current may be told as of a repetition of the write, if it has an id.
            Ok(storage_core::Outcome::Conflict(conflict)) if self.guard == Some(conflict.guard) => {
                let seen = if has_id { Seen::Untold } else { conflict.current.clone().into() };
                Outcome::Conflict { seen }
            }
            Err(error) if error.may_be_applied() => Outcome::Unknown,
            // Of the other keys of a conflict, nothing is known but that they were not written.
            Ok(storage_core::Outcome::Conflict(_)) | Err(_) => Outcome::Failed,
        }
    }
}

fn action(op: &Op) -> Action {
    match op {
        Op::Put { value, .. } => Action::Put(Bytes::clone(value)),
        Op::Delete { .. } => Action::Delete,
    }
}

fn seen(entry: Option<&Entry>) -> Outcome {
    let seen =
        entry.map_or(Seen::Absent, |entry| Seen::Present { value: entry.value.clone(), version: Some(entry.version) });
    Outcome::Ok { seen, version: None }
}

#[async_trait]
impl<S: Store> Store for Recording<S> {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        if options.consistency == Consistency::Stale {
            return self.store.get(key, options).await;
        }
        let place = self.shared.begin([self.read(self.shared.now(), key.clone())]);
        let answer = self.store.get(key, options).await;
        self.shared.end(place, [answer.as_ref().map_or(Outcome::Failed, |entry| seen(entry.as_ref()))]);
        answer
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        if options.consistency == Consistency::Stale {
            return self.store.get_many(keys, options).await;
        }
        let start = self.shared.now();
        let place = self.shared.begin(keys.iter().map(|key| self.read(start, key.clone())));
        let answer = self.store.get_many(keys, options).await;
        match &answer {
            Ok(entries) => self.shared.end(place, entries.iter().map(|entry| seen(entry.as_ref()))),
            Err(_) => self.shared.end(place, std::iter::repeat(Outcome::Failed)),
        }
        answer
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let (start, linearizable) = (self.shared.now(), options.read.consistency == Consistency::Linearizable);
        let answer = self.store.scan(prefix, options).await;
        if let (Ok(page), true) = (&answer, linearizable) {
            let end = Some(self.shared.now());
            self.shared.begin(page.entries.iter().map(|entry| {
                // A scan does not tell which keys it looked for in vain, so that absent ones stay out.
                let outcome = seen(Some(entry));
                Operation { end, outcome, ..self.read(start, entry.key.clone()) }
            }));
        }
        answer
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<storage_core::Outcome> {
        let (operations, parts) = self.parts(self.shared.now(), &txn, &options);
        let place = self.shared.begin(operations);
        let answer = self.store.commit(txn, options).await;
        let has_id = options.operation_id.is_some();
        self.shared.end(place, parts.iter().map(|part| part.outcome(&answer, has_id)));
        answer
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.store.watch(prefix, options).await
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.store.ping(options).await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
