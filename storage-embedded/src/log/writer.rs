//! Writes batches to the newest segment, one at a time: each is durable before the next is begun. Recovery relies on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::error::LogError;
use super::queue::Batch;
use super::record::{self, Previous, SEGMENT_HEADER, SegmentHeader, Summary};
use super::segment::Segment;
use crate::disk::DiskFile;

#[derive(Debug)]
pub(super) struct Writer {
    directory: Arc<Directory>,
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    offset: usize,
    next_batch: u64,
    /// What the log says after the last batch.
    summary: Summary,
    /// A segment that has its name, which is not durable yet, or not remembered.
    unsettled: Option<(Segment, Arc<dyn DiskFile>)>,
    /// A write or a sync was begun and has not succeeded: what the disk holds is not known.
    is_in_doubt: bool,
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
        let (segment, file) = directory.begin(header(resume), 0)?;
        directory.sync()?;
        directory.remember(resume.sequence)?;
        let Resume { next_batch, summary, .. } = resume;
        Ok(Self {
            directory,
            segment: Arc::new(segment),
            file,
            offset: SEGMENT_HEADER,
            next_batch,
            summary,
            unsettled: None,
            is_in_doubt: false,
        })
    }

    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Writes a batch and syncs it.
    ///
    /// # Errors
    /// [`LogError::NoSegment`]: nothing of the batch was written, and it may be written later. After any other error nothing more may be written.
    pub(super) fn write(&mut self, batch: &mut Batch) -> Result<Written, LogError> {
        assert!(!self.is_in_doubt, "the log is written after a write or sync has failed");
        self.is_in_doubt = true;
        let length = batch.bytes.len();
        // A batch is never split over two segments: after a crash it is found whole or not at all.
        let begun = if self.offset + length > self.segment.length() {
            let begun = self.begin_next(length);
            #[cfg(simulated)]
            if begun.is_err() && crate::simulated::is_planted(crate::simulated::Flaw::IgnoredSegment) {
                batch.synced();
                self.is_in_doubt = false;
                let (segment, offset) = (self.segment.name.sequence, self.offset);
                return Ok(Written { segment, offset, begun: None, sync: Duration::ZERO });
            }
            Some(begun?)
        } else {
            None
        };
        assert!(self.offset + length <= self.segment.length(), "a batch is larger than the segment begun for it");
        // The checksums depend on the place, which is known only now: bytes that are read from elsewhere do not pass for these.
        record::seal_batch(&mut batch.bytes, self.segment.name.seed(), self.offset, self.next_batch);
        let failed = |error| LogError::disk(&self.segment.path, error);
        // After an error here the log has failed for ever. To write or sync again would prove nothing: the kernel may have dropped the pages
        // that it could not write, and the next sync succeeds without them ("fsyncgate").
        self.file.write_at(&batch.bytes, self.offset as u64).map_err(failed)?;
        let start = Instant::now();
        self.file.sync_data().map_err(failed)?;
        let sync = start.elapsed();
        batch.synced();
        self.is_in_doubt = false;
        let written = Written { segment: self.segment.name.sequence, offset: self.offset, begun, sync };
        self.offset += length;
        self.next_batch += 1;
        self.summary = batch.summary;
        Ok(written)
    }

    fn begin_next(&mut self, room: usize) -> Result<Arc<Segment>, LogError> {
        let begun = self.roll(room);
        // The one kind of failure that leaves no doubt: what was there is as it was.
        self.is_in_doubt = !matches!(begun, Err(LogError::NoSegment { .. }));
        begun
    }

    fn roll(&mut self, room: usize) -> Result<Arc<Segment>, LogError> {
        let ended = self.segment.name.sequence;
        let resume = Resume {
            sequence: ended + 1,
            next_batch: self.next_batch,
            previous: Some(Previous { sequence: ended, end: self.offset as u64 }),
            summary: self.summary,
        };
        // Nothing was written since it got its name: it is the one that follows, and there must be no second.
        let (segment, file) = match self.unsettled.take() {
            Some(begun) => begun,
            None => self.directory.begin(header(resume), room)?,
        };
        let settled = match self.directory.sync() {
            Err(error) if error.lacks_descriptors() => Err(error.before_a_segment()),
            synced => synced.and_then(|()| self.directory.remember(resume.sequence)),
        };
        if let Err(error) = settled {
            self.unsettled = Some((segment, file));
            return Err(error);
        }
        (self.segment, self.file) = (Arc::new(segment), file);
        self.offset = SEGMENT_HEADER;
        Ok(Arc::clone(&self.segment))
    }
}

fn header(resume: Resume) -> SegmentHeader {
    let Resume { sequence, next_batch, previous, summary } = resume;
    SegmentHeader { sequence, nonce: 0, size: 0, first_batch: next_batch, previous, summary }
}
