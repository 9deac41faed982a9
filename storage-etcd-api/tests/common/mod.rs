//! Clusters of embedded nodes, each with a server of the etcd API in front, and what can be broken in them.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod etcd;
pub(crate) mod http;
pub(crate) mod rpc;

use std::{net::SocketAddr, path::Path, time::Duration};

use storage_embedded::{LocalCluster, NodeConfig, Role, tls::TlsFiles};
use storage_etcd_api::{Options, Server};

/// How long a cluster may take to come back after a fault.
pub(crate) const RECOVERY: Duration = Duration::from_secs(30);

/// A cluster of nodes in this process with a server each.
pub(crate) struct ApiCluster {
    nodes: LocalCluster,
    servers: Vec<Option<Server>>,
    addresses: Vec<SocketAddr>,
    tls: Option<TlsFiles>,
}

impl ApiCluster {
    pub(crate) async fn start(dir: &Path, size: u64) -> Self {
        Self::start_with(dir, size, None).await
    }

    /// One whose leader stays, however busy the machine is: for tests that compare single answers and break nothing.
    pub(crate) async fn start_calm(dir: &Path, size: u64) -> Self {
        let calm = |mut config: NodeConfig| {
            config.election = Duration::from_secs(5)..Duration::from_secs(8);
            config
        };
        Self::start_as(dir, size, None, calm).await
    }

    /// As [`ApiCluster::start_calm`], with a quota of so many bytes.
    pub(crate) async fn start_small(dir: &Path, size: u64, quota: u64) -> Self {
        let small = |mut config: NodeConfig| {
            config.election = Duration::from_secs(5)..Duration::from_secs(8);
            config.bounds.quota_backend_bytes = quota;
            config
        };
        Self::start_as(dir, size, None, small).await
    }

    /// With TLS everywhere, if there are certificates for it.
    pub(crate) async fn start_with(dir: &Path, size: u64, tls: Option<TlsFiles>) -> Self {
        Self::start_as(dir, size, tls, NodeConfig::fast).await
    }

    async fn start_as(dir: &Path, size: u64, tls: Option<TlsFiles>, timing: impl Fn(NodeConfig) -> NodeConfig) -> Self {
        let config = |config: NodeConfig| {
            let mut config = timing(config);
            config.tls.clone_from(&tls);
            config
        };
        let nodes = LocalCluster::start(dir, size, config).await.unwrap();
        let mut cluster = Self { nodes, servers: Vec::new(), addresses: Vec::new(), tls };
        for place in 0..cluster.nodes.size() {
            let node = cluster.nodes.node(place).unwrap().clone();
            let server = Server::start(node, "127.0.0.1:0", cluster.options()).await.unwrap();
            cluster.addresses.push(server.address());
            cluster.servers.push(Some(server));
        }
        cluster
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        options.tls.clone_from(&self.tls);
        // The cheapest: what is tested is not how long a password takes.
        options.bcrypt_cost = 4;
        options
    }

    pub(crate) fn nodes(&self) -> &LocalCluster {
        &self.nodes
    }

    /// `host:port` of each server.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |place: &usize| self.nodes.node(*place).is_some_and(|node| node.status().role == Role::Leader);
        (0..self.nodes.size()).find(leads)
    }

    pub(crate) async fn stop(&mut self, place: usize) {
        if let Some(server) = self.servers[place].take() {
            server.stop().await;
        }
        self.nodes.stop(place).await;
    }

    pub(crate) async fn restart(&mut self, place: usize) {
        if self.servers[place].is_some() {
            return;
        }
        self.nodes.restart(place).await.unwrap();
        let node = self.nodes.node(place).unwrap().clone();
        let listen = self.addresses[place].to_string();
        self.servers[place] = Some(Server::start(node, &listen, self.options()).await.unwrap());
    }

    /// Makes everything run and reach everything again.
    pub(crate) async fn heal(&mut self) {
        for place in 0..self.nodes.size() {
            self.restart(place).await;
        }
        self.nodes.running().for_each(|node| node.isolate(false));
    }
}
