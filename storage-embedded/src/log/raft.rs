//! The log as openraft sees it. openraft calls the methods that write one after the other.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use super::Log;
use super::queue::Done;
use super::record::Record;
use crate::raft::{Entry, LogId, TypeConfig, Vote};

/// How many bytes of entries are read for one message to a follower.
const MAX_LIMITED_READ: usize = 4 << 20;

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.shared().read(bounds(&range), usize::MAX)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared().summary().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.shared().read(start..end, MAX_LIMITED_READ)?)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let summary = self.shared().summary();
        Ok(LogState { last_purged_log_id: summary.purged, last_log_id: summary.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        #[cfg(simulated)]
        if crate::simulated::is_planted(crate::simulated::Flaw::UnsyncedVote) {
            self.shared().write_lazily(&Record::Vote(*vote))?;
            self.shared().index.write().summary.vote = Some(*vote);
            return Ok(());
        }
        self.shared().write(&Record::Vote(*vote)).await?;
        self.shared().index.write().summary.vote = Some(*vote);
        Ok(())
    }

    /// Not synced on its own: a node that finds an older one applies less before it serves, and catches up.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.shared().write_lazily(&Record::Committed(committed))?;
            self.shared().index.write().summary.committed = Some(committed);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared().summary().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(self.shared().append(entries.into_iter(), Done::Raft(callback)).await?)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.shared().write(&Record::TruncateAfter(last)).await?;
        self.shared().index.write().truncate_after(last);
        Ok(())
    }

    async fn purge(&mut self, to: LogId) -> Result<(), io::Error> {
        self.shared().write(&Record::PurgeTo(to)).await?;
        Ok(self.shared().forget(to)?)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
