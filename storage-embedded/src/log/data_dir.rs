//! The directory of a node: whose it is, and that only one uses it.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use crc32c::crc32c;
use parking_lot::Mutex;

use super::error::LogError;
use crate::codec::{DecodeError, Decoded, Reader, boolean, optional_index, put_optional_index};
use crate::disk::{Disk, read_all, replace};

/// The file that is locked for as long as somebody uses a directory.
pub(crate) const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity";
const LOG: &str = "log";
const SNAPSHOTS: &str = "snapshots";

const MAGIC: &[u8; 8] = b"stgr-nid";
const VERSION: u32 = 4;
/// Magic, version, cluster, node, phase, origin, whether and since which entry it is a member, whether it drew its origin, whether and which segment is
/// the newest of its log, checksum of all before it.
const LENGTH: usize = 8 + 4 + 16 + 8 + 1 + 16 + 1 + 8 + 1 + 1 + 8 + 4;
/// The third version had neither the lot nor the segment.
const THIRD_LENGTH: usize = 8 + 4 + 16 + 8 + 1 + 16 + 1 + 8 + 4;
/// The second version did not say since when it is a member.
const SECOND_LENGTH: usize = 8 + 4 + 16 + 8 + 1 + 16 + 4;
/// The first version had neither phase nor origin.
const FIRST_LENGTH: usize = 8 + 4 + 16 + 8 + 4;

/// How far a node has come. It only ever rises, so that one that stands lower than another remembers has lost its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    /// It has no data and never had any.
    New = 0,
    /// It may take part: see docs/decisions/0012-first-start.md.
    Prepared = 1,
    /// It has data. If there are none, they were lost.
    Begun = 2,
    /// Its cluster has removed it. It never votes or answers again.
    Removed = 3,
}

impl Phase {
    pub(crate) fn decode(byte: u8) -> Decoded<Self> {
        match byte {
            0 => Ok(Self::New),
            1 => Ok(Self::Prepared),
            2 => Ok(Self::Begun),
            3 => Ok(Self::Removed),
            _ => Err(DecodeError("an unknown phase")),
        }
    }
}

/// The directory of a node, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(super) disk: Arc<dyn Disk>,
    path: PathBuf,
    identity: Arc<IdentityFile>,
    _lock: Box<dyn Any + Send + Sync>,
}

/// The file that says whose a directory is, and how far that node has come.
#[derive(Debug)]
pub(crate) struct IdentityFile {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: Mutex<Identity>,
}

impl IdentityFile {
    pub(crate) fn phase(&self) -> Phase {
        self.identity.lock().phase
    }

    /// With what the node began: 0 with nothing, else a hash of what it was restored from, or a number that it drew to found a cluster alone.
    pub(crate) fn origin(&self) -> u128 {
        self.identity.lock().origin
    }

    /// Remembers how far the node has come. It is on stable storage when this returns.
    ///
    /// # Errors
    /// `ReadOnly`, `Full`, `Disk`.
    pub(crate) fn advance(&self, phase: Phase, origin: u128) -> Result<(), LogError> {
        self.change(|identity| {
            assert!(phase >= identity.phase, "a node forgets nothing");
            assert!(
                origin == identity.origin || identity.phase == Phase::New,
                "data stay of the origin that they are of"
            );
            Identity { phase, origin, ..identity }
        })
    }

    /// Remembers that the node founds a cluster alone, and the number that it has drawn for that. It is on stable storage when this returns.
    ///
    /// # Errors
    /// Those of [`IdentityFile::advance`].
    pub(crate) fn found_alone(&self, drawn: u128) -> Result<(), LogError> {
        self.change(|identity| {
            assert_eq!((identity.phase, identity.origin), (Phase::New, 0), "a node draws its origin once");
            Identity { phase: Phase::Prepared, origin: drawn, is_drawn: true, ..identity }
        })
    }

    /// Whether the node has founded a cluster alone, with nothing.
    pub(crate) fn founded_alone(&self) -> bool {
        self.identity.lock().is_drawn
    }

    /// Remembers the newest segment of the log, which has its name for good. Nothing may be written to it before. It is on stable storage when this returns.
    ///
    /// # Errors
    /// Those of [`IdentityFile::advance`].
    pub(super) fn note_segment(&self, sequence: u64) -> Result<(), LogError> {
        self.change(|identity| Identity { newest_segment: Some(sequence), ..identity })
    }

    /// The segment that the log has to have, or one that follows it. Without, what was voted and acknowledged last is lost. 0: none.
    ///
    /// # Errors
    /// `Disk`.
    pub(super) fn needed_segment(&self) -> Result<u64, LogError> {
        let Identity { phase, newest_segment, .. } = *self.identity.lock();
        match (phase, newest_segment) {
            // It has neither voted nor acknowledged anything.
            (Phase::New, _) => Ok(0),
            (_, Some(newest)) => Ok(newest),
            // Earlier releases remembered none. Whoever has begun has one, and whoever has a snapshot.
            (Phase::Prepared, None) => Ok(has_files(&*self.disk, &self.dir.join(SNAPSHOTS))?.into()),
            (Phase::Begun | Phase::Removed, None) => Ok(1),
        }
    }

    /// The first entry with members, known to be committed, that this node has found itself in.
    pub(crate) fn member_since(&self) -> Option<u64> {
        self.identity.lock().member_since
    }

    /// Remembers that this node is a member by the committed entry at `index`. The first stays. It is on stable storage when this returns.
    ///
    /// # Errors
    /// Those of [`IdentityFile::advance`].
    pub(crate) fn note_member(&self, index: u64) -> Result<(), LogError> {
        self.change(|identity| Identity { member_since: identity.member_since.or(Some(index)), ..identity })
    }

    /// Remembers that the members of the committed entry at `index` are without this node. It is on stable storage when this returns.
    ///
    /// Node ids are never used twice. So whoever was a member by one entry and is none by a later one was removed, for ever.
    ///
    /// # Errors
    /// Those of [`IdentityFile::advance`].
    ///
    /// # Panics
    /// If it is not known to have been a member before.
    pub(crate) fn remove(&self, index: u64) -> Result<(), LogError> {
        self.change(|identity| {
            let was_member = identity.member_since.is_some_and(|since| since < index);
            assert!(was_member, "a node is removed by an entry after one that it was a member by");
            Identity { phase: Phase::Removed, ..identity }
        })
    }

    fn change(&self, change: impl FnOnce(Identity) -> Identity) -> Result<(), LogError> {
        let mut identity = self.identity.lock();
        let next = change(*identity);
        if next != *identity {
            // The disk first: after a write that failed, this still says what was known to be there.
            next.write(&*self.disk, &self.dir)?;
            *identity = next;
        }
        Ok(())
    }
}

impl DataDir {
    /// Takes the directory of a node; makes it, with the identity of the node, if there is none.
    ///
    /// # Errors
    /// `Locked`, `OtherIdentity`, `NewerFormat`, `Corrupt` after nothing was changed; `ReadOnly`, `Full`, `Disk`.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path, cluster: u128, node: u64) -> Result<Self, LogError> {
        let wanted = Identity {
            cluster,
            node,
            phase: Phase::New,
            origin: 0,
            member_since: None,
            is_drawn: false,
            newest_segment: None,
        };
        // Looked at before anything is made: the directory of another node stays as it is, without so much as a lock of
        // ours.
        if wanted.find(&*disk, path)?.is_none() {
            disk.create_dir(path).map_err(|error| LogError::disk(path, error))?;
        }
        let lock = lock(&*disk, path)?;
        // Another node may have made it before the lock was taken.
        let identity = match wanted.find(&*disk, path)? {
            Some(found) => found,
            None => {
                wanted.write(&*disk, path)?;
                wanted
            }
        };
        Ok(Self::locked(disk, path, identity, lock))
    }

    fn locked(disk: Arc<dyn Disk>, path: &Path, identity: Identity, lock: Box<dyn Any + Send + Sync>) -> Self {
        let file = IdentityFile { disk: Arc::clone(&disk), dir: path.to_path_buf(), identity: Mutex::new(identity) };
        Self { disk, path: path.to_path_buf(), identity: Arc::new(file), _lock: lock }
    }

    /// Takes the directory of a node that was here before, whoever that is: its cluster and its id. Nothing but the lock is made, if that is missing.
    ///
    /// # Errors
    /// `Locked`, `NewerFormat`, `Corrupt`, `Disk`; none, if no node was ever here.
    pub(crate) fn take(disk: Arc<dyn Disk>, path: &Path) -> Result<Option<(Self, u128, u64)>, LogError> {
        let Some(identity) = Identity::read(&*disk, path)? else { return Ok(None) };
        let lock = lock(&*disk, path)?;
        Ok(Some((Self::locked(disk, path, identity, lock), identity.cluster, identity.node)))
    }

    /// How far the node of this directory has come.
    pub(crate) fn identity(&self) -> Arc<IdentityFile> {
        Arc::clone(&self.identity)
    }

    /// Where the log is.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Where the snapshots are.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }
}

fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn Any + Send + Sync>, LogError> {
    let path = dir.join(LOCK);
    disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked { dir: dir.to_path_buf() },
        _ => LogError::disk(&path, error),
    })
}

/// Whether a directory is there and has something in it.
fn has_files(disk: &dyn Disk, dir: &Path) -> Result<bool, LogError> {
    match disk.list(dir) {
        Ok(names) => Ok(!names.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LogError::disk(dir, error)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    cluster: u128,
    node: u64,
    phase: Phase,
    origin: u128,
    member_since: Option<u64>,
    is_drawn: bool,
    newest_segment: Option<u64>,
}

impl Identity {
    /// What the directory says of this node; none, if it is nobody's yet. One whose node never had data is free for another, but not one
    /// that was restored.
    fn find(self, disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, LogError> {
        let Some(found) = Self::read(disk, dir)? else { return Ok(None) };
        if (found.cluster, found.node) == (self.cluster, self.node) {
            return Ok(Some(found));
        }
        if found.phase == Phase::New && found.origin == 0 {
            return Ok(None);
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

    /// A directory without an identity has no log and no snapshot.
    fn check_unused(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        for kept in [LOG, SNAPSHOTS].map(|name| dir.join(name)) {
            if has_files(disk, &kept)? {
                // A new identity would be that of a node that never had data. It would vote a second time in a term.
                let reason = "it is missing, but there is a log or a snapshot";
                return Err(LogError::Corrupt { file: dir.join(IDENTITY), offset: 0, reason });
            }
        }
        Ok(())
    }

    fn write(self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(VERSION);
        bytes.put_u128_le(self.cluster);
        bytes.put_u64_le(self.node);
        bytes.put_u8(self.phase as u8);
        bytes.put_u128_le(self.origin);
        put_optional_index(&mut bytes, self.member_since);
        bytes.put_u8(self.is_drawn.into());
        put_optional_index(&mut bytes, self.newest_segment);
        let crc = crc32c(&bytes);
        bytes.put_u32_le(crc);
        let path = dir.join(IDENTITY);
        replace(disk, &path, &bytes).map_err(|error| LogError::disk(&path, error))
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self, LogError> {
        let file = path.to_path_buf();
        // The checksum comes before the version, as in the log: damage is not taken for a newer release.
        let content = bytes.split_last_chunk().filter(|(content, crc)| **crc == crc32c(content).to_le_bytes());
        let Some(content) = content.and_then(|(content, _)| content.strip_prefix(MAGIC)) else {
            return Err(LogError::Corrupt { file, offset: 0, reason: "no identity" });
        };
        let mut reader = Reader::new(Bytes::copy_from_slice(content));
        let mut fields = || -> Decoded<_> {
            let (version, cluster, node) = (reader.u32()?, reader.u128()?, reader.u64()?);
            // A node of the first version votes from its first start on: whether it has done so, its log tells.
            let (phase, origin) = match (version, bytes.len()) {
                (1, FIRST_LENGTH) => (Phase::Prepared, 0),
                (2, SECOND_LENGTH) | (3, THIRD_LENGTH) | (VERSION, LENGTH) => {
                    (Phase::decode(reader.u8()?)?, reader.u128()?)
                }
                (1..=VERSION, _) => return Err(DecodeError("an identity of another length")),
                _ => (Phase::New, 0),
            };
            let member_since = if (3..=VERSION).contains(&version) { optional_index(&mut reader)? } else { None };
            let (is_drawn, newest_segment) = match version {
                VERSION => (boolean(&mut reader)?, optional_index(&mut reader)?),
                _ => (false, None),
            };
            Ok((version, Self { cluster, node, phase, origin, member_since, is_drawn, newest_segment }))
        };
        match fields() {
            Ok((1..=VERSION, identity)) => Ok(identity),
            Ok((found, _)) => Err(LogError::NewerFormat { file, found, supported: VERSION }),
            Err(error) => Err(LogError::Corrupt { file, offset: 0, reason: error.0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::simulated::{Fault, SimDisk, Survival};

    fn open(disk: &SimDisk, cluster: u128, node: u64) -> Result<DataDir, LogError> {
        DataDir::open(Arc::new(disk.clone()), Path::new("/node"), cluster, node)
    }

    fn prepare(dir: &DataDir) {
        dir.identity().advance(Phase::Prepared, 9).unwrap();
    }

    #[test]
    fn how_far_a_node_has_come_survives_and_never_falls() {
        let disk = SimDisk::new(1);
        let found = |disk: &SimDisk| {
            let identity = open(disk, 5, 1).unwrap().identity();
            (identity.phase(), identity.origin())
        };
        assert_eq!(found(&disk), (Phase::New, 0));
        prepare(&open(&disk, 5, 1).unwrap());
        assert_eq!(found(&disk.crash(Survival::Nothing)), (Phase::Prepared, 9));
        open(&disk, 5, 1).unwrap().identity().advance(Phase::Begun, 9).unwrap();
        assert_eq!(found(&disk.crash(Survival::Nothing)), (Phase::Begun, 9));
        let identity = open(&disk, 5, 1).unwrap().identity();
        for (phase, origin) in [(Phase::Prepared, 9), (Phase::Begun, 8)] {
            let back = std::panic::AssertUnwindSafe(|| identity.advance(phase, origin));
            assert!(std::panic::catch_unwind(back).is_err(), "{phase:?}, {origin}");
        }
    }

    /// Those of the first release have neither phase nor origin.
    #[test]
    #[should_panic(expected = "a node forgets nothing")]
    fn a_node_does_not_become_new_again() {
        let dir = open(&SimDisk::new(1), 5, 1).unwrap();
        prepare(&dir);
        let _ = dir.identity().advance(Phase::New, 9);
    }

    #[test]
    fn that_a_node_was_removed_survives_and_the_first_entry_that_names_it_stays() {
        let disk = SimDisk::new(1);
        let identity = open(&disk, 5, 1).unwrap().identity();
        for index in [0, 7] {
            identity.note_member(index).unwrap();
            assert_eq!(identity.member_since(), Some(0));
        }
        identity.remove(1).unwrap();
        let identity = open(&disk.crash(Survival::Nothing), 5, 1).unwrap().identity();
        assert_eq!((identity.phase(), identity.member_since()), (Phase::Removed, Some(0)));
    }

    /// It may be one that is taken in only later.
    #[test]
    #[should_panic(expected = "a node is removed by an entry after one that it was a member by")]
    fn a_node_is_not_removed_by_an_older_entry() {
        let identity = open(&SimDisk::new(1), 5, 1).unwrap().identity();
        identity.note_member(7).unwrap();
        let _ = identity.remove(7);
    }

    #[test]
    fn the_newest_segment_and_the_lot_survive_and_a_node_that_is_new_needs_no_segment() {
        let disk = SimDisk::new(1);
        let identity = open(&disk, 5, 1).unwrap().identity();
        identity.note_segment(7).unwrap();
        assert_eq!(identity.needed_segment().unwrap(), 0, "it has not voted");
        identity.found_alone(9).unwrap();
        let identity = open(&disk.crash(Survival::Nothing), 5, 1).unwrap().identity();
        let found = (identity.phase(), identity.origin(), identity.founded_alone());
        assert_eq!((found, identity.needed_segment().unwrap()), ((Phase::Prepared, 9, true), 7));
    }

    #[test]
    #[should_panic(expected = "a node draws its origin once")]
    fn a_node_that_was_restored_draws_no_lot() {
        let identity = open(&SimDisk::new(1), 5, 1).unwrap().identity();
        identity.advance(Phase::New, 9).unwrap();
        let _ = identity.found_alone(8);
    }

    #[test]
    fn identities_of_earlier_versions_are_read() {
        let wanted = [(1, (Phase::Prepared, 0)), (2, (Phase::Begun, 9)), (3, (Phase::Begun, 9))];
        for (version, found) in wanted {
            let disk = SimDisk::new(1);
            drop(open(&disk, 5, 1).unwrap());
            let mut bytes = MAGIC.to_vec();
            bytes.put_u32_le(version);
            bytes.put_u128_le(5);
            bytes.put_u64_le(1);
            if version >= 2 {
                bytes.put_u8(2);
                bytes.put_u128_le(9);
            }
            if version == 3 {
                put_optional_index(&mut bytes, None);
            }
            bytes.put_u32_le(crc32c(&bytes));
            disk.remove(Path::new("/node/identity")).unwrap();
            let file = disk.create(Path::new("/node/identity")).unwrap();
            file.write_at(&bytes, 0).unwrap();
            let identity = open(&disk, 5, 1).unwrap().identity();
            assert_eq!(((identity.phase(), identity.origin()), identity.member_since()), (found, None));
            assert!(matches!(open(&disk, 5, 2), Err(LogError::OtherIdentity { .. })));
            assert_eq!((identity.needed_segment().unwrap(), identity.founded_alone()), ((version > 1).into(), false));
            identity.note_member(3).unwrap();
            assert_eq!(open(&disk, 5, 1).unwrap().identity().member_since(), Some(3));
        }
    }

    #[test]
    fn a_directory_belongs_to_its_first_node() {
        let disk = SimDisk::new(1);
        // One that has only been looked at is nobody's.
        drop(open(&disk, 6, 2).unwrap());
        let restored = disk.fork();
        open(&restored, 5, 1).unwrap().identity().advance(Phase::New, 9).unwrap();
        assert!(
            matches!(open(&restored, 6, 1), Err(LogError::OtherIdentity { .. })),
            "it was restored, and has not begun"
        );
        prepare(&open(&disk, 5, 1).unwrap());
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
        open(&counted, 5, 1).unwrap().identity().advance(Phase::Prepared, 0).unwrap();
        for operation in 0..counted.operations() {
            for (seed, fault) in (0..20).flat_map(|seed| [(seed, Fault::PowerLoss), (seed, Fault::Eio)]) {
                let disk = SimDisk::new(seed);
                disk.fail_at(operation, fault);
                let opened = open(&disk, 5, 1).and_then(|dir| dir.identity().advance(Phase::Prepared, 0)).is_ok();
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
            bytes[8] = 5;
            let crc = crc32c(&bytes[..LENGTH - 4]);
            bytes[LENGTH - 4..].copy_from_slice(&crc.to_le_bytes());
        })
        .unwrap();
        assert!(matches!(open(&disk, 5, 1), Err(LogError::NewerFormat { found: 5, supported: 4, .. })));
        for kept in ["/node/log", "/node/snapshots"].map(Path::new) {
            let lost = SimDisk::new(1);
            lost.create_dir(kept).unwrap();
            lost.create(&kept.join("x")).unwrap();
            assert!(matches!(open(&lost, 5, 1), Err(LogError::Corrupt { .. })));
        }
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
