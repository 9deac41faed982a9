//! A store that notes every transaction, and lets a test come in between.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use storage_core::{
    Capabilities, Conflict, Entry, Error, Key, Observed, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn,
    WatchOptions, WatchStream, WriteOptions,
};

/// A store that notes every transaction, and lets a test come in between a read and the commit after it.
#[derive(Clone, Debug)]
pub(crate) struct Noting {
    store: Arc<dyn Store>,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    transactions: Vec<Txn>,
    /// Committed before the next commit.
    intruder: Option<Txn>,
    /// Whether every commit ends in a conflict, whatever it is.
    refuses: bool,
    cut: Cut,
}

/// The way to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Cut {
    #[default]
    Open,
    /// It breaks under the reply to the next commit.
    AfterNextCommit,
    Broken,
}

impl Noting {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, notes: Arc::default() }
    }

    /// The transactions since this was last called.
    pub(crate) fn taken(&self) -> Vec<Txn> {
        std::mem::take(&mut self.notes.lock().transactions)
    }

    /// Exactly between a read and the next commit, somebody else commits this.
    pub(crate) fn come_before_next_commit(&self, intruder: Txn) {
        self.notes.lock().intruder = Some(intruder);
    }

    /// From now on every commit ends in a conflict.
    pub(crate) fn refuse_all_commits(&self) {
        self.notes.lock().refuses = true;
    }

    /// The next commit is applied, but its reply is lost, and nothing reaches the store after it.
    pub(crate) fn cut_after_next_commit(&self) {
        self.notes.lock().cut = Cut::AfterNextCommit;
    }

    pub(crate) fn mend(&self) {
        self.notes.lock().cut = Cut::Open;
    }

    fn reach(&self) -> Result<&Arc<dyn Store>> {
        if self.notes.lock().cut == Cut::Broken { Err(Error::unavailable("cut")) } else { Ok(&self.store) }
    }
}

#[async_trait]
impl Store for Noting {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }
    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.reach()?.get(key, options).await
    }
    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.reach()?.get_many(keys, options).await
    }
    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.reach()?.scan(prefix, options).await
    }
    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        let store = self.reach()?;
        let (intruder, refuses) = {
            let mut notes = self.notes.lock();
            notes.transactions.push(txn.clone());
            (notes.intruder.take(), notes.refuses)
        };
        if refuses {
            return Ok(Outcome::Conflict(Conflict { guard: 0, current: Observed::Unknown }));
        }
        if let Some(intruder) = intruder {
            assert!(store.commit(intruder, options).await?.is_committed());
        }
        let outcome = store.commit(txn, options).await;
        let mut notes = self.notes.lock();
        if notes.cut == Cut::AfterNextCommit {
            notes.cut = Cut::Broken;
            return Err(Error::unknown_outcome("cut under the reply"));
        }
        outcome
    }
    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.reach()?.watch(prefix, options).await
    }
    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.reach()?.ping(options).await
    }
    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}
