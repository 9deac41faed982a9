//! Records, batches and segment headers as bytes: format version 1.
//!
//! ```text
//! segment       header (512 bytes), batch, batch, ...
//! header        "stgr-log", version u32, sequence u64, nonce u64, size u64, first batch u64,
//!               previous (0, or 1 sequence u64 end u64), summary, zeros, crc of all before it u32
//! summary       vote, last, purged, committed: each 0, or 1 and the value
//! batch         crc u32, length of its records u32, number u64, record, record, ...
//! record        length of kind and body u32, crc u32, kind u8, body
//! ```
//!
//! Numbers are little-endian, checksums CRC-32C. Those of batches and records begin with the segment's seed, made
//! of its sequence and its random nonce, and the offset: what a recycled file still holds of its previous life, or what
//! a client puts into a value, is never taken for a record.

use std::cmp::Ordering;

use bytes::{BufMut, Bytes};
use crc32c::{crc32c, crc32c_append};

use crate::codec::{DecodeError, Decoded, Reader, boolean};
use crate::raft::{self, Entry, LogId, Vote};

/// The format that this release writes.
pub(super) const VERSION: u32 = 1;
/// The largest entry, in bytes of its proposal: far above the largest transaction of the contract.
pub(crate) const MAX_ENTRY_BYTES: usize = 16 << 20;
/// The largest record: the largest entry, its log id and kinds.
const MAX_RECORD_BYTES: usize = MAX_ENTRY_BYTES + 64;

// One sector of most disks: a batch that is torn by a loss of power does not tear the header before it.
pub(super) const SEGMENT_HEADER: usize = 512;
pub(super) const BATCH_HEADER: usize = 16;
/// Length, checksum, kind.
pub(super) const RECORD_HEADER: usize = 9;
const MAGIC: &[u8; 8] = b"stgr-log";
const CRC_AT: usize = SEGMENT_HEADER - 4;

/// One record of the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Entry(Entry),
    Vote(Vote),
    TruncateAfter(Option<LogId>),
    PurgeTo(LogId),
    Committed(LogId),
    /// Confirms that all before it was durable when it was written, and says nothing else.
    Confirmation,
}

// These stand on disks: none is ever given another meaning, and new ones come behind the last.
const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const TRUNCATE_AFTER: u8 = 3;
const PURGE_TO: u8 = 4;
const COMMITTED: u8 = 5;
const CONFIRMATION: u8 = 6;

impl Record {
    /// Appends the record, its checksum still to be set by [`seal_batch`].
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entry(entry) => put_entry(out, entry),
            Self::Vote(vote) => put(out, VOTE, |out| raft::put_vote(out, vote)),
            Self::TruncateAfter(id) => put(out, TRUNCATE_AFTER, |out| raft::put_optional_log_id(out, id.as_ref())),
            Self::PurgeTo(id) => put(out, PURGE_TO, |out| raft::put_log_id(out, id)),
            Self::Committed(id) => put(out, COMMITTED, |out| raft::put_log_id(out, id)),
            Self::Confirmation => put(out, CONFIRMATION, |_| {}),
        }
    }

    fn decode(kind: u8, body: Bytes) -> Decoded<Self> {
        if kind == ENTRY {
            // Nearly every record is one, and takes its body whole: its command is what is left of it, of any length.
            return raft::entry(body).map(Self::Entry);
        }
        let mut reader = Reader::new(body);
        let record = match kind {
            VOTE => Self::Vote(raft::vote(&mut reader)?),
            TRUNCATE_AFTER => Self::TruncateAfter(raft::optional_log_id(&mut reader)?),
            PURGE_TO => Self::PurgeTo(raft::log_id(&mut reader)?),
            COMMITTED => Self::Committed(raft::log_id(&mut reader)?),
            CONFIRMATION => Self::Confirmation,
            _ => return Err(DecodeError("a record of unknown kind")),
        };
        reader.end()?;
        Ok(record)
    }
}

/// As [`Record::put`], for an entry that need not be owned.
pub(super) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put(out, ENTRY, |out| raft::put_entry(out, entry));
}

fn put(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    // Length and checksum come later: one is known behind the body, the other once the record has its place in a
    // segment.
    out.put_bytes(0, 8);
    out.put_u8(kind);
    body(out);
    let length = out.len() - start - 8;
    set_u32(out, start, length);
}

/// What the checksums of a segment begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn new(sequence: u64, nonce: u64) -> Self {
        Self(crc32c_append(crc32c(&sequence.to_le_bytes()), &nonce.to_le_bytes()))
    }

    pub(super) fn record(self, offset: usize, length: &[u8], content: &[u8]) -> u32 {
        crc32c_append(crc32c_append(self.at(offset), length), content)
    }

    /// `fields` are the length and the number.
    pub(super) fn batch(self, offset: usize, fields: &[u8]) -> u32 {
        // Inverted: the header of a batch never passes for a record at the same offset, whatever a client has put
        // there.
        !crc32c_append(self.at(offset), fields)
    }

    fn at(self, offset: usize) -> u32 {
        crc32c_append(self.0, &(offset as u64).to_le_bytes())
    }
}

/// Gives a batch (room for its header, then records) its place in a segment: sets its header and all checksums.
///
/// # Panics
/// If the records do not end where the batch ends: one without a checksum would be damage at the next start.
#[expect(clippy::expect_used, reason = "the queue puts whole records into a batch, and nothing else")]
pub(super) fn seal_batch(batch: &mut [u8], seed: Seed, offset: usize, number: u64) {
    let mut at = BATCH_HEADER;
    while at < batch.len() {
        let (length, content) = record_at(batch, at).expect("a record ends within its batch");
        let crc = seed.record(offset + at, length, content);
        let end = at + 8 + content.len();
        put_at(batch, at + 4, &crc.to_le_bytes());
        at = end;
    }
    let length = batch.len() - BATCH_HEADER;
    assert!(length > 0, "a batch has a record");
    set_u32(batch, 4, length);
    put_at(batch, 8, &number.to_le_bytes());
    let crc = seed.batch(offset, batch.get(4..BATCH_HEADER).expect("a batch begins with its header"));
    // The header has a checksum of its own, so that the length is believed before the records behind it are read.
    put_at(batch, 0, &crc.to_le_bytes());
}

/// The length and the content of the record at `at`, as checksums cover them.
fn record_at(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    let length = u32_at(bytes, at)?;
    Some((bytes.get(at..at + 4)?, bytes.get(at + 8..at + 8 + length)?))
}

/// The header of a batch: its number and the length of its records, if it is one and fits before `bytes` end.
pub(super) fn batch_header(bytes: &[u8], seed: Seed, offset: usize) -> Option<(u64, usize)> {
    let length = u32_at(bytes, offset + 4)?;
    if length == 0 || bytes.len() < offset + BATCH_HEADER + length {
        return None;
    }
    let crc = seed.batch(offset, bytes.get(offset + 4..offset + BATCH_HEADER)?);
    (bytes.get(offset..offset + 4)? == crc.to_le_bytes()).then_some((u64_at(bytes, offset + 8)?, length))
}

/// The end of the record at `at` in `bytes`, which begin at `offset` in the segment, if its checksum is right.
pub(super) fn record_end(bytes: &[u8], seed: Seed, offset: usize, at: usize) -> Option<usize> {
    let length = u32_at(bytes, at)?;
    // Before the checksum: whatever bytes stand here, no more than one record is summed.
    if length == 0 || length > MAX_RECORD_BYTES {
        return None;
    }
    let (length, content) = record_at(bytes, at)?;
    let crc = seed.record(offset + at, length, content);
    (bytes.get(at + 4..at + 8)? == crc.to_le_bytes()).then_some(at + 8 + content.len())
}

/// The record in bytes that [`record_end`] has found good.
pub(super) fn record(bytes: &Bytes, at: usize, end: usize) -> Decoded<Record> {
    let content = at + RECORD_HEADER;
    match bytes.get(content - 1) {
        Some(kind) if content <= end && end <= bytes.len() => Record::decode(*kind, bytes.slice(content..end)),
        _ => Err(DecodeError("a record without a kind")),
    }
}

/// What the log says beside its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Summary {
    pub(super) vote: Option<Vote>,
    /// The last entry, or what was purged if there is none.
    pub(super) last: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
}

impl Summary {
    /// The index of the entry that has to come next; none if it may be any.
    pub(super) fn next_index(&self) -> Option<u64> {
        self.last.map(|id| id.index + 1)
    }

    /// The log ends after `id` now. One that ended before stays as it is.
    fn truncate_after(&mut self, id: Option<LogId>) {
        if self.last.map(|last| last.index) > id.map(|id| id.index) {
            self.last = id.max(self.purged);
        }
    }

    /// What the log says after this record too. Whoever writes a record and whoever finds one ask this.
    ///
    /// # Errors
    /// For a record that contradicts those before it: nobody has asked for it, or it is not what was written.
    pub(super) fn apply(&mut self, record: &Record) -> Decoded<()> {
        match record {
            Record::Entry(entry) => return self.append(entry.log_id),
            // Two votes of one term for two nodes have no order: the second may only follow a majority.
            Record::Vote(vote)
                if self.vote.is_some_and(|before| vote.partial_cmp(&before).is_none_or(Ordering::is_lt)) =>
            {
                return Err(DecodeError("a second vote in a term, or one of an earlier term"));
            }
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::TruncateAfter(id) if *id < self.committed.min(self.last) => {
                return Err(DecodeError("an entry is taken back that was committed"));
            }
            Record::TruncateAfter(id) => self.truncate_after(*id),
            Record::PurgeTo(id) => {
                self.purged = self.purged.max(Some(*id));
                // A snapshot from the leader may be ahead of this log: then the next entry is the one behind what it
                // covers.
                if self.last.is_none_or(|last| last.index < id.index) {
                    self.last = Some(*id);
                }
            }
            Record::Committed(id) => self.committed = Some(*id),
            Record::Confirmation => {}
        }
        Ok(())
    }

    pub(super) fn append(&mut self, id: LogId) -> Decoded<()> {
        // A log has no gap, and its terms never fall: a leader writes in its own term alone.
        let follows = self.last.is_none_or(|last| id.index == last.index + 1 && id.leader_id >= last.leader_id);
        if !follows {
            return Err(DecodeError("an entry that does not follow the one before it"));
        }
        self.last = Some(id);
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(self.vote.is_some().into());
        if let Some(vote) = &self.vote {
            raft::put_vote(out, vote);
        }
        for id in [&self.last, &self.purged, &self.committed] {
            raft::put_optional_log_id(out, id.as_ref());
        }
    }

    fn decode(reader: &mut Reader) -> Decoded<Self> {
        let vote = if boolean(reader)? { Some(raft::vote(reader)?) } else { None };
        Ok(Self {
            vote,
            last: raft::optional_log_id(reader)?,
            purged: raft::optional_log_id(reader)?,
            committed: raft::optional_log_id(reader)?,
        })
    }
}

/// What a segment begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SegmentHeader {
    /// Rises from segment to segment and is never used again in a directory.
    pub(super) sequence: u64,
    pub(super) nonce: u64,
    /// The length of the file.
    pub(super) size: u64,
    /// The number of its first batch.
    pub(super) first_batch: u64,
    /// The segment before it. All of it up to its end was durable before this one was begun.
    pub(super) previous: Option<Previous>,
    /// What the log said when this segment was begun, so that older ones can go.
    pub(super) summary: Summary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Previous {
    pub(super) sequence: u64,
    pub(super) end: u64,
}

/// Why bytes are no segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHeader {
    Damaged,
    NewerFormat(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER);
        out.put_slice(MAGIC);
        out.put_u32_le(VERSION);
        for number in [self.sequence, self.nonce, self.size, self.first_batch] {
            out.put_u64_le(number);
        }
        out.put_u8(self.previous.is_some().into());
        if let Some(previous) = self.previous {
            out.put_u64_le(previous.sequence);
            out.put_u64_le(previous.end);
        }
        self.summary.put(&mut out);
        assert!(out.len() <= CRC_AT, "a segment header has room for what it says");
        out.resize(CRC_AT, 0);
        let crc = crc32c(&out);
        out.put_u32_le(crc);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NoHeader> {
        let (Some(content), Some(crc)) = (bytes.get(..CRC_AT), bytes.get(CRC_AT..SEGMENT_HEADER)) else {
            return Err(NoHeader::Damaged);
        };
        // Before the version: damaged bytes must not be taken for the format of a newer release.
        if crc32c(content).to_le_bytes() != crc {
            return Err(NoHeader::Damaged);
        }
        let Some(content) = content.strip_prefix(MAGIC) else { return Err(NoHeader::Damaged) };
        let mut reader = Reader::new(Bytes::copy_from_slice(content));
        match reader.u32() {
            Ok(VERSION) => Self::decode_body(&mut reader).map_err(|_| NoHeader::Damaged),
            Ok(newer) if newer > VERSION => Err(NoHeader::NewerFormat(newer)),
            _ => Err(NoHeader::Damaged),
        }
    }

    fn decode_body(reader: &mut Reader) -> Decoded<Self> {
        let (sequence, nonce, size, first_batch) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
        let previous =
            if boolean(reader)? { Some(Previous { sequence: reader.u64()?, end: reader.u64()? }) } else { None };
        Ok(Self { sequence, nonce, size, first_batch, previous, summary: Summary::decode(reader)? })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn set_u32(bytes: &mut [u8], at: usize, number: usize) {
    #[expect(clippy::expect_used, reason = "records and batches are bounded far below 4 GiB before they are encoded")]
    let number = u32::try_from(number).expect("a length below 4 GiB");
    put_at(bytes, at, &number.to_le_bytes());
}

#[expect(clippy::expect_used, reason = "every header is begun with its full length")]
fn put_at(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes.get_mut(at..at + value.len()).expect("a header has room for its fields").copy_from_slice(value);
}
