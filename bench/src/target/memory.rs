//! The reference store: one map behind a mutex. What a store costs that does nothing but keep the contract.

use std::{path::Path, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use storage::{MemoryStore, Store};

use super::{Backend, Starting, Target};

pub(super) const BACKEND: Backend = Backend {
    name: "mem",
    what: "one map behind a mutex, in the callers' process",
    durability: "none",
    in_process: true,
    durable: false,
    least_nodes: 1,
    most_nodes: 1,
    placement: None,
    needs_snet: false,
    needs: || Ok(()),
    start,
    kill: None,
};

fn start(_: usize, _: &Path) -> Starting<'_> {
    async { Ok(Box::new(Memory(MemoryStore::new())) as Box<dyn Target>) }.boxed()
}

struct Memory(MemoryStore);

impl Target for Memory {
    fn stores(&self) -> Vec<Arc<dyn Store>> {
        vec![Arc::new(self.0.handle())]
    }

    fn leader(&self) -> Option<usize> {
        Some(0)
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}
