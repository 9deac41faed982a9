//! The format of a snapshot file, version 2. (There was a version 1 before the first release; it is refused as unknown.)
//!
//! ```text
//! file    = "snetsnap", version (4 bytes), chunk*
//! chunk   = length of the payload (4 bytes), checksum (4 bytes), payload
//! payload = kind (1 byte), items of this kind
//! ```
//!
//! Integers are little-endian. The checksum is CRC-32C over all of the file before it without the other checksums, and the
//! payload: so a chunk that is changed, lost, doubled or moved is noticed at its place. The first chunk is the header,
//! the last one the trailer, whose checksum thus is that of the whole file. The hash of the state in the trailer is
//! computed anew from what was read.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use bytes::{Buf, BufMut, Bytes};
use storage_core::{Key, OperationId};

use super::file::SnapshotFile;
use crate::{
    codec::{DecodeError, Decoded, Reader, boolean, key, put_bytes},
    command::{Applied, outcome, put_outcome},
    disk::DiskFile,
    host,
    keys::{Change, Digest, History, Record, own_key},
    raft::{SnapshotMeta, optional_log_id, put_optional_log_id, put_stored_membership, stored_membership},
    tables::{Counts, Session, Tables},
};

const MAGIC: &[u8; 8] = b"snetsnap";

const VERSION: u32 = 2;

const PREAMBLE_BYTES: u64 = 12;

const CHUNK_HEADER_BYTES: u64 = 8;

/// A chunk ends with the item that brings it to this length: the memory that writing takes, but for one item.
const CHUNK_BYTES: usize = 256 << 10;

/// The longest chunk that is read: [`CHUNK_BYTES`] and one item, which once fitted into a frame of the network.
const MAX_CHUNK_BYTES: u64 = 64 << 20;

/// How much is written between two syncs, so that no sync has much to do: it would hold up those of the log.
const SYNC_BYTES: u64 = 4 << 20;

/// The kinds of chunks.
mod kind {
    pub(super) const HEADER: u8 = 1;
    pub(super) const LEASES: u8 = 2;
    pub(super) const ROWS: u8 = 3;
    pub(super) const SESSIONS: u8 = 4;
    pub(super) const ANSWERS: u8 = 5;
    pub(super) const OPERATIONS: u8 = 6;
    pub(super) const RECORDS: u8 = 7;
    pub(super) const TRAILER: u8 = 8;
    pub(super) const CHANGES: u8 = 9;
    // Written only if there ever were users or roles.
    pub(super) const AUTH: u8 = 10;
    pub(super) const ROLES: u8 = 11;
    pub(super) const USERS: u8 = 12;
    // Written only if there are any.
    pub(super) const ALARMS: u8 = 13;
}

/// A snapshot file is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("snapshot {} is damaged at offset {offset}: {what}", path.display())]
pub(crate) struct Damaged {
    /// The file.
    pub(crate) path: PathBuf,
    /// Where the bad chunk begins.
    pub(crate) offset: u64,
    /// What is wrong with it.
    pub(crate) what: &'static str,
}

impl From<Damaged> for io::Error {
    fn from(damaged: Damaged) -> Self {
        Self::new(io::ErrorKind::InvalidData, damaged)
    }
}

/// Writes a snapshot and syncs it. `go_on` is asked before each chunk.
///
/// # Errors
/// Those of the disk; `Interrupted` when `go_on` says no.
pub(super) fn write(
    file: &dyn DiskFile,
    meta: &SnapshotMeta,
    tables: &Tables,
    go_on: &dyn Fn() -> bool,
) -> io::Result<()> {
    let mut writer = Writer::begin(file, go_on)?;
    writer.item(kind::HEADER, |out| {
        put_optional_log_id(out, meta.last_log_id.as_ref());
        put_stored_membership(out, &meta.last_membership);
        out.put_u64_le(tables.keys.revision);
        put_counts(out, &tables.counts());
        put_history_header(out, &tables.keys.history);
    })?;
    for (id, lease) in &tables.keys.leases.0 {
        writer.item(kind::LEASES, |out| {
            out.put_u64_le(*id);
            out.put_u64_le(lease.ttl_seconds);
            out.put_u64_le(lease.granted);
        })?;
    }
    for (name, value) in tables.rows() {
        writer.item(kind::ROWS, |out| {
            put_bytes(out, name);
            put_bytes(out, value);
        })?;
    }
    for (id, session) in tables.sessions() {
        writer.item(kind::SESSIONS, |out| {
            out.put_u64_le(id);
            out.put_u64_le(session.nonce);
            out.put_u64_le(session.last_used);
            out.put_u64_le(session.acknowledged_below);
        })?;
        for (sequence, answer) in session.answers.iter() {
            writer.item(kind::ANSWERS, |out| {
                out.put_u64_le(id);
                out.put_u64_le(*sequence);
                let mut encoded = Vec::new();
                answer.encode(&mut encoded);
                put_bytes(out, &encoded);
            })?;
        }
    }
    for (id, outcome) in tables.operations() {
        writer.item(kind::OPERATIONS, |out| {
            out.put_u128_le(id.0);
            put_outcome(out, outcome);
        })?;
    }
    if !tables.auth.is_new() {
        writer.item(kind::AUTH, |out| tables.auth.put_header(out))?;
        // Before the users, who have what their roles allow.
        tables.auth.put_each_role(|role| writer.item(kind::ROLES, role))?;
        tables.auth.put_each_user(|user| writer.item(kind::USERS, user))?;
    }
    for member in tables.alarms() {
        writer.item(kind::ALARMS, |out| out.put_u64_le(member))?;
    }
    for (key, record) in tables.keys.scan(b"", None) {
        writer.item(kind::RECORDS, |out| {
            put_bytes(out, key.as_bytes());
            put_record(out, record);
        })?;
    }
    // What a key held before a change stands in its change before that, if that is here too.
    let mut seen = HashSet::new();
    for change in tables.keys.history.iter() {
        let is_first = seen.insert(change.key.as_bytes());
        writer.item(kind::CHANGES, |out| put_change(out, change, is_first))?;
    }
    writer.item(kind::TRAILER, |out| out.put_u64_le(tables.digest().0))?;
    writer.end()
}

/// Reads a whole snapshot.
///
/// # Errors
/// [`Damaged`] in an `InvalidData`, and the errors of the disk.
pub(super) fn read(snapshot: &SnapshotFile) -> io::Result<(SnapshotMeta, Tables)> {
    let mut chunks = Chunks::begin(snapshot)?;
    let read = read_to_trailer(&mut chunks)?;
    chunks.end()?;
    Ok(read)
}

/// Reads a whole snapshot with which a file begins.
///
/// # Errors
/// As [`read`].
pub(super) fn read_first(snapshot: &SnapshotFile) -> io::Result<(SnapshotMeta, Tables)> {
    read_to_trailer(&mut Chunks::begin(snapshot)?)
}

fn read_to_trailer(chunks: &mut Chunks<'_>) -> io::Result<(SnapshotMeta, Tables)> {
    let (meta, mut tables, counts) = header(chunks)?;
    let mut latest = HashMap::new();
    loop {
        let (offset, mut chunk) = chunks.next()?;
        let done = chunk
            .items(|kind, reader| match kind {
                kind::CHANGES => change(reader, &mut latest).and_then(|change| tables.keys.restore_change(change)),
                _ => item(kind, reader, &mut tables),
            })
            .and_then(|trailer| trailer.map_or(Ok(false), |trailer| check(trailer, &tables, counts).map(|()| true)))
            .map_err(|DecodeError(what)| chunks.damaged(offset, what))?;
        if done {
            return Ok((meta, tables));
        }
    }
}

/// Checks the checksums and the encoding of a whole snapshot, without building the state.
///
/// # Errors
/// As [`read`].
pub(super) fn verify(snapshot: &SnapshotFile) -> io::Result<()> {
    let mut chunks = Chunks::begin(snapshot)?;
    header(&mut chunks)?;
    loop {
        let (offset, mut chunk) = chunks.next()?;
        // An empty state takes each item and is dropped with the chunk.
        let trailer = chunk
            .items(|kind, reader| match kind {
                kind::RECORDS => key(reader).and_then(|_| record(reader)).map(drop),
                kind::ANSWERS => answer(reader).map(drop),
                kind::CHANGES => change(reader, &mut HashMap::new()).map(drop),
                _ => item(kind, reader, &mut Tables::default()),
            })
            .map_err(|DecodeError(what)| chunks.damaged(offset, what))?;
        if trailer.is_some() {
            return chunks.end();
        }
    }
}

/// The meta data alone, from the first chunk.
///
/// # Errors
/// As [`read`].
pub(super) fn meta(snapshot: &SnapshotFile) -> io::Result<SnapshotMeta> {
    header(&mut Chunks::begin(snapshot)?).map(|(meta, ..)| meta)
}

fn header(chunks: &mut Chunks<'_>) -> io::Result<(SnapshotMeta, Tables, Counts)> {
    let (offset, Chunk { kind, mut items }) = chunks.next()?;
    let mut header = || {
        if kind != kind::HEADER {
            return Err(DecodeError("the first chunk is no header"));
        }
        let last_log_id = optional_log_id(&mut items)?;
        let meta = SnapshotMeta { last_log_id, last_membership: stored_membership(&mut items)? };
        let mut tables = Tables::default();
        tables.keys.revision = items.u64()?;
        let counts = counts(&mut items)?;
        tables.keys.history = history_header(&mut items)?;
        Ok((meta, tables, counts))
    };
    let header = header().map_err(|DecodeError(what)| chunks.damaged(offset, what))?;
    items.end().map_err(|DecodeError(what)| chunks.damaged(offset, what))?;
    Ok(header)
}

fn item(kind: u8, reader: &mut Reader, tables: &mut Tables) -> Decoded<()> {
    match kind {
        kind::LEASES => {
            let (id, ttl_seconds) = (reader.u64()?, reader.u64()?);
            tables.keys.restore_lease(id, ttl_seconds, reader.u64()?)
        }
        kind::ROWS => {
            tables.put_row(&reader.bytes()?, &reader.bytes()?);
            Ok(())
        }
        kind::SESSIONS => {
            let id = reader.u64()?;
            let (nonce, last_used, acknowledged_below) = (reader.u64()?, reader.u64()?, reader.u64()?);
            tables.restore_session(id, Session { nonce, last_used, acknowledged_below, answers: Arc::default() })
        }
        kind::ANSWERS => {
            let (session, sequence, answer) = answer(reader)?;
            tables.restore_answer(session, sequence, answer)
        }
        kind::AUTH => tables.auth.restore_header(reader),
        kind::ROLES => tables.auth.restore_role(reader),
        kind::USERS => tables.auth.restore_user(reader),
        kind::ALARMS => tables.restore_alarm(reader.u64()?),
        kind::OPERATIONS => tables.restore_operation(OperationId(reader.u128()?), outcome(reader)?),
        kind::RECORDS => {
            let key = key(reader)?;
            tables.keys.restore_record(&key, record(reader)?)
        }
        _ => Err(DecodeError("a chunk of an unknown kind")),
    }
}

fn answer(reader: &mut Reader) -> Decoded<(u64, u64, Applied)> {
    let (session, sequence) = (reader.u64()?, reader.u64()?);
    // With memory of its own, not a slice of the chunk.
    let encoded = Bytes::copy_from_slice(&reader.bytes()?);
    Ok((session, sequence, Applied::decode(encoded)?))
}

fn record(reader: &mut Reader) -> Decoded<Record> {
    let (create_revision, mod_revision) = (reader.u64()?, reader.u64()?);
    let (version, lease) = (reader.u64()?, reader.u64()?);
    Ok(Record { value: reader.bytes()?, create_revision, mod_revision, version, lease })
}

/// That what was read is what was written: an item that was doubled, left out or refused shows here.
fn check(mut trailer: Reader, tables: &Tables, counts: Counts) -> Decoded<()> {
    let digest = Digest(trailer.u64()?);
    trailer.end()?;
    // The checksums say that the bytes are those that were written; these two, that the state they make is the one that was meant.
    if tables.counts() != counts {
        return Err(DecodeError("the number of items is not the one in the header"));
    }
    // The next write would not follow what is there, and end the node.
    if !tables.keys.history_ends_now() {
        return Err(DecodeError("a history that does not end at the revision of the state"));
    }
    if tables.digest() != digest {
        return Err(DecodeError("the hash of the state is not the one in the trailer"));
    }
    Ok(())
}

fn put_counts(out: &mut Vec<u8>, counts: &Counts) {
    for count in [counts.records, counts.leases, counts.rows, counts.sessions, counts.operations, counts.changes] {
        out.put_u64_le(count);
    }
}

fn counts(reader: &mut Reader) -> Decoded<Counts> {
    let (records, leases, rows) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (sessions, operations) = (reader.u64()?, reader.u64()?);
    Ok(Counts { records, leases, rows, sessions, operations, changes: reader.u64()? })
}

fn put_history_header(out: &mut Vec<u8>, history: &History) {
    out.put_u64_le(history.oldest());
    out.put_u8(history.compacted().is_some().into());
    if let Some(compacted) = history.compacted() {
        out.put_u64_le(compacted);
    }
}

fn history_header(reader: &mut Reader) -> Decoded<History> {
    let oldest = reader.u64()?;
    let compacted = if boolean(reader)? { Some(reader.u64()?) } else { None };
    Ok(History::after(oldest, compacted))
}

fn put_change(out: &mut Vec<u8>, change: &Change, with_previous: bool) {
    out.put_u64_le(change.revision);
    put_bytes(out, change.key.as_bytes());
    put_optional_record(out, change.record.as_ref());
    out.put_u8(with_previous.into());
    if with_previous {
        put_optional_record(out, change.previous.as_ref());
    }
}

/// `latest` has what each key of a change before this one holds since then.
fn change(reader: &mut Reader, latest: &mut HashMap<Key, Option<Record>>) -> Decoded<Change> {
    let revision = reader.u64()?;
    let key = own_key(&key(reader)?);
    let record = optional_record(reader)?;
    let before = latest.insert(key.clone(), record.clone());
    let previous = if boolean(reader)? { optional_record(reader)? } else { before.flatten() };
    Ok(Change { revision, key, record, previous })
}

fn put_optional_record(out: &mut Vec<u8>, record: Option<&Record>) {
    out.put_u8(record.is_some().into());
    if let Some(record) = record {
        put_record(out, record);
    }
}

/// With memory of its own, not a slice of the chunk.
fn optional_record(reader: &mut Reader) -> Decoded<Option<Record>> {
    if !boolean(reader)? {
        return Ok(None);
    }
    let record = record(reader)?;
    Ok(Some(Record { value: Bytes::copy_from_slice(&record.value), ..record }))
}

fn put_record(out: &mut Vec<u8>, record: &Record) {
    out.put_u64_le(record.create_revision);
    out.put_u64_le(record.mod_revision);
    out.put_u64_le(record.version);
    out.put_u64_le(record.lease);
    put_bytes(out, &record.value);
}

/// Collects items into chunks.
struct Writer<'a> {
    file: &'a dyn DiskFile,
    go_on: &'a dyn Fn() -> bool,
    offset: u64,
    synced: u64,
    checksum: u32,
    kind: u8,
    /// The chunk that is being collected, with room for its header.
    chunk: Vec<u8>,
    began: Instant,
}

impl<'a> Writer<'a> {
    fn begin(file: &'a dyn DiskFile, go_on: &'a dyn Fn() -> bool) -> io::Result<Self> {
        let mut preamble = MAGIC.to_vec();
        preamble.put_u32_le(VERSION);
        file.write_at(&preamble, 0)?;
        Ok(Self {
            file,
            go_on,
            offset: PREAMBLE_BYTES,
            synced: 0,
            checksum: crc32c::crc32c(&preamble),
            kind: kind::HEADER,
            chunk: Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4),
            began: Instant::now(),
        })
    }

    fn item(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        // Pieces that are small beside the log's own writes, and a rest after each: a snapshot may take long, and callers may not wait for it.
        if self.kind != kind || self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
            self.rest();
        }
        if self.chunk.is_empty() {
            self.kind = kind;
            self.chunk.put_u64_le(0);
            self.chunk.put_u8(kind);
        }
        write(&mut self.chunk);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !(self.go_on)() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the snapshot is not wanted any more"));
        }
        let Some((header, payload)) = self.chunk.split_first_chunk_mut::<8>() else { return Ok(()) };
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes();
        self.checksum = crc32c::crc32c_append(crc32c::crc32c_append(self.checksum, &length), payload);
        header.as_mut_slice().put_slice(&length);
        header.split_at_mut(4).1.put_slice(&self.checksum.to_le_bytes());
        self.file.write_at(&self.chunk, self.offset)?;
        self.offset += self.chunk.len() as u64;
        self.chunk.clear();
        if self.offset - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.offset;
        }
        Ok(())
    }

    /// Sleeps for as long as it worked since it slept last, so that a snapshot takes half of a core and of a disk at most.
    fn rest(&mut self) {
        if self.offset > CHUNK_BYTES as u64 {
            host::rest(self.began.elapsed());
        }
        self.began = Instant::now();
    }

    fn end(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }
}

/// The chunks of a file, checked.
struct Chunks<'a> {
    snapshot: &'a SnapshotFile,
    offset: u64,
    checksum: u32,
}

struct Chunk {
    kind: u8,
    items: Reader,
}

impl Chunk {
    /// Reads each item; if the chunk is the trailer, gives that instead.
    fn items(&mut self, mut item: impl FnMut(u8, &mut Reader) -> Decoded<()>) -> Decoded<Option<Reader>> {
        let mut reader = std::mem::replace(&mut self.items, Reader::new(Bytes::new()));
        if self.kind == kind::TRAILER {
            return Ok(Some(reader));
        }
        while !reader.is_empty() {
            item(self.kind, &mut reader)?;
        }
        Ok(None)
    }
}

impl<'a> Chunks<'a> {
    fn begin(snapshot: &'a SnapshotFile) -> io::Result<Self> {
        let mut chunks = Self { snapshot, offset: PREAMBLE_BYTES, checksum: 0 };
        let mut preamble = chunks.read(0, 0, PREAMBLE_BYTES)?;
        chunks.checksum = crc32c::crc32c(&preamble);
        if preamble.split_to(MAGIC.len()) != MAGIC.as_slice() {
            return Err(chunks.damaged(0, "this is no snapshot").into());
        }
        if preamble.get_u32_le() != VERSION {
            return Err(chunks.damaged(0, "a snapshot of an unknown version").into());
        }
        Ok(chunks)
    }

    /// The next chunk and where it begins.
    fn next(&mut self) -> io::Result<(u64, Chunk)> {
        let offset = self.offset;
        let mut header = Reader::new(self.read(offset, offset, CHUNK_HEADER_BYTES)?);
        let damaged = |what| self.damaged(offset, what);
        let length = header.u32().map_err(|DecodeError(what)| damaged(what))?;
        let expected = header.u32().map_err(|DecodeError(what)| damaged(what))?;
        if u64::from(length) > MAX_CHUNK_BYTES {
            return Err(damaged("a chunk over the limit").into());
        }
        let payload = self.read(offset, offset + CHUNK_HEADER_BYTES, length.into())?;
        // Over all chunks so far, so that one which is whole but stands in another place, or in another file, does not fit.
        let checksum = crc32c::crc32c_append(self.checksum, &length.to_le_bytes());
        self.checksum = crc32c::crc32c_append(checksum, &payload);
        if self.checksum != expected {
            return Err(self.damaged(offset, "a wrong checksum").into());
        }
        self.offset += CHUNK_HEADER_BYTES + u64::from(length);
        let mut items = Reader::new(payload);
        let kind = items.u8().map_err(|DecodeError(what)| self.damaged(offset, what))?;
        Ok((offset, Chunk { kind, items }))
    }

    fn end(&self) -> io::Result<()> {
        if self.offset == self.snapshot.length() {
            return Ok(());
        }
        Err(self.damaged(self.offset, "more bytes than expected").into())
    }

    /// Exactly these bytes of the chunk that begins at `chunk`; never more memory than the file has bytes.
    fn read(&self, chunk: u64, offset: u64, length: u64) -> io::Result<Bytes> {
        let short = || self.damaged(chunk, "the file ends too early");
        if self.snapshot.length().saturating_sub(offset) < length {
            return Err(short().into());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        if self.snapshot.file().read_at(&mut bytes, offset)? < bytes.len() {
            return Err(short().into());
        }
        Ok(bytes.into())
    }

    fn damaged(&self, offset: u64, what: &'static str) -> Damaged {
        Damaged { path: Path::to_path_buf(self.snapshot.path()), offset, what }
    }
}
