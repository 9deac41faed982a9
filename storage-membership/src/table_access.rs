//! How a replica reads the table: by its own node, or by those of others.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use storage_core::{Error, Result};

use crate::{
    contents::Contents,
    engine::MemberIds,
    identity::NodeIdentity,
    ids::{ClusterId, NodeId},
    locate::{Located, Search, locate},
    rows::StoreRows,
    shared::{OwnNode, Shared},
    table::Table,
    url::NodeUrl,
};

/// How long an own node may take to say which cluster it is of.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// The ways to the table.
#[derive(Debug)]
pub(crate) struct TableAccess {
    shared: Arc<Shared>,
    /// The way by the nodes of others.
    located: Option<Located>,
    /// The nodes that ran when it was looked for.
    running: BTreeSet<NodeUrl>,
    /// The id of the own node is the one that it says itself.
    knows_own_id: bool,
}

/// The table as it was read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) table: Table,
    pub(crate) contents: Contents,
    /// By the own node, which therefore hears a majority.
    pub(crate) by_own: bool,
}

impl TableAccess {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, located: None, running: BTreeSet::new(), knows_own_id: false }
    }

    /// Goes by the nodes of others that were found.
    pub(crate) fn go_by(&mut self, located: Located) {
        self.located = Some(located);
    }

    /// Looks for the nodes of others anew, the next time.
    pub(crate) fn forget(&mut self) {
        self.located = None;
    }

    /// The table, by the own node or else by those of others.
    pub(crate) async fn read(&mut self, cluster: ClusterId) -> Result<Read> {
        let Some(own) = self.shared.own() else { return self.read_by_others(cluster).await };
        match self.read_by_own(own, cluster).await {
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

    async fn read_by_own(&mut self, own: OwnNode, cluster: ClusterId) -> Result<Read> {
        let (api_cluster, id) = Self::api_cluster_of_own(&self.shared, cluster).await?;
        if let (Some(id), Some(node)) = (id, self.shared.identity().node)
            && node.founds
            && !self.knows_own_id
        {
            self.shared.change(|identity| identity.node = Some(NodeIdentity { id, ..node }))?;
            self.knows_own_id = true;
        }
        let table = Table::new(own.rows, api_cluster, self.shared.settings.token.clone(), self.shared.calls_within());
        let mut contents = table.read().await?;
        if contents.cluster != Some(cluster) {
            if self.shared.engine.keeps_rows_apart() {
                table.take_over(&StoreRows(own.store)).await?;
                contents = table.read().await?;
            }
            table.found(cluster, &contents).await?;
            contents = table.read().await?;
        }
        Ok(Read { table, contents, by_own: true })
    }

    async fn read_by_others(&mut self, cluster: ClusterId) -> Result<Read> {
        let table = self.others(cluster).await?.table.clone();
        match table.read().await {
            Ok(contents) => {
                let running: BTreeSet<NodeUrl> = contents.running().into_values().collect();
                if running != self.running {
                    // Nodes have come or gone: the next time all are looked for.
                    (self.running, self.located) = (running, None);
                }
                Ok(Read { table, contents, by_own: false })
            }
            Err(error) => {
                self.located = None;
                Err(error)
            }
        }
    }

    /// The nodes of the cluster that answer, looked for if none is known.
    async fn others(&mut self, cluster: ClusterId) -> Result<&Located> {
        let located = match self.located.take() {
            Some(located) => located,
            None => {
                let shared = &self.shared;
                match locate(&shared.settings, &*shared.engine, Some(cluster), shared.calls_within()).await? {
                    Search::Found(located) => {
                        if shared.own().is_none() {
                            shared.store.switch(Some(Arc::clone(&located.store)));
                        }
                        located
                    }
                    Search::Nothing(others) => {
                        let others = if others.is_empty() { String::new() } else { format!(": {}", others.join("; ")) };
                        return Err(Error::unavailable(format!("no node of cluster {cluster} answers{others}")));
                    }
                }
            }
        };
        Ok(self.located.insert(located))
    }

    /// The members by the latest change of them that is committed, if a node that was one is not among them: then it was removed, whatever rows say.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node answers that hears a majority: then nobody knows.
    pub(crate) async fn members_without(&mut self, node: NodeId, cluster: ClusterId) -> Result<Option<MemberIds>> {
        let (shared, endpoints) = (Arc::clone(&self.shared), self.endpoints_of_others(cluster).await?);
        let members = shared.engine.members(&endpoints, shared.calls_within()).await.inspect_err(|_| self.forget())?;
        Ok(Some(members).filter(|members| !members.contains(node)))
    }

    /// The client URLs of the nodes of others, as far as they are known now.
    pub(crate) fn known_others(&self) -> Vec<NodeUrl> {
        let own = &self.shared.settings.replica.client_url;
        let known = self.located.iter().flat_map(|located| &located.endpoints);
        known.filter(|url| *url != own).cloned().collect()
    }

    /// The client URLs of nodes that run, looked for if none is known.
    pub(crate) async fn endpoints_of_others(&mut self, cluster: ClusterId) -> Result<Vec<NodeUrl>> {
        Ok(self.others(cluster).await?.endpoints.clone())
    }

    /// The id of the cluster, as the API of the own node shows it, and the id of that node if the node alone knows it.
    pub(crate) async fn api_cluster_of_own(shared: &Shared, cluster: ClusterId) -> Result<(u64, Option<NodeId>)> {
        if let Some(api_cluster) = shared.engine.api_cluster(cluster) {
            return Ok((api_cluster, None));
        }
        let status = shared.engine.status(&shared.settings.replica.client_url, ANSWERS_WITHIN).await?;
        Ok((status.cluster, Some(status.node)))
    }
}
