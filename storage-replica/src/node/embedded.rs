use std::{net::TcpListener, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use storage_core::{Error, Result, Store};
#[cfg(feature = "etcd")]
use storage_embedded::Salvage;
use storage_embedded::{ClusterToken, Member, Node, NodeConfig, Refusals, Restored};
use tokio::sync::Mutex;

use super::{
    Change, ManagedNode, Members, cannot_listen,
    ids::{cluster_id, node_id, possible_clusters, shown_cluster},
    mark::{self, Joined},
    members, metrics,
    shown::AsShown,
};
use crate::{
    admin::Admin,
    config::{ClusterState, NodeSettings, NodeUrl},
    etcd_api::{self, Requests, Server},
    monitor::Page,
};

/// How long a node that joins waits for each answer of the cluster.
const ASKED_FOR: Duration = Duration::from_secs(5);

/// A node of the embedded engine, with etcd's API on its client URL.
#[derive(Debug)]
pub struct EmbeddedNode {
    settings: NodeSettings,
    node: Node,
    requests: Arc<Requests>,
    /// Taken when it is stopped.
    server: Mutex<Option<Server>>,
    client_refusals: Arc<Refusals>,
}

impl EmbeddedNode {
    /// Starts a node: see [`start`](super::start).
    ///
    /// # Errors
    /// Those of [`start`](super::start).
    pub async fn start(settings: NodeSettings) -> Result<Self> {
        mark::check(&settings)?;
        let joined = joined(&settings).await?;
        // Both ports first: a node that cannot serve must not vote.
        let clients = listen("client", &settings.client_url)?;
        let peers = listen("peer", &settings.peer_url)?;
        let mut config = node_config(&settings, joined);
        if settings.peer_url.is_tls() {
            config.tls = Some(settings.tls.peer().map_err(Error::invalid_argument)?);
        }
        let node = Node::start_on(config, peers).await?;
        let requests = Arc::new(Requests::default());
        let started = match mark::write(&settings, joined) {
            Ok(()) => serve(node.clone(), clients, &settings, requests.clone()).await,
            Err(error) => Err(error),
        };
        match started {
            Ok(server) => {
                let client_refusals = Arc::clone(server.refusals());
                Ok(Self { settings, node, requests, server: Mutex::new(Some(server)), client_refusals })
            }
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    }

    /// The node itself.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

#[async_trait]
impl ManagedNode for EmbeddedNode {
    fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    async fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(AsShown(self.node.store())))
    }

    fn refusals(&self) -> Vec<(&'static str, Arc<Refusals>)> {
        vec![("peer", Arc::clone(self.node.refusals())), ("client", Arc::clone(&self.client_refusals))]
    }

    async fn stopped(&self) -> Result<()> {
        self.node.stopped().await
    }

    fn metrics(&self, page: &mut Page) {
        metrics::write(&self.node, &self.settings.name, page);
        self.requests.write(page);
        metrics::write_refusals(&self.refusals(), page);
    }

    async fn members(&self) -> Result<Option<Members>> {
        // Whatever another leader has done before this moment is in this node's log then.
        let observed = self.node.observe_members();
        Ok(observed.map(|observed| members::of_embedded(&self.node, observed)))
    }

    async fn change(&self, seen: &Members, change: Change) -> Result<Option<u64>> {
        members::change_embedded(&self.node, seen, change).await
    }

    async fn stop(&self) {
        // Clients first, so that what they have asked for is answered.
        if let Some(server) = self.server.lock().await.take() {
            server.stop().await;
        }
        self.node.stop().await;
    }
}

/// Serves clients of etcd on a node.
async fn serve(node: Node, listener: TcpListener, settings: &NodeSettings, requests: Arc<Requests>) -> Result<Server> {
    let NodeSettings { client_url, tls, .. } = settings;
    let tls = if client_url.is_tls() { Some(tls.server().map_err(Error::invalid_argument)?) } else { None };
    let advertise = vec![client_url.to_string()];
    let options =
        etcd_api::Options { name: settings.name.clone(), advertise, tls, requests, ..etcd_api::Options::default() };
    Server::start_on(node, listener, options).await
}

fn listen(what: &str, url: &NodeUrl) -> Result<TcpListener> {
    let listener = TcpListener::bind(url.authority()).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| cannot_listen(what, url, &error))
}

fn node_config(settings: &NodeSettings, joined: Option<Joined>) -> NodeConfig {
    let NodeSettings { token, peer_url, cluster, data_dir, .. } = settings;
    let configure = |id, cluster| {
        let mut config = NodeConfig::new(id, cluster, data_dir, peer_url.authority());
        config.token = ClusterToken::new(token.as_str());
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
    mark::write(settings, None)?;
    Ok(restored)
}

/// Makes the directory of a node that founds a cluster alone, of what a stopped one holds, without the keys that begin with `without`.
#[cfg(feature = "etcd")]
pub(crate) fn restore_salvaged(
    salvage: &Salvage,
    settings: &NodeSettings,
    bump_revision: u64,
    without: &[u8],
) -> Result<Restored> {
    let ClusterState::Given { cluster, node, founds: true } = settings.state else {
        return Err(Error::invalid_argument("a node that founds a cluster has to be told its id"));
    };
    let joined = Some(Joined { cluster, id: node });
    let restored = salvage.restore(&node_config(settings, joined), bump_revision, without)?;
    mark::write(settings, joined)?;
    Ok(restored)
}

/// Who a node is that joins: its directory has it, or else the cluster, which has taken it in.
async fn joined(settings: &NodeSettings) -> Result<Option<Joined>> {
    let endpoints = match &settings.state {
        ClusterState::New => return Ok(None),
        ClusterState::Given { cluster, node, .. } => return Ok(Some(Joined { cluster: *cluster, id: *node })),
        ClusterState::Existing { endpoints } => endpoints,
    };
    if let Some(joined) = mark::joined(settings) {
        return Ok(Some(joined));
    }
    let admin = Admin::with_tls(endpoints, ASKED_FOR, &settings.tls.client())?;
    let members = admin.members().await?;
    let shown = admin.status().await.into_iter().find_map(|(_, status)| status.ok()).map(|status| status.cluster);
    let Some(cluster) = possible_clusters(settings).into_iter().find(|id| Some(shown_cluster(*id)) == shown) else {
        return Err(Error::invalid_argument(
            "the cluster at the endpoints has another token or was founded by other members: give those that founded it",
        ));
    };
    let peer_url = settings.peer_url.to_string();
    match members.iter().find(|member| member.peer_urls.contains(&peer_url)) {
        // One that has run has told its client URL. With an empty disk it has forgotten what it voted.
        Some(member) if !member.client_urls.is_empty() => Err(Error::invalid_argument(format!(
            "member {:x} with peer URL {peer_url} has run before, and its data are not in {}: remove it from the cluster and \
             add it anew",
            member.id,
            settings.data_dir.display()
        ))),
        Some(member) => Ok(Some(Joined { cluster, id: member.id })),
        None => Err(Error::invalid_argument(format!(
            "the cluster has no member with peer URL {peer_url}: add it first, `snet storage member add --peer-url {peer_url}`"
        ))),
    }
}
