//! The few calls on files that the engine makes, so that tests can put a simulated disk under it.
//!
//! What the engine assumes of a real disk: what a successful [`DiskFile::sync_data`] or [`Disk::sync_dir`] covered
//! survives a loss of power; a write changes no byte outside its range, even when it is torn; [`Disk::rename`]
//! within one directory is atomic.

mod files;
mod real;
mod reserve;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

pub use files::{exposure, is_absent, is_unused, move_aside, parent, replace, sync_dir, warn_if_exposed};
pub use real::RealDisk;
pub use reserve::DiskSpace;
#[cfg(not(simulated))]
pub(crate) use reserve::{RESERVE_BYTES, Reserve, ReservedDisk};

/// A file system.
pub trait Disk: Debug + Send + Sync {
    /// Creates a directory and the missing ones above it, durably and for their owner alone. One that exists is left as it is, and its name is durable,
    /// too.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading: works on a disk that can only be read.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file, in the place of one that has the name. Its name is durable after [`Disk::sync_dir`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in the same directory, replacing the file that has it. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Whoever has it open can still use it. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on a file, which is created if missing, for as long as the returned value lives.
    /// `WouldBlock` if it is taken, by this process or another.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// Gives up space that is held in reserve, since there is none for something that is needed. `false`: nothing is held.
    fn give_way(&self) -> bool {
        false
    }
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Fills the buffer from `offset` on; less only where the file ends. Returns the number of bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. After an error any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes durable what was written, and the length. After an error the state of everything written since the
    /// last success is unknown for ever: a later success proves nothing (see PostgreSQL's "fsyncgate").
    fn sync_data(&self) -> io::Result<()>;
}

/// Whether a call has failed since the process, or the system, has no descriptor left. It passes, nothing has happened, and no write or sync
/// of an open file fails so.
pub(crate) fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether a call has failed for want of descriptors, of space on the disk or of rights. That passes too, but a write or sync may have failed so: it is
/// for files on which nothing depends yet.
pub(crate) fn lacks_room(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    lacks_descriptors(error)
        || matches!(error.kind(), StorageFull | QuotaExceeded | PermissionDenied | ReadOnlyFilesystem)
}

/// Whether a call has failed for want of space.
pub(crate) fn lacks_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// All the bytes of a file.
///
/// # Errors
/// Whatever reading gives.
pub fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
