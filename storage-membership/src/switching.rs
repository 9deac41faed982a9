//! A store whose way to the cluster changes.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use storage_core::{
    Capabilities, Entry, Error, Key, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions,
    WatchStream, WriteOptions,
};
use storage_embedded::Removed;

/// The store of a replica whose way to the cluster changes: first it has none, then the nodes of others, then its own.
///
/// A call that has begun ends where it began. Watches end with an error when their way does, and are resumed as ever.
#[derive(Debug)]
pub(crate) struct SwitchingStore {
    capabilities: Capabilities,
    /// Held for a clone and never across an await.
    way: RwLock<Way>,
}

#[derive(Clone, Debug)]
enum Way {
    None,
    Open(Arc<dyn Store>),
    Closed,
}

impl SwitchingStore {
    /// A store without a way yet. All ways that it will have share these capabilities.
    pub(crate) fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, way: RwLock::new(Way::None) }
    }

    /// Goes this way from now on.
    pub(crate) fn switch(&self, store: Option<Arc<dyn Store>>) {
        let mut now = self.way.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*now, Way::Closed) {
            *now = store.map_or(Way::None, Way::Open);
        }
    }

    /// What a way says that has ended under a call, or whose node was removed: this store has not.
    fn passes<T>(&self, answer: Result<T>) -> Result<T> {
        match answer {
            Err(error) if matches!(error, Error::Closed) || Removed::caused(&error) => {
                self.now()?;
                Err(Error::unavailable("this replica goes another way to its cluster from now on"))
            }
            answer => answer,
        }
    }

    fn now(&self) -> Result<Arc<dyn Store>> {
        match &*self.way.read().unwrap_or_else(PoisonError::into_inner) {
            Way::Open(store) => Ok(Arc::clone(store)),
            Way::None => Err(Error::unavailable("this replica has not found its cluster yet")),
            Way::Closed => Err(Error::Closed),
        }
    }
}

#[async_trait]
impl Store for SwitchingStore {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        self.passes(self.now()?.get(key, options).await)
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        self.passes(self.now()?.get_many(keys, options).await)
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        self.passes(self.now()?.scan(prefix, options).await)
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        self.passes(self.now()?.commit(txn, options).await)
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        self.passes(self.now()?.watch(prefix, options).await)
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.passes(self.now()?.ping(options).await)
    }

    async fn close(&self) -> Result<()> {
        let before = {
            let mut now = self.way.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *now, Way::Closed)
        };
        match before {
            Way::Open(store) => store.close().await,
            Way::None | Way::Closed => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use storage_core::{MemoryStore, StoreExt as _};

    use super::*;

    #[tokio::test]
    async fn it_goes_another_way_and_is_closed_by_its_owner_alone() {
        let (key, memory) = (Key::new("a").unwrap(), MemoryStore::new());
        let store = SwitchingStore::new(memory.capabilities().clone());
        assert!(matches!(store.put(&key, "1").await, Err(Error::Unavailable { .. })), "it has no way yet");
        let first: Arc<dyn Store> = Arc::new(memory.handle());
        store.switch(Some(Arc::clone(&first)));
        store.put(&key, "1").await.unwrap();
        first.close().await.unwrap();
        assert!(
            matches!(store.put(&key, "2").await, Err(Error::Unavailable { .. })),
            "the way has ended, and not the store"
        );
        store.switch(Some(Arc::new(memory.handle())));
        assert_eq!(store.get(&key, ReadOptions::default()).await.unwrap().unwrap().value, "1");
        store.close().await.unwrap();
        store.switch(Some(Arc::new(memory.handle())));
        assert!(matches!(store.get(&key, ReadOptions::default()).await, Err(Error::Closed)));
    }
}
