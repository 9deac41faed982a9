//! What the leader thinks of its cluster, as it stands in the table for operators. Nothing is decided by it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    decide::Liveness,
    ids::{NodeId, ReplicaId},
};

/// What the leader thinks of its cluster: it stands in the table, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaderReport {
    /// The leader.
    pub leader: NodeId,
    /// The term in which it leads.
    pub term: u64,
    /// Those that vote; during a joint change those of both sets.
    pub voters: Vec<NodeId>,
    /// Those that receive the log and do not vote.
    pub learners: Vec<NodeId>,
    /// Each replica.
    pub replicas: BTreeMap<ReplicaId, ReplicaLiveness>,
    /// What it does next, or waits for.
    pub intends: String,
    /// It only tells.
    pub is_dry_run: bool,
}

/// Whether a replica is heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplicaLiveness {
    /// live, silent or dead.
    pub state: String,
    /// For how long it has not been heard of, in seconds, on the leader's clock.
    pub silent_seconds: u64,
}

impl ReplicaLiveness {
    pub(crate) fn new(liveness: Liveness, silent_seconds: u64) -> Self {
        let state = match liveness {
            Liveness::Live => "live",
            Liveness::Silent => "silent",
            Liveness::Dead => "dead",
        };
        Self { state: state.to_owned(), silent_seconds }
    }
}
