//! Snapshots: the whole replicated state in one file, instead of the log that led to it.
//!
//! A file is written aside, synced and renamed, so that a snapshot is there whole or not at all; it is checked whole
//! before anything of it is used.
//!
//! # Invariants
//! - The newest snapshot is durable before an older one is removed, and before raft is told of it.
//! - Damage is an error with file and offset, and never a smaller state.
//!
//! # What it must not do
//! Stand in the way of the log: it writes in pieces, syncs often and rests in between, from a copy that no writer waits for.

mod file;
mod footer;
mod format;
mod incoming;
mod metrics;
mod store;

pub(crate) use file::SnapshotFile;
pub use footer::SnapshotFooter;
#[cfg(test)]
pub(crate) use format::Damaged;
pub use metrics::SnapshotMetrics;
pub(crate) use store::{SnapshotStore, read_newest};

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    disk::{Disk, RealDisk, is_absent},
    raft::SnapshotMeta,
    tables::Tables,
};

/// Reads the snapshot that a file of any directory begins with. What follows it is not looked at.
///
/// # Errors
/// `InvalidData`, which names file and offset, for a damaged one, and those of the disk.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<(SnapshotMeta, Tables)> {
    format::read_first(&SnapshotFile::open(disk, path)?)
}

/// Writes a snapshot into a file of its own, with the footer of those that are saved from running nodes, and syncs it. It must not exist; it appears when it is
/// whole.
///
/// # Errors
/// `AlreadyExists`, with the name, for the file or the one with `.part` that it is written to first, and those of the disk. Nothing is left behind then.
#[expect(clippy::expect_used, reason = "a file gives no more than is asked for")]
pub(crate) fn save(path: &Path, meta: &SnapshotMeta, tables: &Tables) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let aside = PathBuf::from(aside);
    for made in [path, &aside] {
        // What cannot be opened is there, too.
        if !is_absent(made)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there already", made.display())));
        }
    }
    let file = file::TemporaryFile::create(Arc::new(RealDisk), aside)?;
    format::write(file.file(), meta, tables, &|| true)?;
    let length = file.file().length()?;
    let mut footer = SnapshotFooter::default();
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let read = file.file().read_at(&mut piece, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        footer.update(piece.get(..read).expect("no more is read than asked for"));
        at += read as u64;
    }
    file.file().write_at(&footer.finish(), length)?;
    file.file().sync_data()?;
    file.keep(path)
}
