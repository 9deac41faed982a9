//! A cluster whose nodes all run in this process, on real TCP and real disks.
//!
//! For tests, benches and a first try. It loses all its nodes with the process, so that no service should run on it.

use std::{collections::BTreeMap, net::TcpListener, path::PathBuf, time::Duration};

use storage_core::{Error, Result};

use crate::{EmbeddedStore, Member, Node, NodeConfig, Role};

/// A cluster whose nodes all run in this process: for tests, benches and a first try. They talk over real TCP on the
/// loopback interface and sync real files, each in a directory of its own.
///
/// Such a cluster survives the loss of single nodes ([`LocalCluster::stop`]) but not of the process; a service runs one node in each replica.
#[derive(Debug)]
pub struct LocalCluster {
    configs: Vec<NodeConfig>,
    nodes: Vec<Option<Node>>,
}

/// How long a new cluster may take to elect a leader.
const ELECTION_DEADLINE: Duration = Duration::from_secs(30);

impl LocalCluster {
    /// Founds a cluster of `size` nodes with ids from 1, in directories below `dir`, or starts the one that is there again.
    /// `adjust` may change each node's configuration. Returns when every node knows the leader.
    ///
    /// # Errors
    /// Those of [`Node::start`] and [`Node::wait_for_leader`].
    pub async fn start(dir: impl Into<PathBuf>, size: u64, adjust: impl Fn(NodeConfig) -> NodeConfig) -> Result<Self> {
        let dir = dir.into();
        let listeners = (0..size)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(Error::unavailable)?;
        let mut founders = BTreeMap::new();
        for (id, listener) in (1..).zip(&listeners) {
            let peer_address = listener.local_addr().map_err(Error::unavailable)?.to_string();
            founders.insert(id, Member { name: format!("n{id}"), peer_address, client_url: String::new() });
        }
        let mut cluster = Self { configs: Vec::new(), nodes: Vec::new() };
        for ((id, member), listener) in founders.iter().zip(listeners) {
            let mut config = NodeConfig::new(*id, CLUSTER, dir.join(&member.name), &member.peer_address);
            config.founders.clone_from(&founders);
            let config = adjust(config);
            cluster.nodes.push(Some(Node::start_on(config.clone(), listener).await?));
            cluster.configs.push(config);
        }
        cluster.wait_for_leader().await?;
        Ok(cluster)
    }

    /// How many nodes there are, running or not.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The node at this place, counted from 0; `None` if it is stopped.
    pub fn node(&self, place: usize) -> Option<&Node> {
        self.nodes.get(place)?.as_ref()
    }

    /// The nodes that run.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// The node that leads, as far as it knows itself.
    pub fn leader(&self) -> Option<&Node> {
        self.running().find(|node| node.status().role == Role::Leader)
    }

    /// A running node that does not lead; the leader if there is no other.
    pub fn follower(&self) -> Option<&Node> {
        self.running().find(|node| node.status().role == Role::Follower).or_else(|| self.leader())
    }

    /// A handle through the leader: the shortest way.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node leads.
    pub fn store(&self) -> Result<EmbeddedStore> {
        self.leader().map(Node::store).ok_or_else(|| Error::unavailable("no node of the cluster leads"))
    }

    /// Waits until every running node knows the leader.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is none in time.
    pub async fn wait_for_leader(&self) -> Result<()> {
        for node in self.running() {
            node.wait_for_leader(ELECTION_DEADLINE).await?;
        }
        Ok(())
    }

    /// Stops the node at this place, in good order.
    pub async fn stop(&mut self, place: usize) {
        if let Some(node) = self.nodes.get_mut(place).and_then(Option::take) {
            node.stop().await;
        }
    }

    /// Starts the node at this place again, on the same address and directory. Does nothing if it runs.
    ///
    /// # Errors
    /// Those of [`Node::start`].
    pub async fn restart(&mut self, place: usize) -> Result<()> {
        if let (Some(node @ None), Some(config)) = (self.nodes.get_mut(place), self.configs.get(place)) {
            *node = Some(Node::start(config.clone()).await?);
        }
        Ok(())
    }

    /// Stops all nodes, in good order.
    pub async fn stop_all(&mut self) {
        for place in 0..self.size() {
            self.stop(place).await;
        }
    }
}

/// The id of every local cluster: they never meet, since each has ports of its own.
const CLUSTER: u128 = 0x10ca1;
