//! A segment: one file of the log, and what is found in its bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::LogError;
use super::record::{self, BATCH_HEADER, NoHeader, Record, SEGMENT_HEADER, Seed, SegmentHeader, VERSION};
use crate::disk::{Disk, DiskFile};

/// No honest batch number comes near it; what a scan finds beyond it is chance.
const LARGEST_BATCH_NUMBER: u64 = 1 << 48;

/// The name of a segment's file. It carries what the checksums depend on, so that they can be checked when the
/// header is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    pub(super) sequence: u64,
    pub(super) nonce: u64,
}

impl SegmentName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (sequence, nonce) = name.strip_suffix(".log")?.split_once('-')?;
        let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?;
        Some(Self { sequence: number(sequence)?, nonce: number(nonce)? })
    }

    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:016x}-{:016x}.log", self.sequence, self.nonce))
    }

    pub(super) fn seed(self) -> Seed {
        Seed::new(self.sequence, self.nonce)
    }
}

/// A segment that is in use. Its file is open only while it is written or read: a log of many segments takes no more descriptors than one of few.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) path: PathBuf,
    /// The length of the file.
    pub(super) size: u64,
}

/// Where a record is: in which segment, at which offset, how long with its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordPlace {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl Segment {
    /// The length of the file.
    #[expect(clippy::expect_used, reason = "a segment is at most a batch, which was in memory, and its header")]
    pub(super) fn length(&self) -> usize {
        usize::try_from(self.size).expect("a segment fits into memory")
    }

    /// Opens it for [`Segment::read`].
    pub(super) fn open(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, LogError> {
        disk.open_to_read(&self.path).map_err(|error| LogError::disk(&self.path, error))
    }

    /// Reads the records at some places of its open file again and checks them.
    pub(super) fn read(
        &self,
        file: &dyn DiskFile,
        span: RecordPlace,
        places: &[RecordPlace],
    ) -> Result<Vec<Record>, LogError> {
        let mut bytes = vec![0; usize_of(span.length)];
        let start = usize_of(span.offset);
        let read = file.read_at(&mut bytes, u64::from(span.offset)).map_err(|e| LogError::disk(&self.path, e))?;
        bytes.truncate(read);
        let bytes = Bytes::from(bytes);
        let mut records = Vec::with_capacity(places.len());
        for place in places {
            let at = usize_of(place.offset) - start;
            let end = record::record_end(&bytes, self.name.seed(), start, at);
            let record = end
                .filter(|end| end - at == usize_of(place.length))
                .and_then(|end| record::record(&bytes, at, end).ok());
            records.push(
                record.ok_or_else(|| self.corrupt(place.offset.into(), "a record was good and is not any more"))?,
            );
        }
        assert_eq!(records.len(), places.len(), "each place gives a record or an error");
        Ok(records)
    }

    pub(super) fn corrupt(&self, offset: u64, reason: &'static str) -> LogError {
        LogError::Corrupt { file: self.path.clone(), offset, reason }
    }
}

/// Batches and records of a segment end here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Where the next batch would begin.
    pub(super) offset: usize,
    /// The number it would have.
    pub(super) next_batch: u64,
    /// Where the first bad byte may be: at `offset` or, in a batch with a good header, further on.
    pub(super) bad: usize,
    /// Where the last good batch begins; at `offset` if there is none.
    pub(super) last_batch: usize,
}

/// Calls `visit` with every record of the good batches from the start of a segment, up to the first bad one.
pub(super) fn scan(
    bytes: &Bytes,
    header: &SegmentHeader,
    mut visit: impl FnMut(Record, RecordPlace) -> Result<(), &'static str>,
) -> Result<End, (usize, &'static str)> {
    let seed = Seed::new(header.sequence, header.nonce);
    let start = SEGMENT_HEADER;
    let mut end = End { offset: start, next_batch: header.first_batch, bad: start, last_batch: start };
    while let Some((number, length)) = record::batch_header(bytes, seed, end.offset) {
        if number != end.next_batch {
            return Err((end.offset, "a batch with a number out of order"));
        }
        let records = match records_of_batch(bytes, seed, end.offset + BATCH_HEADER, length) {
            Ok(records) => records,
            Err(bad) => return Ok(End { bad, ..end }),
        };
        for (at, record_end) in records {
            let record = record::record(bytes, at, record_end).map_err(|error| (at, error.0))?;
            let (offset, length) = (u32::try_from(at), u32::try_from(record_end - at));
            let (Ok(offset), Ok(length)) = (offset, length) else { return Err((at, "a segment larger than 4 GiB")) };
            visit(record, RecordPlace { segment: header.sequence, offset, length }).map_err(|reason| (at, reason))?;
        }
        let offset = end.offset + BATCH_HEADER + length;
        end = End { offset, next_batch: number + 1, bad: offset, last_batch: end.offset };
    }
    Ok(end)
}

/// Starts and ends of the records of a batch, or the offset of the first bad one.
fn records_of_batch(bytes: &Bytes, seed: Seed, start: usize, length: usize) -> Result<Vec<(usize, usize)>, usize> {
    let mut records = Vec::new();
    let mut at = start;
    while at < start + length {
        let end = record::record_end(bytes, seed, 0, at).filter(|end| *end <= start + length).ok_or(at)?;
        records.push((at, end));
        at = end;
    }
    Ok(records)
}

/// Whether a batch numbered `from` or higher begins anywhere after `offset`.
///
/// A batch is written when the one before it is durable. So this is the proof that bytes before it were durable once
/// and were damaged since; without one, they may be the remains of a write that was cut short.
pub(super) fn batch_follows(bytes: &[u8], seed: Seed, offset: usize, from: u64) -> bool {
    const CHUNK: usize = 4096;
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    // Nothing follows the end.
    let rest = bytes.get(offset..).unwrap_or_default();
    (offset..).step_by(CHUNK).zip(rest.chunks(CHUNK)).any(|(start, chunk)| {
        let is_blank = ZEROS.starts_with(chunk);
        // A batch header may begin in the blank chunk before this one.
        let first = start.saturating_sub(BATCH_HEADER - 1).max(offset);
        !is_blank && (first..start + chunk.len()).any(|at| batch_begins(bytes, seed, at, from))
    })
}

fn batch_begins(bytes: &[u8], seed: Seed, at: usize, from: u64) -> bool {
    // The number first, since a checksum at every offset of a segment would take seconds.
    let number = record::u64_at(bytes, at + 8);
    number.is_some_and(|number| (from..LARGEST_BATCH_NUMBER).contains(&number))
        && record::batch_header(bytes, seed, at).is_some()
}

/// Reads the header that belongs under a name; none if it is damaged.
///
/// # Errors
/// `NewerFormat`.
pub(super) fn header(bytes: &[u8], name: SegmentName, path: &Path) -> Result<Option<SegmentHeader>, LogError> {
    match SegmentHeader::decode(bytes) {
        Ok(header) => Ok(Some(header).filter(|it| it.sequence == name.sequence && it.nonce == name.nonce)),
        Err(NoHeader::Damaged) => Ok(None),
        Err(NoHeader::NewerFormat(found)) => {
            Err(LogError::NewerFormat { file: path.to_path_buf(), found, supported: VERSION })
        }
    }
}

pub(super) fn usize_of(number: u32) -> usize {
    number as usize
}
