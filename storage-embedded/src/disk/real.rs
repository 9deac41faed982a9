//! The file system of the machine.

use std::any::Any;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::files::{is_absent, parent, sync_dir};
use super::{Disk, DiskFile};

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match std::fs::metadata(dir) {
            // Whoever has made it may have died before its name was durable.
            Ok(found) if found.is_dir() => return sync_name(dir),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            // A link that leads nowhere: its directory may come back, so none is begun in its place.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_absent(dir)? => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = parent(dir) {
            self.create_dir(parent)?;
        }
        match DirBuilder::new().mode(PRIVATE_DIR).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        sync_name(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            // A link counts: what it leads to is opened, or cannot be.
            if !entry.file_type()?.is_dir() {
                // Left out, a directory that has it would count as empty.
                let unreadable =
                    |name| io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is no name of ours"));
                names.push(entry.file_name().into_string().map_err(unreadable)?);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(create_aside(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = private().write(true).create(true).truncate(false).open(path).map_err(followed)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Rights of what holds data, for the owner alone. The mask of the process takes more away at the most.
const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// Creates an empty file that is written aside, for its owner alone and as itself: what an earlier attempt has left under the name goes first, a
/// link too, and nobody can put one in its place.
///
/// # Errors
/// Those of the disk.
fn create_aside(path: &Path) -> io::Result<File> {
    let create = || private().read(true).write(true).create_new(true).open(path);
    match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            create()
        }
        created => created,
    }
}

/// Files are made for their owner, and never through a link.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(PRIVATE_FILE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// The system's word for a link that is not followed is that there are too many.
fn followed(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => io::Error::other("it is a symbolic link, which somebody else may lead anywhere"),
        _ => error,
    }
}

/// Makes the name of a directory durable. One above it that this user may not read was made by another, who made it durable or not.
fn sync_name(dir: &Path) -> io::Result<()> {
    match parent(dir).map_or(Ok(()), sync_dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

#[derive(Debug)]
pub(super) struct RealFile(File);

impl RealFile {
    pub(super) fn of(file: File) -> Self {
        Self(file)
    }
}

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::disk::read_all;

    #[test]
    fn a_file_is_written_read_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        RealDisk.create_dir(&deep).unwrap();
        RealDisk.create_dir(&deep).unwrap();
        let file = RealDisk.create(&deep.join("x")).unwrap();
        file.write_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        RealDisk.rename(&deep.join("x"), &deep.join("y")).unwrap();
        RealDisk.sync_dir(&deep).unwrap();
        assert_eq!(RealDisk.list(&deep).unwrap(), ["y"]);
        assert_eq!(read_all(&*RealDisk.open_to_read(&deep.join("y")).unwrap()).unwrap(), b"\0\0\0hello");
        RealDisk.remove(&deep.join("y")).unwrap();
        assert_eq!(RealDisk.open(&deep.join("y")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut buffer = [0; 8];
        assert_eq!(file.read_at(&mut buffer, 5).unwrap(), 3, "an open file outlives its name");
    }

    fn rights(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone_and_never_at_the_end_of_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        RealDisk.create_dir(&at("a/b")).unwrap();
        let _held = RealDisk.lock(&at("a/b/LOCK")).unwrap();
        RealDisk.create(&at("a/b/x")).unwrap();
        assert_eq!(["a", "a/b"].map(|name| rights(&at(name))), [0o700; 2]);
        assert_eq!(["a/b/LOCK", "a/b/x"].map(|name| rights(&at(name))), [0o600; 2]);
        // Somebody knows the name under which something will be written, and leads it to what is not theirs.
        std::fs::write(at("victim"), "whole").unwrap();
        for name in ["a/b/y.new", "a/b/LOCK2"] {
            std::os::unix::fs::symlink(at("victim"), at(name)).unwrap();
        }
        RealDisk.create(&at("a/b/y.new")).unwrap().write_at(b"new", 0).unwrap();
        assert!(RealDisk.lock(&at("a/b/LOCK2")).unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(std::fs::read(at("victim")).unwrap(), b"whole");
        assert_eq!(std::fs::read(at("a/b/y.new")).unwrap(), b"new");
        // What an attempt has left that was killed does not stand in the way, and is not added to.
        RealDisk.create(&at("a/b/y.new")).unwrap();
        assert_eq!(std::fs::read(at("a/b/y.new")).unwrap(), b"");
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let held = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        RealDisk.lock(&path).unwrap();
    }
}
