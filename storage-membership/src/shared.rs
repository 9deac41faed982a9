//! What the tasks and the handles of one participant share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use storage_core::{Result, Store};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    engine::{Engine, Node},
    identity::{Identity, ReplicaDir},
    rows::Rows,
    settings::Settings,
    switching::SwitchingStore,
};

/// The least time that a call of the table may take.
const CALLS_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) dir: Arc<Mutex<ReplicaDir>>,
    pub(crate) store: Arc<SwitchingStore>,
    own: Mutex<Option<OwnNode>>,
    /// What it does or waits for, for people.
    state: Mutex<String>,
    pub(crate) stop: watch::Sender<bool>,
    /// Why it cannot go on.
    pub(crate) failed: watch::Sender<Option<String>>,
}

/// The node of this replica, and a store by it.
#[derive(Clone, Debug)]
pub(crate) struct OwnNode {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rows: Arc<dyn Rows>,
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        engine: Arc<dyn Engine>,
        dir: ReplicaDir,
        store: Arc<SwitchingStore>,
    ) -> Self {
        Self {
            settings,
            engine,
            dir: Arc::new(Mutex::new(dir)),
            store,
            own: Mutex::default(),
            state: Mutex::new("looks for its cluster".to_owned()),
            stop: watch::channel(false).0,
            failed: watch::channel(None).0,
        }
    }

    /// A task of the replica. If it panics, an invariant does not hold, and the replica must not go on.
    pub(crate) fn watched(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let (shared, task) = (Arc::clone(self), tokio::spawn(work));
        tokio::spawn(async move {
            if let Err(error) = task.await {
                shared.failed.send_replace(Some(error.to_string()));
            }
        })
    }

    pub(crate) fn own(&self) -> Option<OwnNode> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has this node from now on, or none. Returns the one that it had.
    pub(crate) fn set_own(&self, own: Option<OwnNode>) -> Option<OwnNode> {
        std::mem::replace(&mut *self.own.lock().unwrap_or_else(PoisonError::into_inner), own)
    }

    pub(crate) fn identity(&self) -> Identity {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner).identity().clone()
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Identity) -> T) -> Result<T> {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner).change(change)
    }

    pub(crate) fn state(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn say(&self, state: &str) {
        let mut now = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != state {
            tracing::info!(replica = self.settings.replica.id, "{state}");
            state.clone_into(&mut now);
        }
    }

    pub(crate) fn calls_within(&self) -> Duration {
        self.settings.timing.heartbeat().max(CALLS_WITHIN)
    }

    /// Ends when it is told to stop.
    pub(crate) async fn stopping(&self) {
        let mut stop = self.stop.subscribe();
        let _ = stop.wait_for(|stop| *stop).await;
    }
}
