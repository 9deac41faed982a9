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

use bytes::{BufMut, Bytes};
use crc32c::{crc32c, crc32c_append};

use crate::codec::{self, DecodeError, Decoded, Reader};
use crate::raft::{Entry, LogId, Vote};

/// The format that this release writes.
pub(super) const VERSION: u32 = 1;
/// The largest entry, in bytes of its proposal: far above the largest transaction of the contract.
pub(super) const MAX_ENTRY_BYTES: usize = 16 << 20;
/// The largest record: the largest entry, its log id and kinds.
const MAX_RECORD_BYTES: usize = MAX_ENTRY_BYTES + 64;

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
    /// Proves that all before it was durable, and says nothing else.
    Mark,
}

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const TRUNCATE_AFTER: u8 = 3;
const PURGE_TO: u8 = 4;
const COMMITTED: u8 = 5;
const MARK: u8 = 6;

impl Record {
    /// Appends the record, its checksum still to be set by [`seal_batch`].
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entry(entry) => put_entry(out, entry),
            Self::Vote(vote) => put(out, VOTE, |out| codec::put_vote(out, vote)),
            Self::TruncateAfter(id) => put(out, TRUNCATE_AFTER, |out| codec::put_optional_log_id(out, id.as_ref())),
            Self::PurgeTo(id) => put(out, PURGE_TO, |out| codec::put_log_id(out, id)),
            Self::Committed(id) => put(out, COMMITTED, |out| codec::put_log_id(out, id)),
            Self::Mark => put(out, MARK, |_| {}),
        }
    }

    fn decode(kind: u8, body: Bytes) -> Decoded<Self> {
        if kind == ENTRY {
            return codec::entry(body).map(Self::Entry);
        }
        let mut reader = Reader::new(body);
        let record = match kind {
            VOTE => Self::Vote(codec::vote(&mut reader)?),
            TRUNCATE_AFTER => Self::TruncateAfter(codec::optional_log_id(&mut reader)?),
            PURGE_TO => Self::PurgeTo(codec::log_id(&mut reader)?),
            COMMITTED => Self::Committed(codec::log_id(&mut reader)?),
            MARK => Self::Mark,
            _ => return Err(DecodeError("a record of unknown kind")),
        };
        reader.end()?;
        Ok(record)
    }
}

/// As [`Record::put`], for an entry that need not be owned.
pub(super) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put(out, ENTRY, |out| codec::put_entry(out, entry));
}

fn put(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
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

    fn record(self, offset: usize, length: &[u8], content: &[u8]) -> u32 {
        crc32c_append(crc32c_append(self.at(offset), length), content)
    }

    /// `fields` are the length and the number.
    fn batch(self, offset: usize, fields: &[u8]) -> u32 {
        !crc32c_append(self.at(offset), fields)
    }

    fn at(self, offset: usize) -> u32 {
        crc32c_append(self.0, &(offset as u64).to_le_bytes())
    }
}

/// Gives a batch (room for its header, then records) its place in a segment: sets its header and all checksums.
pub(super) fn seal_batch(batch: &mut [u8], seed: Seed, offset: usize, number: u64) {
    let mut at = BATCH_HEADER;
    while let Some(length) = u32_at(batch, at) {
        let end = at + 8 + length;
        if let (Some(length), Some(content)) = (batch.get(at..at + 4), batch.get(at + 8..end)) {
            let crc = seed.record(offset + at, length, content);
            put_at(batch, at + 4, &crc.to_le_bytes());
        }
        at = end;
    }
    let length = batch.len() - BATCH_HEADER;
    set_u32(batch, 4, length);
    put_at(batch, 8, &number.to_le_bytes());
    let crc = seed.batch(offset, batch.get(4..BATCH_HEADER).unwrap_or_default());
    put_at(batch, 0, &crc.to_le_bytes());
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
    if length == 0 || length > MAX_RECORD_BYTES {
        return None;
    }
    let end = at + 8 + length;
    let crc = seed.record(offset + at, bytes.get(at..at + 4)?, bytes.get(at + 8..end)?);
    (bytes.get(at + 4..at + 8)? == crc.to_le_bytes()).then_some(end)
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
    pub(super) fn truncate_after(&mut self, id: Option<LogId>) {
        if self.last.map(|last| last.index) > id.map(|id| id.index) {
            self.last = id.max(self.purged);
        }
    }

    pub(super) fn apply(&mut self, record: &Record) -> Decoded<()> {
        match record {
            Record::Entry(entry) => return self.append(entry.log_id),
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::TruncateAfter(id) => self.truncate_after(*id),
            Record::PurgeTo(id) => {
                self.purged = self.purged.max(Some(*id));
                if self.last.is_none_or(|last| last.index < id.index) {
                    self.last = Some(*id);
                }
            }
            Record::Committed(id) => self.committed = Some(*id),
            Record::Mark => {}
        }
        Ok(())
    }

    pub(super) fn append(&mut self, id: LogId) -> Decoded<()> {
        if self.next_index().is_some_and(|next| next != id.index) {
            return Err(DecodeError("an entry that does not follow the one before it"));
        }
        self.last = Some(id);
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(self.vote.is_some().into());
        if let Some(vote) = &self.vote {
            codec::put_vote(out, vote);
        }
        for id in [&self.last, &self.purged, &self.committed] {
            codec::put_optional_log_id(out, id.as_ref());
        }
    }

    fn decode(reader: &mut Reader) -> Decoded<Self> {
        let vote = if codec::boolean(reader)? { Some(codec::vote(reader)?) } else { None };
        Ok(Self {
            vote,
            last: codec::optional_log_id(reader)?,
            purged: codec::optional_log_id(reader)?,
            committed: codec::optional_log_id(reader)?,
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
        out.resize(CRC_AT, 0);
        let crc = crc32c(&out);
        out.put_u32_le(crc);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NoHeader> {
        let (Some(content), Some(crc)) = (bytes.get(..CRC_AT), bytes.get(CRC_AT..SEGMENT_HEADER)) else {
            return Err(NoHeader::Damaged);
        };
        if !content.starts_with(MAGIC) || crc32c(content).to_le_bytes() != crc {
            return Err(NoHeader::Damaged);
        }
        let mut reader = Reader::new(Bytes::copy_from_slice(content.get(MAGIC.len()..).unwrap_or_default()));
        match reader.u32() {
            Ok(VERSION) => Self::decode_body(&mut reader).map_err(|_| NoHeader::Damaged),
            Ok(newer) if newer > VERSION => Err(NoHeader::NewerFormat(newer)),
            _ => Err(NoHeader::Damaged),
        }
    }

    fn decode_body(reader: &mut Reader) -> Decoded<Self> {
        let (sequence, nonce, size, first_batch) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
        let previous =
            if codec::boolean(reader)? { Some(Previous { sequence: reader.u64()?, end: reader.u64()? }) } else { None };
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

fn put_at(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(room) = bytes.get_mut(at..at + value.len()) {
        room.copy_from_slice(value);
    }
}
