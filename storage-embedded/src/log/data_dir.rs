//! The directory of a node: whose it is, and that only one uses it.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use crc32c::crc32c;

use super::error::LogError;
use crate::codec::{Decoded, Reader};
use crate::disk::{Disk, read_all};

const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity";
const IDENTITY_ASIDE: &str = "identity.new";
const LOG: &str = "log";

const MAGIC: &[u8; 8] = b"stgr-nid";
const VERSION: u32 = 1;
/// Magic, version, cluster, node, checksum of all before it.
const LENGTH: usize = 8 + 4 + 16 + 8 + 4;

/// The directory of a node, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(super) disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn Any + Send + Sync>,
}

impl DataDir {
    /// Takes the directory of a node; makes it, with the identity of the node, if there is none.
    ///
    /// # Errors
    /// `Locked`, `OtherIdentity`, `NewerFormat`, `Corrupt` after nothing was changed; `ReadOnly`, `Full`, `Disk`.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path, cluster: u128, node: u64) -> Result<Self, LogError> {
        let identity = Identity { cluster, node };
        let founded = identity.check(&*disk, path)?;
        if !founded {
            disk.create_dir(path).map_err(|error| LogError::disk(path, error))?;
        }
        let lock = lock(&*disk, path)?;
        // Another node may have founded it before the lock was taken.
        if !founded && !identity.check(&*disk, path)? {
            identity.write(&*disk, path)?;
        }
        Ok(Self { disk, path: path.to_path_buf(), _lock: lock })
    }

    /// Takes the directory of a node that was here before, whoever that is: its cluster and its id. Nothing but the lock is made, if that is missing.
    ///
    /// # Errors
    /// `Locked`, `NewerFormat`, `Corrupt`, `Disk`; none, if no node was ever here.
    pub(crate) fn take(disk: Arc<dyn Disk>, path: &Path) -> Result<Option<(Self, u128, u64)>, LogError> {
        let Some(Identity { cluster, node }) = Identity::read(&*disk, path)? else { return Ok(None) };
        let lock = lock(&*disk, path)?;
        Ok(Some((Self { disk, path: path.to_path_buf(), _lock: lock }, cluster, node)))
    }

    /// Where the log is.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Any + Send + Sync>, LogError> {
    let path = dir.join(LOCK);
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked { dir: dir.to_path_buf() },
        _ => LogError::disk(&path, error),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    cluster: u128,
    node: u64,
}

impl Identity {
    /// Whether the directory has this identity (true) or none yet.
    fn check(self, disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
        let Some(found) = Self::read(disk, dir)? else { return Ok(false) };
        if found == self {
            return Ok(true);
        }
        Err(LogError::OtherIdentity {
            dir: dir.to_path_buf(),
            found_cluster: found.cluster,
            found_node: found.node,
            cluster: self.cluster,
            node: self.node,
        })
    }

    /// Whose directory it is, if it is anybody's.
    fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, LogError> {
        let path = dir.join(IDENTITY);
        match disk.open_to_read(&path).and_then(|file| read_all(&*file)) {
            Ok(bytes) => Self::decode(&bytes, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::check_unused(disk, dir).map(|()| None),
            Err(error) => Err(LogError::disk(&path, error)),
        }
    }

    /// A directory without an identity has no log.
    fn check_unused(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let log = dir.join(LOG);
        match disk.list(&log) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::disk(&log, error)),
            Ok(names) if !names.is_empty() => Err(LogError::Corrupt {
                file: dir.join(IDENTITY),
                offset: 0,
                reason: "it is missing, but there is a log",
            }),
            _ => Ok(()),
        }
    }

    fn write(self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let aside = dir.join(IDENTITY_ASIDE);
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(VERSION);
        bytes.put_u128_le(self.cluster);
        bytes.put_u64_le(self.node);
        let crc = crc32c(&bytes);
        bytes.put_u32_le(crc);
        let written = disk.create(&aside).and_then(|file| {
            file.write_at(&bytes, 0)?;
            file.sync_data()?;
            disk.rename(&aside, &dir.join(IDENTITY))?;
            disk.sync_dir(dir)
        });
        written.map_err(|error| LogError::disk(&aside, error))
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self, LogError> {
        let file = path.to_path_buf();
        let content = bytes.get(..LENGTH - 4).unwrap_or_default();
        if !content.starts_with(MAGIC) || bytes.get(LENGTH - 4..) != Some(&crc32c(content).to_le_bytes()) {
            return Err(LogError::Corrupt { file, offset: 0, reason: "no identity" });
        }
        let mut reader = Reader::new(Bytes::copy_from_slice(content.get(MAGIC.len()..).unwrap_or_default()));
        let mut fields = || -> Decoded<_> { Ok((reader.u32()?, reader.u128()?, reader.u64()?)) };
        match fields() {
            Ok((VERSION, cluster, node)) => Ok(Self { cluster, node }),
            Ok((found, ..)) => Err(LogError::NewerFormat { file, found, supported: VERSION }),
            Err(error) => Err(LogError::Corrupt { file, offset: 0, reason: error.0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Fault, RealDisk, SimDisk, Survival};

    fn open(disk: &SimDisk, cluster: u128, node: u64) -> Result<DataDir, LogError> {
        DataDir::open(Arc::new(disk.clone()), Path::new("/node"), cluster, node)
    }

    #[test]
    fn a_directory_belongs_to_its_first_node() {
        let disk = SimDisk::new(1);
        drop(open(&disk, 5, 1).unwrap());
        drop(open(&disk, 5, 1).unwrap());
        let before = disk.contents();
        assert!(matches!(open(&disk, 6, 1), Err(LogError::OtherIdentity { found_cluster: 5, cluster: 6, .. })));
        assert!(matches!(open(&disk, 5, 2), Err(LogError::OtherIdentity { found_node: 1, node: 2, .. })));
        assert_eq!(disk.contents(), before);
        drop(open(&disk.crash(Survival::Nothing), 5, 1).unwrap());
    }

    #[test]
    fn one_node_at_a_time() {
        let disk = SimDisk::new(1);
        let held = open(&disk, 5, 1).unwrap();
        assert!(open(&disk, 5, 1).unwrap_err().to_string().starts_with("another node uses /node: stop it"));
        drop(held);
        open(&disk, 5, 1).unwrap();
        let real = tempfile::tempdir().unwrap();
        let held = DataDir::open(Arc::new(RealDisk), real.path(), 5, 1).unwrap();
        assert!(matches!(DataDir::open(Arc::new(RealDisk), real.path(), 5, 1), Err(LogError::Locked { .. })));
        drop(held);
        DataDir::open(Arc::new(RealDisk), real.path(), 5, 1).unwrap();
    }

    #[test]
    fn a_crash_at_any_operation_leaves_an_identity_or_none() {
        let counted = SimDisk::new(1);
        drop(open(&counted, 5, 1).unwrap());
        for operation in 0..counted.operations() {
            for (seed, fault) in (0..20).flat_map(|seed| [(seed, Fault::PowerLoss), (seed, Fault::Eio)]) {
                let disk = SimDisk::new(seed);
                disk.fail_at(operation, fault);
                let opened = open(&disk, 5, 1).is_ok();
                let found = disk.crash(Survival::Any(seed));
                if opened {
                    assert!(matches!(open(&found, 6, 1), Err(LogError::OtherIdentity { .. })));
                }
                drop(open(&found, 5, 1).unwrap());
            }
        }
    }

    #[test]
    fn damage_is_reported_with_the_file() {
        let disk = SimDisk::new(1);
        drop(open(&disk, 5, 1).unwrap());
        let path = Path::new("/node/identity");
        for at in 0..LENGTH {
            let damaged = disk.fork();
            damaged.damage(path, |bytes| bytes[at] ^= 4).unwrap();
            let before = damaged.contents();
            match open(&damaged, 5, 1).unwrap_err() {
                LogError::Corrupt { file, offset: 0, .. } => assert_eq!(file, path),
                other => panic!("byte {at}: {other}"),
            }
            assert_eq!(damaged.contents(), before);
        }
        disk.damage(path, |bytes| {
            bytes[8] = 2;
            let crc = crc32c(&bytes[..LENGTH - 4]);
            bytes[LENGTH - 4..].copy_from_slice(&crc.to_le_bytes());
        })
        .unwrap();
        assert!(matches!(open(&disk, 5, 1), Err(LogError::NewerFormat { found: 2, supported: 1, .. })));
        let lost = SimDisk::new(1);
        lost.create_dir(Path::new("/node/log")).unwrap();
        lost.create(Path::new("/node/log/x")).unwrap();
        assert!(matches!(open(&lost, 5, 1), Err(LogError::Corrupt { .. })));
    }

    #[test]
    fn a_full_disk_is_named() {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new("/node")).unwrap();
        let counted = disk.fork();
        drop(open(&counted, 5, 1).unwrap());
        let full = (0..counted.operations()).filter(|operation| {
            let disk = disk.fork();
            disk.fail_at(*operation, Fault::Enospc);
            matches!(open(&disk, 5, 1), Err(LogError::Full { .. }))
        });
        assert!(full.count() >= 3, "the lock, the file, its bytes");
    }
}
