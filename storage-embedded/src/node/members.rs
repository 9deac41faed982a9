//! How the leader changes the members.

use std::collections::BTreeSet;

use openraft::{
    ChangeMembers,
    async_runtime::watch::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use tokio::sync::Mutex;

use super::Raft;
use crate::{
    network::{
        message::{MembershipChange, Reply},
        peer::PeerContext,
    },
    raft::{Member, TypeConfig},
};

/// Why a learner is not promoted, to callers that ask for one that has caught up.
pub const NOT_IN_SYNC: &str = "can only promote a learner member which is in sync with leader";

/// A learner with this much of the leader's log has caught up, in percent: etcd's share.
const IN_SYNC_PERCENT: u128 = 90;

/// Makes the changes of this leader one after the other: Raft takes most of them in two steps, and another change between them
/// would be mixed into both.
#[derive(Debug, Default)]
pub(crate) struct OneAtATime(Mutex<()>);

pub(crate) async fn change(
    raft: &Raft,
    peers: &PeerContext,
    one_at_a_time: &OneAtATime,
    change: MembershipChange,
) -> Reply {
    // Who waits asks again, and so nobody stands in a queue whose caller has gone.
    let Ok(_turn) = one_at_a_time.0.try_lock() else { return Reply::Changing };
    match change {
        MembershipChange::AddLearner { id, member } => {
            if raft.server_metrics().borrow_watched().membership_config.membership().get_node(&id).is_some() {
                return Reply::Refused(format!("node {id} is a member already"));
            }
            reply(raft.add_learner(id, member, false).await)
        }
        MembershipChange::Promote(ids) => promote(raft, ids.into_iter().collect()).await,
        MembershipChange::PromoteInSync(id) => match is_in_sync(raft, id) {
            Some(true) => promote(raft, [id].into()).await,
            Some(false) => Reply::Refused(NOT_IN_SYNC.to_owned()),
            None => Reply::NotLeader,
        },
        MembershipChange::Readdress { id, peer_address } => readdress(raft, peers, id, peer_address).await,
        MembershipChange::Remove(ids) => remove(raft, ids.into_iter().collect()).await,
        MembershipChange::TransferLeadership(to) => {
            if !raft.voter_ids().any(|id| id == to) {
                return Reply::Refused(format!("node {to} is no voter"));
            }
            if !raft.is_leader() {
                return Reply::NotLeader;
            }
            match raft.trigger().transfer_leader(to).await {
                Ok(()) => Reply::Changed,
                Err(_) => Reply::Undecided,
            }
        }
    }
}

async fn promote(raft: &Raft, ids: BTreeSet<u64>) -> Reply {
    reply(raft.change_membership(ChangeMembers::AddVoterIds(ids), false).await)
}

/// `None`: this node does not lead, and cannot know.
fn is_in_sync(raft: &Raft, id: u64) -> Option<bool> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let has = metrics.replication.as_ref()?.get(&id).and_then(|matched| matched.as_ref().map(|matched| matched.index));
    let (has, all) = (u128::from(has.unwrap_or_default()), u128::from(metrics.last_log_index.unwrap_or_default()));
    Some(has * 100 >= all * IN_SYNC_PERCENT)
}

async fn readdress(raft: &Raft, peers: &PeerContext, id: u64, peer_address: String) -> Reply {
    let metrics = raft.server_metrics();
    let member = metrics.borrow_watched().membership_config.membership().get_node(&id).cloned();
    let Some(member) = member else { return Reply::Refused(format!("node {id} is no member")) };
    let moved = Member { peer_address: peer_address.clone(), ..member };
    let changed = reply(raft.change_membership(ChangeMembers::SetNodes([(id, moved)].into()), false).await);
    if changed == Reply::Changed {
        // Raft keeps the streams that it has.
        peers.readdress(id, peer_address);
    }
    changed
}

async fn remove(raft: &Raft, ids: BTreeSet<u64>) -> Reply {
    let voters: BTreeSet<u64> = raft.voter_ids().collect();
    let (leaving_voters, learners): (BTreeSet<u64>, BTreeSet<u64>) =
        ids.into_iter().partition(|id| voters.contains(id));
    if !leaving_voters.is_empty() {
        if leaving_voters == voters {
            return Reply::Refused("a cluster keeps at least one voter".to_owned());
        }
        let removed = reply(raft.change_membership(ChangeMembers::RemoveVoters(leaving_voters), false).await);
        if removed != Reply::Changed || learners.is_empty() {
            return removed;
        }
    }
    reply(raft.change_membership(ChangeMembers::RemoveNodes(learners), false).await)
}

fn reply<T>(changed: Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>) -> Reply {
    match changed {
        Ok(_) => Reply::Changed,
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Reply::NotLeader,
        // A change that an earlier leader, or this one in an earlier term, has begun.
        Err(RaftError::APIError(
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
            | ClientWriteError::PreconditionFailed(_),
        )) => Reply::Changing,
        Err(RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_))) => {
            Reply::Refused(error.to_string())
        }
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_)) => Reply::Undecided,
    }
}
