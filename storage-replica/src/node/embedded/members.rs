//! The members of a cluster as an embedded node that leads sees and changes them.

use std::{collections::BTreeSet, time::Duration};

use storage_core::{Error, Result};
use storage_embedded::{ConditionalChange, Member, Node, ObservedMembers};
use storage_etcd_api::forget_member;
use storage_membership::{MemberChange, Members, decide::Changes};

/// How long a change of members may take: a joint one needs two rounds.
const CHANGES_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn seen(node: &Node, observed: ObservedMembers) -> Members {
    let voters: BTreeSet<_> = observed.voter_sets.iter().flatten().copied().collect();
    Members {
        leader: node.id(),
        term: observed.term(),
        voter_sets: observed.voter_sets.clone(),
        learners: observed.members.keys().copied().filter(|id| !voters.contains(id)).collect(),
        is_committed: observed.is_committed,
        last_index: observed.last_log_index,
        matched: observed.matched.clone(),
        acknowledged: observed.acknowledged.clone(),
        changes: Changes::Joint,
        observed: Some(observed),
    }
}

pub(super) async fn change(node: &Node, seen: &Members, change: MemberChange) -> Result<Option<u64>> {
    let Some(observed) = &seen.observed else {
        return Err(Error::invalid_argument("these are the members of another engine"));
    };
    let (id, change) = match change {
        MemberChange::AddLearner { name, peer_url } => {
            // Shown to clients of etcd, whose ids have 63 bits. Among so many numbers none comes twice.
            let id = fastrand::u64(1..i64::MAX.cast_unsigned());
            let member = Member { name, peer_address: peer_url.authority(), client_url: String::new() };
            (Some(id), ConditionalChange::AddLearner { id, member })
        }
        MemberChange::SetVoters(voters) => (None, ConditionalChange::SetVoters(voters)),
        MemberChange::RemoveLearners(ids) => (None, ConditionalChange::RemoveLearners(ids)),
        MemberChange::HandOver(to) => return node.transfer_leadership(to, CHANGES_WITHIN).await.map(|()| None),
    };
    node.change_if(observed, change, CHANGES_WITHIN).await?;
    // What removed members have told of themselves stays nobody's.
    let Some(after) = node.observe_members() else { return Ok(id) };
    for gone in observed.members.keys().filter(|member| !after.members.contains_key(member)) {
        forget_member(node, *gone, CHANGES_WITHIN).await;
    }
    Ok(id)
}
