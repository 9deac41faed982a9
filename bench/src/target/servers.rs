//! Servers in processes of their own, on loopback ports and in folders of their own. Each backend's crate says how they are
//! started and each server syncs before it acknowledges, as it does if nobody tells it otherwise.

use std::{io, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture};
use storage::{ReadOptions, Store};
use storage_testkit::server::{Cluster, ClusterOptions, Node, NodeContext, ServerSpec};

use super::{About, Target, killable::Killable};
use crate::{Error, Result};

/// A node that is ready for its own probe may still wait for word of the leader; it answers a read within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(30);

/// A server on this machine tells about itself within this time.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

/// One kind of server.
pub(super) struct Servers {
    /// The scheme of the URLs that open a store on them.
    pub(super) scheme: &'static str,
    /// How they are started.
    pub(super) spec: ServerSpec,
    /// Asks one of them about itself.
    pub(super) about: AboutFn,
}

type AboutFn = fn(&NodeContext) -> BoxFuture<'_, Result<About>>;

impl Servers {
    /// Starts a cluster, and opens a handle on each of its servers.
    pub(super) async fn start(self, nodes: usize, directory: &Path) -> Result<Box<dyn Target>> {
        Ok(Box::new(self.run(nodes, directory).await?))
    }

    /// The same, to kill the servers of it.
    pub(super) async fn start_to_kill(self, nodes: usize, directory: &Path) -> Result<Box<dyn Killable>> {
        Ok(Box::new(self.run(nodes, directory).await?))
    }

    async fn run(self, nodes: usize, directory: &Path) -> Result<Running> {
        let Self { scheme, spec, about } = self;
        let mut options = ClusterOptions::default();
        options.parent_dir = Some(directory.to_owned());
        let cluster = Cluster::start(spec, nodes, options).await?;
        let mut stores = Vec::with_capacity(nodes);
        let (mut version, mut leader) = (None, None);
        for (place, node) in cluster.nodes().iter().enumerate() {
            let store = storage::open(&format!("{scheme}://{}", node.client_url())).await?;
            store.ping(ReadOptions::default().timeout(SERVES_WITHIN)).await?;
            stores.push(store);
            let told = ask(node, about).await?;
            leader = leader.or(told.leads.then_some(place));
            version = version.or(told.version);
        }
        let silent = || Error::io(&format!("ask {scheme} for its version"))(io::ErrorKind::InvalidData.into());
        Ok(Running { stores, leader, version: version.ok_or_else(silent)?, about, cluster })
    }
}

/// Asks a server about itself, but not for ever.
async fn ask(node: &Node, about: AboutFn) -> Result<About> {
    let told = tokio::time::timeout(TELLS_WITHIN, about(node.context())).await;
    told.map_err(|late| Error::io("the answer of a server")(late.into()))?
}

struct Running {
    // Fields drop in this order: the handles go before their servers.
    stores: Vec<Arc<dyn Store>>,
    leader: Option<usize>,
    version: String,
    about: AboutFn,
    cluster: Cluster,
}

impl Target for Running {
    fn stores(&self) -> Vec<Arc<dyn Store>> {
        self.stores.clone()
    }

    fn leader(&self) -> Option<usize> {
        self.leader
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn servers(&self) -> Option<Vec<u32>> {
        Some(self.cluster.nodes().iter().filter_map(Node::pid).collect())
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            for store in &self.stores {
                // What the servers kept goes with them, whether or not they were told goodbye.
                let _ = store.close().await;
            }
            drop(self.cluster);
        }
        .boxed()
    }
}

#[async_trait]
impl Killable for Running {
    fn stores(&self) -> Vec<Arc<dyn Store>> {
        self.stores.clone()
    }

    async fn leader(&mut self) -> Result<Option<usize>> {
        for (place, node) in self.cluster.nodes().iter().enumerate() {
            if node.pid().is_some() && ask(node, self.about).await.is_ok_and(|about| about.leads) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn kill(&mut self, place: usize) -> Result<()> {
        Ok(self.cluster.kill(place)?)
    }

    async fn restart(&mut self, place: usize) -> Result<()> {
        self.cluster.restart(place)?;
        Ok(self.cluster.ready(place).await?)
    }

    async fn stop(self: Box<Self>) {
        Target::stop(self).await;
    }
}
