//! What waits to be written, already encoded, in batches: what piles up during one sync goes with the next.

use std::collections::VecDeque;
use std::io;

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::error::{LogError, Stopped};
use super::record::{self, BATCH_HEADER, MAX_ENTRY_BYTES, Record, Summary};
use super::segment::RecordPlace;
use crate::raft::{Entry, TypeConfig};

/// A batch takes no more records when it is larger than this. Large enough that the sync, not the call, is what costs.
const FULL_BATCH: usize = 4 << 20;
/// An emptied buffer larger than this is given back to the system.
const KEPT_BUFFER: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: VecDeque<Batch>,
    /// What the log will say when all is written.
    pub(super) summary: Summary,
    /// How many bytes wait.
    pub(super) bytes: usize,
    /// Whether the thread is to write.
    pub(super) wanted: bool,
    pub(super) closing: bool,
    /// A used buffer, for the next batch.
    buffer: Vec<u8>,
}

/// Records that are written with one call and synced together: after a crash they are found all, or the batch is not.
#[derive(Debug)]
pub(super) struct Batch {
    /// Room for the header, then records.
    pub(super) bytes: Vec<u8>,
    entries: Vec<Queued>,
    /// What the log says after it.
    pub(super) summary: Summary,
    done: Vec<Done>,
    /// It was written and synced: see [`Batch::synced`].
    is_durable: bool,
    /// It takes no more records: a file may have been made for it.
    is_full: bool,
}

#[derive(Debug)]
struct Queued {
    index: u64,
    start: usize,
    length: usize,
}

/// Who is told when a batch is durable.
pub(super) enum Done {
    Raft(IOFlushed<TypeConfig>),
    Signal(oneshot::Sender<Result<(), Stopped>>),
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Done")
    }
}

impl Queue {
    pub(super) fn new(summary: Summary) -> Self {
        Self { summary, ..Self::default() }
    }

    pub(super) fn push_entry(&mut self, entry: &Entry) -> Result<(), LogError> {
        let index = entry.log_id.index;
        // A copy, since an entry that is refused leaves the log as it was.
        let mut summary = self.summary;
        summary.append(entry.log_id).map_err(|_| LogError::Hole { index })?;
        if let openraft::EntryPayload::Normal(proposal) = &entry.payload
            && proposal.0.len() > MAX_ENTRY_BYTES
        {
            return Err(LogError::TooLarge { bytes: proposal.0.len(), limit: MAX_ENTRY_BYTES });
        }
        let batch = self.open_batch();
        let start = batch.bytes.len();
        // Copied once, into the buffer that goes to the disk as it is; the command in it was encoded by the replica that took the call.
        record::put_entry(&mut batch.bytes, entry);
        let length = batch.bytes.len() - start;
        batch.entries.push(Queued { index, start, length });
        self.added(summary, length);
        Ok(())
    }

    /// # Panics
    /// For a record that contradicts the log. Left out, it would be acknowledged with those after it.
    #[expect(clippy::expect_used, reason = "raft asks for no such record")]
    pub(super) fn push(&mut self, record: &Record) {
        let mut summary = self.summary;
        summary.apply(record).expect("a record that follows from those before it");
        let batch = self.open_batch();
        let start = batch.bytes.len();
        record.put(&mut batch.bytes);
        let length = batch.bytes.len() - start;
        self.added(summary, length);
    }

    /// Tells `done` when all that was pushed so far is durable.
    pub(super) fn notify(&mut self, done: Done) {
        // A batch without a record is never made: if nothing waits, a confirmation carries the notice.
        if self.batches.is_empty() {
            self.push(&Record::Confirmation);
        }
        self.last().done.push(done);
    }

    /// The oldest batch.
    pub(super) fn take(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front();
        self.wanted = !self.batches.is_empty();
        self.bytes -= batch.as_ref().map_or(0, Batch::length);
        batch
    }

    /// Takes back a batch of which nothing was written, to be the next one again.
    pub(super) fn put_back(&mut self, mut batch: Batch) {
        assert!(!batch.is_durable, "a batch is written twice");
        batch.is_full = true;
        self.bytes += batch.length();
        self.batches.push_front(batch);
        self.wanted = true;
    }

    /// Takes back the memory of a batch.
    pub(super) fn recycle(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= KEPT_BUFFER {
            bytes.clear();
            self.buffer = bytes;
        }
    }

    fn added(&mut self, summary: Summary, length: usize) {
        self.summary = summary;
        self.bytes += length;
        self.last().summary = summary;
    }

    /// The batch that takes the next record.
    fn open_batch(&mut self) -> &mut Batch {
        if self.batches.back().is_none_or(|batch| batch.is_full || batch.bytes.len() >= FULL_BATCH) {
            let mut bytes = std::mem::take(&mut self.buffer);
            bytes.resize(BATCH_HEADER, 0);
            let (entries, done) = (Vec::new(), Vec::new());
            self.batches.push_back(Batch {
                bytes,
                entries,
                summary: self.summary,
                done,
                is_durable: false,
                is_full: false,
            });
        }
        self.last()
    }

    #[expect(clippy::expect_used, reason = "whoever calls it has pushed a record")]
    fn last(&mut self) -> &mut Batch {
        self.batches.back_mut().expect("a batch that takes records")
    }
}

impl Batch {
    /// The bytes of its records.
    fn length(&self) -> usize {
        self.bytes.len() - BATCH_HEADER
    }

    pub(super) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Where its entries are if the batch is written at an offset of a segment.
    #[expect(clippy::expect_used, reason = "the writer puts no batch there: it begins a segment before")]
    pub(super) fn places(&self, segment: u64, offset: usize) -> impl Iterator<Item = (u64, RecordPlace)> {
        self.entries.iter().map(move |entry| {
            let place = u32::try_from(offset + entry.start).ok().zip(u32::try_from(entry.length).ok());
            let (offset, length) = place.expect("a segment ends before 4 GiB");
            (entry.index, RecordPlace { segment, offset, length })
        })
    }

    /// Notes that it is on stable storage. For the writer alone, after a sync that has succeeded.
    pub(super) fn synced(&mut self) {
        self.is_durable = true;
    }

    /// Tells everyone who waits, and returns the memory.
    pub(super) fn finish(self, result: &Result<(), Stopped>) -> Vec<u8> {
        assert!(result.is_err() || self.is_durable, "a batch is acknowledged before it is synced");
        for done in self.done {
            match done {
                Done::Raft(callback) => callback.io_completed(result.clone().map_err(io::Error::from)),
                Done::Signal(sender) => {
                    // Whoever waited may have gone.
                    let _ = sender.send(result.clone());
                }
            }
        }
        self.bytes
    }
}
