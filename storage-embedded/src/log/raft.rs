//! The log as openraft sees it. openraft calls the methods that write one after the other.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use futures::{Stream, TryStreamExt as _, stream};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use super::Log;
use super::queue::Done;
use super::record::Record;
use super::store::{MAX_READ, TRIED_AGAIN};
use crate::raft::{Entry, LogId, TypeConfig, Vote};

impl Log {
    /// Reads, and waits while there is no descriptor to open a segment with: raft would take a failure for the end of the disk.
    async fn read_patiently(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let mut is_said = false;
        loop {
            match self.shared().read(range.clone(), max_bytes) {
                Err(error) if error.lacks_descriptors() && self.shared().is_patient() => {
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::warn!(%error, "cannot read the log; tried again until it passes");
                    }
                    tokio::time::sleep(TRIED_AGAIN).await;
                }
                read => return Ok(read?),
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for Log {
    /// For entries that are applied. They may be many, after a time without a majority: a piece is read when the one before it is applied.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend {
        let (log, Range { start, end }) = (self.clone(), bounds(&range));
        let pieces = stream::try_unfold(start, move |start| {
            let log = log.clone();
            async move {
                let entries = if start < end { log.read_patiently(start..end, MAX_READ).await? } else { Vec::new() };
                let next = entries.last().map(|last| last.log_id.index + 1);
                io::Result::Ok(next.map(|next| (stream::iter(entries.into_iter().map(Ok)), next)))
            }
        });
        pieces.try_flatten()
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let range = bounds(&range);
        self.shared().unbroken(self.read_patiently(range, usize::MAX)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared().summary().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let entries = self.shared().unbroken(self.read_patiently(start..end, MAX_READ)).await?;
        // For a follower to which the connection has just broken, raft may read on what it has purged meanwhile. Later entries would leave a gap;
        // none at all it takes for a heartbeat, at which the network ends the stream.
        let is_purged = entries.first().is_some_and(|first| first.log_id.index != start);
        Ok(if is_purged { Vec::new() } else { entries })
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
        // Durable before raft answers anybody: a node that forgot a vote could vote twice in a term.
        self.shared()
            .unbroken(async {
                self.shared().write(&Record::Vote(*vote)).await?;
                self.shared().index.write().summary.vote = Some(*vote);
                Ok(())
            })
            .await
    }

    /// Not synced on its own: a node that finds an older one applies less before it serves, and catches up.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared()
            .unbroken(async {
                if let Some(committed) = committed {
                    self.shared().write_lazily(&Record::Committed(committed))?;
                    self.shared().index.write().summary.committed = Some(committed);
                }
                Ok(())
            })
            .await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared().summary().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let appended = async { Ok(self.shared().append(entries.into_iter(), Done::Raft(callback)).await?) };
        self.shared().unbroken(appended).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.shared()
            .unbroken(async {
                // A record rather than a cut of the file: what was durable is never written over, and a crash finds the one or the other.
                self.shared().write(&Record::TruncateAfter(last)).await?;
                self.shared().index.write().truncate_after(last);
                Ok(())
            })
            .await
    }

    async fn purge(&mut self, to: LogId) -> Result<(), io::Error> {
        self.shared()
            .unbroken(async {
                // Durable before a file goes: recovery must know that its entries are missing on purpose.
                self.shared().write(&Record::PurgeTo(to)).await?;
                Ok(self.shared().forget(to)?)
            })
            .await
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
