//! A node of the embedded engine, with etcd's API on its client URL.

mod etcd_revisions;
mod members;
mod metrics;

use std::{net::TcpListener, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use storage_core::{Error, Result, Store};
use storage_embedded::{
    ClusterToken, Member, NodeConfig, Refusals, Removed, Restored, Salvage, Stopped, connections::descriptor_limit,
};
use storage_etcd_api::{Options, Requests, Server};
use storage_membership::{AnsweringTable, MemberChange, Members, Node, Rows};
use tokio::sync::Mutex;

use self::{etcd_revisions::EtcdRevisions, metrics::NodeMetrics};
use super::{
    ids::{cluster_id, node_id, possible_clusters},
    managed::{ManagedNode, cannot_listen},
    own_table,
    owner_file::{self, Joined},
};
use crate::{
    admin::Admin,
    config::{ClusterState, NodeSettings, NodeUrl},
    exposition,
};

/// How long a node that joins waits for each answer of the cluster.
const ASKED_FOR: Duration = Duration::from_secs(5);

/// With fewer descriptors than this a node serves, and its ports have few connections.
const FEW_DESCRIPTORS: u64 = 1024;

/// A node of the embedded engine, with etcd's API on its client URL.
#[derive(Debug)]
pub struct EmbeddedNode {
    settings: NodeSettings,
    node: storage_embedded::Node,
    /// Taken when it is stopped.
    server: Mutex<Option<Server>>,
    client_refusals: Arc<Refusals>,
    metrics: Registry,
}

impl EmbeddedNode {
    /// Starts a node: see [`start`](super::start).
    ///
    /// # Errors
    /// Those of [`start`](super::start).
    pub async fn start(settings: NodeSettings) -> Result<Self> {
        owner_file::check(&settings)?;
        let limit = descriptor_limit().soft;
        if limit < FEW_DESCRIPTORS {
            tracing::warn!(
                limit,
                "this process may have few files open, and so few connections: raise its limit (ulimit -n)"
            );
        }
        let joined = joined(&settings).await?;
        // Both ports first: a node that cannot serve must not vote.
        let clients = listen("client", &settings.client_url)?;
        let peers = listen("peer", &settings.peer_url)?;
        let mut config = node_config(&settings, joined);
        if settings.peer_url.is_tls() {
            config.tls = Some(settings.tls.peer().map_err(Error::invalid_argument)?);
        }
        let node = storage_embedded::Node::start_on(config, peers).await.map_err(|error| match error {
            Error::PermissionDenied { source } if source.is::<Removed>() => removed(&settings, &source.to_string()),
            error => error,
        })?;
        let requests = Requests::default();
        let started = match owner_file::write(&settings, joined) {
            Ok(()) => serve(node.clone(), clients, &settings, requests.clone()).await,
            Err(error) => Err(error),
        };
        match started {
            Ok(server) => {
                let client_refusals = Arc::clone(server.refusals());
                let mut started = Self {
                    settings,
                    node,
                    server: Mutex::new(Some(server)),
                    client_refusals,
                    metrics: Registry::default(),
                };
                requests.register(&mut started.metrics);
                let (node, name, refusals) = (started.node.clone(), started.settings.name.clone(), started.refusals());
                started.metrics.register_collector(Box::new(NodeMetrics { node, name, refusals }));
                Ok(started)
            }
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    }

    /// The node itself.
    pub fn node(&self) -> &storage_embedded::Node {
        &self.node
    }
}

#[async_trait]
impl Node for EmbeddedNode {
    async fn store(&self, _: &[NodeUrl]) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(EtcdRevisions(self.node.store())))
    }

    fn rows(&self, _: &Arc<dyn Store>) -> Arc<dyn Rows> {
        Arc::new(AnsweringTable::new(self.node.clone(), self.settings.token.clone()))
    }

    async fn members(&self) -> Result<Option<Members>> {
        // Whatever another leader has done before this moment is in this node's log then.
        let observed = self.node.observe_members();
        Ok(observed.map(|observed| members::seen(&self.node, observed)))
    }

    async fn change(&self, seen: &Members, change: MemberChange) -> Result<Option<u64>> {
        members::change(&self.node, seen, change).await
    }

    async fn stopped(&self) -> Result<()> {
        let stopped = self.node.stopped().await;
        match self.node.why_stopped() {
            Some(Stopped::Forgot(why)) => {
                Err(Error::corrupt(format!("{why}. {}", replacing(&self.settings, self.node.id()))))
            }
            Some(Stopped::Removed(why)) => Err(removed(&self.settings, &why)),
            _ => stopped,
        }
    }

    async fn stop(&self) {
        // Clients first, so that what they have asked for is answered.
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
        self.node.stop().await;
    }
}

impl ManagedNode for EmbeddedNode {
    fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    fn refusals(&self) -> Vec<(&'static str, Arc<Refusals>)> {
        vec![("peer", Arc::clone(self.node.refusals())), ("client", Arc::clone(&self.client_refusals))]
    }

    fn waits_for(&self) -> Option<String> {
        self.node.waits_for()
    }

    fn metrics(&self) -> String {
        exposition::text(&self.metrics) + &metrics::snapshots_written(&self.node.status())
    }
}

/// Serves clients of etcd on a node.
async fn serve(
    node: storage_embedded::Node,
    listener: TcpListener,
    settings: &NodeSettings,
    requests: Requests,
) -> Result<Server> {
    let NodeSettings { client_url, tls, .. } = settings;
    let tls = if client_url.is_tls() { Some(tls.server().map_err(Error::invalid_argument)?) } else { None };
    let advertise = vec![client_url.to_string()];
    let mut options = Options::default();
    if let ClusterState::Given { .. } = settings.state {
        let table = AnsweringTable::new(node.clone(), settings.token.clone());
        options.more_services = options.more_services.add_service(own_table::service(table));
    }
    (options.name, options.advertise, options.tls, options.requests) =
        (settings.name.clone(), advertise, tls, requests);
    options.max_connections = settings.max_connections;
    Server::start_on(node, listener, options).await
}

/// The error of a node that was removed, with what there is to do.
fn removed(settings: &NodeSettings, why: &str) -> Error {
    let peer_url = &settings.peer_url;
    let words = format!(
        "{why}. At a member that runs: `snet storage member add --peer-url {peer_url} --endpoints URLS`; then start it in an empty directory with \
         `--initial-cluster-state existing --endpoints URLS`"
    );
    Error::PermissionDenied { source: Removed::new(words).into() }
}

/// How a node that has lost its data is replaced, in commands.
fn replacing(settings: &NodeSettings, id: u64) -> String {
    let peer_url = &settings.peer_url;
    format!(
        "At a member that runs: `snet storage member remove {id:x} --endpoints URLS`, then `snet storage member add --peer-url {peer_url} \
         --endpoints URLS`; then start it with `--initial-cluster-state existing --endpoints URLS`"
    )
}

fn listen(what: &str, url: &NodeUrl) -> Result<TcpListener> {
    let listener = TcpListener::bind(url.authority()).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| cannot_listen(what, url, &error))
}

fn node_config(settings: &NodeSettings, joined: Option<Joined>) -> NodeConfig {
    let NodeSettings { token, peer_url, cluster, data_dir, bounds, .. } = settings;
    let configure = |id, cluster| {
        let mut config = NodeConfig::new(id, cluster, data_dir, peer_url.authority());
        config.token = ClusterToken::new(token.as_str());
        config.bounds = *bounds;
        config
    };
    if let Some(Joined { cluster, id }) = joined {
        let mut config = configure(id, cluster);
        if let ClusterState::Given { founds: true, .. } = &settings.state {
            let (name, peer_address) = (settings.name.clone(), peer_url.authority());
            config.founders = [(id, Member { name, peer_address, client_url: String::new() })].into();
        }
        return config;
    }
    let founders = cluster.members().iter().map(|member| {
        let found = Member {
            name: member.name.clone(),
            peer_address: member.peer_url.authority(),
            // Each tells its own when it runs.
            client_url: String::new(),
        };
        (node_id(&member.peer_url, token), found)
    });
    let id = node_id(peer_url, token);
    let mut config = configure(id, cluster_id(cluster, token));
    config.founders = founders.collect();
    config
}

/// Makes the directory of a founding node from a snapshot.
pub(crate) fn restore(snapshot: &Path, settings: &NodeSettings, bump_revision: u64) -> Result<Restored> {
    let restored = storage_embedded::restore(snapshot, &node_config(settings, None), bump_revision)?;
    owner_file::write(settings, None)?;
    Ok(restored)
}

/// Makes the directory of a node that founds a cluster alone, of what a stopped one holds.
pub(crate) fn restore_salvaged(salvage: &Salvage, settings: &NodeSettings, bump_revision: u64) -> Result<Restored> {
    let ClusterState::Given { cluster, node, founds: true } = settings.state else {
        return Err(Error::invalid_argument("a node that founds a cluster has to be told its id"));
    };
    let joined = Some(Joined { cluster, id: node });
    let restored = salvage.restore(&node_config(settings, joined), bump_revision)?;
    owner_file::write(settings, joined)?;
    Ok(restored)
}

/// Who a node is that joins: its directory has it, or else the cluster, which has taken it in.
async fn joined(settings: &NodeSettings) -> Result<Option<Joined>> {
    let endpoints = match &settings.state {
        ClusterState::New => return Ok(None),
        ClusterState::Given { cluster, node, .. } => return Ok(Some(Joined { cluster: *cluster, id: *node })),
        ClusterState::Existing { endpoints } => endpoints,
    };
    if let Some(joined) = owner_file::joined(settings)? {
        return Ok(Some(joined));
    }
    let admin = Admin::with_tls(endpoints, ASKED_FOR, &settings.tls.client())?;
    let members = admin.members().await?;
    let shown = admin.status().await.into_iter().find_map(|(_, status)| status.ok()).map(|status| status.cluster);
    let Some(cluster) =
        possible_clusters(settings).into_iter().find(|id| Some(storage_etcd_api::cluster_id(*id)) == shown)
    else {
        return Err(Error::invalid_argument(
            "the cluster at the endpoints has another token or was founded by other members: give those that founded it",
        ));
    };
    let peer_url = settings.peer_url.to_string();
    match members.iter().find(|member| member.peer_urls.contains(&peer_url)) {
        // One that votes has run, and so has one that has told its client URL. With an empty disk it has forgotten what it voted. (One that does
        // neither and has run all the same finds out from the first member that calls it.)
        Some(member) if !member.is_learner || !member.client_urls.is_empty() => Err(Error::invalid_argument(format!(
            "member {:x} with peer URL {peer_url} has run before, and its data are not in {}: they are lost, and with them what it voted. {}",
            member.id,
            settings.data_dir.display(),
            replacing(settings, member.id)
        ))),
        Some(member) => Ok(Some(Joined { cluster, id: member.id })),
        None => Err(Error::invalid_argument(format!(
            "the cluster has no member with peer URL {peer_url}: add it first, `snet storage member add --peer-url {peer_url}`"
        ))),
    }
}
