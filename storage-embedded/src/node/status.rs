//! What a node knows of itself and of the cluster at one moment, for operators and metrics.
//!
//! It is put together of several sources that move meanwhile: to be shown, and never to decide on.

use std::collections::BTreeMap;

use openraft::async_runtime::watch::WatchReceiver;

use super::leader::Leader;
use crate::{
    LogMetrics, SnapshotMetrics,
    disk::DiskSpace,
    log::Log,
    raft::Member,
    snapshot::SnapshotStore,
    state_machine::{Raft, SharedState},
};

/// What a node does in its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Role {
    /// It leads: every write goes through it.
    Leader,
    /// It follows a leader, and votes.
    Follower,
    /// It stands for election.
    Candidate,
    /// It receives the log and does not vote.
    Learner,
    /// It has stopped, or is about to.
    Stopped,
}

/// What a node knows of itself and the cluster, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// What this node does.
    pub role: Role,
    /// The leader, if this node has heard from it lately. A leader that no majority answers names none.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// The last entry in the log.
    pub last_log_index: Option<u64>,
    /// The last entry that is known to be on a majority of the voters.
    pub committed: Option<u64>,
    /// The last entry that has been applied to the state.
    pub last_applied: Option<u64>,
    /// The last entry after which the state was that of a majority; `None`: it has not been compared since the start.
    pub compared: Option<u64>,
    /// The last entry that the newest snapshot covers.
    pub snapshot: Option<u64>,
    /// The last entry that is not in the log any more, since a snapshot holds it.
    pub purged: Option<u64>,
    /// The store's revision.
    pub revision: u64,
    /// How large the state is: records, history and leases, the same on every replica at the same entry.
    pub state_bytes: u64,
    /// How large it may become while this node leads.
    pub quota_bytes: u64,
    /// How many leases there are.
    pub leases: u64,
    /// The members that have raised an alarm since there is no space. While there are any, whatever grows is refused.
    pub alarms: Vec<u64>,
    /// How much space there is on the disk, as it was seen last.
    pub disk: DiskSpace,
    /// All members.
    pub members: BTreeMap<u64, Member>,
    /// Those that vote; during a joint change those of both sets.
    pub voters: Vec<u64>,
    /// While this node leads, the last entry that each other member is known to have.
    pub matched: BTreeMap<u64, Option<u64>>,
    /// Writes that wait for this node as the leader.
    pub queued_writes: usize,
    /// Reads that wait for this node as the leader.
    pub queued_reads: usize,
    /// What the log has counted since the start: batches, bytes, syncs and how long they took.
    pub log: LogMetrics,
    /// What has been counted of the snapshots since the start.
    pub snapshots: SnapshotMetrics,
}

pub(crate) fn of(
    raft: &Raft,
    log: &Log,
    state: &SharedState,
    snapshots: &SnapshotStore,
    leader: &Leader,
    (quota_bytes, disk): (u64, DiskSpace),
    compared: Option<u64>,
) -> NodeStatus {
    let metrics = raft.metrics().borrow_watched().clone();
    let membership = metrics.membership_config.membership();
    let role = match (metrics.running_state.is_ok(), metrics.state) {
        (true, openraft::ServerState::Leader) => Role::Leader,
        (true, openraft::ServerState::Follower) => Role::Follower,
        (true, openraft::ServerState::Candidate) => Role::Candidate,
        (true, openraft::ServerState::Learner) => Role::Learner,
        _ => Role::Stopped,
    };
    let matched = metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id);
    let (queued_writes, queued_reads) = leader.queued();
    let (state_bytes, leases, alarms) = state.read(|replica| {
        let tables = replica.state.tables();
        (tables.keys.bytes(), tables.counts().leases, tables.alarms().collect())
    });
    NodeStatus {
        role,
        leader: leader.known(),
        term: metrics.current_term,
        last_log_index: metrics.last_log_index,
        committed: metrics.cluster_committed.map(|id| id.index),
        last_applied: metrics.last_applied.map(|id| id.index),
        compared,
        snapshot: metrics.snapshot.map(|id| id.index),
        purged: metrics.purged.map(|id| id.index),
        revision: state.revision().0,
        state_bytes,
        quota_bytes,
        leases,
        alarms,
        disk,
        members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        voters: membership.voter_ids().collect(),
        matched: matched.map(|(id, matched)| (*id, matched.as_ref().map(|id| id.index))).collect(),
        queued_writes,
        queued_reads,
        log: log.metrics(),
        snapshots: snapshots.metrics(),
    }
}
