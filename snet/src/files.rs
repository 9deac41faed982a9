//! How the files are made that a command leaves behind.

use std::{io, path::Path};

use storage_replica::disk::{Disk as _, RealDisk, parent};

/// Makes the name of a file durable.
///
/// # Errors
/// Those of the disk.
pub(crate) fn sync_dir_of(path: &Path) -> io::Result<()> {
    parent(path).map_or(Ok(()), |dir| RealDisk.sync_dir(dir))
}
