//! A namespace: the keys of a store below a prefix, seen without it.
//!
//! Invariants: nothing outside of the prefix can be read or written through it, and a store that answers with a foreign
//! key is corrupt. Limits are those of the store less the prefix.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;

use crate::{
    Capabilities, Conflict, Entry, Error, Key, Observed, Op, Outcome, Page, ReadOptions, Result, ScanOptions, Store,
    Txn, WatchEvent, WatchOptions, WatchStream, WriteOptions,
};

/// A namespace: the keys of a store that begin with a prefix, seen without it.
///
/// The prefix counts towards [`Key::MAX_BYTES`]: a longer key is refused with [`Error::TooLarge`] before anything is sent.
/// Its owner may delete all keys under the prefix; nothing outside can be reached through it.
///
/// ```
/// # use storage_core::{Key, MemoryStore, Prefixed, StoreExt};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> storage_core::Result<()> {
/// let store = MemoryStore::new();
/// let mainnet = Prefixed::new(store.handle(), Key::new("mainnet/")?);
/// mainnet.put(&Key::new("channel/7")?, "open").await?;
/// assert!(!store.put_if_absent(&Key::new("mainnet/channel/7")?, "").await?.is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Prefixed<S> {
    store: S,
    prefix: Key,
    capabilities: Capabilities,
}

impl<S: Store> Prefixed<S> {
    /// The keys of `store` under `prefix`. Whoever separates with a `/` puts it at the end of the prefix.
    pub fn new(store: S, prefix: Key) -> Self {
        let inner = store.capabilities();
        // The keys of the largest transaction grow by the prefix.
        let growth = prefix.as_bytes().len() * inner.max_txn_ops;
        let capabilities = Capabilities { max_txn_bytes: inner.max_txn_bytes.saturating_sub(growth), ..inner.clone() };
        Self { store, prefix, capabilities }
    }

    /// For backends: `store` as the namespace of a URL with a path, or as it is.
    pub fn if_named(store: S, prefix: Option<Key>) -> Arc<dyn Store> {
        match prefix {
            Some(prefix) => Arc::new(Self::new(store, prefix)),
            None => Arc::new(store),
        }
    }

    fn outer(&self, key: Key) -> Result<Key> {
        strip(&self.prefix, key)
    }

    fn inner(&self, key: &Key) -> Result<Key> {
        self.prefix.with_suffix(key)
    }

    fn inner_prefix(&self, prefix: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), prefix].concat()
    }

    fn outer_entry(&self, entry: Entry) -> Result<Entry> {
        Ok(Entry { key: self.outer(entry.key)?, ..entry })
    }

    fn inner_txn(&self, mut txn: Txn) -> Result<Txn> {
        // Here, with the smaller limit, and not in the store within: there the keys are longer, and the error would name sizes that the
        // caller never sent.
        txn.validate(&self.capabilities)?;
        for guard in &mut txn.guards {
            guard.key = self.inner(&guard.key)?;
        }
        for op in &mut txn.ops {
            let (Op::Put { key, .. } | Op::Delete { key }) = op;
            *key = self.inner(key)?;
        }
        Ok(txn)
    }
}

#[async_trait]
impl<S: Store> Store for Prefixed<S> {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn get(&self, key: &Key, options: ReadOptions) -> Result<Option<Entry>> {
        let entry = self.store.get(&self.inner(key)?, options).await?;
        entry.map(|entry| self.outer_entry(entry)).transpose()
    }

    async fn get_many(&self, keys: &[Key], options: ReadOptions) -> Result<Vec<Option<Entry>>> {
        let keys = keys.iter().map(|key| self.inner(key)).collect::<Result<Vec<_>>>()?;
        let entries = self.store.get_many(&keys, options).await?.into_iter();
        entries.map(|entry| entry.map(|entry| self.outer_entry(entry)).transpose()).collect()
    }

    async fn scan(&self, prefix: &[u8], options: ScanOptions) -> Result<Page> {
        let after = match &options.after {
            Some(after) => self.inner(after)?,
            // The key that is the prefix alone has no name in here; every other one comes after it.
            None => self.prefix.clone(),
        };
        let page = self.store.scan(&self.inner_prefix(prefix), options.after(after)).await?;
        let entries = page.entries.into_iter().map(|entry| self.outer_entry(entry)).collect::<Result<_>>()?;
        let next = page.next.map(|key| self.outer(key)).transpose()?;
        Ok(Page { entries, next, revision: page.revision })
    }

    async fn commit(&self, txn: Txn, options: WriteOptions) -> Result<Outcome> {
        Ok(match self.store.commit(self.inner_txn(txn)?, options).await? {
            Outcome::Conflict(Conflict { guard, current: Observed::Present(entry) }) => {
                Outcome::Conflict(Conflict { guard, current: Observed::Present(self.outer_entry(entry)?) })
            }
            outcome => outcome,
        })
    }

    async fn watch(&self, prefix: &[u8], options: WatchOptions) -> Result<WatchStream> {
        let events = self.store.watch(&self.inner_prefix(prefix), options).await?;
        let prefix = self.prefix.clone();
        let has_name = {
            let prefix = prefix.clone();
            move |event: &WatchEvent| *event.key() != prefix
        };
        let events = events.filter(move |event| std::future::ready(event.as_ref().map_or(true, &has_name)));
        Ok(events.map(move |event| event.and_then(|event| outer_event(&prefix, event))).boxed())
    }

    async fn ping(&self, options: ReadOptions) -> Result<()> {
        self.store.ping(options).await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
    }
}

fn outer_event(prefix: &Key, event: WatchEvent) -> Result<WatchEvent> {
    Ok(match event {
        WatchEvent::Put { entry, revision } => {
            WatchEvent::Put { entry: Entry { key: strip(prefix, entry.key)?, ..entry }, revision }
        }
        WatchEvent::Delete { key, revision } => WatchEvent::Delete { key: strip(prefix, key)?, revision },
    })
}

/// # Errors
/// [`Error::Corrupt`] if the store answered with a key that was not asked for.
fn strip(prefix: &Key, key: Key) -> Result<Key> {
    let bytes = key.clone().into_bytes();
    let length = prefix.as_bytes().len();
    // An answer for another namespace would be the worst defect that a store can have: it is not passed on.
    if key.starts_with(prefix.as_bytes()) && bytes.len() > length {
        return Key::new(bytes.slice(length..));
    }
    Err(Error::corrupt(format!("the store answered with the key {key}, which is not under {prefix}")))
}
