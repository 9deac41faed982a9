//! A handle on a live store for the conformance suite, whose cases close theirs while others go on.

use std::sync::Arc;

use ::storage::{
    Capabilities, Entry, Error, Key, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions,
    WatchStream, WriteOptions,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::watch;

/// A handle that is closed on its own, on a store that others go on using.
#[derive(Debug)]
pub(super) struct Handle {
    store: Arc<dyn Store>,
    closed: watch::Sender<bool>,
}

impl Handle {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, closed: watch::Sender::new(false) }
    }

    fn open(&self) -> Result<&Arc<dyn Store>> {
        if *self.closed.borrow() { Err(Error::Closed) } else { Ok(&self.store) }
    }
}

#[async_trait]
impl Store for Handle {
    fn capabilities(&self) -> &Capabilities {
        self.store.capabilities()
    }
    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.open()?.get(key, options).await
    }
    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.open()?.get_many(keys, options).await
    }
    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.open()?.scan(prefix, options).await
    }
    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        self.open()?.commit(txn, options).await
    }
    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let events = self.open()?.watch(prefix, options).await?;
        let mut closed = self.closed.subscribe();
        // Ends with the handle: when it is closed, and when it is dropped.
        Ok(events.take_until(async move { closed.wait_for(|closed| *closed).await.is_ok() }).boxed())
    }
    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.open()?.ping(options).await
    }
    async fn close(&self) -> Result<()> {
        self.closed.send_replace(true);
        Ok(())
    }
}
