//! Writes batches to the newest segment, one at a time: each is durable before the next is begun. Recovery relies on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::error::LogError;
use super::queue::Batch;
use super::record::{self, Previous, SEGMENT_HEADER, SegmentHeader, Summary};
use super::segment::Segment;

#[derive(Debug)]
pub(super) struct Writer {
    directory: Arc<Directory>,
    segment: Arc<Segment>,
    offset: usize,
    next_batch: u64,
    /// What the log says after the last batch.
    summary: Summary,
}

/// Where a batch was put.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) segment: u64,
    pub(super) offset: usize,
    /// A segment that was begun for it.
    pub(super) begun: Option<Arc<Segment>>,
    pub(super) sync: Duration,
}

/// After what a writer goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resume {
    pub(super) sequence: u64,
    pub(super) next_batch: u64,
    pub(super) previous: Option<Previous>,
    pub(super) summary: Summary,
}

impl Writer {
    /// Begins a new segment. What the last run may have left behind its last good batch is never written over, so
    /// the remains of two writes cannot be mistaken for one.
    pub(super) fn begin(directory: Arc<Directory>, resume: Resume) -> Result<Self, LogError> {
        let segment = Arc::new(directory.begin(header(resume), 0)?);
        let Resume { next_batch, summary, .. } = resume;
        Ok(Self { directory, segment, offset: SEGMENT_HEADER, next_batch, summary })
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Writes a batch and syncs it. After an error nothing more may be written.
    pub(super) fn write(&mut self, batch: &mut Batch) -> Result<Written, LogError> {
        let length = batch.bytes.len();
        let room = usize::try_from(self.segment.size).unwrap_or(usize::MAX) - self.offset;
        let begun = if length > room { Some(self.roll(length)?) } else { None };
        record::seal_batch(&mut batch.bytes, self.segment.name.seed(), self.offset, self.next_batch);
        let failed = |error| LogError::disk(&self.segment.path, error);
        self.segment.file.write_at(&batch.bytes, self.offset as u64).map_err(failed)?;
        let start = Instant::now();
        self.segment.file.sync_data().map_err(failed)?;
        let sync = start.elapsed();
        let written = Written { segment: self.segment.name.sequence, offset: self.offset, begun, sync };
        self.offset += length;
        self.next_batch += 1;
        self.summary = batch.summary;
        Ok(written)
    }

    fn roll(&mut self, room: usize) -> Result<Arc<Segment>, LogError> {
        let ended = self.segment.name.sequence;
        let resume = Resume {
            sequence: ended + 1,
            next_batch: self.next_batch,
            previous: Some(Previous { sequence: ended, end: self.offset as u64 }),
            summary: self.summary,
        };
        self.segment = Arc::new(self.directory.begin(header(resume), room)?);
        self.offset = SEGMENT_HEADER;
        Ok(Arc::clone(&self.segment))
    }
}

fn header(resume: Resume) -> SegmentHeader {
    let Resume { sequence, next_batch, previous, summary } = resume;
    SegmentHeader { sequence, nonce: 0, size: 0, first_batch: next_batch, previous, summary }
}
