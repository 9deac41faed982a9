//! What the log counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Bucket `n` counts the syncs that took less than `2^n` microseconds; the last one, all that took longer.
pub const SYNC_BUCKETS: usize = 24;

/// Counters of a log since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    batches: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    segments: AtomicU64,
    waits: AtomicU64,
    sync_micros: AtomicU64,
    syncs: [AtomicU64; SYNC_BUCKETS],
}

/// A reading of the counters of a log. Every batch is one write and one sync.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogMetrics {
    /// Batches written and synced.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Segments begun.
    pub segments: u64,
    /// How often the log had to wait for a file for its next segment.
    pub segment_waits: u64,
    /// Whether it waits for one now: it takes no writes of callers meanwhile.
    pub waits_for_segment: bool,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// The time that all syncs took together.
    pub sync_time: Duration,
    /// How many syncs took less than `2^n` microseconds and not less than half of that, for each n.
    pub syncs: [u64; SYNC_BUCKETS],
}

impl Counters {
    pub(super) fn batch(&self, entries: usize, bytes: usize, sync: Duration) {
        let micros = u64::try_from(sync.as_micros()).unwrap_or(u64::MAX);
        self.batches.fetch_add(1, Relaxed);
        self.entries.fetch_add(entries as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.sync_micros.fetch_add(micros, Relaxed);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        if let Some(bucket) = self.syncs.get(bucket.min(SYNC_BUCKETS - 1)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn segment(&self) {
        self.segments.fetch_add(1, Relaxed);
    }

    pub(super) fn wait(&self) {
        self.waits.fetch_add(1, Relaxed);
    }

    pub(super) fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    pub(super) fn read(&self, queued_bytes: usize, waits_for_segment: bool) -> LogMetrics {
        LogMetrics {
            batches: self.batches.load(Relaxed),
            entries: self.entries.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            segments: self.segments.load(Relaxed),
            segment_waits: self.waits.load(Relaxed),
            waits_for_segment,
            queued_bytes: queued_bytes as u64,
            sync_time: Duration::from_micros(self.sync_micros.load(Relaxed)),
            syncs: std::array::from_fn(|n| self.syncs.get(n).map_or(0, |bucket| bucket.load(Relaxed))),
        }
    }
}
