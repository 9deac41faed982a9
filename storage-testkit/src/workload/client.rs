//! One client of a run, and the tally of writes that it keeps outside of the store.
//!
//! Invariant: a write counts as unknown from before it is sent until its answer is heard. So a client that is gone in
//! between claims nothing.

use std::{
    any::Any,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use storage_core::{Entry, Error, Key, Outcome, ReadOptions, Result, Txn, WriteOptions};

use super::Handle;
use crate::history::Recorder;

/// One client of a run: its handle, its choices, and what it remembers from step to step.
pub struct Client {
    /// Its number, from 0.
    pub number: usize,
    /// Its handle, whose calls are recorded.
    pub store: Handle,
    /// Where its choices come from.
    pub rng: fastrand::Rng,
    /// The deadline of each call.
    pub timeout: Duration,
    /// How many steps it has made.
    pub steps: u64,
    recorder: Recorder,
    refused: AtomicBool,
    /// A mutex that is never locked: it lets what is only `Send` stand in what is shared.
    memory: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Client {
    /// A client whose calls on this store are recorded. No other client of the run has its number.
    pub fn new(number: usize, store: Handle, recorder: &Recorder, rng: fastrand::Rng) -> Self {
        let store = std::sync::Arc::new(recorder.wrap(store));
        Self {
            number,
            store,
            rng,
            timeout: Duration::from_secs(1),
            steps: 0,
            recorder: recorder.clone(),
            refused: AtomicBool::new(false),
            memory: Mutex::default(),
        }
    }

    /// The time of the history, which all clients share.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.recorder.now())
    }

    /// What this client remembers from step to step; nothing at first.
    pub fn memory<T: Default + Send + 'static>(&mut self) -> Option<&mut T> {
        let memory = self.memory.get_mut().unwrap_or_else(PoisonError::into_inner);
        memory.get_or_insert_with(|| Box::<T>::default()).downcast_mut()
    }

    /// A text that no other write of this run has.
    pub fn unique(&self) -> String {
        format!("{}.{}", self.number, self.steps)
    }

    /// Reads a key; `None`: no answer.
    pub async fn get(&self, key: &Key) -> Option<Option<Entry>> {
        self.heard(self.store.get(key, ReadOptions::default().timeout(self.timeout)).await).ok()
    }

    /// Reads keys; `None`: no answer.
    pub async fn get_many(&self, keys: &[Key]) -> Option<Vec<Option<Entry>>> {
        self.heard(self.store.get_many(keys, ReadOptions::default().timeout(self.timeout)).await).ok()
    }

    /// Commits a transaction.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.heard(self.store.commit(txn, WriteOptions::default().timeout(self.timeout)).await)
    }

    fn heard<T>(&self, answer: Result<T>) -> Result<T> {
        if answer.is_err() {
            self.refused.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Whether a call has failed since this was asked last.
    pub fn was_refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }
}

/// What became of a write, for those who count outside of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Applied,
    NotApplied,
    Unknown,
}

impl From<&Result<Outcome>> for Ended {
    fn from(answer: &Result<Outcome>) -> Self {
        match answer {
            Ok(Outcome::Committed(_)) => Self::Applied,
            Err(error) if Error::may_be_applied(error) => Self::Unknown,
            Ok(Outcome::Conflict(_)) | Err(_) => Self::NotApplied,
        }
    }
}

/// Writes of one kind: how many of them the store has to show.
///
/// A client may be gone in the middle of a call, and its write may take effect all the same. So a write is unknown from the moment
/// when it is sent, until the client hears what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that the store said are applied.
    pub acknowledged: u64,
    /// Writes of which nobody knows.
    pub unknown: u64,
}

impl Tally {
    /// A write is sent.
    pub fn sent(&mut self) {
        self.unknown += 1;
    }

    /// A write that was sent has ended.
    pub(super) fn ended(&mut self, how: Ended) {
        match how {
            Ended::Applied => self.acknowledged += 1,
            Ended::NotApplied => {}
            Ended::Unknown => return,
        }
        assert!(self.unknown > 0, "a write that ends was sent");
        self.unknown -= 1;
    }

    /// Whether so many writes in the store can be those that were sent.
    pub fn explains(self, found: u64) -> bool {
        (self.acknowledged..=self.acknowledged + self.unknown).contains(&found)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} acknowledged and {} unknown", self.acknowledged, self.unknown)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("number", &self.number).field("steps", &self.steps).finish_non_exhaustive()
    }
}

/// The number that a value holds, as text; `None` if it is none.
pub(super) fn number(entry: Option<&Entry>) -> Option<u64> {
    entry.and_then(|entry| str::from_utf8(&entry.value).ok()?.parse().ok())
}

/// A key of a workload: names here are short and never empty.
#[expect(clippy::expect_used, reason = "the names that workloads make have 1 to 30 bytes, and a key may have 512")]
pub(super) fn key(text: impl Into<String>) -> Key {
    Key::new(text.into()).expect("a short name is a key")
}
