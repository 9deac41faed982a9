//! Where a rule is tried: a key space of its own on some backend, in simulated time if the backend is memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use storage_core::{Key, MemoryStore, Prefixed, Store, unique_id};

/// A rule that has to hold on every backend.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Bed) -> LocalBoxFuture<'static, ()>,
}

/// So many rules are tried at a time: most of them wait for a lease.
const AT_ONCE: usize = 8;

/// No rule takes longer, on however busy a machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// A key space of its own.
pub(crate) struct Bed {
    backend: Backend,
    /// Handles on different servers where there are several.
    handles: Vec<Arc<dyn Store>>,
    next: AtomicUsize,
}

#[derive(Clone)]
enum Backend {
    /// A new store for each bed. The clock is paused, and moves when everybody waits.
    Memory,
    /// Servers or nodes that all beds share.
    Shared(Vec<Arc<dyn Store>>),
}

impl Bed {
    pub(crate) fn memory() -> Self {
        Self::of(Backend::Memory)
    }

    fn of(backend: Backend) -> Self {
        let handles = match &backend {
            Backend::Memory => {
                let store = MemoryStore::new();
                (0..3).map(|_| Arc::new(store.handle()) as Arc<dyn Store>).collect()
            }
            Backend::Shared(stores) => {
                let prefix = Key::new(format!("rule-{:032x}/", unique_id())).unwrap();
                let prefixed = |store| Arc::new(Prefixed::new(Arc::clone(store), prefix.clone())) as Arc<dyn Store>;
                stores.iter().map(prefixed).collect()
            }
        };
        Self { backend, handles, next: AtomicUsize::new(0) }
    }

    /// Another key space on the same backend.
    pub(crate) fn fresh(&self) -> Self {
        Self::of(self.backend.clone())
    }

    /// A handle: each next one is on the next server.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.handles[self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len()])
    }

    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.backend, Backend::Memory)
    }

    /// A lease that is longer than anything that a rule does in between.
    pub(crate) fn lease(&self) -> Duration {
        if self.is_memory() { Duration::from_secs(10) } else { Duration::from_secs(4) }
    }

    /// How long before the end of a lease it has certainly not ended, with what a call takes.
    pub(crate) fn slack(&self) -> Duration {
        if self.is_memory() { Duration::from_millis(1) } else { Duration::from_secs(2) }
    }

    /// Lets so much time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        if self.is_memory() { tokio::time::advance(time).await } else { tokio::time::sleep(time).await }
    }
}

/// Tries rules on nodes or servers that all share, and names those that do not hold.
#[allow(dead_code, reason = "not every program has other backends than memory")]
pub(crate) async fn hold_on(stores: Vec<Arc<dyn Store>>, rules: &[&[Rule]]) {
    let backend = Backend::Shared(stores);
    let all: Vec<&Rule> = rules.iter().copied().flatten().collect();
    assert!(all.len() > 25, "only {} rules", all.len());
    let local = tokio::task::LocalSet::new();
    let trying = stream::iter(all).map(|Rule { name, run }| {
        let rule = run(Bed::of(backend.clone()));
        // In a task of its own, so that one that fails does not hide the others.
        let task = local.spawn_local(tokio::time::timeout(DEADLINE, rule));
        task.map(move |result| (!matches!(result, Ok(Ok(())))).then_some(*name))
    });
    let broken = trying.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect::<Vec<_>>();
    let broken = local.run_until(broken).await;
    assert!(broken.is_empty(), "these do not hold: {broken:?}");
}
