//! The conformance suite on the embedded engine: one node, three nodes through a follower, and three nodes of which
//! the two that are not asked are stopped and started all the time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::TryStreamExt;
use storage_core::{
    Error, FaultInjecting, Key, Prefixed, ReadOptions, Result, Store, StoreExt, Txn, WriteOptions,
    conformance::{FaultError, FaultResult, Faults, Harness, Namespace, Servers},
};
use storage_embedded::{EmbeddedStore, LocalCluster, Node, Role};
use tokio::{
    runtime::Runtime,
    sync::{OnceCell, RwLock},
};

/// A cluster that all cases of one way of running share.
struct Shared {
    name: &'static str,
    nodes: u64,
    churn: bool,
    dir: PathBuf,
    cluster: OnceCell<Arc<RwLock<LocalCluster>>>,
    /// For the task that outlives the test which starts it: each test has a runtime that ends with it.
    runtime: Runtime,
}

impl Shared {
    fn new(name: &'static str, nodes: u64, churn: bool) -> Self {
        // Left behind when the process ends, like the cluster: statics are not dropped.
        let dir = tempfile::tempdir().unwrap().keep();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { name, nodes, churn, dir, cluster: OnceCell::new(), runtime }
    }

    async fn cluster(&self) -> Arc<RwLock<LocalCluster>> {
        let start = || async {
            let cluster = LocalCluster::start(&self.dir, self.nodes, |config| {
                // Snapshots during the suite, so that cases run while they are written.
                let mut config = config.fast();
                config.snapshot_every = 5000;
                config
            });
            let cluster = Arc::new(RwLock::new(cluster.await.unwrap()));
            if self.churn {
                self.runtime.spawn(churn(cluster.clone()));
            }
            cluster
        };
        self.cluster.get_or_init(start).await.clone()
    }
}

/// Stops and starts the nodes but the first, one after the other, for ever. The first is the one that cases ask; it is
/// sometimes a follower and sometimes the leader.
async fn churn(cluster: Arc<RwLock<LocalCluster>>) {
    for round in 0_usize.. {
        let place = 1 + round % 2;
        cluster.write().await.stop(place).await;
        cluster.write().await.restart(place).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

struct Embedded(&'static Shared);

#[async_trait]
impl Harness for Embedded {
    fn name(&self) -> &str {
        self.0.name
    }

    fn nodes(&self) -> usize {
        usize::try_from(self.0.nodes).unwrap()
    }

    fn servers(&self) -> Servers {
        Servers::Shared
    }

    async fn namespace(&self) -> Result<Box<dyn Namespace>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = Key::new(format!("case-{}/", NEXT.fetch_add(1, Ordering::Relaxed)))?;
        let shared = self.0;
        let cluster = shared.cluster().await;
        let place = if shared.churn { 0 } else { follower(&*cluster.read().await) };
        Ok(Box::new(Space { shared, cluster, place, prefix }))
    }
}

fn follower(cluster: &LocalCluster) -> usize {
    let follows = |place: &usize| cluster.node(*place).is_some_and(|node| node.status().role == Role::Follower);
    (0..cluster.size()).find(follows).unwrap_or(0)
}

/// A key space, used through one node: a follower when the case begins, where there is one.
struct Space {
    shared: &'static Shared,
    cluster: Arc<RwLock<LocalCluster>>,
    place: usize,
    prefix: Key,
}

impl Space {
    async fn handle(&self, place: usize) -> Result<Prefixed<EmbeddedStore>> {
        let cluster = self.cluster.read().await;
        let node = cluster.node(place).ok_or_else(|| Error::unavailable("the node does not run"))?;
        Ok(Prefixed::new(node.store(), self.prefix.clone()))
    }

    /// Does something to each node but the one that the case asks.
    async fn others(&self) -> FaultResult<Vec<usize>> {
        let size = self.cluster.read().await.size();
        if size < 3 {
            return Err(FaultError::Impossible("there is one node, and the handle is inside it".to_owned()));
        }
        Ok((0..size).filter(|place| *place != self.place).collect())
    }
}

#[async_trait]
impl Namespace for Space {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.handle(self.place).await?))
    }

    async fn remove(&self) -> Result<()> {
        let store = self.handle(self.place).await?;
        let entries: Vec<_> = store.scan_all(b"").try_collect().await?;
        for some in entries.chunks(EmbeddedStore::MAX_TXN_OPS) {
            let delete = some.iter().fold(Txn::new(), |txn, entry| txn.delete(entry.key.clone()));
            assert!(store.commit(delete, WriteOptions::default()).await?.is_committed());
        }
        Ok(())
    }

    fn max_key_bytes(&self) -> usize {
        Key::MAX_BYTES - self.prefix.as_bytes().len()
    }

    fn faults(&self) -> Option<&dyn Faults> {
        if self.shared.churn { None } else { Some(self) }
    }
}

#[async_trait]
impl Faults for Space {
    async fn heal(&self) -> Result<()> {
        let mut cluster = self.cluster.write().await;
        for place in 0..cluster.size() {
            cluster.restart(place).await?;
        }
        cluster.running().for_each(|node| node.isolate(false));
        let stores: Vec<_> = cluster.running().map(Node::store).collect();
        drop(cluster);
        for store in stores {
            store.ping(ReadOptions::default().timeout(Duration::from_secs(20))).await?;
        }
        Ok(())
    }

    async fn kill_leader(&self) -> FaultResult {
        let others = self.others().await?;
        let mut cluster = self.cluster.write().await;
        let leads = |place: usize| cluster.node(place).is_some_and(|node| node.status().role == Role::Leader);
        let leader = match others.iter().find(|place| leads(**place)) {
            Some(leader) => *leader,
            None => {
                // The case's own node has come to lead: let another lead first.
                let node = cluster.node(self.place).ok_or_else(|| Error::unavailable("the node does not run"))?;
                node.transfer_leadership(others[0] as u64 + 1, Duration::from_secs(10)).await?;
                others[0]
            }
        };
        cluster.stop(leader).await;
        Ok(())
    }

    async fn restart_all(&self) -> FaultResult {
        let mut cluster = self.cluster.write().await;
        cluster.stop_all().await;
        for place in 0..cluster.size() {
            cluster.restart(place).await?;
        }
        drop(cluster);
        Ok(self.heal().await?)
    }

    async fn isolate_minority(&self) -> FaultResult<Arc<dyn Store>> {
        // The minority is the leader, if it is not the case's own node: one that does not know yet that it is deposed.
        let others = self.others().await?;
        let cluster = self.cluster.read().await;
        let leads = |place: usize| cluster.node(place).is_some_and(|node| node.status().role == Role::Leader);
        let place = others.iter().copied().find(|place| leads(*place)).unwrap_or(others[0]);
        let node = cluster.node(place).ok_or_else(|| Error::unavailable("the node does not run"))?;
        node.isolate(true);
        Ok(Arc::new(Prefixed::new(node.store(), self.prefix.clone())))
    }

    async fn outage(&self) -> FaultResult {
        self.others().await?;
        self.cluster.read().await.running().for_each(|node| node.isolate(true));
        Ok(())
    }

    async fn open_losing_reply(&self) -> FaultResult<Arc<dyn Store>> {
        let store = FaultInjecting::new(self.handle(self.place).await?);
        store.lose_replies(1);
        Ok(Arc::new(store))
    }

    async fn forget_history(&self) -> FaultResult {
        let cluster = self.cluster.read().await;
        let node = cluster.node(self.place).ok_or_else(|| Error::unavailable("the node does not run"))?;
        node.forget_history();
        Ok(())
    }
}

macro_rules! run_as {
    ($name:ident, $label:literal, $nodes:literal, churn = $churn:literal) => {
        async fn $name() -> Embedded {
            static SHARED: LazyLock<Shared> = LazyLock::new(|| Shared::new($label, $nodes, $churn));
            Embedded(&SHARED)
        }
        storage_core::conformance_tests!($name, $name);
    };
}

run_as!(one_node, "embedded", 1, churn = false);
run_as!(three_nodes_through_a_follower, "embedded", 3, churn = false);
run_as!(three_nodes_restarting, "embedded restarting", 3, churn = true);
