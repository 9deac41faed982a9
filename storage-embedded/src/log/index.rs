//! What the log holds, in memory: the place of every entry, and the latest entries themselves.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use openraft::EntryPayload;

use super::plan::Plan;
use super::record::{Record, Summary};
use super::segment::{RecordPlace, Segment, usize_of};
use crate::raft::{Entry, LogId};

/// What an entry takes in the cache beside its payload, roughly.
const ENTRY_OVERHEAD: usize = 96;
/// A membership is rare; its size need not be exact.
const MEMBERSHIP_SIZE: usize = 1024;

#[derive(Debug)]
pub(super) struct Index {
    pub(super) summary: Summary,
    /// The segments in use, by sequence.
    pub(super) segments: BTreeMap<u64, Arc<Segment>>,
    /// The index of the first slot.
    first: u64,
    /// Where each entry is; none while it is not on disk.
    slots: VecDeque<Option<RecordPlace>>,
    /// The last entries.
    cache: VecDeque<Entry>,
    cached_bytes: usize,
    cache_limit: usize,
}

impl Index {
    pub(super) fn new(summary: Summary, cache_limit: usize) -> Self {
        Self {
            first: summary.next_index().unwrap_or(0),
            summary,
            segments: BTreeMap::new(),
            slots: VecDeque::new(),
            cache: VecDeque::new(),
            cached_bytes: 0,
            cache_limit,
        }
    }

    /// The indexes of the entries it has.
    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.first + self.slots.len() as u64
    }

    /// Takes an entry that follows the last one.
    #[expect(clippy::expect_used, reason = "the queue, or recovery, has asked the same before")]
    pub(super) fn push(&mut self, entry: Entry, place: Option<RecordPlace>) {
        self.summary.append(entry.log_id).expect("an entry in memory follows the one before it");
        if self.slots.is_empty() {
            self.first = entry.log_id.index;
        }
        assert_eq!(self.range().end, entry.log_id.index, "the entries in memory have no hole");
        self.slots.push_back(place);
        self.cached_bytes += size(&entry);
        self.cache.push_back(entry);
        self.evict();
    }

    /// Notes that entries have reached the disk.
    pub(super) fn place(&mut self, placed: impl Iterator<Item = (u64, RecordPlace)>) {
        for (index, place) in placed {
            let slot = offset(index, self.first).and_then(|n| self.slots.get_mut(n));
            // Raft takes entries back, or purges them, after all that was appended before is on disk.
            assert!(slot == Some(&mut None), "an entry reaches the disk twice, or was never appended");
            slot.into_iter().for_each(|slot| *slot = Some(place));
        }
        self.evict();
    }

    #[expect(clippy::expect_used, reason = "the queue, or recovery, has asked the same before")]
    pub(super) fn truncate_after(&mut self, id: Option<LogId>) {
        self.summary.apply(&Record::TruncateAfter(id)).expect("what is taken back was not committed");
        let next = id.map_or(0, |id| id.index + 1);
        while self.range().end > next && self.slots.pop_back().is_some() {
            // The cache has the last entries, and may have fewer.
            if let Some(entry) = self.cache.pop_back() {
                self.cached_bytes -= size(&entry);
            }
        }
        self.restart_if_empty();
    }

    /// Forgets entries, and returns the segments that nothing needs any more: those before the first entry's, or
    /// before `active`, the one that is written, if there is no entry.
    pub(super) fn purge_to(&mut self, id: LogId, active: u64) -> Vec<Arc<Segment>> {
        while self.first <= id.index && self.slots.pop_front().is_some() {
            self.first += 1;
            if self.cache.len() > self.slots.len() {
                self.evict_one();
            }
        }
        self.summary.purged = self.summary.purged.max(Some(id));
        if self.summary.last.is_none_or(|last| last.index < id.index) {
            self.summary.last = Some(id);
        }
        self.restart_if_empty();
        let first_needed = self.slots.front().copied().flatten().map_or(active, |place| place.segment);
        let kept = self.segments.split_off(&first_needed.min(active));
        std::mem::replace(&mut self.segments, kept).into_values().collect()
    }

    /// The entries of a range that the log has: all, or the first ones up to `max_bytes`, but at least one.
    ///
    /// # Panics
    /// For an entry that is neither in memory nor on disk: to end there would tell raft that the log does.
    #[expect(clippy::expect_used, reason = "every slot was given a place or has its entry in the cache")]
    pub(super) fn plan(&self, range: Range<u64>, max_bytes: usize) -> Plan {
        let here = self.range();
        let mut plan = Plan::default();
        let mut bytes = 0;
        // The cache holds the newest entries without a gap, so an index says where to look.
        let cached_from = here.end - self.cache.len() as u64;
        let (start, end) = (range.start.max(here.start), range.end.min(here.end));
        for index in start..end {
            if index >= cached_from {
                let entry =
                    offset(index, cached_from).and_then(|n| self.cache.get(n)).expect("the last entries are cached");
                bytes += size(entry);
                plan.cached.push(entry.clone());
            } else {
                let place = offset(index, self.first).and_then(|n| *self.slots.get(n)?);
                let place = place.expect("an entry that is not cached is on disk");
                bytes += usize_of(place.length);
                match plan.on_disk.last_mut() {
                    Some((segment, places)) if segment.name.sequence == place.segment => places.push(place),
                    _ => {
                        let segment = self.segments.get(&place.segment).expect("the segment of an entry is open");
                        plan.on_disk.push((Arc::clone(segment), vec![place]));
                    }
                }
            }
            if bytes >= max_bytes {
                break;
            }
        }
        plan
    }

    /// How many bytes of the disk the entries behind `after` take, up to the one at `upto`; behind the beginning of the log if there is no `after`.
    pub(super) fn bytes_between(&self, after: Option<u64>, upto: u64) -> u64 {
        let slot = |index: u64| usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let upto = slot(upto + 1).min(self.slots.len());
        let first = self.slots.get(after.map_or(0, |after| slot(after + 1))).copied().flatten();
        // The newest entries may not be on disk yet.
        let last = self.slots.range(..upto).rev().find_map(|slot| *slot);
        first.zip(last).map_or(0, |(first, last)| self.distance(first, last))
    }

    /// The last entry that is so far behind the end that more than `bytes` follow it on disk.
    pub(super) fn last_before(&self, bytes: u64) -> Option<u64> {
        let end = self.slots.iter().rev().find_map(|slot| *slot)?;
        let far = self.slots.partition_point(|slot| slot.is_some_and(|place| self.distance(place, end) > bytes));
        // So far away are these entries, and what follows one begins with the next.
        (far > 1).then(|| self.first + far as u64 - 2)
    }

    /// From the beginning of one record to the end of a later one, in bytes.
    fn distance(&self, first: RecordPlace, last: RecordPlace) -> u64 {
        let size = |segment: &Arc<Segment>| segment.size;
        let between: u64 =
            self.segments.range(first.segment..last.segment.max(first.segment)).map(|(_, it)| size(it)).sum();
        (between + u64::from(last.offset) + u64::from(last.length)).saturating_sub(first.offset.into())
    }

    fn restart_if_empty(&mut self) {
        if self.slots.is_empty() {
            self.first = self.summary.next_index().unwrap_or(0);
        }
    }

    /// Drops the oldest entries from the cache while it is too large; only what is on disk.
    fn evict(&mut self) {
        while self.cached_bytes > self.cache_limit {
            assert!(self.cache.len() <= self.slots.len(), "the cache has entries that the log has not");
            let oldest = self.slots.len() - self.cache.len();
            // Not on disk yet: nowhere else but here.
            if self.slots.get(oldest).is_none_or(Option::is_none) {
                break;
            }
            self.evict_one();
        }
    }

    #[expect(clippy::expect_used, reason = "its size is counted with each entry")]
    fn evict_one(&mut self) {
        let entry = self.cache.pop_front().expect("a cache of some bytes has an entry");
        self.cached_bytes -= size(&entry);
    }
}

fn offset(index: u64, from: u64) -> Option<usize> {
    usize::try_from(index.checked_sub(from)?).ok()
}

fn size(entry: &Entry) -> usize {
    ENTRY_OVERHEAD
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(proposal) => proposal.0.len(),
            EntryPayload::Membership(_) => MEMBERSHIP_SIZE,
        }
}

#[cfg(test)]
mod tests {
    use openraft::alias::CommittedLeaderIdOf;

    use super::*;
    use crate::raft::TypeConfig;

    const PLACE: RecordPlace = RecordPlace { segment: 1, offset: 512, length: 9 };

    fn entry(index: u64) -> Entry {
        let log_id = LogId::new(CommittedLeaderIdOf::<TypeConfig>::new(1), index);
        Entry { log_id, payload: EntryPayload::Blank }
    }

    fn index_with_one() -> Index {
        let mut index = Index::new(Summary::default(), 0);
        index.push(entry(1), None);
        index
    }

    #[test]
    #[should_panic(expected = "an entry in memory follows the one before it")]
    fn the_entries_in_memory_have_no_hole() {
        index_with_one().push(entry(3), None);
    }

    #[test]
    #[should_panic(expected = "an entry reaches the disk twice, or was never appended")]
    fn an_entry_has_one_place() {
        let mut index = index_with_one();
        index.place([(1, PLACE), (1, PLACE)].into_iter());
    }

    #[test]
    #[should_panic(expected = "an entry that is not cached is on disk")]
    fn an_entry_is_in_memory_until_it_is_on_disk() {
        let mut index = index_with_one();
        index.evict_one();
        index.plan(1..2, usize::MAX);
    }

    #[test]
    #[should_panic(expected = "what is taken back was not committed")]
    fn what_is_committed_is_not_taken_back() {
        let mut index = index_with_one();
        index.summary.committed = index.summary.last;
        index.truncate_after(None);
    }
}
