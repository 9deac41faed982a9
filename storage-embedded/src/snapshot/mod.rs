//! Snapshots: the whole replicated state in one file, instead of the log that led to it.
//!
//! A file is written aside, synced and renamed, so that a snapshot is there whole or not at all; it is checked whole
//! before anything of it is used.

mod file;
mod format;
mod incoming;
mod metrics;
mod seal;
mod store;

pub(crate) use file::SnapshotFile;
pub use metrics::SnapshotMetrics;
pub use seal::SnapshotSeal;
pub(crate) use store::{SnapshotStore, read_newest};

use std::{io, path::Path, sync::Arc};

use crate::{disk::Disk, raft::SnapshotMeta, state_machine::Tables};

/// Reads the snapshot that a file of any directory begins with. What follows it is not looked at.
///
/// # Errors
/// `InvalidData`, which names file and offset, for a damaged one, and those of the disk.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<(SnapshotMeta, Tables)> {
    format::read_first(&SnapshotFile::open(disk, path)?)
}

/// Writes a snapshot into a file of its own, sealed as those that are saved from running nodes, and syncs it. It must not exist; it appears when it is
/// whole.
///
/// # Errors
/// `AlreadyExists`, and those of the disk. Nothing is left behind then.
pub(crate) fn save(disk: &Arc<dyn Disk>, path: &Path, meta: &SnapshotMeta, tables: &Tables) -> io::Result<()> {
    if disk.open_to_read(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let file = file::TemporaryFile::create(Arc::clone(disk), aside.into())?;
    format::write(file.file(), meta, tables, &|| true)?;
    let length = file.file().length()?;
    let mut seal = SnapshotSeal::default();
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let read = file.file().read_at(&mut piece, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seal.cover(piece.get(..read).unwrap_or_default());
        at += read as u64;
    }
    file.file().write_at(&seal.close(), length)?;
    file.file().sync_data()?;
    file.keep(path)
}

#[cfg(test)]
mod tests;
