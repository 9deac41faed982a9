//! The conformance suite on the memory store, alone and behind the wrappers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use async_trait::async_trait;
use storage_core::{
    Key, MemoryStore, Metered, Prefixed, Registry, Result, Store, StoreExt,
    conformance::{FaultResult, Faults, Harness, Injected, Namespace, Servers},
};

storage_core::conformance_tests!(memory, || harness("memory", 0, |store| Arc::new(store)));
storage_core::conformance_tests!(prefixed, || harness("memory, prefixed", PREFIX.len(), |store| {
    Arc::new(Prefixed::new(store, Key::new(PREFIX).unwrap()))
}));
storage_core::conformance_tests!(wrapped, || harness("memory, metered", 0, |store| {
    Arc::new(Metered::new(store, Arc::new(Registry::new())))
}));

/// Ends with 0xff, so that the end of its range is not just its last byte plus one.
const PREFIX: &[u8] = b"tenant/\xff";

async fn harness(name: &'static str, prefix_bytes: usize, wrap: Wrap) -> Injected<Memory> {
    Injected::new(Memory { name, prefix_bytes, wrap })
}

type Wrap = fn(MemoryStore) -> Arc<dyn Store>;

/// A memory store for each namespace, behind wrappers.
struct Memory {
    name: &'static str,
    prefix_bytes: usize,
    wrap: Wrap,
}

#[async_trait]
impl Harness for Memory {
    fn name(&self) -> &str {
        self.name
    }
    fn servers(&self) -> Servers {
        Servers::Own
    }
    async fn namespace(&self) -> Result<Box<dyn Namespace>> {
        let store = MemoryStore::new();
        if self.prefix_bytes > 0 {
            // Neighbours, which must never be seen from inside.
            for neighbour in [&b"tenant/"[..], b"tenant0", PREFIX, b"tenant/\xfe"] {
                store.put(&Key::new(neighbour.to_vec())?, "neighbour").await?;
            }
        }
        Ok(Box::new(Space { store, max_key_bytes: Key::MAX_BYTES - self.prefix_bytes, wrap: self.wrap }))
    }
}

struct Space {
    store: MemoryStore,
    max_key_bytes: usize,
    wrap: Wrap,
}

#[async_trait]
impl Namespace for Space {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        Ok((self.wrap)(self.store.handle()))
    }
    fn max_key_bytes(&self) -> usize {
        self.max_key_bytes
    }
    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for Space {
    async fn heal(&self) -> Result<()> {
        Ok(())
    }
    async fn forget_history(&self) -> FaultResult {
        self.store.compact();
        Ok(())
    }
}
