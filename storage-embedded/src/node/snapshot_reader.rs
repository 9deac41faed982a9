//! The bytes of a snapshot, for whoever saves them somewhere else.

use std::{io, time::Duration};

use bytes::Bytes;
use storage_core::{Error, Result};

use super::Node;

/// Snapshots for those who carry them away.
impl Node {
    /// Writes a snapshot of what is applied now, and opens it.
    ///
    /// # Errors
    /// Those of [`Node::snapshot`]; [`Error::Unavailable`] if it cannot be read.
    pub async fn open_snapshot(&self, timeout: Duration) -> Result<SnapshotReader> {
        self.snapshot(timeout).await?;
        let newest = self.newest_snapshot().await?;
        newest.ok_or_else(|| Error::unavailable("there is nothing to take a snapshot of"))
    }

    /// Opens the newest snapshot, if there is one.
    ///
    /// # Errors
    /// [`Error::Closed`] when the node has stopped; [`Error::Unavailable`] if it cannot be read.
    pub async fn newest_snapshot(&self) -> Result<Option<SnapshotReader>> {
        let newest = self.0.raft.get_snapshot().await.map_err(|_| self.stopped_error())?;
        newest
            .map(|newest| {
                let chunks = newest.snapshot.open_chunks().map_err(Error::unavailable)?;
                Ok(SnapshotReader { length: newest.snapshot.length(), chunks: Box::new(chunks) })
            })
            .transpose()
    }
}

/// The bytes of a snapshot, in pieces. It can be read to its end although a newer one takes its place meanwhile.
pub struct SnapshotReader {
    length: u64,
    chunks: Box<dyn Iterator<Item = io::Result<Bytes>> + Send>,
}

impl SnapshotReader {
    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReader").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Iterator for SnapshotReader {
    type Item = io::Result<Bytes>;

    /// Reads the next piece from disk, which blocks.
    fn next(&mut self) -> Option<Self::Item> {
        self.chunks.next()
    }
}
