//! What the rows of the table say.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClusterId, NodeId, ReplicaId},
    leader_report::LeaderReport,
    settings::Replica,
    url::NodeUrl,
};

/// All of it, at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Contents {
    /// The id of the cluster.
    pub cluster: Option<ClusterId>,
    /// The replicas.
    pub replicas: BTreeMap<ReplicaId, ReplicaRow>,
    /// Those that were asked to leave for good.
    pub leaving: BTreeSet<ReplicaId>,
    /// The nodes that there are, and the latest that there were.
    pub nodes: BTreeMap<NodeId, NodeRow>,
    /// The latest change.
    pub change: Option<ChangeRow>,
    /// What the leader says.
    pub report: Option<LeaderReport>,
    /// The names of the rows that are not proved: nothing is done on their account.
    pub unproved: BTreeSet<String>,
    /// The rows as they stand there, proved or not, by their names.
    pub(crate) rows: BTreeMap<String, Bytes>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplicaRow {
    /// Its data directory.
    pub incarnation: u64,
    /// It rises with each heartbeat.
    pub beat: u64,
    /// The name of its node.
    pub name: String,
    /// Where clients reach its node.
    pub client_url: String,
    /// Where the other nodes reach its node.
    pub peer_url: String,
    /// Its node runs.
    pub runs_node: bool,
    /// Its node, as its own disk says.
    pub node: Option<NodeId>,
}

/// One node that there is or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeRow {
    /// The replica that it was made for.
    pub replica: ReplicaId,
    /// The data directory that it was made for.
    pub incarnation: u64,
    /// It is a member no more, for ever.
    pub is_gone: bool,
}

/// The latest change. Whoever makes one writes this first, if nobody has since it looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChangeRow {
    /// How many there were.
    pub number: u64,
    /// The node that made it.
    pub leader: NodeId,
    /// What it was, for people.
    pub what: String,
}

/// What a replica was asked last.
#[derive(Serialize, Deserialize)]
pub(crate) struct LeavingRow {
    /// To leave for good; otherwise to stay after all.
    pub(crate) leaves: bool,
    /// It rises, so that what was asked before cannot be asked again by who has seen it.
    pub(crate) number: u64,
}

impl ReplicaRow {
    /// The row of a replica as its configuration describes it.
    pub(crate) fn of(replica: &Replica, incarnation: u64, beat: u64, runs_node: bool, node: Option<NodeId>) -> Self {
        Self {
            incarnation,
            beat,
            name: replica.name.clone(),
            client_url: replica.client_url.to_string(),
            peer_url: replica.peer_url.to_string(),
            runs_node,
            node,
        }
    }
}

impl Contents {
    /// The node of a replica's present data directory: that which it claims, or else that which it was given.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let row = self.replicas.get(&replica)?;
        row.node.or_else(|| self.node_of_incarnation(replica, row.incarnation))
    }

    /// Whether the table says whose this node is, and not that it is gone.
    pub(crate) fn has_node(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|row| !row.is_gone)
    }

    pub(crate) fn node_of_incarnation(&self, replica: ReplicaId, incarnation: u64) -> Option<NodeId> {
        let owned = self.nodes.iter().filter(|(_, row)| row.replica == replica && row.incarnation == incarnation);
        owned.filter(|(_, row)| !row.is_gone).map(|(id, _)| *id).next()
    }

    /// Where the nodes that run are reached by clients.
    pub(crate) fn running(&self) -> BTreeMap<ReplicaId, NodeUrl> {
        let running = self.replicas.iter().filter(|(_, row)| row.runs_node);
        running.filter_map(|(id, row)| Some((*id, row.client_url.parse().ok()?))).collect()
    }
}
