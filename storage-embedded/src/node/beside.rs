use std::{io, time::Duration};

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use storage_core::{Error, Result};
use tokio::runtime::Handle;

use super::Node;

/// What a server that runs beside the node needs of it.
impl Node {
    /// The runtime that the node works on, with one thread. What shares it saves switches of threads, and may never block.
    pub fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// The term, as this node knows it.
    pub fn term(&self) -> u64 {
        self.0.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    /// The leader, as far as this node knows one.
    pub fn leader(&self) -> Option<u64> {
        self.0.raft.server_metrics().borrow_watched().current_leader
    }

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
