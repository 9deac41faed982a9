//! The members of a cluster as its leader sees and changes them, whatever its engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use storage_core::{Error, Result};
use storage_embedded::{ConditionalChange, Member, Node, ObservedMembers};

use crate::{
    config::NodeUrl,
    etcd_api::cluster::client_urls_row,
    membership::decide::{Changes, NodeId},
};

/// How long a change of members may take: a joint one needs two rounds.
pub(super) const CHANGES_WITHIN: Duration = Duration::from_secs(10);

/// The members, as the leader sees them at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Members {
    /// The leader.
    pub leader: NodeId,
    /// The term in which it leads.
    pub term: u64,
    /// The set of voters; during a joint change both sets.
    pub voter_sets: Vec<BTreeSet<NodeId>>,
    /// Those that do not vote.
    pub learners: BTreeSet<NodeId>,
    /// Whether a majority has this.
    pub is_committed: bool,
    /// How far the leader is.
    pub last_index: u64,
    /// How far each other member is known to be.
    pub matched: BTreeMap<NodeId, u64>,
    /// How long ago each other member has acknowledged something.
    pub acknowledged: BTreeMap<NodeId, Duration>,
    /// Where each is.
    pub urls: BTreeMap<NodeId, MemberUrls>,
    /// How they can be changed.
    pub changes: Changes,
    pub(super) observed: Option<ObservedMembers>,
}

/// Where a member is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberUrls {
    /// Its name; empty until an etcd has started.
    pub name: String,
    /// Where the other nodes reach it.
    pub peer: String,
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Take in a node that does not vote, with an id that was never used.
    AddLearner {
        /// The name of the node.
        name: String,
        /// Where the other nodes reach it.
        peer_url: NodeUrl,
    },
    /// Make these the voters.
    SetVoters(BTreeSet<NodeId>),
    /// Remove members that do not vote.
    RemoveLearners(BTreeSet<NodeId>),
    /// Let another voter lead.
    HandOver(NodeId),
}

impl Members {
    /// All voters, during a joint change those of both sets.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.voter_sets.iter().flatten().copied().collect()
    }
}

pub(super) fn of_embedded(node: &Node, observed: ObservedMembers) -> Members {
    let voters: BTreeSet<_> = observed.voter_sets.iter().flatten().copied().collect();
    let urls = observed
        .members
        .iter()
        .map(|(id, member)| (*id, MemberUrls { name: member.name.clone(), peer: member.peer_address.clone() }));
    Members {
        leader: node.id(),
        term: observed.term(),
        voter_sets: observed.voter_sets.clone(),
        learners: observed.members.keys().copied().filter(|id| !voters.contains(id)).collect(),
        is_committed: observed.is_committed,
        last_index: observed.last_log_index,
        matched: observed.matched.clone(),
        acknowledged: observed.acknowledged.clone(),
        urls: urls.collect(),
        changes: Changes::Joint,
        observed: Some(observed),
    }
}

pub(super) async fn change_embedded(node: &Node, seen: &Members, change: Change) -> Result<Option<u64>> {
    let Some(observed) = &seen.observed else {
        return Err(Error::invalid_argument("these are the members of another engine"));
    };
    let (id, change) = match change {
        Change::AddLearner { name, peer_url } => {
            // Shown to clients of etcd, whose ids have 63 bits. Among so many numbers none comes twice.
            let id = fastrand::u64(1..i64::MAX.cast_unsigned());
            let member = Member { name, peer_address: peer_url.authority(), client_url: String::new() };
            (Some(id), ConditionalChange::AddLearner { id, member })
        }
        Change::SetVoters(voters) => (None, ConditionalChange::SetVoters(voters)),
        Change::RemoveLearners(ids) => (None, ConditionalChange::RemoveLearners(ids)),
        Change::HandOver(to) => return node.transfer_leadership(to, CHANGES_WITHIN).await.map(|()| None),
    };
    node.change_if(observed, change, CHANGES_WITHIN).await?;
    // What removed members have told of themselves stays nobody's.
    let Some(after) = node.observe_members() else { return Ok(id) };
    for gone in observed.members.keys().filter(|member| !after.members.contains_key(member)) {
        if let Err(error) = node.delete_row(client_urls_row(*gone), CHANGES_WITHIN).await {
            tracing::info!(%error, node = format!("{gone:x}"), "a removed member's client URLs stay in the table");
        }
    }
    Ok(id)
}
