//! Servers in processes of their own, on loopback ports and in folders of their own.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use futures::{FutureExt, future::BoxFuture};
use storage::Store;
use storage_servers::{Running, Servers};
use storage_testkit::server::{ClusterOptions, MAX_NODES, Node};

use super::{
    Backend, Starting, Target,
    killable::{Breaking, Killable},
};
use crate::{Error, Result};

#[cfg(feature = "etcd")]
pub(super) const ETCD: Backend = Backend {
    durability: "fsync of the write-ahead log on a majority before a write is acknowledged (default)",
    needs: || Ok((storage_servers::etcd().installed)()?),
    ..backend(
        "etcd",
        |nodes, directory| start(storage_servers::etcd(), nodes, directory),
        |nodes, directory| start_to_kill(storage_servers::etcd(), nodes, directory),
    )
};

#[cfg(feature = "consul")]
pub(super) const CONSUL: Backend = Backend {
    durability: "fsync of the raft log on a majority before a write is acknowledged (default); reads with `?consistent`",
    needs: || Ok((storage_servers::consul().installed)()?),
    ..backend(
        "consul",
        |nodes, directory| start(storage_servers::consul(), nodes, directory),
        |nodes, directory| start_to_kill(storage_servers::consul(), nodes, directory),
    )
};

#[cfg(feature = "zk")]
pub(super) const ZK: Backend = Backend {
    durability: "forceSync of the transaction log on a majority before a write is acknowledged (default); `sync` before reads",
    needs: || Ok((storage_servers::zk().installed)()?),
    ..backend(
        "zk",
        |nodes, directory| start(storage_servers::zk(), nodes, directory),
        |nodes, directory| start_to_kill(storage_servers::zk(), nodes, directory),
    )
};

/// What all kinds of servers have in common.
pub(super) const fn backend(
    name: &'static str,
    start: fn(usize, &Path) -> Starting<'_>,
    kill: fn(usize, &Path) -> Breaking<'_>,
) -> Backend {
    Backend {
        name,
        what: "servers in processes of their own, through their client library",
        durability: "",
        in_process: false,
        durable: true,
        least_nodes: 1,
        most_nodes: MAX_NODES,
        placement: None,
        needs_snet: false,
        needs: || Ok(()),
        start,
        kill: Some(kill),
    }
}

/// Starts a cluster to measure.
pub(super) fn start(servers: Servers, nodes: usize, directory: &Path) -> Starting<'_> {
    async move { Ok(Box::new(Measured::start(servers, nodes, directory).await?) as Box<dyn Target>) }.boxed()
}

/// Starts a cluster whose servers are killed.
pub(super) fn start_to_kill(servers: Servers, nodes: usize, directory: &Path) -> Breaking<'_> {
    async move { Ok(Box::new(Measured::start(servers, nodes, directory).await?) as Box<dyn Killable>) }.boxed()
}

struct Measured {
    running: Running,
    /// The place of the one that led at the start.
    leader: Option<usize>,
    version: String,
}

impl Measured {
    async fn start(servers: Servers, nodes: usize, directory: &Path) -> Result<Self> {
        let mut options = ClusterOptions::default();
        options.parent_dir = Some(directory.to_owned());
        let running = servers.start(nodes, options).await?;
        let version = running.version().await.map_err(Error::io("ask a server for its version"))?;
        Ok(Self { leader: running.leader().await, version, running })
    }
}

impl Target for Measured {
    fn stores(&self) -> Vec<Arc<dyn Store>> {
        self.running.stores.clone()
    }

    fn leader(&self) -> Option<usize> {
        self.leader
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn servers(&self) -> Option<Vec<u32>> {
        Some(self.running.cluster.nodes().iter().filter_map(Node::pid).collect())
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.running.stop().boxed()
    }
}

#[async_trait]
impl Killable for Measured {
    fn stores(&self) -> Vec<Arc<dyn Store>> {
        self.running.stores.clone()
    }

    async fn leader(&mut self) -> Result<Option<usize>> {
        Ok(self.running.leader().await)
    }

    fn kill(&mut self, place: usize) -> Result<()> {
        Ok(self.running.cluster.kill(place)?)
    }

    async fn restart(&mut self, place: usize) -> Result<()> {
        self.running.cluster.restart(place)?;
        Ok(self.running.cluster.ready(place).await?)
    }

    async fn stop(self: Box<Self>) {
        self.running.stop().await;
    }
}
