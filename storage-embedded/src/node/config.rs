//! How a node is started, and what becomes of that in openraft's configuration.
//!
//! What is set there against openraft's defaults is a decision with a reason beside it. All nodes of a cluster need the
//! same timing.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use storage_core::{Error, Result};

use super::bounds::Bounds;
use crate::{
    ClusterToken,
    network::{security::is_loopback, token::HOW_TO_HAVE_A_TOKEN},
    raft::Member,
    tls::TlsFiles,
};

/// How a node is started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The id of this node, from 1; unique in the cluster for ever: a node that lost its disk needs a new one.
    pub id: u64,
    /// The id of the cluster. Nodes of different clusters refuse each other, so a wrong address does no harm.
    pub cluster: u128,
    /// What the nodes prove to each other that they know, without sending it; the same for each of them. Without TLS it is required, with 16 bytes
    /// at the least, unless all addresses are on the loopback interface.
    pub token: ClusterToken,
    /// With TLS between the nodes, the certificates: the own one, which names the host of the node's address in the cluster and allows
    /// the uses of a server and of a client, and that of the authority, which is required. All nodes have TLS or none. Needs the
    /// cargo feature `tls`.
    pub tls: Option<TlsFiles>,
    /// Where the node keeps its log and snapshots. No other node may use it.
    pub data_dir: PathBuf,
    /// Where the node listens for the others: `host:port`; port 0 lets the system choose. Empty: it is alone, and opens no port.
    pub listen: String,
    /// All members of a cluster that is being founded, this one among them; every founding member has to be given the same.
    /// Ignored once the node has data. Empty: the node waits until a cluster takes it in.
    pub founders: BTreeMap<u64, Member>,
    /// How often a leader shows that it lives. It wants an answer within this time, so a network needs shorter round trips.
    pub heartbeat: Duration,
    /// How long followers keep to a leader that is silent: the end of this range, in which none of them votes for another one, and
    /// then a random time in the range. A dead leader is replaced after that; one that stands still for so long, too.
    pub election: std::ops::Range<Duration>,
    /// How many entries of the log may be applied until a snapshot is written and the log before it can go.
    pub snapshot_every: u64,
    /// Bounds of what it keeps, in bytes.
    pub bounds: Bounds,
    /// The machine that the node is on.
    #[cfg(simulated)]
    pub machine: crate::simulated::Machine,
}

/// How many entries are kept behind a snapshot, so that a node which was away for a moment is sent the log rather than a whole snapshot.
pub(crate) const ENTRIES_KEPT: u64 = 100_000;

impl NodeConfig {
    /// A node with the default timing: heartbeats every 100 ms, elections 0.75 to 1 s after the last one (etcd's: 1 to 2 s), so that a
    /// call survives the death of a leader within its usual deadline of 5 s; a snapshot every 500,000 entries or 64 MiB of log.
    pub fn new(id: u64, cluster: u128, data_dir: impl Into<PathBuf>, listen: impl Into<String>) -> Self {
        Self {
            id,
            cluster,
            token: ClusterToken::default(),
            tls: None,
            data_dir: data_dir.into(),
            listen: listen.into(),
            founders: BTreeMap::new(),
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(250)..Duration::from_millis(500),
            snapshot_every: 500_000,
            bounds: Bounds::default(),
            #[cfg(simulated)]
            machine: crate::simulated::Machine::default(),
        }
    }

    /// A node that is the whole of its cluster. It opens no port, and no other can be taken in.
    pub fn alone(id: u64, cluster: u128, data_dir: impl Into<PathBuf>) -> Self {
        let member = Member { name: format!("node-{id}"), ..Member::default() };
        Self { founders: BTreeMap::from([(id, member)]), ..Self::new(id, cluster, data_dir, "") }
    }

    /// Whether it listens for others.
    pub(crate) fn listens(&self) -> bool {
        !self.listen.is_empty()
    }

    /// Refuses a node that others can reach and that anybody could take part in, or whoever guesses a word.
    pub(crate) fn check_secret(&self) -> Result<()> {
        if !self.listens() {
            let is_alone = self.founders.keys().eq([&self.id]);
            return if is_alone {
                Ok(())
            } else {
                Err(Error::invalid_argument("a node with others needs an address to listen on"))
            };
        }
        let Some(weakness) = self.token.weakness() else { return Ok(()) };
        if self.token.is_empty() && self.tls.is_some() {
            return Ok(());
        }
        let addresses = self.founders.values().map(|member| &member.peer_address).chain([&self.listen]);
        // A founder that is alone may have none to tell others.
        match addresses.into_iter().find(|address| !address.is_empty() && !is_loopback(address)) {
            Some(address) => Err(Error::invalid_argument(format!(
                "{weakness}, and others can reach {address}: {HOW_TO_HAVE_A_TOKEN}. Only a cluster whose nodes are all on loopback addresses may do with less"
            ))),
            None => {
                if !self.token.is_empty() {
                    tracing::warn!("{weakness}: that will do on loopback addresses, and nowhere else");
                }
                Ok(())
            }
        }
    }

    /// Whether its nodes are on this machine only, since their secret keeps nobody out.
    pub(crate) fn is_local(&self) -> bool {
        self.token.weakness().is_some() && !(self.token.is_empty() && self.tls.is_some())
    }

    /// This configuration with heartbeats every 50 ms, for tests and machines close together.
    pub fn fast(self) -> Self {
        Self { heartbeat: Duration::from_millis(50), ..self }
    }

    /// How long a majority or a member may be silent until this node takes it for gone: two elections, and a second at the least, so that a busy
    /// machine is not taken for a lost one.
    pub(crate) fn silence(&self) -> Duration {
        (self.election.end * 2).max(Duration::from_secs(1))
    }

    pub(crate) fn raft(&self) -> Result<openraft::Config> {
        if self.id == 0 {
            return Err(Error::invalid_argument("a node id is at least 1"));
        }
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: format!("{:032x}", self.cluster),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election.start),
            election_timeout_max: millis(self.election.end),
            enable_pre_vote: Some(true),
            // A leader's entries travel while its own log is still being synced, so a leader that restarts may have lost
            // entries that the others have committed in its term. Leading on in that term, it would give their places
            // to other entries. It has to be elected again.
            enable_leader_restore: Some(false),
            // One append carries what came up while the last one was under way; see docs/decisions/0003-engine.md.
            max_payload_entries: 1024,
            max_append_entries: Some(4096),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            purge_batch_size: 4096,
            replication_lag_threshold: self.snapshot_every.saturating_add(ENTRIES_KEPT),
            install_snapshot_timeout: 600_000,
            ..openraft::Config::default()
        };
        #[cfg(simulated)]
        let config = self.machine.adjust(config);
        config.validate().map_err(|error| Error::invalid_argument(format!("the timing of the node: {error}")))
    }
}
