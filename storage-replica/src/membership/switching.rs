use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use storage_core::{
    Capabilities, Entry, Error, Key, Outcome, Page, ReadOptions, Result, ScanOptions, Store, Txn, WatchOptions,
    WatchStream, WriteOptions,
};

/// The store of a replica whose way to the cluster changes: first it has none, then the nodes of others, then its own.
///
/// A call that has begun ends where it began. Watches end with an error when their way does, and are resumed as ever.
#[derive(Debug)]
pub(super) struct Switching {
    capabilities: Capabilities,
    /// Held for a clone and never across an await.
    now: RwLock<State>,
}

#[derive(Clone, Debug)]
enum State {
    None,
    Open(Arc<dyn Store>),
    Closed,
}

impl Switching {
    /// A store without a way yet. All ways that it will have share these capabilities.
    pub(super) fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, now: RwLock::new(State::None) }
    }

    /// Goes this way from now on.
    pub(super) fn switch(&self, store: Option<Arc<dyn Store>>) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*now, State::Closed) {
            *now = store.map_or(State::None, State::Open);
        }
    }

    /// What a way says that has ended under a call: this store has not.
    fn passes<T>(&self, answer: Result<T>) -> Result<T> {
        match answer {
            Err(Error::Closed) => {
                self.now()?;
                Err(Error::unavailable("this replica goes another way to its cluster from now on"))
            }
            answer => answer,
        }
    }

    fn now(&self) -> Result<Arc<dyn Store>> {
        match &*self.now.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(store) => Ok(Arc::clone(store)),
            State::None => Err(Error::unavailable("this replica has not found its cluster yet")),
            State::Closed => Err(Error::Closed),
        }
    }
}

#[async_trait]
impl Store for Switching {
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
            let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *now, State::Closed)
        };
        match before {
            State::Open(store) => store.close().await,
            State::None | State::Closed => Ok(()),
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
        let store = Switching::new(memory.capabilities().clone());
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
