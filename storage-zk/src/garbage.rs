//! What a handle knows of the tombstones in each bucket, and which buckets it should look after.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::path::BUCKETS;

/// A handle has a bucket collected after so many deletes in it. They cost some 100 bytes each in the servers' memory.
const COLLECT_AFTER: usize = 512;

/// Why a bucket should be looked after.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Reason {
    /// This handle deleted many keys in it.
    Deletes = 1,
    /// A node in it was written so often that its dataVersion should begin anew.
    OldCount = 2,
    /// Somebody is draining it, or began to and stopped.
    Draining = 4,
}

/// What this handle knows of the garbage in each bucket.
#[derive(Debug)]
pub(crate) struct Garbage {
    buckets: [Bin; BUCKETS],
    queue: mpsc::Sender<usize>,
}

#[derive(Debug, Default)]
struct Bin {
    /// The deletes of this handle since the last collection.
    deletes: AtomicUsize,
    /// The reasons to look after the bucket, as bits. It stands in the queue while there is one, and so once at the most.
    reasons: AtomicU8,
}

impl Garbage {
    /// Nothing known yet; what [`Garbage::report`] finds goes to the queue, which has room for every bucket.
    pub(crate) fn new() -> (Self, mpsc::Receiver<usize>) {
        let (queue, jobs) = mpsc::channel(BUCKETS);
        (Self { buckets: std::array::from_fn(|_| Bin::default()), queue }, jobs)
    }

    /// Has a bucket looked after, in the background.
    pub(crate) fn report(&self, bucket: usize, reason: Reason) {
        if let Some(bin) = self.buckets.get(bucket)
            && bin.reasons.fetch_or(reason as u8, Ordering::AcqRel) == 0
        {
            // It cannot be full, and if the collector is gone, so is the handle.
            let _ = self.queue.try_send(bucket);
        }
    }

    /// Counts a delete.
    pub(crate) fn deleted(&self, bucket: usize) {
        let deletes = self.buckets.get(bucket).map_or(0, |bin| bin.deletes.fetch_add(1, Ordering::Relaxed) + 1);
        if deletes >= COLLECT_AFTER {
            self.report(bucket, Reason::Deletes);
        }
    }

    /// Whether at least a third of so many nodes are tombstones: a collection moves the rest, so it has to be worth it.
    pub(crate) fn worth_it(&self, bucket: usize, nodes: usize) -> bool {
        let deletes = self.buckets.get(bucket).map_or(0, |bin| bin.deletes.load(Ordering::Relaxed));
        deletes >= COLLECT_AFTER && deletes.saturating_mul(3) >= nodes
    }

    pub(crate) fn collected(&self, bucket: usize) {
        if let Some(bin) = self.buckets.get(bucket) {
            bin.deletes.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn take_reasons(&self, bucket: usize) -> u8 {
        self.buckets.get(bucket).map_or(0, |bin| bin.reasons.swap(0, Ordering::AcqRel))
    }
}
