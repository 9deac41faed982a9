//! Snapshots: the whole replicated state in one file, instead of the log that led to it.
//!
//! A file is written aside, synced and renamed, so that a snapshot is there whole or not at all; it is checked whole
//! before anything of it is used.

mod file;
mod format;
mod incoming;
mod metrics;
mod store;

pub(crate) use file::SnapshotFile;
pub use metrics::SnapshotMetrics;
pub(crate) use store::SnapshotStore;

use std::{io, path::Path};

use crate::{disk::Disk, raft::SnapshotMeta, state_machine::Tables};

/// Reads the snapshot that a file of any directory begins with. What follows it is not looked at.
///
/// # Errors
/// `InvalidData`, which names file and offset, for a damaged one, and those of the disk.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<(SnapshotMeta, Tables)> {
    format::read_first(&SnapshotFile::open(disk, path)?)
}

#[cfg(test)]
mod tests;
