//! What a node knows, for the simulation that judges it from outside. It changes nothing.

use openraft::async_runtime::watch::WatchReceiver;

use super::{Node, Role};
use crate::{log, raft::LogId};

/// What a node knows at one moment, for who judges it from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// What it does.
    pub role: Role,
    /// Whom it follows, or itself, however long ago it has heard from that one: who judges from outside has another clock than the node.
    pub leader: Option<u64>,
    /// The term, the candidate that it has voted for in it, and whether that one was elected, as the log has it.
    pub vote: Option<(u64, u64, bool)>,
    /// The last entry of the log: index and term.
    pub last: Option<(u64, u64)>,
    /// The last entry that it knows to be committed.
    pub committed: Option<(u64, u64)>,
    /// The last entry that it has applied.
    pub applied: Option<(u64, u64)>,
    /// The running hash of its state.
    pub digest: u64,
    /// The last entry that its snapshot covers.
    pub snapshot: Option<u64>,
    /// The members, and whether they vote.
    pub members: Vec<(u64, bool)>,
    /// The voters; of each set a majority is needed, and there are two while they change.
    pub voters: Vec<Vec<u64>>,
}

/// An entry of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbedEntry {
    /// Its place.
    pub index: u64,
    /// The term of the leader that put it there.
    pub term: u64,
    /// A hash of all that it is.
    pub hash: u32,
}

impl Node {
    /// What the node knows now.
    #[must_use]
    pub fn probe(&self) -> Probe {
        let pair = |id: LogId| (id.index, id.leader_id.term);
        let vote = self.0.log.vote().map(|vote| (vote.leader_id.term, vote.leader_id.voted_for, vote.committed));
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let role = match (metrics.running_state.is_ok(), metrics.state) {
            (true, openraft::ServerState::Leader) => Role::Leader,
            (true, openraft::ServerState::Follower) => Role::Follower,
            (true, openraft::ServerState::Candidate) => Role::Candidate,
            (true, openraft::ServerState::Learner) => Role::Learner,
            _ => Role::Stopped,
        };
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let (applied, digest) = self.state().read(|replica| (replica.last_applied, replica.state.tables().digest().0));
        Probe {
            role,
            leader: metrics.current_leader,
            vote,
            last: metrics.last_log_index.map(|index| (index, 0)),
            committed: metrics.local_committed.map(pair),
            applied: applied.map(pair),
            digest,
            snapshot: metrics.snapshot.map(|id| id.index),
            members: membership.nodes().map(|(id, _)| (*id, voters.contains(id))).collect(),
            voters: membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect(),
        }
    }

    /// What this replica has at a key, however old.
    #[must_use]
    pub fn peek(&self, key: &storage_core::Key) -> Option<storage_core::Entry> {
        self.state().get(key)
    }

    /// The entries from one index to before another, as far as the log has them.
    #[must_use]
    pub fn probe_entries(&self, from: u64, before: u64) -> Vec<ProbedEntry> {
        let entries = self.0.log.entries(from..before).unwrap_or_default();
        let probed = |entry: &crate::raft::Entry| ProbedEntry {
            index: entry.log_id.index,
            term: entry.log_id.leader_id.term,
            hash: log::hash(entry),
        };
        entries.iter().map(probed).collect()
    }
}
