use std::{
    any::Any,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use storage_core::{Entry, Error, Key, Outcome, ReadOptions, Result, Txn, WriteOptions};

use super::Handle;

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
    /// When the run began: the clock of what is noted.
    pub began: Instant,
    pub(super) refused: AtomicBool,
    /// A mutex that is never locked: it lets what is only `Send` stand in what is shared.
    pub(super) memory: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Client {
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
    pub(super) fn was_refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }
}

/// What became of a write, for books that are kept beside the store.
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

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("number", &self.number).field("steps", &self.steps).finish_non_exhaustive()
    }
}

/// The number that a value holds, as text; `None` if it is none.
pub(super) fn number(entry: Option<&Entry>) -> Option<i64> {
    entry.and_then(|entry| str::from_utf8(&entry.value).ok()?.parse().ok())
}

/// A key of a workload: names here are short and never empty.
#[expect(clippy::expect_used, reason = "the names that workloads make have 1 to 30 bytes, and a key may have 512")]
pub(super) fn key(text: impl Into<String>) -> Key {
    Key::new(text.into()).expect("a short name is a key")
}
