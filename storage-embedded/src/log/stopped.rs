//! The log of a node that does not run: read, and left as it is.

use std::sync::Arc;

use super::LogOptions;
use super::data_dir::DataDir;
use super::error::LogError;
use super::index::Index;
use super::recovery;
use crate::disk::Disk;
use crate::raft::{Entry, LogId};

/// How many bytes of entries are read at once.
const MAX_READ: usize = 4 << 20;

/// The log in a directory whose node does not run.
#[derive(Debug)]
pub(crate) struct StoppedLog {
    index: Index,
    disk: Arc<dyn Disk>,
}

impl StoppedLog {
    /// Reads a whole log as its node would at its next start. Nothing is changed.
    ///
    /// # Errors
    /// `Corrupt`, `Missing`, `NewerFormat`, `Disk`.
    pub(crate) fn read(dir: &DataDir) -> Result<Self, LogError> {
        let needed = dir.identity().needed_segment()?;
        let index = recovery::recover(&*dir.disk, &dir.log(), &LogOptions::default(), needed)?.index;
        Ok(Self { index, disk: Arc::clone(&dir.disk) })
    }

    /// The last entry that is known here to be on a majority of the nodes. There may be more: a node learns it late, and writes it down lazily.
    pub(crate) fn committed(&self) -> Option<LogId> {
        self.index.summary.committed
    }

    /// The entries before and with this one are not here: a snapshot has them.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.index.summary.purged
    }

    /// The entries from an index on: some at a time, and none when there are no more.
    ///
    /// # Errors
    /// `Corrupt`, `Disk`.
    pub(crate) fn entries_from(&self, index: u64) -> Result<Vec<Entry>, LogError> {
        self.index.plan(index..u64::MAX, MAX_READ).read(&*self.disk)
    }
}
