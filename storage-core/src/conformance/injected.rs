//! A harness with faults in front of another one's handles, where that cannot make them itself.
//!
//! Real faults of the servers come first; injected ones strike the handle only and prove less.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{FaultError, FaultResult, Faults, Harness, Namespace, Servers};
use crate::{FaultGuard, FaultInjecting, Result, Store};

/// A harness with the faults of another one, and where that has none, with those that [`FaultInjecting`] can make
/// around each handle: lost replies and outages. Servers are not touched by those.
#[derive(Debug)]
pub struct Injected<H> {
    harness: H,
}

impl<H: Harness> Injected<H> {
    /// Adds faults to this harness.
    pub fn new(harness: H) -> Self {
        Self { harness }
    }
}

#[async_trait]
impl<H: Harness> Harness for Injected<H> {
    fn name(&self) -> &str {
        self.harness.name()
    }
    fn nodes(&self) -> usize {
        self.harness.nodes()
    }
    fn servers(&self) -> Servers {
        self.harness.servers()
    }
    async fn namespace(&self) -> Result<Box<dyn Namespace>> {
        Ok(Box::new(Space { inner: self.harness.namespace().await?, wrapped: Mutex::default() }))
    }
}

struct Space {
    inner: Box<dyn Namespace>,
    wrapped: Mutex<Wrapped>,
}

/// All handles that were opened, and what keeps them from their servers.
#[derive(Default)]
struct Wrapped {
    handles: Vec<FaultInjecting<Arc<dyn Store>>>,
    cut: Vec<FaultGuard>,
}

impl Space {
    fn wrap(&self, store: Arc<dyn Store>) -> FaultInjecting<Arc<dyn Store>> {
        let store = FaultInjecting::new(store);
        let mut wrapped = self.wrapped();
        // A handle that is opened during an outage is cut off as well.
        if !wrapped.cut.is_empty() {
            wrapped.cut.push(store.partition());
        }
        wrapped.handles.push(store.clone());
        store
    }

    fn wrapped(&self) -> MutexGuard<'_, Wrapped> {
        self.wrapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner_faults(&self) -> FaultResult<&dyn Faults> {
        self.inner.faults().ok_or_else(|| FaultError::Impossible("the harness cannot break its servers".to_owned()))
    }
}

#[async_trait]
impl Namespace for Space {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.wrap(self.inner.open().await?)))
    }
    async fn reopen(&self) -> Result<Arc<dyn Store>> {
        self.wrapped().handles.clear();
        Ok(Arc::new(self.wrap(self.inner.reopen().await?)))
    }
    async fn remove(&self) -> Result<()> {
        self.inner.remove().await
    }
    fn max_key_bytes(&self) -> usize {
        self.inner.max_key_bytes()
    }
    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for Space {
    async fn heal(&self) -> Result<()> {
        self.wrapped().cut.clear();
        match self.inner.faults() {
            Some(faults) => faults.heal().await,
            None => Ok(()),
        }
    }

    async fn kill_leader(&self) -> FaultResult {
        self.inner_faults()?.kill_leader().await
    }

    async fn restart_all(&self) -> FaultResult {
        self.inner_faults()?.restart_all().await
    }

    async fn isolate_minority(&self) -> FaultResult<Arc<dyn Store>> {
        self.inner_faults()?.isolate_minority().await
    }

    async fn forget_history(&self) -> FaultResult {
        self.inner_faults()?.forget_history().await
    }

    async fn outage(&self) -> FaultResult {
        if let Some(faults) = self.inner.faults() {
            match faults.outage().await {
                // The servers themselves are better at it, where the harness can strike them; a cut in front of the handle is the next best.
                Err(FaultError::Impossible(_)) => {}
                made => return made,
            }
        }
        let mut wrapped = self.wrapped();
        let cut: Vec<_> = wrapped.handles.iter().map(FaultInjecting::partition).collect();
        wrapped.cut.extend(cut);
        Ok(())
    }

    async fn open_losing_reply(&self) -> FaultResult<Arc<dyn Store>> {
        if let Some(faults) = self.inner.faults() {
            match faults.open_losing_reply().await {
                Err(FaultError::Impossible(_)) => {}
                made => return made,
            }
        }
        let store = self.wrap(self.inner.open().await?);
        store.lose_replies(1);
        Ok(Arc::new(store))
    }
}
