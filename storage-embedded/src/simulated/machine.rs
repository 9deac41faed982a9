//! A simulated machine: the disk that outlives the nodes on it, and sizes so small that a short run meets every case.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;

use super::{Flaw, SimDisk, Survival, host::wait, is_planted};

/// A machine for one node. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Mutex<SimDisk>,
    /// How long a sync takes at the most, in milliseconds.
    disk_takes: AtomicU64,
    segment_bytes: u64,
    entries_kept: u64,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new(SimDisk::new(0), 64 << 10, 100)
    }
}

impl Machine {
    /// A machine whose log has segments of so many bytes, and keeps so many entries behind a snapshot.
    #[must_use]
    pub fn new(disk: SimDisk, segment_bytes: u64, entries_kept: u64) -> Self {
        let (disk, disk_takes) = (Mutex::new(disk), AtomicU64::new(0));
        Self(Arc::new(Inner { disk, disk_takes, segment_bytes, entries_kept }))
    }

    /// The disk, as it is now.
    #[must_use]
    pub fn disk(&self) -> SimDisk {
        self.0.disk.lock().clone()
    }

    /// The power goes: the next node on this machine finds what that leaves. What runs here must run no more.
    pub fn lose_power(&self, survival: Survival) {
        let mut disk = self.0.disk.lock();
        let left = disk.crash(survival);
        *disk = left;
    }

    /// The process ends, and the system lives on: the next node on this machine finds all that was written.
    pub fn kill(&self) {
        let mut disk = self.0.disk.lock();
        let left = disk.outlive();
        *disk = left;
    }

    /// The disk is another one.
    pub fn replace_disk(&self, disk: SimDisk) {
        *self.0.disk.lock() = disk;
    }

    /// From now on a sync takes up to so many milliseconds.
    pub fn slow_down(&self, most: u64) {
        self.0.disk_takes.store(most, Relaxed);
    }

    pub(crate) async fn disk_takes(&self) {
        wait(self.0.disk_takes.load(Relaxed)).await;
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.0.segment_bytes
    }

    /// Little, so that entries are often read from disk.
    pub(crate) fn cache_bytes(&self) -> usize {
        usize::try_from(self.0.segment_bytes / 4).unwrap_or(usize::MAX)
    }

    pub(crate) fn adjust(&self, config: openraft::Config) -> openraft::Config {
        let openraft::SnapshotPolicy::LogsSinceLast(snapshot_every) = config.snapshot_policy else { return config };
        openraft::Config {
            max_in_snapshot_log_to_keep: self.0.entries_kept,
            replication_lag_threshold: snapshot_every + self.0.entries_kept,
            enable_leader_restore: Some(is_planted(Flaw::RestoredLeader)),
            ..config
        }
    }
}
