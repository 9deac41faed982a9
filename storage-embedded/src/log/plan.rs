//! Entries that are to be read, from disk and from memory.

use std::sync::Arc;

use super::error::LogError;
use super::record::Record;
use super::segment::{RecordPlace, Segment};
use crate::disk::Disk;
use crate::raft::Entry;

/// How much is read from disk at once.
const MAX_READ: u32 = 1 << 20;

/// Entries to be read, in order: first these from disk, then those from memory.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) on_disk: Vec<(Arc<Segment>, Vec<RecordPlace>)>,
    pub(super) cached: Vec<Entry>,
}

impl Plan {
    /// Reads them.
    ///
    /// # Errors
    /// `Corrupt`, with the file and offset, for a record that was good and is not any more, and those of the disk.
    pub(super) fn read(self, disk: &dyn Disk) -> Result<Vec<Entry>, LogError> {
        let mut entries = Vec::new();
        // A plan keeps its segments open, so a purge meanwhile takes away their names and not their bytes.
        for (segment, places) in &self.on_disk {
            let file = segment.open(disk)?;
            for (span, places) in spans(places) {
                for (record, place) in segment.read(&*file, span, places)?.into_iter().zip(places) {
                    let Record::Entry(entry) = record else {
                        return Err(segment.corrupt(place.offset.into(), "an entry has become another record"));
                    };
                    entries.push(entry);
                }
            }
        }
        entries.extend(self.cached);
        assert!(follow(&entries), "an entry is left out of what is read from the log");
        Ok(entries)
    }
}

fn follow(entries: &[Entry]) -> bool {
    entries.windows(2).all(|pair| matches!(pair, [one, next] if one.log_id.index + 1 == next.log_id.index))
}

/// Neighbours in one read.
fn spans(places: &[RecordPlace]) -> impl Iterator<Item = (RecordPlace, &[RecordPlace])> {
    let mut rest = places;
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let end = |place: &RecordPlace| place.offset + place.length;
        let together = rest.iter().take_while(|place| end(place) - first.offset <= MAX_READ.max(first.length)).count();
        let (places, later) = rest.split_at_checked(together.max(1))?;
        rest = later;
        let length = end(places.last()?) - first.offset;
        Some((RecordPlace { length, ..first }, places))
    })
}
