//! The embedded engine: all nodes in this process, each on a thread of its own, with real TCP between them and real
//! files below. Their settings are the defaults.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture};
use storage::{
    Store,
    embedded::{LocalCluster, Role},
};
use storage_replica::{
    config::Config,
    node::{EmbeddedNode, Node as _},
};
use storage_testkit::server::{Cluster, ClusterOptions, Node};
use tempfile::TempDir;

use super::{
    Backend, Placement, Starting, Target,
    killable::{Breaking, Killable},
    nodes,
};
use crate::{Error, Result};

pub(super) const BACKEND: Backend = Backend {
    name: "embedded",
    what: "the engine in the callers' process: each node on a thread of its own, TCP between them, the clients on other threads",
    durability: nodes::DURABILITY,
    in_process: true,
    durable: true,
    least_nodes: 1,
    most_nodes: nodes::MOST_NODES,
    placement: None,
    needs_snet: false,
    needs: || Ok(()),
    start,
    kill: Some(kill),
};

/// What the replica pays whose node leads, as one does of a service with one active replica.
pub(super) const ON_THE_LEADER: Backend = Backend {
    name: "embedded-leader",
    what: "the same with all clients on the node that leads",
    least_nodes: 2,
    placement: Some(Placement::Leader),
    kill: None,
    ..BACKEND
};

/// What a replica pays whose node does not lead.
pub(super) const ON_A_FOLLOWER: Backend = Backend {
    name: "embedded-follower",
    what: "the same with all clients on one node that does not lead",
    least_nodes: 2,
    placement: Some(Placement::Follower),
    kill: None,
    ..BACKEND
};

fn start(nodes: usize, directory: &Path) -> Starting<'_> {
    async move {
        let folder =
            tempfile::Builder::new().prefix("embedded-").tempdir_in(directory).map_err(Error::at(directory))?;
        let cluster = LocalCluster::start(folder.path(), nodes as u64, |config| config).await?;
        Ok(Box::new(Embedded { cluster, folder }) as Box<dyn Target>)
    }
    .boxed()
}

struct Embedded {
    // Fields drop in this order: the nodes end before their files go.
    cluster: LocalCluster,
    folder: TempDir,
}

impl Target for Embedded {
    fn stores(&self) -> Vec<Arc<dyn Store>> {
        self.cluster.running().map(|node| Arc::new(node.store()) as Arc<dyn Store>).collect()
    }

    fn leader(&self) -> Option<usize> {
        let leader = self.cluster.leader()?.id();
        self.cluster.running().position(|node| node.id() == leader)
    }

    fn stop(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        async move {
            self.cluster.stop_all().await;
            drop(self.folder);
        }
        .boxed()
    }
}

/// Nodes of the other replicas in processes that can be killed, and that of the callers in this one.
fn kill(nodes: usize, directory: &Path) -> Breaking<'_> {
    async move {
        let mut options = ClusterOptions::default();
        options.parent_dir = Some(directory.to_owned());
        let mut others = Cluster::start(nodes::spec(nodes::program()?), nodes, options).await?;
        // The process of the first node has done its part: it has founded the cluster with the others.
        others.kill(OWN)?;
        let own = own_node(&others).await?;
        Ok(Box::new(Replicas { own, others }) as Box<dyn Killable>)
    }
    .boxed()
}

/// The place of the node in this process.
const OWN: usize = 0;

/// A handover of leadership takes no longer than this.
const HANDOVER: Duration = Duration::from_secs(10);

async fn own_node(cluster: &Cluster) -> Result<EmbeddedNode> {
    let table = cluster.dir().map(|dir| dir.join(cluster.nodes().first().map(Node::name).unwrap_or_default()));
    let table = table.unwrap_or_default().join(nodes::TABLE);
    let usage = |error: &dyn std::fmt::Display| Error::Usage(format!("{}: {error}", table.display()));
    let (config, _) = Config::load(&table).map_err(|error| usage(&error))?;
    let settings = config.settings(Some(nodes::replica(OWN))).map_err(|error| usage(&error))?;
    let settings = settings.node.ok_or_else(|| usage(&"no node for this process"))?;
    Ok(EmbeddedNode::start(settings).await?)
}

struct Replicas {
    // Fields drop in this order.
    own: EmbeddedNode,
    others: Cluster,
}

impl Replicas {
    /// Lets another node lead: the one in this process cannot be killed.
    async fn hand_over(&self) -> Result<()> {
        let own = self.own.node();
        let members = nodes::admin(self.others.node(OWN)?.context())?.members().await?;
        let other = members.iter().map(|member| member.id).find(|id| *id != own.id());
        if let Some(other) = other {
            own.transfer_leadership(other, HANDOVER).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Killable for Replicas {
    fn stores(&self) -> Vec<Arc<dyn Store>> {
        vec![Arc::new(self.own.node().store())]
    }

    async fn leader(&mut self) -> Result<Option<usize>> {
        if self.own.node().status().role == Role::Leader {
            self.hand_over().await?;
        }
        for (place, node) in self.others.nodes().iter().enumerate() {
            if node.pid().is_some() && nodes::ask(node.context()).await.is_ok_and(|told| told.leads) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn kill(&mut self, place: usize) -> Result<()> {
        Ok(self.others.kill(place)?)
    }

    async fn restart(&mut self, place: usize) -> Result<()> {
        self.others.restart(place)?;
        Ok(self.others.ready(place).await?)
    }

    async fn stop(self: Box<Self>) {
        self.own.stop().await;
    }
}
