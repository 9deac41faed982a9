//! What is found in the directory of a log. Nothing is changed while looking.
//!
//! The newest segment with a header is the head; each header names the segment before it and where that one ended,
//! all of which was durable. So a bad record in an older segment is damage. In the head, the first bad batch ends the log
//! if no later one follows: each batch is written after the one before it is durable, so the bad one is either a write
//! that was cut short and acknowledged to nobody, or damage to the very last batch. Those two look the same; a confirmation, written when the
//! log is closed or has been idle, makes the last batch one that nobody needs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::LogOptions;
use super::error::LogError;
use super::index::Index;
use super::record::{Previous, Record, SEGMENT_HEADER, SegmentHeader, Summary};
use super::segment::{self, End, RecordPlace, Segment, SegmentName};
use crate::disk::{Disk, read_all};

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The entries, and the segments that hold them.
    pub(super) index: Index,
    /// The segment that the next one follows.
    pub(super) previous: Option<Previous>,
    pub(super) next_sequence: u64,
    pub(super) next_batch: u64,
    /// The last batch, of which nobody knows whether it is durable.
    pub(super) tail: Option<Tail>,
    /// Segments that hold nothing, or nothing that is needed.
    pub(super) leftovers: Vec<PathBuf>,
    /// Prepared files for future segments.
    pub(super) spares: Vec<PathBuf>,
}

/// The last batch that was found. If the process died between its write and its sync, or because the sync failed, it is
/// read from the page cache but may not be on disk, and after a failed sync another one would not put it there. So it is written
/// again before anyone relies on it.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    offset: usize,
    bytes: Bytes,
}

impl Tail {
    pub(super) fn make_durable(&self, disk: &dyn Disk) -> Result<(), LogError> {
        let written = disk.open(&self.path).and_then(|file| {
            file.write_at(&self.bytes, self.offset as u64)?;
            file.sync_data()
        });
        written.map_err(|error| LogError::disk(&self.path, error))
    }
}

pub(super) const SPARE_SUFFIX: &str = ".spare";

/// Reads a whole log, whose head has to be the segment `needed`, or one that follows it.
pub(super) fn recover(disk: &dyn Disk, dir: &Path, options: &LogOptions, needed: u64) -> Result<Found, LogError> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(LogError::disk(dir, error)),
    };
    let spares = names.iter().filter(|name| name.ends_with(SPARE_SUFFIX)).map(|name| dir.join(name)).collect();
    let mut files = BTreeMap::new();
    for name in names.iter().filter_map(|name| SegmentName::parse(name)) {
        if files.insert(name.sequence, name).is_some() {
            return Err(corrupt(&name.path(dir), 0, "another segment has the same sequence"));
        }
    }
    let mut found = Found {
        index: Index::new(Summary::default(), options.cache_bytes),
        previous: None,
        // Above those that are left over too: were a sequence used twice, old bytes could pass for new ones.
        next_sequence: files.keys().next_back().map_or(1, |last| last + 1),
        next_batch: 1,
        tail: None,
        leftovers: Vec::new(),
        spares,
    };
    let (chain, broken) = chain(disk, dir, &files)?;
    if chain.last().map_or(0, |head| head.name.sequence) < needed {
        return Err(LogError::Missing { dir: dir.to_path_buf() });
    }
    found
        .leftovers
        .extend(files.values().filter(|name| !chain.iter().any(|link| link.name == **name)).map(|name| name.path(dir)));
    if let Some(oldest) = chain.first() {
        found.index = Index::new(oldest.header.summary, options.cache_bytes);
        found.next_batch = oldest.header.first_batch;
    }
    for (place, link) in chain.iter().enumerate() {
        replay(disk, link, chain.get(place + 1), &mut found)?;
    }
    if let Some(oldest) = chain.first()
        && let Err(missing) = no_entry_is_missing(&found.index, &oldest.header, &oldest.path)
    {
        return Err(broken.unwrap_or(missing));
    }
    Ok(found)
}

#[derive(Debug)]
struct Link {
    name: SegmentName,
    header: SegmentHeader,
    path: PathBuf,
}

/// The head and the segments before it, oldest first, and where this ended if it was at a damaged one.
fn chain(
    disk: &dyn Disk,
    dir: &Path,
    files: &BTreeMap<u64, SegmentName>,
) -> Result<(Vec<Link>, Option<LogError>), LogError> {
    let mut chain: Vec<Link> = Vec::new();
    let mut broken = None;
    // From the newest down: an older segment taken for the head would leave acknowledged batches behind it.
    let mut candidates = files.values().rev();
    let mut next = candidates.next();
    while let Some(name) = next {
        let path = name.path(dir);
        next = if let Some(header) = segment::header(&read_header(disk, &path)?, *name, &path)? {
            // Headers that name each other would be followed for ever.
            if header.previous.is_some_and(|previous| previous.sequence >= name.sequence) {
                return Err(corrupt(&path, 0, "a segment that follows itself or a later one"));
            }
            chain.push(Link { name: *name, header, path });
            header.previous.and_then(|previous| files.get(&previous.sequence))
        } else if !chain.is_empty() {
            // It does not matter if all that it holds was purged.
            broken = Some(corrupt(&path, 0, "a damaged segment header"));
            None
        } else if segment::batch_follows(&read(disk, &path)?, name.seed(), SEGMENT_HEADER, 1) {
            return Err(corrupt(&path, 0, "a damaged segment header"));
        } else {
            // Its creation was cut short, before anything was written to it.
            candidates.next()
        };
    }
    chain.reverse();
    Ok((chain, broken))
}

fn read_header(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, LogError> {
    let mut bytes = vec![0; SEGMENT_HEADER];
    let read = disk.open_to_read(path).and_then(|file| file.read_at(&mut bytes, 0));
    bytes.truncate(read.map_err(|error| LogError::disk(path, error))?);
    Ok(bytes)
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Bytes, LogError> {
    let bytes = disk.open_to_read(path).and_then(|file| read_all(&*file));
    bytes.map(Bytes::from).map_err(|error| LogError::disk(path, error))
}

fn replay(disk: &dyn Disk, link: &Link, next: Option<&Link>, found: &mut Found) -> Result<(), LogError> {
    let Link { name, header, path } = link;
    // Each header repeats what the log said before it: a segment that was lost, doubled or swapped does not fit.
    if header.summary != found.index.summary || header.first_batch != found.next_batch {
        return Err(corrupt(path, 0, "a segment that does not continue the one before it"));
    }
    // What a segment holds behind the end that the next one states was never durable, or is what a recycled file held before.
    let stated_end = match next.map(|next| next.header.previous) {
        Some(Some(previous)) => Some(usize::try_from(previous.end).unwrap_or(usize::MAX)),
        _ => None,
    };
    // One segment at a time is in memory, and its entries have memory of their own: a long log takes no more than a short one.
    let bytes = read(disk, path)?;
    let length = bytes.len();
    let bytes =
        stated_end.and_then(|end| (end <= bytes.len()).then(|| bytes.slice(..end))).unwrap_or_else(|| bytes.clone());
    let end = segment::scan(&bytes, header, |record, place| apply(&mut found.index, record, place))
        .map_err(|(offset, reason)| corrupt(path, offset, reason))?;
    found.next_batch = end.next_batch;
    match stated_end {
        Some(stated) if end.offset != stated => return Err(corrupt(path, end.bad, "a bad record in a full segment")),
        Some(_) => {}
        None => finish_head(*name, &bytes, end, path)?,
    }
    if stated_end.is_none() && end.last_batch < end.offset {
        let bytes = bytes.slice(end.last_batch..end.offset);
        found.tail = Some(Tail { path: path.clone(), offset: end.last_batch, bytes });
    }
    // A head without a batch is replaced by the next segment rather than followed.
    if stated_end.is_none() && end.offset == SEGMENT_HEADER {
        found.previous = header.previous;
        found.leftovers.push(path.clone());
    } else {
        found.previous = Some(Previous { sequence: header.sequence, end: end.offset as u64 });
        // The head is cut where it ends when the next segment has begun.
        let size = if stated_end.is_none() { end.offset } else { length } as u64;
        let segment = Segment { name: *name, path: path.clone(), size };
        found.index.segments.insert(header.sequence, Arc::new(segment));
    }
    Ok(())
}

fn finish_head(name: SegmentName, bytes: &Bytes, end: End, path: &Path) -> Result<(), LogError> {
    // A later batch proves that the bad one was durable once: then an acknowledged write is gone, and that is never passed over in silence.
    if segment::batch_follows(bytes, name.seed(), end.offset + 1, end.next_batch + 1) {
        return Err(corrupt(path, end.bad, "a bad record before good ones"));
    }
    Ok(())
}

fn apply(index: &mut Index, record: Record, place: RecordPlace) -> Result<(), &'static str> {
    let mut summary = index.summary;
    // Decided on a copy, before the index changes: a record that contradicts the log ends the start, and is taken in no
    // part.
    summary.apply(&record).map_err(|error| error.0)?;
    match record {
        Record::Entry(entry) => index.push(entry, Some(place)),
        Record::TruncateAfter(id) => index.truncate_after(id),
        Record::PurgeTo(id) => drop(index.purge_to(id, 0)),
        Record::Vote(_) | Record::Committed(_) | Record::Confirmation => index.summary = summary,
    }
    Ok(())
}

/// The entries begin where what was purged ends.
fn no_entry_is_missing(index: &Index, oldest: &SegmentHeader, path: &Path) -> Result<(), LogError> {
    let missing = match index.summary.purged {
        Some(purged) => index.range().start > purged.index + 1,
        // Segments go only when something was purged.
        None => oldest.previous.is_some(),
    };
    if missing {
        return Err(corrupt(path, 0, "the segments before this one are missing"));
    }
    Ok(())
}

fn corrupt(file: &Path, offset: usize, reason: &'static str) -> LogError {
    LogError::Corrupt { file: file.to_path_buf(), offset: offset as u64, reason }
}
