//! The engines that a growing cluster is made of, as storage-membership asks for them: embedded nodes, or etcds.
//!
//! Where the two differ is decided here, so that the rules of membership know neither. It must not decide on members
//! itself.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use storage_core::{Error, Result, Store};
use storage_embedded::{Restored, Salvage};
use storage_membership::{
    AnswerQuestion, AskedTable, ClusterId, Engine, Listener, MemberIds, Node, NodeStart, NodeStatus, NodeUrl, Proved,
    Replica, Rows, StoreRows,
};

use super::founding;
use crate::{
    admin::Admin,
    config::{self, ClusterState, Growing, InitialCluster, Member, NodeSettings},
    node::{self, own_table},
};

/// How long the nodes of others may take to list the members to one that joins.
const LISTED_WITHIN: Duration = Duration::from_secs(3);

/// The engine that the configuration names, with this replica's URLs, directory and certificates.
#[derive(Debug)]
pub(super) struct ReplicaEngine {
    growing: Growing,
}

impl ReplicaEngine {
    pub(super) fn new(growing: Growing) -> Self {
        Self { growing }
    }

    fn admin(&self, client_urls: &[NodeUrl], timeout: Duration) -> Result<Admin> {
        Admin::with_tls(client_urls, timeout, &self.growing.client_tls)
    }

    /// The table of embedded nodes, which they keep apart from their keys.
    fn table(&self, client_urls: &[NodeUrl]) -> Result<AskedTable> {
        let nodes = own_table::Nodes::new(client_urls, &self.growing.client_tls)?;
        Ok(AskedTable::new(Arc::new(nodes), self.growing.membership.token.clone()))
    }

    /// With what the node is started. An etcd that joins has to be told the `others`, an embedded node nobody.
    fn settings(&self, start: &NodeStart, others: Vec<Member>) -> Result<NodeSettings> {
        let Growing { membership, tls, engine, bounds, max_connections, etcd_program, log, .. } = &self.growing;
        let Replica { name, client_url, peer_url, .. } = membership.replica.clone();
        let own = Member { name: name.clone(), peer_url: peer_url.clone() };
        Ok(NodeSettings {
            name,
            token: membership.token.clone(),
            client_url,
            peer_url,
            cluster: InitialCluster::new([own].into_iter().chain(others)).map_err(Error::invalid_argument)?,
            state: ClusterState::Given { cluster: start.cluster.0, node: start.node, founds: start.founds },
            tls: tls.clone(),
            data_dir: start.data_dir.clone(),
            engine: *engine,
            bounds: *bounds,
            max_connections: *max_connections,
            etcd_program: etcd_program.clone(),
            log: log.clone(),
        })
    }

    /// The other members, as the nodes at these client URLs list them. Those that have run have told their names.
    async fn others(&self, client_urls: &[NodeUrl]) -> Result<Vec<Member>> {
        if client_urls.is_empty() {
            return Ok(Vec::new());
        }
        let own = &self.growing.membership.replica.peer_url;
        let members = self.admin(client_urls, LISTED_WITHIN)?.members().await?.into_iter().filter_map(|member| {
            let peer_url = member.peer_urls.first()?.parse().ok()?;
            Some(Member { name: member.name, peer_url })
        });
        Ok(members.filter(|member| member.peer_url != *own).collect())
    }
}

#[async_trait]
impl Engine for ReplicaEngine {
    async fn start(&self, start: NodeStart) -> Result<Arc<dyn Node>> {
        let others = self.others(&start.others).await?;
        Ok(node::start(self.settings(&start, others)?).await?)
    }

    fn joins_by_others(&self) -> bool {
        self.growing.engine == config::Engine::Etcd
    }

    fn rows(&self, store: &Arc<dyn Store>, client_urls: &[NodeUrl]) -> Result<Arc<dyn Rows>> {
        match self.growing.engine {
            config::Engine::Embedded => Ok(Arc::new(self.table(client_urls)?)),
            config::Engine::Etcd => Ok(Arc::new(StoreRows(Arc::clone(store)))),
        }
    }

    fn keeps_rows_apart(&self) -> bool {
        self.growing.engine == config::Engine::Embedded
    }

    fn api_cluster(&self, cluster: ClusterId) -> Option<u64> {
        match self.growing.engine {
            config::Engine::Embedded => Some(storage_etcd_api::cluster_id(cluster.0)),
            config::Engine::Etcd => None,
        }
    }

    async fn connect(&self, client_urls: &[NodeUrl]) -> Result<Arc<dyn Store>> {
        node::connect(client_urls, &self.growing.client_tls).await
    }

    async fn status(&self, client_url: &NodeUrl, timeout: Duration) -> Result<NodeStatus> {
        let answers = self.admin(std::slice::from_ref(client_url), timeout)?.status().await;
        let answer = answers.into_iter().next().map(|(_, answer)| answer);
        let info = answer.unwrap_or_else(|| Err(Error::unavailable("it does not answer")))?;
        Ok(NodeStatus {
            node: info.id,
            cluster: info.cluster,
            leader: info.leader,
            term: info.term,
            log_index: info.log_index,
        })
    }

    async fn members(&self, client_urls: &[NodeUrl], timeout: Duration) -> Result<MemberIds> {
        if self.growing.engine == config::Engine::Embedded {
            // Its etcd API shows the latest change of members, committed or not.
            return self.table(client_urls)?.members(timeout).await;
        }
        let mut ids = MemberIds::default();
        for member in self.admin(client_urls, timeout)?.members().await? {
            let kind = if member.is_learner { &mut ids.learners } else { &mut ids.voters };
            kind.insert(member.id);
        }
        Ok(ids)
    }

    async fn ask(&self, to: &Replica, question: Proved, timeout: Duration) -> Result<Proved> {
        founding::ask(&to.client_url, question, &self.growing.client_tls, timeout).await
    }

    async fn listen(&self, answer: AnswerQuestion) -> Result<Box<dyn Listener>> {
        founding::listen(&self.growing.membership.replica.client_url, &self.growing.tls, answer).await
    }

    fn restore(&self, salvage: &Salvage, start: &NodeStart, bump_revision: u64) -> Result<Restored> {
        node::restore_salvaged(salvage, &self.settings(start, Vec::new())?, bump_revision)
    }
}
