//! What the directory of the snapshots counts.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counters since the node was started.
#[derive(Debug, Default)]
pub(super) struct Counters {
    written: AtomicU64,
    write_micros: AtomicU64,
    received: AtomicU64,
}

/// What a node has counted of its snapshots since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotMetrics {
    /// Snapshots written to their end.
    pub written: u64,
    /// The time that writing them took, with the rests that leave the disk to the log.
    pub write_time: Duration,
    /// Snapshots received from another node, whole and undamaged.
    pub received: u64,
    /// The length of the newest one, in bytes; 0: there is none.
    pub newest_bytes: u64,
}

impl Counters {
    pub(super) fn written(&self, took: Duration) {
        self.written.fetch_add(1, Relaxed);
        self.write_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn received(&self) {
        self.received.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self, newest_bytes: u64) -> SnapshotMetrics {
        SnapshotMetrics {
            written: self.written.load(Relaxed),
            write_time: Duration::from_micros(self.write_micros.load(Relaxed)),
            received: self.received.load(Relaxed),
            newest_bytes,
        }
    }
}
