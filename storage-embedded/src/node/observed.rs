//! The members as the leader sees them, and changes that are made only if they are still so.
//!
//! Invariants: a change is conditional on the very entry that it was decided on; a new voter has acknowledged something
//! first. So two that decide at once do not mix, whoever leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers, Instant as _,
    async_runtime::watch::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
    raft::Precondition,
};
use storage_core::{Error, Result};

use super::Node;
use crate::raft::{LogId, Member, TypeConfig};

/// The members, as the leader has them: what a change of members is decided on. See [`Node::observe_members`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ObservedMembers {
    /// All members.
    pub members: BTreeMap<u64, Member>,
    /// The set of voters; during a joint change both sets, the one to be left first.
    pub voter_sets: Vec<BTreeSet<u64>>,
    /// Whether a majority has it. A change that is not committed may yet vanish.
    pub is_committed: bool,
    /// The last entry of the leader's log.
    pub last_log_index: u64,
    /// The last entry that each other member is known to have.
    pub matched: BTreeMap<u64, u64>,
    /// How long ago, on the leader's monotonic clock, that each other member sent was written which it has acknowledged last. Those
    /// that have acknowledged nothing to this leader are not in it.
    pub acknowledged: BTreeMap<u64, Duration>,
    /// The entry that holds it.
    at: Option<LogId>,
    term: u64,
}

impl ObservedMembers {
    /// The term in which this was observed.
    pub fn term(&self) -> u64 {
        self.term
    }
}

/// A change of members that is made only while they are what it was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConditionalChange {
    /// Take a node in that does not vote. Its id was never used in this cluster.
    AddLearner {
        /// Its node id.
        id: u64,
        /// Where it is.
        member: Member,
    },
    /// Make these the voters, in one joint change: those that are new have to be members, and those that go are removed. Given the last of two
    /// sets of voters, it ends a joint change that another leader has begun.
    SetVoters(BTreeSet<u64>),
    /// Remove members that do not vote.
    RemoveLearners(BTreeSet<u64>),
}

/// What somebody needs who decides on changes by himself, while leaders come and go: what is observed, and changes that fail rather than
/// mix with those of others.
impl Node {
    /// The members, if this node leads.
    pub fn observe_members(&self) -> Option<ObservedMembers> {
        let metrics = self.0.raft.metrics().borrow_watched().clone();
        if metrics.current_leader != Some(metrics.id) || metrics.running_state.is_err() {
            return None;
        }
        let membership = metrics.membership_config.membership();
        let others = |id: &u64| *id != metrics.id;
        let matched = metrics.replication.iter().flatten().filter(|(id, _)| others(id));
        let heard = metrics.heartbeat.iter().flatten().filter(|(id, _)| others(id));
        Some(ObservedMembers {
            members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
            voter_sets: membership.get_joint_config().clone(),
            is_committed: metrics.membership_config.log_id() == metrics.committed_membership_config.log_id(),
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            matched: matched.filter_map(|(id, matched)| Some((*id, matched.as_ref()?.index))).collect(),
            acknowledged: heard.filter_map(|(id, heard)| Some((*id, heard.as_ref()?.elapsed()))).collect(),
            at: *metrics.membership_config.log_id(),
            term: metrics.current_term,
        })
    }

    /// Makes a change if the members are still those that were observed and this node leads. It does not ask another leader.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if they are not, or this node does not lead: observe again, nothing was changed; [`Error::InvalidArgument`] for a change
    /// that cannot be made; [`Error::UnknownOutcome`] if nobody knows, or a joint change has begun and not ended: observe again.
    pub async fn change_if(
        &self,
        observed: &ObservedMembers,
        change: ConditionalChange,
        timeout: Duration,
    ) -> Result<()> {
        if !self.0.raft.is_leader() {
            return Err(Error::unavailable("this node does not lead"));
        }
        if let ConditionalChange::SetVoters(voters) = &change {
            let has_data = |id: &u64| *id == self.0.id || observed.matched.contains_key(id);
            let votes = |id: &u64| observed.voter_sets.iter().any(|set| set.contains(id));
            // See docs/decisions/0012-first-start.md: a voter has data.
            if let Some(new) = voters.iter().find(|id| observed.members.contains_key(id) && !votes(id) && !has_data(id))
            {
                return Err(Error::unavailable(format!("node {new} has acknowledged nothing yet")));
            }
        }
        let members = match change {
            ConditionalChange::AddLearner { id, member } => ChangeMembers::AddNodes([(id, member)].into()),
            ConditionalChange::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
            ConditionalChange::RemoveLearners(ids) => ChangeMembers::RemoveNodes(ids),
        };
        let unchanged = Precondition::LastMembershipLogId { last_membership_log_id: observed.at };
        let changed = self.0.raft.change_membership_if(members, false, [unchanged]);
        match tokio::time::timeout(timeout, changed).await {
            Ok(changed) => changed.map(|_| ()).map_err(|error| refused(error, observed.at)),
            Err(_) => Err(Error::deadline_after_send(timeout)),
        }
    }
}

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>, at: Option<LogId>) -> Error {
    use openraft::errors::PreconditionFailed as Failed;
    match error {
        // Told of the second step of a joint change, whose first is in the log: then it expects an entry that nobody has observed.
        RaftError::APIError(ClientWriteError::PreconditionFailed(Failed::LastMembershipLogIdMismatch {
            expected,
            ..
        })) if expected != at => Error::unknown_outcome("a joint change has begun and was overtaken"),
        RaftError::APIError(ClientWriteError::PreconditionFailed(failed)) => Error::unavailable(failed),
        // Another leader may be told by the second step as well.
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
            Error::unknown_outcome("this node does not lead any more")
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            error @ (ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_)),
        )) => Error::unavailable(error),
        RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_)) => {
            Error::invalid_argument(error.to_string())
        }
        error => Error::unknown_outcome(error.to_string()),
    }
}
