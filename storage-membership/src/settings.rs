//! What one replica is told of a cluster that grows by itself: plain data, from a file or a program.

use std::{path::PathBuf, time::Duration};

use crate::{ids::ReplicaId, token::Token, url::NodeUrl};

/// What one replica is told of a cluster that grows by itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This replica.
    pub replica: Replica,
    /// All replicas that may have a node, this one among them.
    pub replicas: Vec<Replica>,
    /// What they have in common.
    pub token: Token,
    /// The directory of this replica: who it is, and its node's data.
    pub data_dir: PathBuf,
    /// What it does if it has no data.
    pub bootstrap: Bootstrap,
    /// When others count as dead, and how long is waited between changes.
    pub timing: Timing,
    /// It tells what it would do while it leads, and does nothing.
    pub is_dry_run: bool,
}

/// A replica that may have a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its id, which no other replica has.
    pub id: ReplicaId,
    /// The name of its node.
    pub name: String,
    /// Where clients reach its node.
    pub client_url: NodeUrl,
    /// Where the other nodes reach its node.
    pub peer_url: NodeUrl,
}

/// What a replica without data does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bootstrap {
    /// It looks for the cluster and waits to be taken in. It never founds one.
    #[default]
    Join,
    /// It founds a cluster, unless it sees one: for the first start of the first replica, once.
    New,
    /// It founds a cluster together with a majority of all replicas, of which one is chosen: for the first start of all of them.
    Quorum,
}

/// The times of a cluster that grows by itself, all on monotonic clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Who is not heard of for so long is dead.
    pub dead_after: Duration,
    /// How long the members of an etcd have to be well between two changes.
    pub rest: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { dead_after: Duration::from_secs(30), rest: Duration::from_secs(5) }
    }
}

impl Timing {
    /// How often a replica tells that it lives, and the leader decides.
    pub fn heartbeat(&self) -> Duration {
        self.dead_after / 10
    }

    /// Who was heard of so long ago counts as live.
    pub fn live_within(&self) -> Duration {
        self.dead_after / 2
    }
}
