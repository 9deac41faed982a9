//! How a replica reads the table: by its own node, or by those of others.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use storage_core::{Error, Result, Store};

use super::{
    cluster_id::ClusterId,
    decide::NodeId,
    identity::{Identity, NodeIdentity},
    locate::{Located, Search, locate},
    participant::Shared,
    table::{Contents, Table},
};
use crate::{
    admin::Admin,
    config::{ClusterState, Engine, Growing, InitialCluster, Member, NodeSettings, NodeUrl},
    node::{self, ManagedNode, shown_cluster},
};

/// How long an own node may take to say which cluster it is of.
const ANSWERS_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// The ways to the table.
#[derive(Debug)]
pub(super) struct Reading {
    shared: Arc<Shared>,
    /// The way by the nodes of others.
    located: Option<Located>,
    /// The nodes that ran when it was looked for.
    running: BTreeSet<NodeUrl>,
    /// The cluster that this replica founds is in the table.
    is_announced: bool,
}

impl Reading {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, located: None, running: BTreeSet::new(), is_announced: false }
    }

    /// Goes by the nodes of others that were found.
    pub(super) fn go_by(&mut self, located: Located) {
        self.located = Some(located);
    }

    /// Looks for the nodes of others anew, the next time.
    pub(super) fn forget(&mut self) {
        self.located = None;
    }

    /// The table, by the own node or else by those of others.
    pub(super) async fn read(&mut self, cluster: ClusterId) -> Result<(Table, Contents)> {
        let Some(own) = self.shared.own() else { return self.read_by_others(cluster).await };
        match self.read_by_own(own.store, cluster).await {
            Ok(read) => Ok(read),
            Err(error) => {
                // It may be cut off, or a member no more.
                self.located = None;
                // Why the others are no way says more than that the own node finds no majority.
                self.read_by_others(cluster).await.map_err(|others| match error {
                    Error::Unavailable { .. } => Error::unavailable(format!("{error}; {others}")),
                    error => error,
                })
            }
        }
    }

    async fn read_by_own(&mut self, store: Arc<dyn Store>, cluster: ClusterId) -> Result<(Table, Contents)> {
        let growing = &self.shared.growing;
        let (shown, id) = match growing.engine {
            Engine::Embedded => (shown_cluster(cluster.0), None),
            Engine::Etcd => own_status(growing).await.map(|(shown, id)| (shown, Some(id)))?,
        };
        let table = Table::new(store, shown, growing.token.clone(), self.shared.calls_within());
        if let Some(own) = self.shared.identity().node.filter(|node| node.founds && !self.is_announced) {
            let id = id.unwrap_or(own.id);
            self.shared.change(|identity| identity.node = Some(NodeIdentity { id, ..own }))?;
            table.found(cluster).await?;
            let Identity { replica, incarnation, .. } = self.shared.identity();
            if !table.assign(id, replica, incarnation).await? {
                return Err(Error::corrupt(format!("node {id:x} stands in the table as that of another replica")));
            }
            self.is_announced = true;
        }
        let contents = table.read().await?;
        Ok((table, contents))
    }

    pub(super) async fn read_by_others(&mut self, cluster: ClusterId) -> Result<(Table, Contents)> {
        let growing = &self.shared.growing;
        if self.located.is_none() {
            match locate(growing, Some(cluster), self.shared.calls_within()).await? {
                Search::Found(located) => {
                    if self.shared.node().is_none() {
                        self.shared.store.switch(Some(Arc::clone(&located.store)));
                    }
                    self.located = Some(located);
                }
                Search::Nothing(others) => {
                    let others = if others.is_empty() { String::new() } else { format!(": {}", others.join("; ")) };
                    return Err(Error::unavailable(format!("no node of cluster {cluster} answers{others}")));
                }
            }
        }
        let Some(Located { shown, store, .. }) = &self.located else {
            return Err(Error::unavailable("the cluster has not been found"));
        };
        let table = Table::new(Arc::clone(store), *shown, growing.token.clone(), self.shared.calls_within());
        match table.read().await {
            Ok(contents) => {
                let running: BTreeSet<NodeUrl> = contents.running().into_values().collect();
                if running != self.running {
                    // Nodes have come or gone: the next time all are looked for.
                    (self.running, self.located) = (running, None);
                }
                Ok((table, contents))
            }
            Err(error) => {
                self.located = None;
                Err(error)
            }
        }
    }

    /// A store by the own node. An etcd that does not vote yet serves nobody: then those of others do.
    pub(super) async fn store_by(&self, node: &dyn ManagedNode) -> Result<Arc<dyn Store>> {
        let growing = &self.shared.growing;
        if growing.engine == Engine::Embedded {
            return node.store().await;
        }
        let own = growing.replica.client_url.clone();
        let others = self.located.iter().flat_map(|located| &located.endpoints).filter(|url| **url != own).cloned();
        let urls: Vec<_> = std::iter::once(own.clone()).chain(others).collect();
        node::connect(&urls, &growing.client_tls).await
    }

    /// The members that an etcd which joins has to be told: those that run have told their names.
    pub(super) async fn other_members(&mut self, cluster: ClusterId) -> Result<Vec<Member>> {
        let shared = Arc::clone(&self.shared);
        let growing = &shared.growing;
        if self.located.is_none() {
            self.read_by_others(cluster).await?;
        }
        let endpoints = self.located.as_ref().map(|located| located.endpoints.clone()).unwrap_or_default();
        let admin = Admin::with_tls(&endpoints, self.shared.calls_within(), &growing.client_tls)?;
        let members = admin.members().await?.into_iter().filter_map(|member| {
            let peer_url = member.peer_urls.first()?.parse().ok()?;
            Some(Member { name: member.name, peer_url })
        });
        Ok(members.filter(|member| member.peer_url != growing.replica.peer_url).collect())
    }
}

/// The id of the cluster, as the API of the own node shows it: an etcd makes its own.
pub(super) async fn shown_by(growing: &Growing, cluster: ClusterId) -> Result<u64> {
    match growing.engine {
        Engine::Embedded => Ok(shown_cluster(cluster.0)),
        Engine::Etcd => Ok(own_status(growing).await?.0),
    }
}

/// The cluster and the id of the own etcd, as it says itself.
async fn own_status(growing: &Growing) -> Result<(u64, NodeId)> {
    let own = std::slice::from_ref(&growing.replica.client_url);
    let admin = Admin::with_tls(own, ANSWERS_WITHIN, &growing.client_tls)?;
    let answer = admin.status().await.pop().map(|(_, answer)| answer);
    let info = answer.unwrap_or_else(|| Err(Error::unavailable("it does not answer")))?;
    Ok((info.cluster, info.id))
}

/// With what the node of a replica is started.
pub(super) fn node_settings(
    growing: &Growing,
    cluster: ClusterId,
    own: NodeIdentity,
    members: Vec<Member>,
    data_dir: PathBuf,
) -> Result<NodeSettings> {
    Ok(NodeSettings {
        name: growing.replica.name.clone(),
        token: growing.token.clone(),
        client_url: growing.replica.client_url.clone(),
        peer_url: growing.replica.peer_url.clone(),
        cluster: InitialCluster::new(members).map_err(Error::invalid_argument)?,
        state: ClusterState::Given { cluster: cluster.0, node: own.id, founds: own.founds },
        tls: growing.replica.tls.clone(),
        data_dir,
        engine: growing.engine,
        etcd_program: growing.etcd_program.clone(),
        log: growing.log.clone(),
    })
}
