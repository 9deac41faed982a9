//! The log of a node that does not run: read, and left as it is.

use super::LogOptions;
use super::data_dir::DataDir;
use super::error::LogError;
use super::index::Index;
use super::recovery;
use crate::raft::{Entry, LogId};

/// How many bytes of entries are read at once.
const MAX_READ: usize = 4 << 20;

/// The log in a directory whose node does not run.
#[derive(Debug)]
pub(crate) struct StoppedLog(Index);

impl StoppedLog {
    /// Reads a whole log as its node would at its next start. Nothing is changed.
    ///
    /// # Errors
    /// `Corrupt`, `NewerFormat`, `Disk`.
    pub(crate) fn read(dir: &DataDir) -> Result<Self, LogError> {
        Ok(Self(recovery::recover(&*dir.disk, &dir.log(), &LogOptions::default())?.index))
    }

    /// The last entry that is known here to be on a majority of the nodes. There may be more: a node learns it late, and writes it down lazily.
    pub(crate) fn committed(&self) -> Option<LogId> {
        self.0.summary.committed
    }

    /// The entries before and with this one are not here: a snapshot has them.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.0.summary.purged
    }

    /// The entries from an index on: some at a time, and none when there are no more.
    ///
    /// # Errors
    /// `Corrupt`, `Disk`.
    pub(crate) fn entries_from(&self, index: u64) -> Result<Vec<Entry>, LogError> {
        self.0.plan(index..u64::MAX, MAX_READ).read()
    }
}
