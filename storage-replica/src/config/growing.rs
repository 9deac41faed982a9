use std::{path::PathBuf, str::FromStr, time::Duration};

use super::{ClientTls, Engine, Log, NodeUrl, Tls, Token, mistakes::did_you_mean};

/// What one replica does in a cluster that grows by itself: see [`membership`](crate::membership).
#[derive(Clone, Debug)]
pub struct Growing {
    /// This replica.
    pub replica: GrowingReplica,
    /// All replicas that may have a node, this one among them.
    pub replicas: Vec<GrowingReplica>,
    /// What they have in common.
    pub token: Token,
    /// What a node is.
    pub engine: Engine,
    /// The directory of this replica: who it is, and its node's data.
    pub data_dir: PathBuf,
    /// The program of an etcd; `None`: the environment variable `ETCD_BIN`, or `etcd` on the path.
    pub etcd_program: Option<PathBuf>,
    /// How it reaches client URLs with `https`.
    pub client_tls: ClientTls,
    /// How long it waits until the cluster serves.
    pub startup_timeout: Duration,
    /// What it logs, and where.
    pub log: Log,
    /// Where metrics and health are served, if anywhere.
    pub admin_url: Option<NodeUrl>,
    /// What it does if it has no data.
    pub bootstrap: Bootstrap,
    /// When others count as dead, and how long is waited between changes.
    pub timing: Timing,
    /// It tells what it would do while it leads, and does nothing.
    pub is_dry_run: bool,
}

/// A replica that may have a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrowingReplica {
    /// Its id, which no other replica has.
    pub id: u64,
    /// The name of its node.
    pub name: String,
    /// Where clients reach its node.
    pub client_url: NodeUrl,
    /// Where the other nodes reach its node.
    pub peer_url: NodeUrl,
    /// Its certificates.
    pub tls: Tls,
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

impl FromStr for Bootstrap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "join" => Ok(Self::Join),
            "new" => Ok(Self::New),
            "quorum" => Ok(Self::Quorum),
            _ => {
                let hint = did_you_mean(text, ["join", "new", "quorum"]);
                Err(format!("there is no way `{text}` to begin, only join, new and quorum{hint}"))
            }
        }
    }
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
