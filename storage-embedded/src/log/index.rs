//! What the log holds, in memory: the place of every entry, and the latest entries themselves.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use openraft::EntryPayload;

use super::plan::Plan;
use super::record::Summary;
use super::segment::{Place, Segment};
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
    slots: VecDeque<Option<Place>>,
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
    pub(super) fn push(&mut self, entry: Entry, place: Option<Place>) {
        if self.slots.is_empty() {
            self.first = entry.log_id.index;
        }
        self.summary.last = Some(entry.log_id);
        self.slots.push_back(place);
        self.cached_bytes += size(&entry);
        self.cache.push_back(entry);
        self.evict();
    }

    /// Notes that entries have reached the disk.
    pub(super) fn place(&mut self, placed: impl Iterator<Item = (u64, Place)>) {
        for (index, place) in placed {
            if let Some(slot) = index.checked_sub(self.first).and_then(|n| self.slots.get_mut(usize::try_from(n).ok()?))
            {
                *slot = Some(place);
            }
        }
        self.evict();
    }

    pub(super) fn truncate_after(&mut self, id: Option<LogId>) {
        let next = id.map_or(0, |id| id.index + 1);
        while self.range().end > next && self.slots.pop_back().is_some() {
            if let Some(entry) = self.cache.pop_back() {
                self.cached_bytes -= size(&entry);
            }
        }
        self.summary.truncate_after(id);
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
    pub(super) fn plan(&self, range: Range<u64>, max_bytes: usize) -> Plan {
        let here = self.range();
        let mut plan = Plan::default();
        let mut bytes = 0;
        let cached_from = here.end - self.cache.len() as u64;
        let (start, end) = (range.start.max(here.start), range.end.min(here.end));
        for index in start..end {
            if index >= cached_from {
                let Some(entry) = offset(index, cached_from).and_then(|n| self.cache.get(n)) else { break };
                bytes += size(entry);
                plan.cached.push(entry.clone());
            } else {
                let Some(place) = offset(index, self.first).and_then(|n| *self.slots.get(n)?) else { break };
                bytes += usize::try_from(place.length).unwrap_or(usize::MAX);
                match plan.on_disk.last_mut() {
                    Some((segment, places)) if segment.name.sequence == place.segment => places.push(place),
                    _ => {
                        let Some(segment) = self.segments.get(&place.segment) else { break };
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

    fn restart_if_empty(&mut self) {
        if self.slots.is_empty() {
            self.first = self.summary.next_index().unwrap_or(0);
        }
    }

    /// Drops the oldest entries from the cache while it is too large; only what is on disk.
    fn evict(&mut self) {
        while self.cached_bytes > self.cache_limit {
            let oldest = self.slots.len() - self.cache.len();
            if self.slots.get(oldest).is_none_or(Option::is_none) {
                break;
            }
            self.evict_one();
        }
    }

    fn evict_one(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cached_bytes -= size(&entry);
        }
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
