//! The contract on the client of etcd, which takes three embedded nodes for etcd's servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use common::{ApiCluster, RECOVERY};
use etcd_client::{Client, CompactionOptions, DeleteOptions};
use storage_core::{
    Key, Prefixed, ReadOptions, Result, Store,
    conformance::{FaultError, FaultResult, Faults, Harness, Injected, Namespace, Servers},
};
use storage_etcd::{EtcdConfig, EtcdStore};
use tokio::{
    sync::{OnceCell, RwLock},
    time::Instant,
};

storage_core::conformance_tests!(three_nodes, harness);

struct Shared {
    /// Left behind when the process ends, like the cluster: statics are not dropped.
    dir: PathBuf,
    cluster: OnceCell<RwLock<ApiCluster>>,
}

static SHARED: LazyLock<Shared> =
    LazyLock::new(|| Shared { dir: tempfile::tempdir().unwrap().keep(), cluster: OnceCell::new() });

async fn harness() -> Injected<Api> {
    let start = || async { RwLock::new(ApiCluster::start(&SHARED.dir, 3).await) };
    Injected::new(Api(SHARED.cluster.get_or_init(start).await))
}

struct Api(&'static RwLock<ApiCluster>);

#[async_trait]
impl Harness for Api {
    fn name(&self) -> &str {
        "etcd API"
    }
    fn nodes(&self) -> usize {
        3
    }
    fn servers(&self) -> Servers {
        Servers::Shared
    }
    async fn namespace(&self) -> Result<Box<dyn Namespace>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let prefix = Key::new(format!("case-{}/", NEXT.fetch_add(1, Ordering::Relaxed)))?;
        let endpoints = self.0.read().await.endpoints();
        Ok(Box::new(Space { cluster: self.0, endpoints, prefix }))
    }
}

struct Space {
    cluster: &'static RwLock<ApiCluster>,
    endpoints: Vec<String>,
    prefix: Key,
}

impl Space {
    async fn open_on(&self, endpoints: &[String]) -> Result<Prefixed<EtcdStore>> {
        let store = EtcdStore::new(EtcdConfig::new(endpoints)?).await?;
        Ok(Prefixed::new(store, self.prefix.clone()))
    }

    async fn client(&self) -> Client {
        Client::connect(&self.endpoints, None).await.unwrap()
    }

    /// The place of the node that leads, once one does.
    async fn leader(&self) -> usize {
        let deadline = Instant::now() + RECOVERY;
        loop {
            if let Some(place) = self.cluster.read().await.leader() {
                return place;
            }
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::task::yield_now().await;
        }
    }

    async fn serves(&self) -> Result<()> {
        for endpoint in &self.endpoints {
            let store = self.open_on(std::slice::from_ref(endpoint)).await?;
            store.ping(ReadOptions::default().timeout(RECOVERY)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Namespace for Space {
    async fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.open_on(&self.endpoints).await?))
    }

    async fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + RECOVERY;
        let all = DeleteOptions::new().with_prefix();
        // Twice is the same as once.
        while let Err(error) = self.client().await.delete(self.prefix.as_bytes(), Some(all.clone())).await {
            assert!(Instant::now() < deadline, "what a case has left is not removed: {error}");
        }
        Ok(())
    }

    fn max_key_bytes(&self) -> usize {
        Key::MAX_BYTES - self.prefix.as_bytes().len()
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for Space {
    async fn heal(&self) -> Result<()> {
        self.cluster.write().await.heal().await;
        self.serves().await
    }

    async fn kill_leader(&self) -> FaultResult {
        let leader = self.leader().await;
        self.cluster.write().await.stop(leader).await;
        Ok(())
    }

    async fn restart_all(&self) -> FaultResult {
        let mut cluster = self.cluster.write().await;
        for place in 0..cluster.nodes().size() {
            cluster.stop(place).await;
        }
        cluster.heal().await;
        drop(cluster);
        Ok(self.serves().await?)
    }

    async fn isolate_minority(&self) -> FaultResult<Arc<dyn Store>> {
        let leader = self.leader().await;
        let cluster = self.cluster.read().await;
        let place = (leader + 1) % cluster.nodes().size();
        cluster.nodes().node(place).unwrap().isolate(true);
        Ok(Arc::new(self.open_on(&self.endpoints[place..=place]).await?))
    }

    async fn outage(&self) -> FaultResult {
        self.cluster.read().await.nodes().running().for_each(|node| node.isolate(true));
        Ok(())
    }

    async fn forget_history(&self) -> FaultResult {
        let failed = |error: etcd_client::Error| FaultError::Failed(error.into());
        let mut client = self.client().await;
        let revision = client.get("\0", None).await.map_err(failed)?.header().map(|header| header.revision());
        let options = CompactionOptions::new().with_physical();
        client.compact(revision.unwrap_or_default(), Some(options)).await.map_err(failed)?;
        Ok(())
    }
}
