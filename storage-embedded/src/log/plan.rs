//! Entries that are to be read, from disk and from memory.

use std::sync::Arc;

use super::error::LogError;
use super::record::Record;
use super::segment::{Place, Segment};
use crate::raft::Entry;

/// How much is read from disk at once.
const MAX_READ: u32 = 1 << 20;

/// Entries to be read, in order: first these from disk, then those from memory.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) on_disk: Vec<(Arc<Segment>, Vec<Place>)>,
    pub(super) cached: Vec<Entry>,
}

impl Plan {
    pub(super) fn read(self) -> Result<Vec<Entry>, LogError> {
        let mut entries = Vec::new();
        for (segment, places) in &self.on_disk {
            for (span, places) in spans(places) {
                entries.extend(segment.read(span, places)?.into_iter().filter_map(|record| match record {
                    Record::Entry(entry) => Some(entry),
                    _ => None,
                }));
            }
        }
        entries.extend(self.cached);
        Ok(entries)
    }
}

/// Neighbours in one read.
fn spans(places: &[Place]) -> impl Iterator<Item = (Place, &[Place])> {
    let mut rest = places;
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let end = |place: &Place| place.offset + place.length;
        let together = rest.iter().take_while(|place| end(place) - first.offset <= MAX_READ.max(first.length)).count();
        let (places, later) = rest.split_at_checked(together.max(1))?;
        rest = later;
        let length = end(places.last()?) - first.offset;
        Some((Place { length, ..first }, places))
    })
}
