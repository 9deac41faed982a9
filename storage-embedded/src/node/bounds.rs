//! Keeps the disk, and what a start has to read, within bounds of bytes.
//!
//! Raft counts entries, and an entry may have a byte or a MiB. So it is told, from here, when to write a snapshot and what of the log to
//! give up, in addition to what it does by itself ([`NodeConfig::snapshot_every`](super::NodeConfig::snapshot_every)).
//!
//! The log is kept for followers: one that needs what is gone is sent a whole snapshot. A follower that is only slow must not be: while
//! entries that it has still wait to be applied, raft fails on a snapshot that holds them already (openraft issue 2116). So the leader keeps
//! a multiple of the bound for as long as a member has not got it.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use crate::{log::Log, snapshot::SnapshotStore, state_machine::Raft};

/// How often a node looks. At 500 MiB/s, more than a disk takes, it is late by 50 MiB.
const CHECKED: Duration = Duration::from_millis(100);

/// How many times the bound of the log a leader keeps for a member that has not got it: at 16 MiB/s, 16 s more than without.
const FOR_LAGGING: u64 = 4;

/// Bounds of what a node keeps, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// How much log may be applied until a snapshot is written; the length of the last snapshot, if that is more. So a start reads at most
    /// this much beside the snapshot, and over time no more is written for snapshots than for the log. 64 MiB.
    pub snapshot_bytes: u64,
    /// How much log is kept behind a snapshot, so that a follower which was away for a moment is sent the log rather than a whole snapshot;
    /// four times as much while a member has not got it. 64 MiB.
    pub log_kept_bytes: u64,
    /// How large the state may become while this node leads: records, their history and leases, as they are counted in the replicated state. Whatever grows
    /// beyond it is refused, and an alarm raised. Give all nodes the same. 2 GiB as in etcd: the state is in memory, which takes as much, and once more while
    /// a snapshot is received.
    pub quota_backend_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { snapshot_bytes: 64 << 20, log_kept_bytes: 64 << 20, quota_backend_bytes: 2 << 30 }
    }
}

impl Bounds {
    /// Has snapshots written, and the log given up, until raft ends.
    pub(super) async fn keep(self, raft: Raft, log: Log, snapshots: SnapshotStore) {
        let data = raft.data_metrics();
        // What was asked for and may be under way.
        let (mut snapshot_asked, mut purge_asked) = (None, None);
        loop {
            tokio::time::sleep(CHECKED).await;
            let (applied, snapshot, purged, slowest) = {
                let data = data.borrow_watched();
                let matched = data.replication.iter().flat_map(|members| members.values());
                let slowest = matched.map(|matched| matched.as_ref().map_or(0, |id| id.index)).min();
                let index = |id: &Option<crate::raft::LogId>| id.as_ref().map(|id| id.index);
                (index(&data.last_applied), index(&data.snapshot), index(&data.purged), slowest)
            };
            let Some(applied) = applied else { continue };
            let covered = snapshot.max(snapshot_asked);
            let most = self.snapshot_bytes.max(snapshots.metrics().newest_bytes);
            if log.bytes_between(covered, applied) > most {
                snapshot_asked = Some(applied);
                if raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            let kept = log.last_before(self.log_kept_bytes);
            let kept_for_lagging = log.last_before(self.log_kept_bytes.saturating_mul(FOR_LAGGING));
            let unneeded = slowest.map_or(kept, |slowest| kept.min(kept_for_lagging.max(Some(slowest))));
            // Only what a snapshot holds can go. It was applied before.
            let upto = unneeded.min(snapshot).min(Some(applied));
            if let Some(upto) = upto.filter(|upto| Some(*upto) > purged.max(purge_asked)) {
                purge_asked = Some(upto);
                if raft.trigger().purge_log(upto).await.is_err() {
                    return;
                }
            }
        }
    }
}
