//! A snapshot on its way from another node.

use std::{io, sync::Arc};

use super::{
    file::{SnapshotFile, TemporaryFile},
    format,
    metrics::Counters,
};

/// How much is taken in between two syncs, so that the last one has little to do.
const SYNC_BYTES: u64 = 4 << 20;

/// A snapshot that is being received. Dropped, it leaves nothing behind. Its calls use the disk: make them where that may block.
#[derive(Debug)]
pub(crate) struct IncomingSnapshot {
    file: TemporaryFile,
    length: u64,
    synced: u64,
    counters: Arc<Counters>,
}

impl IncomingSnapshot {
    pub(super) fn new(file: TemporaryFile, counters: Arc<Counters>) -> Self {
        Self { file, length: 0, synced: 0, counters }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn write_chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.file().write_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        if self.length - self.synced >= SYNC_BYTES {
            self.file.file().sync_data()?;
            self.synced = self.length;
        }
        Ok(())
    }

    /// Checks all that was received: only a snapshot that is whole and undamaged may be installed.
    ///
    /// # Errors
    /// `InvalidData` with a [`Damaged`](format::Damaged), and those of the disk.
    pub(crate) fn finish(self) -> io::Result<SnapshotFile> {
        self.file.file().sync_data()?;
        let snapshot = SnapshotFile::temporary(self.file)?;
        format::verify(&snapshot)?;
        self.counters.received();
        Ok(snapshot)
    }
}
