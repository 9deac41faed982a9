//! What an operation costs in calls of the store, as `Metered` counts them. Each call is one round trip to the servers.

use std::{cell::Cell, sync::Arc};

use storage_core::{Metered, Operation, Registry, RequestOutcome, Store};

pub(crate) struct Counted {
    store: Metered<Arc<dyn Store>>,
    registry: Arc<Registry>,
    before: Cell<(u64, u64)>,
}

impl Counted {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let registry = Arc::new(Registry::new());
        Self { store: Metered::new(store, Arc::clone(&registry) as _), registry, before: Cell::default() }
    }

    /// A handle whose calls are counted.
    pub(crate) fn handle(&self) -> Metered<Arc<dyn Store>> {
        self.store.clone()
    }

    /// The reads and commits since this was last called.
    pub(crate) fn taken(&self) -> (u64, u64) {
        let count = |operations: &[Operation]| -> u64 {
            let ended =
                |operation: &Operation| RequestOutcome::ALL.map(|outcome| self.registry.count(*operation, outcome));
            operations.iter().flat_map(ended).sum()
        };
        let reads = count(&[Operation::Get, Operation::GetMany, Operation::Scan]);
        let now = (reads, count(&[Operation::Commit]));
        let before = self.before.replace(now);
        (now.0 - before.0, now.1 - before.1)
    }
}
