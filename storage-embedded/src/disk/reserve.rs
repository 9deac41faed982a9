//! Space on the disk that a node holds for when somebody else has filled it.
//!
//! What a node needs to get out of that state takes space itself: a deletion takes the log, and the log is given up only behind a snapshot. So a file holds
//! as much, and is emptied when the log or a snapshot finds no space. Whoever fills the disk may be faster and take that too: then the node
//! waits, as without it.
//!
//! Invariant: what is held can be lost at any time, and nothing depends on its content.

#![cfg_attr(simulated, allow(dead_code, reason = "a simulated disk has no end"))]

use std::{
    any::Any,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

use super::{
    Disk, DiskFile, lacks_space,
    real::{RealDisk, RealFile, private},
};

/// How much is held beside what the next snapshot takes: two segments of the log, in which there is room for some 100,000 deletions.
pub(crate) const RESERVE_BYTES: u64 = 32 << 20;

/// With less than this besides, the disk counts as full: as much as the log may take until the alarm stands in it.
pub(crate) const LEAST_FREE_BYTES: u64 = 32 << 20;

/// The name of the file in the data directory.
const FILE: &str = "reserve";

/// How much space there is on the disk of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskSpace {
    /// What this user may take of the disk, in bytes.
    pub free: u64,
    /// What the node holds in reserve, in bytes.
    pub reserve: u64,
    /// What it wants to hold: 32 MiB, and as much as the newest snapshot has.
    pub wanted: u64,
}

impl DiskSpace {
    /// Whether there is so little that nothing more may grow.
    pub fn is_short(&self) -> bool {
        self.reserve < self.wanted || self.free < LEAST_FREE_BYTES
    }
}

/// The file that holds the space.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// How much it holds. Locked while that changes.
    held: Mutex<u64>,
}

impl Reserve {
    /// That of a data directory, with what an earlier run has left.
    pub(crate) fn of(data_dir: &Path) -> Arc<Self> {
        let path = data_dir.join(FILE);
        let held = std::fs::symlink_metadata(&path).map_or(0, |found| found.len());
        Arc::new(Self { path, held: Mutex::new(held) })
    }

    /// Holds as much as is wanted, or what it can if that leaves too little for others. Uses the disk.
    ///
    /// # Errors
    /// Those of the disk but that there is no space.
    pub(crate) fn keep(&self, wanted: u64) -> io::Result<DiskSpace> {
        let mut held = self.held.lock();
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let free = || {
            let found = statvfs(dir)?;
            // Some file systems do not know how large they are.
            let knows = found.f_blocks > 0;
            io::Result::Ok(if knows { found.f_bavail.saturating_mul(found.f_frsize) } else { u64::MAX })
        };
        let has_room = free()? >= LEAST_FREE_BYTES.saturating_add(wanted.saturating_sub(*held));
        if *held != wanted && (has_room || *held > wanted) {
            let file = private().write(true).create(true).truncate(false).open(&self.path)?;
            file.set_len(wanted.min(*held))?;
            match fill(&file, *held, wanted) {
                Ok(()) => *held = wanted,
                // As much as there was before, at the least.
                Err(error) if lacks_space(&error) => {
                    file.set_len(*held)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(DiskSpace { free: free()?, reserve: *held, wanted })
    }

    /// Gives up what is held, since there is no space for what is needed. Whether there was anything.
    fn give_way(&self) -> bool {
        let mut held = self.held.lock();
        let emptied = || private().write(true).open(&self.path)?.set_len(0);
        if *held == 0 {
            return false;
        }
        match emptied() {
            Ok(()) => {
                tracing::error!(bytes = *held, "the disk is full: what was held in reserve is used now");
                *held = 0;
                true
            }
            Err(error) => {
                tracing::error!(%error, file = %self.path.display(), "cannot give up what is held in reserve");
                false
            }
        }
    }
}

/// Takes space without writing it, where the file system knows how to.
fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    if to <= from {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), from, to - from) {
        Err(Errno::OPNOTSUPP) => {
            let disk_file = RealFile::of(file.try_clone()?);
            let zeros = vec![0; 64 << 10];
            let mut at = from;
            while at < to {
                let length = usize::try_from(to - at).map_or(zeros.len(), |left| left.min(zeros.len()));
                disk_file.write_at(zeros.split_at(length).0, at)?;
                at += length as u64;
            }
            disk_file.sync_data()
        }
        taken => Ok(taken?),
    }
}

/// The file system of the machine, with a reserve.
#[derive(Debug)]
pub(crate) struct ReservedDisk(pub(crate) Arc<Reserve>);

impl Disk for ReservedDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open_to_read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        RealDisk.lock(path)
    }

    fn give_way(&self) -> bool {
        self.0.give_way()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// Blocks, and not only a length: that would be no space.
    #[test]
    fn a_reserve_takes_space_grows_shrinks_and_gives_way_once() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        let on_disk = || std::fs::metadata(dir.path().join(FILE)).unwrap();
        for wanted in [1 << 20, 4 << 20, 2 << 20] {
            let space = reserve.keep(wanted).unwrap();
            assert_eq!((space.reserve, space.wanted, space.is_short()), (wanted, wanted, false), "{space:?}");
            assert_eq!(on_disk().len(), wanted);
            assert!(on_disk().blocks() * 512 >= wanted, "{}", on_disk().blocks());
        }
        assert_eq!(*Reserve::of(dir.path()).held.lock(), 2 << 20, "the next run finds it");
        let disk = ReservedDisk(Arc::clone(&reserve));
        assert!(disk.give_way());
        assert_eq!((on_disk().len(), disk.give_way()), (0, false));
        assert_eq!(reserve.keep(1 << 20).unwrap().reserve, 1 << 20, "when there is space it is held again");
    }

    #[test]
    fn more_than_there_is_is_not_held_and_counts_as_short() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        reserve.keep(1 << 20).unwrap();
        let space = reserve.keep(1 << 60).unwrap();
        assert_eq!((space.reserve, space.is_short()), (1 << 20, true));
        assert!(DiskSpace { free: LEAST_FREE_BYTES - 1, reserve: 1, wanted: 1 }.is_short());
        assert!(!DiskSpace { free: LEAST_FREE_BYTES, reserve: 1, wanted: 1 }.is_short());
    }
}
